"""A client and its application in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbos import DBOSClient
from dbos._kernel import ear
from dbos.error import DBOSAwaitedWorkflowCancelledError
from tests.compat.clients import Caller
from tests.hand import Hand
from tests.processes.test_processes import Start, ended, lines, ready, start
from tests.waiting import eventually

__all__ = ["ended", "start"]


@pytest.fixture
def ask(database: str, hand: Hand, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    # What is found comes by the database's own means, and not by a look from time to time.
    for interval in ("FULL_LOOK_MS", "SHORT_LOOK_MS"):
        monkeypatch.setattr(ear, interval, 3_600_000)
    with DBOSClient(system_database_url=database) as client:
        yield Caller(hand, client)


def test_work_for_another_process(database: str, ask: Caller, start: Start) -> None:
    server = ready(start("serve", database, "server"))
    handle = ask.enqueue("gated", "notes.txt", "gate", workflow_id="w")
    eventually(lambda: lines("notes.txt"))
    Path("gate").touch()

    assert 3 == handle.result()
    assert "server" == handle.status().executor_id
    end(server)


def test_a_cancel_reaches_another_process(database: str, ask: Caller, start: Start) -> None:
    server = ready(start("serve", database, "server"))
    handle = ask.enqueue("sleeper", workflow_id="w")
    eventually(lambda: ask("list_workflow_steps", "w"))
    ask("cancel_workflow", "w")
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.result()

    end(server)


def test_a_client_outlives_its_application(database: str, ask: Caller, start: Start) -> None:
    """It waits on while one process dies and another one takes over."""
    victim = ready(start("serve", database, "first"))
    handle = ask.enqueue("gated", "notes.txt", "gate", workflow_id="w")
    eventually(lambda: ask("list_workflow_steps", "w"))
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait(20)
    Path("gate").touch()
    server = ready(start("serve", database, "second"))

    assert 3 == handle.result()
    assert ["1", "2"] == lines("notes.txt")
    assert "second" == handle.status().executor_id
    end(server)


def end(server: subprocess.Popen[str]) -> None:
    server.communicate("", timeout=20)
    assert 0 == server.returncode
