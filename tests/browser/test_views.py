"""A run and its figure on a real page in both themes, for people to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.notebook import Notebook

DEFINE = """
%load_ext dbos_notebook
from dbos import DBOS

@DBOS.step(retries_allowed=True, interval_seconds=0.1, max_attempts=2)
def load(day):
    print(f"loading {day}")
    if day.endswith("21"):
        raise ValueError("no rows")
    return list(range(5))

@DBOS.workflow()
def nightly(day):
    return sum(load(day))
"""
START = "good = DBOS.start_workflow(nightly, '2026-11-20'); good.get_result(); good"
FAIL = """
bad = DBOS.start_workflow(nightly, '2026-11-21')
try: bad.get_result()
except Exception: pass
bad
"""
CELLS = [DEFINE, START, FAIL, "%dbos timeline {bad.workflow_id}", "%dbos tree {bad.workflow_id}", "%dbos runs"]


def test_a_run_and_its_figures_in_both_themes(open_notebook: Callable[[list[str]], Notebook], pictures: Path) -> None:
    notebook = open_notebook(CELLS)
    notebook.run_all()
    expect(notebook.output(1)).to_contain_text("SUCCESS")
    expect(notebook.output(2)).to_contain_text("no rows")
    for cell in (3, 4):
        expect(notebook.output(cell).locator(".js-plotly-plot")).to_be_visible()

    for theme in ("Light", "Dark"):
        notebook.use_theme(f"JupyterLab {theme}")
        notebook.shoot(f"views-{theme.lower()}", pictures)
    notebook.expect_no_errors()
