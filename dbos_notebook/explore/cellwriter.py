"""The button that puts a text into the notebook as a cell. The page does that: no kernel can, once its cell has ended.

A front end that shows widgets without the notebook they stand in offers to copy the text.
"""

from __future__ import annotations

import anywidget
from traitlets import Unicode

PAGE = """
function notebookOf(model) {
  const notebook = model.widget_manager?.context?.model?.sharedModel;
  return typeof notebook?.insertCell === "function" ? notebook : null;
}

function insert(notebook, model) {
  const above = notebook.cells.findIndex((each) => each.id === model.get("below"));
  const place = above < 0 ? notebook.cells.length : above + 1;
  notebook.insertCell(place, { cell_type: "code", source: model.get("text"), metadata: {} });
}

function button(words, style, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = words;
  made.className = `jupyter-widgets jupyter-button widget-button ${style}`;
  made.addEventListener("click", act);
  return made;
}

function render({ model, el }) {
  const notebook = notebookOf(model);
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  const say = (words) => { said.textContent = ` ${words}`; };
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(model.get("text"));
      say("It is copied: paste it into a cell.");
    } catch {
      say("This page cannot copy: select the text, and copy it.");
    }
  };
  const put = () => {
    insert(notebook, model);
    say("It is in the cell below: look at it, and run it.");
  };
  const buttons = [button("Copy", "", copy)];
  if (notebook) buttons.unshift(button("Insert as a cell", "mod-primary", put));
  for (const each of buttons) each.title = model.get("tooltip");
  model.on("change:tooltip", () => { for (const each of buttons) each.title = model.get("tooltip"); });
  model.on("change:text", () => say(""));
  el.append(...buttons, said);
}

export default { render };
"""


class CellWriter(anywidget.AnyWidget):
    """Offers to insert `text` as a cell below another one, or to copy it."""

    _esm = PAGE
    text = Unicode("").tag(sync=True)
    #: The id of the cell below which it goes; where the notebook has none of it, it goes to the end.
    below = Unicode("").tag(sync=True)
    tooltip = Unicode("").tag(sync=True)
