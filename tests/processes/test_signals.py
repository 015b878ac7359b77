"""Programs that are told to end: they drain, hand over, or die at once, as they are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, Queue, SetWorkflowID
from dbos._hooks.signals import SAME_SIGNAL_SECONDS
from dbos.error import DBOSException, DBOSMisuseError
from tests.compat.acts import Stages, beside
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
INTERNAL = "_dbos_internal_queue"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(database: str, tmp_path: Path) -> Iterator[Start]:
    """Start a program that drains on SIGTERM, with one workflow that waits in a step."""
    started: list[subprocess.Popen[str]] = []

    def make(seconds: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.processes.ending", "drains", database, seconds],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert {"ready": True} == json.loads(process.stdout.readline())
        with DBOSClient(system_database_url=database) as client:
            enqueue(client, "w")
        eventually((tmp_path / "reached").exists)
        return process

    yield make
    for process in started:
        process.kill()
        process.communicate()


def enqueue(client: DBOSClient, workflow_id: str) -> Any:
    options = {"workflow_name": "patient", "queue_name": INTERNAL, "workflow_id": workflow_id}
    return client.enqueue(options, "reached", "gate")


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, [key for line in out.splitlines() for key in json.loads(line)], err


def test_what_runs_may_finish(start: Start, database: str, tmp_path: Path) -> None:
    """Nothing new is taken meanwhile; the program ends with all ceremony."""
    process = start("20")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert {"claims": False} == json.loads(process.stdout.readline())
    with DBOSClient(system_database_url=database) as client:
        enqueue(client, "later")
        (tmp_path / "gate").touch()
        assert (128 + signal.SIGTERM, ["finally_ran", "at_exit"], "") == ended(process)
        statuses = {each.workflow_id: each.status for each in client.list_workflows()}

    assert {"w": "SUCCESS", "later": "ENQUEUED"} == statuses
    assert [] == Rows(database).run("SELECT 1 FROM {}notebook_leases")


def test_what_does_not_finish_is_handed_over(start: Start, database: str) -> None:
    process = start("0")
    process.send_signal(signal.SIGTERM)

    assert 128 + signal.SIGTERM == ended(process)[0]
    with DBOSClient(system_database_url=database) as client:
        assert ["ENQUEUED"] == [each.status for each in client.list_workflows()]


def test_a_second_signal_is_obeyed_at_once(start: Start, database: str) -> None:
    """The row stays as it is, and is taken up as that of any killed process."""
    process = start("60")
    process.send_signal(signal.SIGTERM)
    eventually(lambda: repeated(process) is not None, SAME_SIGNAL_SECONDS + 20)

    assert -signal.SIGTERM == process.returncode
    with DBOSClient(system_database_url=database) as client:
        assert ["PENDING"] == [each.status for each in client.list_workflows()]


def repeated(process: subprocess.Popen[str]) -> int | None:
    """Send the signal again; how the process ended."""
    process.send_signal(signal.SIGTERM)
    return process.poll()


def test_a_drained_runtime_takes_nothing(app: App, hand: Hand) -> None:
    """Nothing is claimed after `drain` returns, what runs may finish, and all can be read."""
    stages = Stages(hand)
    queue = Queue("line")
    app.launch()
    with SetWorkflowID("runs"):
        held = hand.start(stages.workflow)
    stages.gate.wait_reached()

    assert 1 == DBOS.drain()
    with SetWorkflowID("waits"):
        hand.call(queue.enqueue_async if hand.is_async else queue.enqueue, stages.workflow)
    draining = beside(DBOS.drain, 20)
    stages.gate.open()

    assert 0 == draining.result(20)
    assert [1, 2, 3] == held.result()
    assert {"runs": "SUCCESS", "waits": "ENQUEUED"} == {each.workflow_id: each.status for each in DBOS.list_workflows()}


def test_draining_wants_a_runtime_and_the_main_thread(app: App) -> None:
    with pytest.raises(DBOSException, match="No DBOS was created yet"):
        DBOS.drain()
    app.launch()
    with pytest.raises(ValueError, match="must not be negative"):
        DBOS.drain(-1)
    with pytest.raises(DBOSMisuseError, match="main thread"):
        beside(DBOS.drain_on_signals).result(5)
