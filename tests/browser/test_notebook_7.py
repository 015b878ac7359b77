"""Notebook 7: the first cells of the quickstart on its own page, served beside JupyterLab's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.server import Server
from tests.notebooks.tool import NOTEBOOKS

LIMIT_MS = 60_000
# Five of code, and the texts between them.
FIRST_CELLS = 9


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    made = browser.new_page(viewport={"width": 1200, "height": 1400})
    yield made
    made.close()
    server.end_kernels()


def test_the_quickstart_begins_in_notebook_7(page: Page, server: Server, pictures: Path) -> None:
    (quickstart,) = (file for file in NOTEBOOKS if "quickstart" in file.stem)
    folder = server.root / "notebook_7"
    folder.mkdir()
    shutil.copy(quickstart, folder / "quickstart.ipynb")
    page.goto(f"{server.url}/notebooks/notebook_7/quickstart.ipynb?token={server.token}")
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    cells.first.wait_for(timeout=LIMIT_MS)
    # What it showed when it was stored may not be mistaken for this run.
    page.get_by_role("menuitem", name="Edit", exact=True).click()
    page.get_by_text("Clear Outputs of All Cells").click()
    expect(page.locator(".jp-OutputArea-output")).to_have_count(0)

    cells.first.click()
    for _ in range(FIRST_CELLS):
        page.keyboard.press("Shift+Enter")

    expect(cells.nth(0)).to_contain_text("dbos_notebook |", timeout=LIMIT_MS)
    expect(cells.nth(3)).to_contain_text("(5, ['extract north', 'extract south', 'load'])", timeout=LIMIT_MS)
    expect(cells.nth(4)).to_contain_text("reading north", timeout=LIMIT_MS)
    page.screenshot(path=str(pictures / "notebook-7.png"))
    expect(page.locator('[data-mime-type="application/vnd.jupyter.stderr"]')).to_have_count(0)
