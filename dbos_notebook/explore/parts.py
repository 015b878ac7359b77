"""The pieces that the explorer is put together from: its style, buttons that act, lists to choose from.

A widget is written by the explorer's thread alone, and only where something changed; what a person does comes in any
thread and only becomes a message. What a drawing itself sets off is nobody's wish and is not told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets

from dbos_notebook.explore.actions import Action
from dbos_notebook.explore.state import Asked, Failed, Message
from dbos_notebook.views.html import LOOKS, Child, Markup, element, line

# No character of it means anything in HTML, so that it goes through the builder as it is.
CSS = """
.dbos-explorer { max-width: 1080px; padding: 2px 2px 8px 2px; }
.dbos-explorer .widget-html, .dbos-explorer .widget-html-content { line-height: 1.45; height: auto; }
.dbos-explorer .widget-label { width: auto; margin-right: 6px; color: var(--jp-ui-font-color1, inherit); }
.dbos-explorer .dbos-bar { flex-flow: row wrap; align-items: center; gap: 4px 10px; overflow: visible; }
.dbos-explorer .dbos-area { border-top: 1px solid var(--jp-border-color2, #8888); margin-top: 6px; padding-top: 6px;
  overflow: visible; }
.dbos-explorer .widget-toggle-buttons .widget-toggle-button { width: auto; min-width: 64px; }
.dbos-explorer .jupyter-button { width: auto; min-width: 72px; padding: 0 12px; }
.dbos-explorer .jupyter-button:focus-visible { outline: 2px solid var(--jp-brand-color1, #2f81d6); outline-offset: 1px; }
.dbos-explorer .dbos-list { gap: 0; overflow: visible; }
.dbos-explorer .dbos-line.jupyter-button, .dbos-explorer .dbos-heads {
  font-family: var(--jp-code-font-family, monospace); font-size: 12px; white-space: pre; text-align: left; }
.dbos-explorer .dbos-line.jupyter-button { width: 100%; height: 25px; line-height: 24px; margin: 0; padding: 0 8px;
  background: transparent; color: var(--jp-ui-font-color1, inherit); border: none; border-radius: 0; box-shadow: none;
  border-bottom: 1px solid var(--jp-border-color2, #8888); border-left: 4px solid #7a7f87; }
.dbos-explorer .dbos-line.jupyter-button:hover { background: var(--jp-layout-color2, #8882); }
.dbos-explorer .dbos-line.jupyter-button:focus-visible { outline-offset: -2px; }
.dbos-explorer .dbos-line.dbos-chosen.jupyter-button { background: var(--jp-layout-color2, #8882); font-weight: 700; }
.dbos-explorer .dbos-heads { padding: 4px 8px 2px 10px; color: var(--jp-ui-font-color2, inherit); }
.dbos-explorer td, .dbos-explorer th { vertical-align: top; }
.dbos-explorer .dbos-question { border: 1px solid #a8740a; border-left-width: 4px; padding: 4px 10px; margin: 6px 0; }
.dbos-explorer .dbos-notice { min-height: 22px; padding-top: 4px; }
.dbos-explorer .dbos-notice div { white-space: pre-line; }
.dbos-explorer .dbos-content { min-height: 120px; max-height: 560px; overflow: auto; overflow-wrap: anywhere; padding: 2px 0; }
"""
# A line has the colour of its status at its beginning; the glyph and the word say the same.
CSS += "".join(
    f".dbos-explorer .dbos-line.dbos-{status.lower()}.jupyter-button {{ border-left-color: {look.color}; }}\n"
    for status, look in LOOKS.items()
)

Post = Callable[[Message], None]


class Desk:
    """Where wishes are handed in; it knows whose changes are wishes."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._drawer: int | None = None

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Within it, what this thread changes is the explorer's doing."""
        self._drawer = threading.get_ident()
        try:
            yield
        finally:
            self._drawer = None

    def hand_in(self, make: Callable[[], Message]) -> None:
        """Post the message. Its error becomes a message too: an error in a callback is seen by nobody."""
        if threading.get_ident() == self._drawer:
            return
        try:
            message = make()
        except Exception as error:  # noqa: BLE001 - whatever a person typed must not go unanswered
            message = Failed(reason_of(error))
        self._post(message)

    def on_change(self, widget: widgets.Widget, make: Callable[[Any], Message]) -> None:
        """Hand in a message when the value of a control changes."""
        widget.observe(lambda change: self.hand_in(lambda: make(change["new"])), names=["value"])

    def on_click(self, button: widgets.Button, make: Callable[[], Message]) -> None:
        """Hand in a message at a click."""
        button.on_click(lambda _: self.hand_in(make))


class Doer:
    """A button that performs an action, and names the command that does the same."""

    def __init__(self, desk: Desk, kind: type[Action], make: Callable[[], Action | None], *, style: str = "") -> None:
        self._make, self.verb, self._desk = make, kind.verb, desk
        self.button = button(kind.verb, style=style)
        self.button.disabled = True
        desk.on_click(self.button, self._asked)

    def _asked(self) -> Message:
        action = self._make()
        if action is None:
            raise ValueError(f"{self.verb}: choose first what it is about")
        return Asked(action)

    def refresh(self, is_allowed: bool = True) -> None:
        """Say what it would do now, and whether it can."""
        try:
            action = self._make()
        except ValueError as error:
            action, words = None, str(error)
        else:
            words = "" if action is None else f"Same as: {action.command}"
        self.button.disabled = not is_allowed or action is None
        self.button.tooltip = line(words, 300)


def reason_of(error: BaseException) -> str:
    """An error in one line for whoever clicked."""
    return line(f"{type(error).__name__}: {error}", 400)


def bar(*children: widgets.Widget) -> widgets.HBox:
    """Controls beside each other, which go on in the next line where the page is narrow."""
    return _with_class(widgets.HBox(children), "dbos-bar")


def area(*children: widgets.Widget) -> widgets.VBox:
    """A part that a line sets apart from what stands above it."""
    return _with_class(widgets.VBox(children), "dbos-area")


def button(words: str, *, style: str = "", tooltip: str = "") -> widgets.Button:
    return widgets.Button(description=words, button_style=style, tooltip=tooltip or words)


def text(label: str, placeholder: str = "", width: str = "150px", *, tooltip: str = "") -> widgets.Text:
    """A field that speaks when somebody leaves it or presses Enter."""
    return widgets.Text(
        description=label,
        placeholder=placeholder,
        continuous_update=False,
        tooltip=tooltip or label,
        style={"description_width": "initial"},
        layout=widgets.Layout(width=width),
    )


def dropdown(label: str, options: Sequence[tuple[str, Any]], width: str = "auto") -> widgets.Dropdown:
    return widgets.Dropdown(
        description=label,
        options=options,
        tooltip=label,
        style={"description_width": "initial"},
        layout=widgets.Layout(width=width),
    )


def offer(control: widgets.Dropdown, options: Sequence[tuple[str, Any]], value: Any) -> None:
    """Offer these; with a value that is not among them the first is chosen."""
    if tuple(control.options) != tuple(options):
        control.options = tuple(options)
    values = [each for _, each in options]
    wanted = value if value in values else next(iter(values), None)
    if control.value != wanted:
        control.value = wanted


def toggles(label: str, options: Sequence[str]) -> widgets.ToggleButtons:
    """A row of buttons one of which is pressed: each can be reached with the keyboard."""
    return widgets.ToggleButtons(
        options=[(each, each) for each in options], tooltips=[f"{label}: {each}" for each in options]
    )


def said(*children: Child) -> Markup:
    """What a screen reader reads out when it changes."""
    return element("div", *children, role="status", aria_live="polite")


def _with_class(box: widgets.Box, name: str) -> Any:
    box.add_class(name)
    return box


def free_comms(root: widgets.Widget) -> None:
    """Let clicks in while a cell blocks the kernel.

    Newer kernels bring a widget's messages to the thread that made the widget, which is the one that runs cells.
    Without that route they take the front end's own way, beside the cells. There is no public switch for it.
    """
    for widget in _within(root):
        comm = getattr(widget, "comm", None)
        if comm is not None and hasattr(comm, "_reply_subshell_for"):
            comm._reply_subshell_for = None  # noqa: SLF001


def take_away(root: widgets.Widget) -> None:
    """Close a widget with all that is in it; the library itself closes only the outermost."""
    for widget in list(_within(root)):
        for part in (getattr(widget, "layout", None), getattr(widget, "style", None), widget):
            if part is not None:
                part.close()


def _within(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _within(child)
