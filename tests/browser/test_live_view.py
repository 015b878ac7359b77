"""The live view of a run on a real page: it goes on beneath later cells, can be read after a reload, and taken up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.notebook import Notebook

CELLS = [
    """
%load_ext dbos_notebook
from dbos import DBOS

@DBOS.step()
def fit(epoch):
    print("epoch <i>", epoch)
    return "$x$ <script>"

@DBOS.workflow()
def nightly(day):
    fit(1)
    DBOS.recv("go", timeout_seconds=120)
    fit(2)
    DBOS.recv("go", timeout_seconds=120)
    return fit(3)
""",
    "handle = DBOS.start_workflow(nightly, 'today')\nhandle",
    "print('another cell')",
    "%dbos send {handle.workflow_id} True --topic go",
    "%dbos watch {handle.workflow_id}",
    "%dbos send {handle.workflow_id} True --topic go\nhandle.get_result()",
]


def test_a_view_follows_its_run(open_notebook: Callable[[list[str]], Notebook], pictures: Path) -> None:
    notebook = open_notebook(CELLS)
    for index in range(3):
        notebook.run(index)
    view = notebook.output(1).locator(".dbos-view")
    expect(view).to_contain_text("live")
    expect(view).to_contain_text("epoch <i> 1")
    expect(view).to_contain_text("$x$ <script>")

    notebook.run(3)
    expect(view).to_contain_text("epoch <i> 2")
    expect(view).to_contain_text("PENDING")
    # What is said of this view on behalf of other cells stands in none of them.
    expect(notebook.output(2)).to_have_text(re.compile("^\\s*another cell\\s*$"))
    notebook.save()
    notebook.reload()
    expect(notebook.output(1)).to_contain_text("epoch <i> 2")
    expect(notebook.output(1)).to_contain_text("again: %dbos watch")
    notebook.run(4)
    view = notebook.output(4).locator(".dbos-view")
    expect(view).to_contain_text("live, as of")
    notebook.run(5)
    expect(view).to_contain_text("SUCCESS")
    expect(view).to_contain_text("epoch <i> 3")
    expect(view).not_to_contain_text("live")
    expect(view.locator("mjx-container")).to_have_count(0)
    notebook.shoot("live-view", pictures, view)
    notebook.save()

    saved = json.loads(notebook.path.read_text())
    (output,) = saved["cells"][4]["outputs"]
    assert "✓ SUCCESS" in "".join(output["data"]["text/plain"])
    assert "epoch" in "".join(output["data"]["text/html"])
