"""Several processes on one database: they start at once, wait for each other, and take over from the dead."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSAwaitedWorkflowCancelledError
from tests.processes import programs
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a program in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def make(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.processes.programs", *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, **pipes
        )
        started.append(process)
        return process

    yield make
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    importlib.reload(programs)  # other tests empty the registry
    yield
    DBOS.destroy()


@pytest.fixture(params=["sqlite", "postgres"])
def nowhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database that does not exist yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/new.sqlite"
        return
    from tests.databases import admin, url_of

    server, name = request.getfixturevalue("postgres"), f"nowhere_{os.getpid()}"
    yield url_of(server, name)
    admin(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def ready(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    assert process.stdout is not None
    assert "ready\n" == process.stdout.readline()
    return process


def lines(name: str) -> list[str]:
    return Path(name).read_text().split() if Path(name).exists() else []


def recorded(steps: int) -> None:
    """Wait until the workflow has so many steps on record."""
    eventually(lambda: len(DBOS.list_workflow_steps("w")) >= steps)


def test_eight_processes_may_start_at_once_on_nothing(nowhere: str, start: Start) -> None:
    processes = [start("boot", nowhere, str(number)) for number in range(8)]

    assert [0] * 8 == [process.wait(60) for process in processes]
    programs.launch(nowhere)
    assert {"SUCCESS"} == {each.status for each in DBOS.list_workflows()}
    assert 8 == len(DBOS.list_workflows())


def test_a_result_comes_from_another_process(database: str, start: Start) -> None:
    """And a second process never touches what the first one runs, although both have the same executor id."""
    ready(start("serve", database, "local"))
    programs.launch(database, executor_id="local")
    with SetWorkflowID("w"):
        queued = DBOS.start_workflow(programs.gated, "notes.txt", "gate")
    eventually(lambda: lines("notes.txt"))
    other = ready(start("serve", database, "local"))
    Path("gate").touch()

    assert 3 == queued.get_result()
    other.communicate("")
    assert ["1", "2"] == lines("notes.txt")
    assert 1 == DBOS.get_workflow_status("w").recovery_attempts


def test_a_survivor_takes_over_from_the_dead(database: str, start: Start) -> None:
    """What a killed process ran goes on in another one, from its last step, although their executor ids differ."""
    victim = ready(start("serve", database, "first", "gated"))
    programs.launch(database, executor_id="second")
    recorded(1)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait(20)
    Path("gate").touch()

    assert 3 == DBOS.retrieve_workflow("w").get_result()
    assert ["1", "2"] == lines("notes.txt")
    status = DBOS.get_workflow_status("w")
    assert ("second", 2) == (status.executor_id, status.recovery_attempts)


def test_a_process_that_was_stopped_finds_its_work_gone(database: str, start: Start) -> None:
    """A zombie: it is frozen, its work is taken from it, and when it wakes it can write nothing."""
    zombie = ready(start("serve", database, "zombie", "gated"))
    programs.launch(database, executor_id="second")
    recorded(1)
    os.kill(zombie.pid, signal.SIGSTOP)
    handle = DBOS.resume_workflow("w")  # what the end of its lease does, without waiting for that
    Path("gate").touch()
    assert 3 == handle.get_result()
    steps = DBOS.list_workflow_steps("w")
    os.kill(zombie.pid, signal.SIGCONT)
    zombie.communicate("")

    assert 0 == zombie.returncode
    assert steps == DBOS.list_workflow_steps("w")
    assert "SUCCESS" == DBOS.get_workflow_status("w").status
    assert ["1", "2"] == lines("notes.txt")


def test_a_cancel_reaches_a_sleeper_in_another_process(database: str, start: Start) -> None:
    """At once, although it sleeps for an hour."""
    server = ready(start("serve", database, "sleeping", "sleeper"))
    programs.launch(database, executor_id="other")
    recorded(1)
    DBOS.cancel_workflow("w")

    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        DBOS.retrieve_workflow("w").get_result()
    server.communicate("")
    assert 0 == server.returncode
