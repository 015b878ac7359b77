"""The past of runs in a real kernel: beside a running event loop, and after the kernel died."""

from __future__ import annotations

from tests.kernels.conftest import LOAD, kernel, notebook  # noqa: F401 - fixtures
from tests.kernels.driver import Kernel

STEPS = """
import asyncio
from dbos import DBOS, SetWorkflowID

@DBOS.step()
async def fetch(x):
    await asyncio.sleep(0)
    return [x] * 3

@DBOS.step()
def score(rows):
    print("scoring", rows)
    size = len(rows)
    return 1 / (size - 3)

@DBOS.workflow()
async def nightly(day):
    kept = await fetch(7)
    return score(kept)
"""
FAIL = """
with SetWorkflowID("7f3a-run"):
    try:
        await nightly("monday")
    except ZeroDivisionError as error:
        print(error)
"""


def test_a_run_is_looked_into_while_a_loop_runs(notebook: Kernel) -> None:  # noqa: F811 - the fixture
    notebook.run(STEPS)
    assert "division by zero" in notebook.run(FAIL).stdout

    notebook.run("t = %dbos at 7f3a")
    assert "(([7, 7, 7],), 'monday', [7, 7, 7])" == notebook.run("t.args, t.locals['day'], t.locals['kept']").result
    notebook.run("first = %dbos at 7f3a 1")
    assert "[7, 7, 7]" == notebook.run("first.call()").result
    failed = notebook.attempt("t.call()")
    assert "ZeroDivisionError" in (failed.error or "")
    assert "scoring [7, 7, 7]" in failed.stdout
    assert "As before step 2 score of nightly 7f3a-run: day, kept, rows" == notebook.run("%dbos enter 7f3a").text
    assert "[7, 7, 7]" == notebook.run("rows").result


def test_a_dead_kernels_failure_happens_again(notebook: Kernel) -> None:  # noqa: F811 - the fixture
    notebook.run(STEPS)
    notebook.run(FAIL)
    notebook.restart()
    notebook.run(LOAD)

    told = notebook.run("%dbos debug 7f3a").text
    assert "not tried here" in told

    notebook.run(STEPS)
    told = notebook.run("%dbos debug 7f3a").text
    assert "ZeroDivisionError: division by zero   step 2 score" in told
    assert "return 1 / (size - 3)" in told
    assert "reproduced here" in told
    assert (
        "(3, ['score'])"
        == notebook.run(
            "import sys, traceback\n"
            "frames = traceback.extract_tb(sys.last_traceback)\n"
            "sys.last_traceback.tb_frame.f_locals['size'], [each.name for each in frames]"
        ).result
    )
    assert "1 of 1 run fit nightly" in notebook.run("%dbos check nightly").text
