"""A Postgres that is stopped, crashes or is killed under load, and comes back: nobody who uses DBOS notices."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dbos import DBOS, Queue, SetWorkflowID
from dbos.testing import Ledger
from tests.compat.acts import beside
from tests.conftest import App
from tests.databases import admin, url_of
from tests.faults.server import Server, own_server
from tests.waiting import eventually

FLOWS = 60
# With `fast` all sessions are ended, with `immediate` all processes; a killed one takes its shared memory with it.
MODES = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "killed": signal.SIGKILL}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with own_server() as made:
        yield made


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    admin(server.url, "CREATE DATABASE restarts")
    yield url_of(server.url, "restarts")
    admin(server.url, "DROP DATABASE restarts WITH (FORCE)")


@pytest.mark.timeout(200)
@pytest.mark.parametrize("mode", [*MODES, "backend"])
def test_all_work_is_done(mode: str, server: Server, app: App, complaints: Callable[[], list[str]]) -> None:
    """Steps, transactions, waits, messages, queues: nothing is lost, repeated once recorded, or reported as an error."""
    ledger, queue = Ledger(), Queue("line", concurrency=8)

    @DBOS.step(name="part")
    def part(x: int) -> int:
        ledger.note()
        return x

    @DBOS.workflow(name="whole")
    def whole(x: int) -> int:
        total = part(x) + part(x)
        DBOS.sleep(0.02)
        DBOS.set_event("half", total)
        return total + part(x)

    @DBOS.workflow(name="listens")
    async def listens() -> list[Any]:
        return [await DBOS.recv_async(timeout_seconds=100) for _ in range(3)]

    app.launch()
    with SetWorkflowID("listener"):
        listener = DBOS.start_workflow(listens)
    handles = []
    for x in range(FLOWS):
        with SetWorkflowID(f"w{x}"):
            handles.append(queue.enqueue(whole, x))
    event = beside(DBOS.get_event, f"w{FLOWS - 1}", "half", 100)
    for strike in range(3):
        eventually(lambda strike=strike: len(ledger.counts()) > (strike + 1) * 30, 60)
        server.crash_backend() if mode == "backend" else server.strike(MODES[mode])
        DBOS.send("listener", strike, idempotency_key=f"m{strike}")

    assert [3 * x for x in range(FLOWS)] == [each.get_result() for each in handles]
    assert 2 * (FLOWS - 1) == event.result(30)
    assert [0, 1, 2] == listener.get_result()
    assert [] == complaints()
    _check(ledger)


def _check(ledger: Ledger) -> None:
    """No step too many or missing, and nothing left to recover; the coroner looks for the rest."""
    counts = ledger.counts()
    assert 3 * FLOWS == len(counts)
    assert max(counts.values()) == 1  # the process lived: what it ran it also recorded
    for x in (0, FLOWS // 2, FLOWS - 1):
        names = [step["function_name"] for step in DBOS.list_workflow_steps(f"w{x}")]
        assert ["part", "part", "DBOS.sleep", "DBOS.setEvent", "part"] == names
    assert {"SUCCESS"} == {each.status for each in DBOS.list_workflows()}
    assert [] == DBOS._recover_pending_workflows()
