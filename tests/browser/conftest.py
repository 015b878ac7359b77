"""One JupyterLab and one Chromium for all tests here; a page, a kernel and a database for each.

Playwright leaves an event loop in its process, in which `asyncio.run` fails: `python -m tests` runs this folder in a
process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.chromium import OPTIONS, chromium
from tests.browser.notebook import Notebook
from tests.browser.server import Server

# Pictures are kept where this says, for people to look at.
PICTURES = "DBOS_TEST_PICTURES"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("jupyter"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium(), args=list(OPTIONS))
        yield made
        made.close()


@pytest.fixture
def open_notebook(browser: Browser, server: Server) -> Iterator[Callable[[list[str]], Notebook]]:
    """Opens a notebook of these cells."""
    page = browser.new_page(viewport={"width": 1400, "height": 1500})
    yield lambda cells: Notebook(page, server, cells)
    page.close()
    server.end_kernels()
    server.forget_settings()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get(PICTURES) or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
