"""The explorer on a real page: every button, both themes, a reload, hostile names, a busy kernel."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, expect

from tests.browser.notebook import Notebook

Open = Callable[[list[str]], Notebook]

LOAD = "%load_ext dbos_notebook\nfrom dbos import DBOS\nimport threading"
DEFINE = """
mended = threading.Event()

@DBOS.step()
def load(day):
    print(f"loading {day}")
    return list(range(5))

@DBOS.step()
def check(rows):
    if not mended.is_set():
        raise ValueError("row 3 of <b>5</b> is $bad$")
    return len(rows)

@DBOS.workflow()
def nightly(day):
    rows = load(day)
    DBOS.set_event("rows", len(rows))
    for row in rows:
        DBOS.write_stream("rows", row)
    return check(rows)

@DBOS.workflow()
def approval(who):
    DBOS.set_event("asked", who)
    return DBOS.recv("answer", timeout_seconds=600)

@DBOS.workflow()
def on_time(moment, context):
    return str(moment)
"""
START = """
failed = DBOS.start_workflow(nightly, "2026-11-20")
try: failed.get_result()
except ValueError: pass
waits = DBOS.start_workflow(approval, "Ada")
DBOS.create_schedule(schedule_name="at-noon", workflow_fn=on_time, schedule="0 12 * * *")
"""
EDIT = """
@DBOS.step()
def check(rows):
    return f"{sum(rows)} in good rows"
"""
OPEN = "%dbos"
CELLS = [LOAD, DEFINE, START, OPEN]


class Page:
    """The explorer of a notebook, as a person uses it."""

    def __init__(self, notebook: Notebook, cell: int = 3) -> None:
        self.notebook, self.box = notebook, notebook.output(cell).locator(".dbos-explorer")
        expect(self.box).to_be_visible()

    def button(self, name: str) -> Locator:
        return self.box.get_by_role("button", name=name, exact=True)

    def line(self, name: str) -> Locator:
        return self.box.locator(".dbos-line:visible", has_text=name)

    def choose(self, name: str) -> None:
        self.line(name).first.click()
        expect(self.line(name).first).to_have_class(re.compile("dbos-chosen"))

    def tab(self, name: str) -> None:
        self.box.locator(".widget-toggle-buttons button", has_text=name).click()

    def field(self, label: str) -> Locator:
        return self.box.get_by_label(label, exact=True)

    def content(self) -> Locator:
        return self.box.locator(".dbos-content")

    def says(self, words: str) -> None:
        expect(self.box.get_by_role("status")).to_contain_text(words)


def opened(open_notebook: Open, cells: list[str] | None = None, cell: int = 3) -> Page:
    notebook = open_notebook(cells or CELLS)
    notebook.run_all()
    return Page(notebook, cell)


def test_a_failed_run_is_looked_into_and_repaired(open_notebook: Open, pictures: Path) -> None:
    notebook = open_notebook([*CELLS, EDIT])
    for cell in range(len(CELLS)):
        notebook.run(cell)
    page = Page(notebook)
    page.choose("nightly")
    expect(page.content()).to_contain_text("row 3 of <b>5</b> is $bad$")
    expect(page.box.locator(".js-plotly-plot")).to_be_visible()
    page.notebook.shoot("timeline", pictures, page.box)
    for tab, words in (
        ("tree", "1 run"),
        ("steps", "2026-11-20"),
        ("source", "def nightly(day):"),
        ("events", "rows"),
        ("streams", "5 values"),
        ("messages", "Nothing was sent"),
        ("log", "loading 2026-11-20"),
        ("error", "Traceback (most recent call last)"),
    ):
        page.tab(tab)
        expect(page.content()).to_contain_text(words)
        page.notebook.shoot(tab, pictures, page.box)

    notebook.run(4)
    page.field("replace output of").select_option(label="1 load ✓")
    page.field("with").fill("[9, 9, 9, 9, 9]")
    page.button("Fork").click()
    page.says("Forked")
    expect(page.line("nightly")).to_have_count(2)
    expect(page.line("nightly").first).to_contain_text("SUCCESS")
    page.tab("timeline")
    expect(page.content()).to_contain_text("45 in good rows")
    page.notebook.shoot("repaired", pictures, page.box)
    page.notebook.expect_no_errors()


def test_a_run_is_cancelled_resumed_answered_and_deleted(open_notebook: Open, pictures: Path) -> None:
    page = opened(open_notebook)
    page.choose("approval")
    page.button("Cancel").click()
    page.notebook.shoot("question", pictures, page.box)
    page.button("No").click()
    expect(page.line("approval")).to_contain_text("PENDING")

    page.button("Cancel").click()
    page.button("Yes, cancel").click()
    expect(page.line("approval")).to_contain_text("CANCELLED")
    page.button("Resume").click()
    expect(page.line("approval")).to_contain_text("PENDING")
    page.field("message").fill("{'yes': True}")
    page.field("topic").fill("answer")
    page.button("Send").click()
    expect(page.line("approval")).to_contain_text("SUCCESS")
    page.tab("messages")
    expect(page.content()).to_contain_text("received")

    page.button("Delete").click()
    page.button("Yes, delete").click()
    expect(page.line("approval")).to_have_count(0)
    page.notebook.expect_no_errors()


def test_schedules_streams_and_patches(open_notebook: Open, pictures: Path) -> None:
    page = opened(open_notebook, [*CELLS, "len(rows)"])
    page.choose("nightly")
    page.tab("streams")
    page.button("Stop").click()
    expect(page.button("Stop")).to_be_disabled()
    page.button("Tail").click()
    page.field("as").fill("rows")
    page.button("To DataFrame").click()
    page.says("rows is a DataFrame of 5 values")
    page.notebook.run(4)
    expect(page.notebook.output(4)).to_contain_text("5")

    page.tab("schedules")
    expect(page.box).to_contain_text("0 12 * * *")
    page.button("Pause").click()
    expect(page.box).to_contain_text("■ PAUSED")
    page.button("Unpause").click()
    expect(page.box).to_contain_text("▶ ACTIVE")
    page.button("Trigger now").click()
    page.says("Triggered at-noon")
    page.button("Backfill").click()
    page.notebook.shoot("schedules", pictures, page.box)
    page.button("Yes, backfill").click()
    page.says("Backfilled at-noon")

    page.tab("patch")
    page.field("workflow").select_option("nightly")
    expect(page.box).to_contain_text("its code")
    page.field("patch").fill("check-twice")
    page.field("patch").press("Enter")
    expect(page.box).to_contain_text('if DBOS.patch("check-twice"):')
    page.notebook.shoot("patch", pictures, page.box)
    page.notebook.expect_no_errors()


HOSTILE = """
name = "<img src=x onerror=alert(1)> $\\\\int_0^1$ \u202eabc" + "x" * 300
@DBOS.workflow(name=name)
def hostile(text):
    raise ValueError("<script>alert(2)</script>\\\\[ x^2 \\\\]" + "y" * 1_000)
try: hostile("</div>" * 10)
except ValueError: pass
"""


def test_hostile_names_and_both_themes(open_notebook: Open, pictures: Path) -> None:
    page = opened(open_notebook, [LOAD, DEFINE, HOSTILE, OPEN])
    page.choose("<img src=x")
    expect(page.content()).to_contain_text("<script>alert(2)</script>")
    expect(page.box.locator("img, script, mjx-container")).to_have_count(0)
    page.notebook.shoot("hostile", pictures, page.box)

    page.notebook.use_theme("JupyterLab Dark")
    page.notebook.shoot("dark", pictures, page.box)
    page.notebook.expect_no_errors()


def test_the_list_is_filtered_and_turned(open_notebook: Open, pictures: Path) -> None:
    page = opened(open_notebook, [LOAD, DEFINE, "mended.set()\nfor day in range(18): nightly(day)", OPEN])
    expect(page.line("nightly")).to_have_count(15)
    page.button("Next →").click()
    expect(page.line("nightly")).to_have_count(3)
    page.button("← Previous").click()
    expect(page.line("nightly")).to_have_count(15)

    page.field("status").select_option("ERROR")
    expect(page.box).to_contain_text("No run matches these filters.")
    page.notebook.shoot("nothing", pictures, page.box)
    page.notebook.expect_no_errors()


BLOCKED = """
import time
print("blocking", flush=True)
until = time.monotonic() + 30
while DBOS.get_workflow_status(waits.workflow_id).status == "PENDING" and time.monotonic() < until:
    time.sleep(0.05)
print("ended", DBOS.get_workflow_status(waits.workflow_id).status)
"""


def test_it_lives_through_a_reload_and_beside_a_busy_kernel(open_notebook: Open, pictures: Path) -> None:
    notebook = open_notebook([*CELLS, BLOCKED])
    for cell in range(len(CELLS)):
        notebook.run(cell)
    page = Page(notebook)
    page.notebook.save()
    page.notebook.reload()
    page.choose("approval")
    expect(page.button("Cancel")).to_be_enabled()
    expect(page.field("fork from")).to_have_value("where it stopped")

    page.notebook.run(4, wait=False)
    expect(page.notebook.output(4)).to_contain_text("blocking")
    expect(page.box).to_contain_text("the kernel runs a cell")
    page.button("Cancel").click()
    page.button("Yes, cancel").click()
    page.notebook.shoot("busy", pictures, page.box)
    page.notebook.wait_done()

    expect(page.notebook.output(4)).to_contain_text("ended CANCELLED")
    page.notebook.expect_no_errors()


CHANGE = """
@DBOS.step()
def clean(rows):
    return rows

@DBOS.workflow()
def nightly(day):
    rows = load(day)
    rows = clean(rows)
    DBOS.set_event("rows", len(rows))
    for row in rows:
        DBOS.write_stream("rows", row)
    return check(rows)
"""


def test_the_cell_with_the_guard_is_inserted_and_run(open_notebook: Open, pictures: Path) -> None:
    page = opened(open_notebook, [LOAD, DEFINE, START, CHANGE, OPEN, "print('the last cell')"], cell=4)
    page.tab("patch")
    page.field("workflow").select_option("nightly")
    expect(page.box).to_contain_text("✗ step 2")
    expect(page.box).to_contain_text('if DBOS.patch("clean"):')
    page.notebook.shoot("guard", pictures, page.box)

    page.button("Insert as a cell").click()

    expect(page.box).to_contain_text("It is in the cell below")
    expect(page.notebook.cell(5)).to_contain_text('if DBOS.patch("clean"):')
    expect(page.notebook.cell(6)).to_contain_text("the last cell")
    page.notebook.use_theme("JupyterLab Dark")
    page.notebook.shoot("guard-dark", pictures)
    page.notebook.run(5)
    expect(page.box).not_to_contain_text("✗ step 2")
    expect(page.box).to_contain_text("✓ yes")
    page.notebook.expect_no_errors()


FAIL = """
@DBOS.step()
def charge(number):
    if not mended.is_set():
        raise ValueError(f"charge {number} of user-{number * 7} is below 0")
    return number

@DBOS.workflow()
def bill(number):
    return charge(number)

@DBOS.workflow()
def month(number):
    return DBOS.start_workflow(bill, number).get_result()

for number in (-1, -22, -333):
    try: bill(number)
    except ValueError: pass
try: month(-4)
except ValueError: pass
"""


def test_a_group_of_failures_is_forked(open_notebook: Open, pictures: Path) -> None:
    notebook = open_notebook([LOAD, DEFINE, START, FAIL, OPEN, "mended.set()"])
    for cell in range(5):
        notebook.run(cell)
    page = Page(notebook, 4)
    page.tab("triage")
    expect(page.box).to_contain_text("ValueError: charge # of user-# is below #")
    expect(page.box).to_contain_text("5 runs failed for 2 reasons, and 1 because of them")
    page.notebook.shoot("triage", pictures, page.box)
    page.notebook.use_theme("JupyterLab Dark")
    page.notebook.shoot("triage-dark", pictures, page.box)

    page.button("Fork group (4 runs)").click()
    expect(page.box).to_contain_text("type how many runs")
    page.button("Dry run").click()
    page.says("This would fork 4 runs of bill")
    page.says("from step 1 charge: 4")
    page.notebook.shoot("triage-tried", pictures, page.box)
    page.field("number of runs").fill("3")
    page.button("Fork group (4 runs)").click()
    expect(page.box).to_contain_text("4 runs now, not 3")
    notebook.run(5)
    page.field("number of runs").fill("4")
    page.button("Fork group (4 runs)").click()
    page.says("Forked 4 runs.")
    expect(page.box).to_contain_text("all are forked already")
    page.tab("runs")
    expect(page.line("bill")).to_have_count(8)
    page.notebook.expect_no_errors()
