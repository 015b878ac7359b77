"""The kernel may die: the work is still there, waits for its code, and goes on at the first incomplete step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels.conftest import LOAD
from tests.kernels.driver import Kernel
from tests.waiting import eventually

IMPORTS = "import os, threading, time\nfrom pathlib import Path\nfrom dbos import DBOS, SetWorkflowID"

# Each step notes in a file that it ran; `fit` holds until there is a file that says go.
STAGES = """
def note(word):
    with open("ran.txt", "a") as file:
        file.write(f"{word}\\n")

@DBOS.step()
def load(day):
    note("load")
    return f"raw {day}"

@DBOS.step()
def fit(raw):
    note("fit")
    while not Path("go").exists():
        time.sleep(0.01)
    return f"model of {raw}"

@DBOS.workflow()
def nightly(day):
    raw = load(day)
    return fit(raw)
"""


def ran(folder: Path) -> list[str]:
    file = folder / "ran.txt"
    return file.read_text().split() if file.exists() else []


def begin(notebook: Kernel, folder: Path) -> None:
    notebook.run(STAGES)
    notebook.run("with SetWorkflowID('night'):\n    handle = DBOS.start_workflow(nightly, 'monday')")
    eventually(lambda: ["load", "fit"] == ran(folder))


@pytest.mark.parametrize("way", ["killed", "restarted"])
def test_a_run_goes_on_when_its_cell_is_run(notebook: Kernel, tmp_path: Path, way: str) -> None:
    begin(notebook, tmp_path)
    if way == "killed":
        notebook.kill()
        notebook.revive()
    else:
        notebook.restart()
    (tmp_path / "go").touch()

    told = notebook.run(LOAD).stdout
    assert "1 run waits for code: nightly night" in told
    notebook.run(IMPORTS)
    status = "DBOS.get_workflow_status('night')"
    assert "('ENQUEUED', 1)" == notebook.run(f"s = {status}; (s.status, s.recovery_attempts)").result
    cell = notebook.run(STAGES)

    assert "" == cell.stderr
    assert "'model of raw monday'" == notebook.run("DBOS.get_result('night')").result
    assert ["load", "fit", "fit"] == ran(tmp_path)
    assert "1" == notebook.run(f"{status}.recovery_attempts").result


def test_changed_code_is_a_question(notebook: Kernel, tmp_path: Path) -> None:
    begin(notebook, tmp_path)
    notebook.kill()
    notebook.revive()
    (tmp_path / "go").touch()
    notebook.run(LOAD)
    notebook.run(IMPORTS)

    changed = STAGES.replace("return fit(raw)", "return fit(raw).upper()")
    cell = notebook.run(changed)

    assert "other code" in cell.stdout
    assert "%dbos resume night --new-code" in cell.stdout
    assert "'ENQUEUED'" == notebook.run("DBOS.get_workflow_status('night').status").result
    assert "" == notebook.run(changed).stdout, "it asks once"
    notebook.run("%dbos resume night --new-code")
    assert "'MODEL OF RAW MONDAY'" == notebook.run("DBOS.get_result('night')").result
    assert ["load", "fit", "fit"] == ran(tmp_path)


def test_the_code_it_began_with_may_come_later(notebook: Kernel, tmp_path: Path) -> None:
    begin(notebook, tmp_path)
    notebook.kill()
    notebook.revive()
    (tmp_path / "go").touch()
    notebook.run(LOAD)
    notebook.run(IMPORTS)
    notebook.run(STAGES.replace("return fit(raw)", "return fit(raw).upper()"))

    notebook.run(STAGES)

    assert "'model of raw monday'" == notebook.run("DBOS.get_result('night')").result


def test_two_kernels_on_one_file(notebook: Kernel, tmp_path: Path) -> None:
    """The second never touches what the first one runs, and takes it over when that is gone."""
    begin(notebook, tmp_path)
    with Kernel(tmp_path) as other:
        assert "waits for code" not in other.run(LOAD).stdout
        other.run(IMPORTS)
        other.run(STAGES)
        assert "['load', 'fit']" == other.run("Path('ran.txt').read_text().split()").result
        owners = "[each.executor_id for each in DBOS.list_workflows()]"
        assert notebook.run("[DBOS.executor_id]").result == other.run(owners).result
        assert notebook.run("DBOS.executor_id").result != other.run("DBOS.executor_id").result

        notebook.kill()
        (tmp_path / "go").touch()

        assert "'model of raw monday'" == other.run("DBOS.get_result('night')").result
    assert ["load", "fit", "fit"] == ran(tmp_path)


STOPPED = {
    "a workflow": ("@DBOS.workflow()\ndef held():\n    print('here')\n    time.sleep(60)", "held()"),
    "a step": (
        "@DBOS.step()\ndef part():\n    print('here')\n    time.sleep(60)\n@DBOS.workflow()\ndef held():\n    part()",
        "held()",
    ),
    "a retry": (
        (
            "@DBOS.step(retries_allowed=True, interval_seconds=60)\ndef part():\n    print('here')\n    raise ValueError()\n"
            "@DBOS.workflow()\ndef held():\n    part()"
        ),
        "held()",
    ),
    "an async workflow": (
        "@DBOS.workflow()\nasync def held():\n    print('here')\n    await asyncio.sleep(60)",
        "await held()",
    ),
    "a sleep": ("@DBOS.workflow()\ndef held():\n    print('here')\n    DBOS.sleep(60)", "held()"),
}


@pytest.mark.parametrize("what", STOPPED)
def test_the_stop_button_leaves_a_run_that_can_be_resumed(notebook: Kernel, what: str) -> None:
    definition, call = STOPPED[what]
    notebook.run(definition)
    cell = notebook.start(call)
    notebook.until(lambda: "here" in cell.stdout)
    notebook.interrupt()
    cell.wait()

    assert cell.error in {"KeyboardInterrupt", "CancelledError"}
    state = notebook.run("w = DBOS.list_workflows()[0]; (w.status, w.attributes['interrupted'][:7])").result
    assert "('CANCELLED', 'stopped')" == state
    assert (
        "'CANCELLED'"
        == notebook.run(
            "h = DBOS.resume_workflow(w.workflow_id); DBOS.cancel_workflow(w.workflow_id); h.get_status().status"
        ).result
    )


def test_a_wait_that_is_stopped_stops_nothing_else(notebook: Kernel, tmp_path: Path) -> None:
    begin(notebook, tmp_path)
    cell = notebook.start("print('waits')\nhandle.get_result()")
    notebook.until(lambda: "waits" in cell.stdout)
    notebook.interrupt()

    assert "KeyboardInterrupt" == cell.wait().error
    (tmp_path / "go").touch()
    assert "'model of raw monday'" == notebook.run("handle.get_result()").result


def test_an_awaited_wait_is_stopped_at_once(notebook: Kernel, tmp_path: Path) -> None:
    begin(notebook, tmp_path)
    cell = notebook.start("print('waits')\nawait (await DBOS.retrieve_workflow_async('night')).get_result()")
    notebook.until(lambda: "waits" in cell.stdout)
    notebook.interrupt()
    cell.wait(10)

    assert cell.error in {"KeyboardInterrupt", "CancelledError"}
    (tmp_path / "go").touch()
    assert "'model of raw monday'" == notebook.run("handle.get_result()").result


def test_what_another_kernel_runs_is_not_resumed_here(notebook: Kernel, tmp_path: Path) -> None:
    begin(notebook, tmp_path)
    with Kernel(tmp_path) as other:
        other.run(LOAD)
        cell = other.attempt("%dbos resume night")

        assert "night is running, in kernel nb-" in cell.stderr
    (tmp_path / "go").touch()
    assert "'model of raw monday'" == notebook.run("handle.get_result()").result
    assert ["load", "fit"] == ran(tmp_path)
