"""A Postgres that refuses statements now and then: they are run again, and never become what a workflow came to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from dbos import DBOS, Queue, SetWorkflowID
from tests.conftest import App
from tests.databases import postgres_database

STEPS, FLOWS = 40, 6


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    with postgres_database(postgres) as url:
        yield url


@contextmanager
def again_and_again(url: str, act: Callable[[Any], None]) -> Iterator[list[int]]:
    """From another session, as long as the block lasts; how often it did something."""
    is_over, done = threading.Event(), [0]

    def work() -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            while not is_over.wait(0.005):
                act(conn)
                done[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        is_over.set()
        thread.join()


def cancel_all(conn: Any) -> None:
    conn.execute(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
        "AND pid <> pg_backend_pid()"
    )


def hold_the_rows(conn: Any) -> None:
    """Lock them in an order that is not ours: one of the two is ended as a deadlock, or waits."""
    with conn.transaction():
        conn.execute("SET LOCAL deadlock_timeout = '5ms'")
        conn.execute("SELECT 1 FROM dbos.operation_outputs ORDER BY function_id DESC FOR UPDATE")
        conn.execute("SELECT 1 FROM dbos.workflow_status ORDER BY workflow_uuid DESC FOR UPDATE")


@pytest.mark.parametrize("act", [cancel_all, hold_the_rows])
def test_all_work_is_done(app: App, database: str, act: Callable[[Any], None]) -> None:
    ran: list[tuple[str | None, int]] = []

    @DBOS.step(name="note")
    def note(x: int) -> int:
        ran.append((DBOS.workflow_id, x))
        return x

    @DBOS.workflow(name="long")
    def long(n: int) -> int:
        DBOS.set_event("at", n)
        return sum(note(x) for x in range(n))

    app.launch(log_level="CRITICAL")
    queue = Queue("jobs", concurrency=4)
    handles = []
    with again_and_again(database, act) as done:
        for number in range(FLOWS):
            with SetWorkflowID(f"long-{number}"):
                handles.append(queue.enqueue(long, STEPS))
        results = [handle.get_result() for handle in handles]

    assert [sum(range(STEPS))] * FLOWS == results
    assert done[0], "nothing was refused"
    assert len(ran) == len(set(ran)), "a recorded step was run again"
    assert [STEPS + 1] * FLOWS == [len(DBOS.list_workflow_steps(f"long-{number}")) for number in range(FLOWS)]
