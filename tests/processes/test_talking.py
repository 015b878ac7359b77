"""Messages, events and streams between processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos._kernel import ear
from tests.compat.acts import beside
from tests.processes import programs
from tests.processes.test_processes import ready
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
COUNT = 5
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a process that answers."""
    monkeypatch.setattr(ear, "FULL_LOOK_MS", 3_600_000)
    started: list[subprocess.Popen[str]] = []

    def make(executor_id: str = "server") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.processes.talkers", database, executor_id, str(COUNT)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, **pipes
        )
        started.append(process)
        return ready(process)

    yield make
    for process in started:
        process.kill()
        process.communicate()
    DBOS.destroy()


def end(server: subprocess.Popen[str]) -> None:
    server.communicate("", timeout=20)
    assert 0 == server.returncode


def test_a_conversation(database: str, start: Start) -> None:
    """Each message wakes the other process."""

    @DBOS.workflow(name="asks")
    def asks() -> list[Any]:
        heard = []
        for number in range(COUNT):
            DBOS.send("server", ("client", number), "question")
            heard.append(DBOS.recv("answer", 600))
        return heard

    server = start()
    programs.launch(database, executor_id="client")
    with SetWorkflowID("client"):
        handle = DBOS.start_workflow(asks)

    assert list(range(COUNT)) == beside(handle.get_result).result(30)
    assert COUNT == DBOS.get_result("server")
    end(server)


def test_an_event_wakes_who_waits_in_another_process(database: str, start: Start) -> None:
    server = start()
    programs.launch(database, executor_id="client")
    waiting = [beside(DBOS.get_event, "server", f"heard-{number}", 600) for number in range(COUNT)]
    for number in range(COUNT):
        assert not waiting[number].done()
        DBOS.send("server", (None, number), "question")
        assert number == waiting[number].result(30)
    end(server)


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_reader_follows_a_writer_in_another_process(database: str, start: Start, colour: str) -> None:
    """Every value wakes it, and the end too."""
    seen: list[int] = []

    def follow() -> None:
        for value in DBOS.read_stream("server", "heard"):
            seen.append(value)

    async def follow_async() -> None:
        async for value in DBOS.read_stream_async("server", "heard"):
            seen.append(value)

    server = start()
    programs.launch(database, executor_id="client")
    reading = beside(follow) if colour == "sync" else beside(lambda: asyncio.run(follow_async()))
    for number in range(COUNT):
        DBOS.send("server", (None, number), "question")
        eventually(lambda number=number: list(range(number + 1)) == seen)
    reading.result(30)

    assert list(range(COUNT)) == seen
    end(server)


def test_a_reader_outlives_the_writer(database: str, start: Start) -> None:
    """What the dead process wrote is there once, and its successor goes on."""
    victim = start("first")
    programs.launch(database, executor_id="client")
    seen: list[int] = []

    def follow() -> None:
        for value in DBOS.read_stream("server", "heard"):
            seen.append(value)

    reading = beside(follow)
    for number in range(COUNT):
        DBOS.send("server", (None, number), "question")
        if number == 2:
            eventually(lambda: [0, 1, 2] == seen)
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait(20)
    successor = start("second")
    reading.result(60)

    assert list(range(COUNT)) == seen
    assert [0, 1, 2, 3, 4] == [DBOS.get_event("server", f"heard-{number}") for number in range(COUNT)]
    end(successor)
