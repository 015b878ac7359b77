"""The runtime in a kernel's cells: every call works, whatever loop runs there, and leaves no trace when it is unloaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kernels.conftest import LOAD
from tests.kernels.driver import Kernel

PIPELINE = """
@DBOS.step()
def double(n):
    return n * 2

@DBOS.workflow()
def pipeline(n):
    return double(n) + 1
"""


def test_loading_says_one_line(kernel: Kernel) -> None:
    cell = kernel.run(LOAD)

    assert 1 == cell.stdout.count("\n")
    assert "sqlite: ./dbos.sqlite" in cell.stdout
    assert "" == cell.stderr
    assert "" == kernel.run(LOAD).stderr


def test_the_first_use_launches_on_a_file_beside_the_notebook(notebook: Kernel, tmp_path: Path) -> None:
    notebook.run(PIPELINE)
    assert not (tmp_path / "dbos.sqlite").exists()

    cell = notebook.run("pipeline(20)")

    assert "41" == cell.result
    assert "" == cell.stderr
    assert (tmp_path / "dbos.sqlite").exists()


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ("[each.status for each in DBOS.list_workflows()]", "['SUCCESS']"),
        ("[each['function_name'] for each in DBOS.list_workflow_steps('w')]", "['double']"),
        ("DBOS.retrieve_workflow('w').get_status().status", "'SUCCESS'"),
        ("DBOS.fork_workflow('w', 1).get_result()", "7"),
        ("DBOS.start_workflow(pipeline, 4).get_result()", "9"),
        ("DBOS.get_result('w')", "7"),
        ("DBOS.cancel_workflow('w')", None),
        ("DBOS.run_step(None, lambda: 5)", "5"),
        ("DBOS.register_queue('q').name", "'q'"),
        ("DBOS.set_latest_application_version('notebook')", None),
        ("DBOS.send('w', 'hello')", None),
        ("DBOS.get_event('w', 'none', timeout_seconds=0)", None),
        ("list(DBOS.read_stream('w', 'none'))", "[]"),
        ("DBOS.list_schedules()", "[]"),
        ("[each.status for each in await DBOS.list_workflows_async()]", "['SUCCESS']"),
        ("await (await DBOS.start_workflow_async(pipeline, 4)).get_result()", "9"),
        ("(await DBOS.get_workflow_status_async('w')).status", "'SUCCESS'"),
        ("await DBOS.get_result_async('w')", "7"),
    ],
)
def test_calls_work_although_a_loop_runs(notebook: Kernel, call: str, result: str | None) -> None:
    notebook.run(PIPELINE)
    notebook.run("with SetWorkflowID('w'):\n    pipeline(3)")

    cell = notebook.run(call)

    assert result == cell.result
    assert "" == cell.stderr


def test_an_async_workflow_goes_on_while_a_cell_blocks(notebook: Kernel) -> None:
    notebook.run("""
@DBOS.workflow()
async def waits():
    for _ in range(3):
        await DBOS.sleep_async(0.01)
    done.set()
    return "done"
done = threading.Event()
queue = Queue("line")
""")

    cell = notebook.run("handle = queue.enqueue(waits)\n(done.wait(20), handle.get_result())")

    assert "(True, 'done')" == cell.result
    notebook.run("done.clear()")
    for start in ("DBOS.start_workflow(waits)", "await DBOS.start_workflow_async(waits)"):
        assert "True" == notebook.run(f"done.clear()\nhandle = {start}\ndone.wait(20)").result


def test_a_launch_that_fails_leaves_nothing(notebook: Kernel, tmp_path: Path) -> None:
    cell = notebook.attempt("%dbos launch sqlite:////nowhere/at/all.sqlite")
    assert "could not be started" in cell.text + cell.traceback
    assert "/nowhere/at/all.sqlite" in cell.text + cell.traceback
    notebook.run(PIPELINE)

    assert "7" == notebook.run("pipeline(3)").result
    assert (tmp_path / "dbos.sqlite").exists()


def test_another_database_is_another_launch(notebook: Kernel, tmp_path: Path) -> None:
    notebook.run(PIPELINE)
    notebook.run("pipeline(3)")

    assert "other.sqlite" in notebook.run("%dbos launch other.sqlite").text
    notebook.run("pipeline(4)")

    assert "1" == notebook.run("len(DBOS.list_workflows())").result
    code = "DBOS.list_notes([DBOS.list_workflows()[0].workflow_id], ['code'])[0].text"
    assert "1" == notebook.run(f"len(DBOS.list_sources([{code}]))").result, "each database has the source"
    assert "running already" in notebook.run("%dbos launch other.sqlite").text
    notebook.run("%dbos launch")
    assert (tmp_path / "other.sqlite").exists()


def test_the_users_own_launch_works(notebook: Kernel, tmp_path: Path) -> None:
    notebook.run("DBOS(config={'name': 'mine', 'system_database_url': 'sqlite:///mine.sqlite'})\nDBOS.launch()")
    notebook.run(PIPELINE)

    cell = notebook.run("pipeline(3)")

    assert "7" == cell.result
    assert "" == cell.stdout + cell.stderr
    assert (tmp_path / "mine.sqlite").exists()
    assert not (tmp_path / "dbos.sqlite").exists()
    assert "['pipeline']" == notebook.run("runs = %dbos runs\nlist(runs.name)").result
    assert "mine.sqlite" in notebook.run("%dbos status").text
    assert "mine.sqlite" in notebook.run("%dbos launch").text, "it runs there already"


TRACES = """
import gc, sys, threading
def traces():
    files = {os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{each}")}
    return {
        "threads": sorted(each.name for each in threading.enumerate() if "dbos" in each.name.lower()),
        "files": sorted(each for each in files if "sqlite" in each and "ipython" not in each),
        "streams": type(sys.stdout).__module__,
        "events": [len(get_ipython().events.callbacks[each]) for each in ("pre_run_cell", "post_run_cell")],
        "magics": sorted(set(get_ipython().magics_manager.magics["cell"]) & {"dbos", "workflow"}),
        "configurables": [type(each).__name__ for each in get_ipython().configurables if "bos" in type(each).__name__],
    }
"""


def test_unloading_leaves_nothing(kernel: Kernel) -> None:
    kernel.run("import os")
    kernel.run(TRACES)
    before = kernel.run("traces()").result
    kernel.run(LOAD)
    kernel.run("from dbos import DBOS")
    kernel.run(PIPELINE)
    kernel.run("DBOS.start_workflow(pipeline, 3).get_result()")
    kernel.run("%dbos runs")

    kernel.run("%unload_ext dbos_notebook")

    assert before == kernel.run("traces()").result


def test_running_workflows_survive_a_reload(notebook: Kernel) -> None:
    notebook.run("""
go = threading.Event()

@DBOS.step()
def one():
    return 1

@DBOS.workflow()
def holds():
    one()
    go.wait(30)
    return one() + 1
""")
    notebook.run("handle = DBOS.start_workflow(holds)")
    notebook.run("%reload_ext dbos_notebook")

    cell = notebook.run("go.set()\nhandle.get_result(), handle.get_status().recovery_attempts")

    assert "(2, 1)" == cell.result


def test_a_kernel_ends_at_once(notebook: Kernel) -> None:
    notebook.run("@DBOS.workflow()\ndef sleeps():\n    time.sleep(60)")
    notebook.run("handle = DBOS.start_workflow(sleeps)")

    notebook.shutdown()

    assert not notebook.is_alive()


def test_a_handle_can_be_awaited_and_shows_how_far_it_is(notebook: Kernel) -> None:
    notebook.run(PIPELINE)
    for handle in ("DBOS.start_workflow(pipeline, 3)", "(await DBOS.start_workflow_async(pipeline, 3))"):
        cell = notebook.run(f"await {handle}")
        assert "7" == cell.result
        assert "1 of 1 run" in cell.bundles[-2]["text/plain"] + cell.bundles[-1]["text/plain"]

    cell = notebook.attempt("await DBOS.start_workflow(pipeline, None)")
    assert "TypeError" == cell.error


def test_postgres_is_one_word(notebook: Kernel, tmp_path: Path) -> None:
    """The embedded server of the extra, in a folder beside the notebook."""
    told = notebook.run("%dbos launch postgres", 90).text
    assert "postgres: embedded/dbos" in told
    notebook.run(PIPELINE)

    assert "7" == notebook.run("pipeline(3)").result
    assert "1" == notebook.run("len(DBOS.list_workflows())").result
    assert (tmp_path / ".dbos-postgres").exists()


FAILING = """
def divide(n):
    return 1 / n

@DBOS.step()
def part(n):
    return divide(n)

@DBOS.workflow()
def fails(n):
    return part(n)
"""


def test_a_traceback_shows_the_users_code(notebook: Kernel) -> None:
    notebook.run(FAILING)
    cell = notebook.attempt("fails(0)")

    assert "ZeroDivisionError" == cell.error
    shown = re.sub(r"\x1b\[[0-9;]*m", "", cell.traceback)
    for own in ("fails(0)", "return part(n)", "return divide(n)", "return 1 / n"):
        assert own in shown
    assert "dbos/_kernel" not in cell.traceback
    assert "dbos/_engine" not in cell.traceback
    misused = notebook.attempt("DBOS.sleep(1)")
    assert "must be called from within a workflow" in misused.traceback
    assert "dbos/_kernel" not in misused.traceback

    notebook.run("%dbos config short_errors=False")
    assert "dbos/_engine" in notebook.attempt("fails(0)").traceback
