"""What a user does in a notebook at odd moments: nothing is lost, nothing lands in a wrong cell, and it says what is so."""

from __future__ import annotations

import re
from pathlib import Path

from tests.kernels.driver import Kernel
from tests.waiting import eventually

HOLDS = """
@DBOS.step()
def slow(n):
    print("slow", n)
    time.sleep(30)

@DBOS.workflow()
def holds(n):
    return slow(n)
"""


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_cell_of_plain_functions_that_fails_is_an_error(notebook: Kernel) -> None:
    cell = notebook.attempt("%%workflow\ndef nightly(n):\n    return n\n1 / 0")

    assert "UsageError" == cell.error
    assert "nothing was registered" in cell.text
    assert "No closing quotation" in notebook.attempt('%%workflow --name "night\ndef nightly(n):\n    return n').text
    told = notebook.attempt("%%workflow\nx = 1\ndef nightly(n:\n    return n").text
    assert "the cell is no Python" in told
    assert "line 2" in told


def test_the_stop_button_says_what_it_left(notebook: Kernel) -> None:
    notebook.run(HOLDS)
    cell = notebook.start("with SetWorkflowID('night'):\n    holds(1)")
    notebook.until(lambda: "slow 1" in cell.stdout)
    notebook.interrupt()
    cell.wait()

    assert "holds night was stopped in step 1 slow and is CANCELLED. %dbos resume night lets it go on." in cell.stdout
    assert "dbos/_engine" not in cell.traceback
    assert "time.sleep(30)" in plain(cell.traceback)
    assert "night" not in notebook.run("1").stdout


def test_a_stopped_wait_shows_no_frames_of_ours(notebook: Kernel) -> None:
    notebook.run(HOLDS)
    for wait in (
        "handle.get_result()",
        "await handle",
        "await (await DBOS.retrieve_workflow_async('night')).get_result()",
    ):
        notebook.run("with SetWorkflowID('night'):\n    handle = DBOS.start_workflow(holds, 1)")
        cell = notebook.start(f"print('waits')\n{wait}")
        notebook.until(lambda: "waits" in cell.stdout)  # noqa: B023 - asked before the next
        notebook.interrupt()

        assert cell.wait().error in {"KeyboardInterrupt", "CancelledError"}
        assert "dbos/_engine" not in cell.traceback
        assert "dbos/_kernel" not in cell.traceback
        assert "stopped" not in cell.stdout


def test_another_launch_while_steps_run_says_nothing_in_later_cells(notebook: Kernel) -> None:
    notebook.run(HOLDS.replace("30", "2"))
    notebook.run("with SetWorkflowID('night'):\n    handle = DBOS.start_workflow(holds, 1)")
    eventually(lambda: "slow 1" in notebook.run("%dbos show night").text)
    notebook.run("%dbos launch other.sqlite")

    cells = [notebook.run("DBOS.application_version") for _ in range(20)]

    assert {""} == {cell.stdout + cell.stderr for cell in cells}
    # The thread that tells of steps under way goes on for the next runtime.
    notebook.run("with SetWorkflowID('other'):\n    handle = DBOS.start_workflow(holds, 2)")
    eventually(lambda: "slow 2" in notebook.run("%dbos show other").text)
    notebook.run("%dbos launch sqlite")
    assert "'SUCCESS'" == notebook.run("DBOS.get_result('night')\nDBOS.get_workflow_status('night').status").result


def test_a_handle_goes_on_after_another_launch_on_its_database(notebook: Kernel) -> None:
    notebook.run("""
@DBOS.workflow()
def waits():
    return DBOS.recv(timeout_seconds=60)

handle = DBOS.start_workflow(waits)
""")
    notebook.run("%dbos launch other.sqlite")

    assert "launch it again on the sqlite database" in notebook.attempt("handle.get_status()").traceback
    notebook.run("%dbos launch sqlite")
    notebook.run("DBOS.send(handle.workflow_id, 'again')")
    assert "('again', 'SUCCESS')" == notebook.run("await handle, handle.get_status().status").result


def test_steps_side_by_side_lose_no_print(notebook: Kernel) -> None:
    notebook.run("""
@DBOS.step()
async def says(n):
    print("first", n)
    await asyncio.sleep(0.05 * n)
    print("second", n)

@DBOS.workflow()
async def gathers():
    await asyncio.gather(*[says(n) for n in (3, 1, 2, 0)])
""")
    notebook.run("with SetWorkflowID('g'):\n    await gathers()")

    cell = notebook.run("import dbos_notebook\nprint(dbos_notebook.steps('g').printed.tolist())")

    assert str([f"first {n}\nsecond {n}\n" for n in (3, 1, 2, 0)]) == cell.stdout.rstrip()


def test_a_fork_from_a_step_that_is_not_there_is_refused(notebook: Kernel) -> None:
    notebook.run("@DBOS.step()\ndef one():\n    return 1\n\n@DBOS.workflow()\ndef w():\n    return one()")
    notebook.run("with SetWorkflowID('w'):\n    w()")

    for step in ("99", "0"):
        assert f"no step {step}; say one from 1 to 2" in notebook.attempt(f"%dbos fork w --from {step}").text
    assert "1" == notebook.run("len(DBOS.list_workflows())").result


def test_a_launch_that_fails_tells_no_password(notebook: Kernel) -> None:
    for url, said in (
        ("postgresql://u:secret@nowhere.invalid/x", "postgres: nowhere.invalid/x"),
        ("mysql://u:secret@nowhere/x", "No such database: mysql"),
        ("bogus://u:secret@nowhere/x", "No such database: bogus"),
    ):
        cell = notebook.attempt(f"%dbos launch {url}")
        assert "UsageError" == cell.error
        assert said in cell.text
        assert "secret" not in cell.text + cell.traceback + notebook.run("%dbos log").text


def test_the_calls_can_be_found(notebook: Kernel) -> None:
    assert {"dbos_notebook.runs", "dbos_notebook.fork"} <= {
        f"dbos_notebook.{each.rpartition('.')[2]}" for each in notebook.complete("import dbos_notebook; dbos_notebook.")
    } | set(
        notebook.run(
            "import dbos_notebook\nfor each in dir(dbos_notebook): print(f'dbos_notebook.{each}')"
        ).stdout.split()
    )
    told = notebook.run("dbos_notebook.runs().dbos").result
    assert told is not None
    assert told.startswith("0 workflows: .runs()")


def test_threads_of_a_step_print_for_it_and_in_no_cell(notebook: Kernel) -> None:
    notebook.run("""
from concurrent.futures import ThreadPoolExecutor

@DBOS.step()
def part():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(print, "from a pool").result()
    thread = threading.Thread(target=print, args=["from a thread"])
    thread.start()
    thread.join()

@DBOS.workflow()
def whole():
    part()
""")
    cell = notebook.run("with SetWorkflowID('w'):\n    DBOS.start_workflow(whole).get_result()")
    assert "" == cell.stdout
    printed = "import dbos_notebook\nprint(dbos_notebook.steps('{}').printed.tolist())"
    assert "['from a pool\\nfrom a thread\\n']\n" == notebook.run(printed.format("w")).stdout

    assert "from a pool\nfrom a thread\n" == notebook.run("with SetWorkflowID('v'):\n    whole()").stdout
    assert "['from a pool\\nfrom a thread\\n']\n" == notebook.run(printed.format("v")).stdout
    own = notebook.run("thread = threading.Thread(target=print, args=['mine'])\nthread.start()\nthread.join()")
    assert "mine\n" == own.stdout


def test_a_launch_on_a_server_that_is_not_there_ends_nothing(notebook: Kernel) -> None:
    notebook.run("handle = DBOS.start_workflow(DBOS.workflow(name='w')(lambda: 7)); handle.get_result()")
    for url in ("postgresql://nobody@localhost:1/none", "/no/such/folder/x.sqlite"):
        refused = notebook.attempt(f"%dbos launch {url}").stderr
        assert "cannot be reached" in refused
        assert "goes on on sqlite" in refused
    assert notebook.run("handle.get_result()").result == "7", "the runtime was not ended for it"


def test_where_a_run_was_stopped_is_forgotten_when_it_goes_on(notebook: Kernel, tmp_path: Path) -> None:
    notebook.run(
        "@DBOS.step()\ndef wait():\n    Path('began').touch()\n    while not Path('go').exists():\n        time.sleep(0.01)\n    return 5"
    )
    notebook.run("@DBOS.workflow()\ndef work():\n    return wait()")
    cell = notebook.start("with SetWorkflowID('w'):\n    work()")
    eventually(lambda: (tmp_path / "began").exists())
    notebook.interrupt()
    cell.wait()
    notebook.run("Path('go').touch()")
    assert "interrupted" in (notebook.run("str(DBOS.get_workflow_status('w').attributes)").result or "")
    notebook.run("%dbos resume w")
    assert notebook.run("DBOS.retrieve_workflow('w').get_result()").result == "5"
    assert "interrupted" not in (notebook.run("str(DBOS.get_workflow_status('w').attributes)").result or "")
