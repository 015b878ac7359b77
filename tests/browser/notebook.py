"""A notebook that is open in a page: run cells, look at outputs, click.

Nothing here waits for a time: the end of a run is the promise of JupyterLab's own command. What a kernel says of
itself is no proof, for anything on its control channel makes it say `idle` under a running cell.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import nbformat
from playwright.sync_api import Locator, Page, expect

from tests.browser.server import Server

# The usual five seconds are short where two cores serve a browser, a server and a kernel.
expect.set_options(timeout=20_000)
LIMIT_MS = 60_000
OPEN_PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"

COUNT_RUNS = """() => {
  const runs = window.countedRuns = {started: 0, done: 0};
  window.jupyterapp.commands.commandExecuted.connect((_, e) => {
    if (!/^(runmenu|kernelmenu|notebook):.*(run|restart)/.test(e.id)) return;
    runs.started++;
    const end = () => { runs.done++; };
    Promise.resolve(e.result).then(end, end);
  });
}"""
KERNEL = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status"
SELECT = """(i) => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.deselectAll(); notebook.activeCellIndex = i; notebook.mode = 'command'; notebook.activate();
}"""
THEME = "([n, a]) => window.jupyterapp.commands.execute(n, a).then(() => null)"


class Notebook:
    """One notebook in one page."""

    def __init__(self, page: Page, server: Server, cells: list[str]) -> None:
        self.page, self._server = page, server
        #: Requests to anything but our server: none, if the page works offline.
        self.foreign: list[str] = []
        #: Errors that nobody caught in the page.
        self.page_errors: list[str] = []
        page.on("request", self._note_request)
        page.on("dialog", lambda dialog: dialog.accept())
        page.on("pageerror", lambda error: self.page_errors.append(str(error)))
        # A folder is a database, and a workspace: no tab of another test comes back.
        name = secrets.token_hex(4)
        self.path = server.root / name / "notebook.ipynb"
        self.path.parent.mkdir()
        _write(self.path, cells)
        where = f"/lab/workspaces/{name}/tree/{quote(name)}/notebook.ipynb"
        page.goto(f"{server.url}{where}?token={server.token}")
        self._wait_open()

    def _note_request(self, request: Any) -> None:
        where = urlsplit(request.url)
        if where.scheme in ("http", "https", "ws", "wss") and where.netloc != urlsplit(self._server.url).netloc:
            self.foreign.append(request.url)

    def _wait_open(self) -> None:
        self.page.locator(f"{OPEN_PANEL} .jp-Notebook").wait_for(timeout=LIMIT_MS)
        self.page.wait_for_function(f"() => {KERNEL} === 'idle'", timeout=LIMIT_MS)
        self.page.evaluate(COUNT_RUNS)

    def reload(self) -> None:
        """Load the page again; the kernel lives on."""
        self.page.reload()
        self._wait_open()

    def save(self) -> None:
        self.command("docmanager:save")

    def use_theme(self, name: str) -> None:
        self.command("apputils:change-theme", {"theme": name})
        wanted = str("Light" in name).lower()
        self.page.wait_for_function(f"() => document.body.dataset.jpThemeLight === '{wanted}'", timeout=LIMIT_MS)

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        """Run a command of JupyterLab to its end."""
        self.page.evaluate(THEME, [name, arguments or {}])

    # -- cells -------------------------------------------------------------------------------------------------

    def run_all(self) -> None:
        """Run all cells through the menu, as a person does."""
        before = self._started()
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
        self._wait_started(before)
        self.wait_done()

    def run(self, index: int, *, wait: bool = True) -> None:
        """Run one cell with the keyboard."""
        before = self._started()
        self.page.evaluate(SELECT, index)
        self.page.keyboard.press("Control+Enter")
        self._wait_started(before)
        if wait:
            self.wait_done()

    def _started(self) -> int:
        return int(self.page.evaluate("() => window.countedRuns.started"))

    def _wait_started(self, before: int) -> None:
        self.page.wait_for_function("(n) => window.countedRuns.started > n", arg=before, timeout=LIMIT_MS)

    def wait_done(self) -> None:
        """Until every run that was asked for has ended."""
        done = f"() => window.countedRuns.started === window.countedRuns.done && {KERNEL} === 'idle'"
        self.page.wait_for_function(done, timeout=LIMIT_MS)

    def cell(self, index: int) -> Locator:
        return self.page.locator(f"{OPEN_PANEL} .jp-Notebook .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        return self.cell(index).locator(".jp-Cell-outputArea")

    def expect_no_errors(self) -> None:
        """No cell shows a traceback or anything on stderr, the page is well, and it asked for nothing elsewhere."""
        expect(self.page.locator('[data-mime-type="application/vnd.jupyter.stderr"]')).to_have_count(0)
        assert [] == self.page_errors
        assert [] == self.foreign

    def shoot(self, name: str, folder: Path, of: Locator | None = None) -> None:
        """A picture for people to look at."""
        (of or self.page).screenshot(path=str(folder / f"{name}.png"))


def _write(path: Path, cells: list[str]) -> None:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each.strip()) for each in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(made, path)
