"""Claims that meet: two transactions on Postgres, statement by statement; and the plans of the hot statements."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import create_engine

from dbos import DBOS, Queue, SetEnqueueOptions
from dbos._engine import flow, queue, transitions
from dbos._engine.dispatch import WAITING
from dbos._faces.config import parsed
from dbos._kernel.clock import Clock
from dbos._kernel.statement import Conn, Statement
from dbos._kernel.store import Store
from tests.conftest import App
from tests.plans import plan_of

WORKFLOW = "work"


@contextmanager
def conn_to(database: str) -> Iterator[Conn]:
    """A connection of its own that speaks our statements."""
    store = Store(create_engine(parsed(database)), "dbos", Clock(), lambda _: None, owns_engine=True)
    conn = store.connect()
    try:
        yield conn
    finally:
        store.discard(conn, broken=True)
        store.engine.dispose()


def claim(conn: Conn, owner: str, most: int) -> list[Any]:
    return conn.run(
        transitions.CLAIM,
        queue="q",
        names=[WORKFLOW],
        targets=["\x1f"],
        most=most,
        owner=owner,
        executor_id=owner,
        version="v1",
        versions=["v1"],
        now=1,
    )


def filled(app: App, count: int, **options: Any) -> None:
    """A queue that nobody serves, with so many workflows on it."""

    @DBOS.workflow(name=WORKFLOW)
    def work() -> None:
        return None

    DBOS.listen_queues([])
    waiting = Queue("q", **options)
    app.launch()
    for number in range(count):
        with SetEnqueueOptions(queue_partition_key=f"p{number % 7}" if options else None):
            waiting.enqueue(work)


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_two_claims_that_overlap_take_different_work(app: App, database: str) -> None:
    filled(app, 10)
    with conn_to(database) as one, conn_to(database) as two:
        one.say("BEGIN")
        first = claim(one, "one", 4)
        two.say("BEGIN")
        second = claim(two, "two", 4)  # passes over what the other is about to take
        assert claim(one, "one", 1)
        two.say("COMMIT")
        one.say("ROLLBACK")
        third = claim(two, "two", 10)
    taken = [{row.workflow_uuid for row in rows} for rows in (first, second, third)]
    assert [len(each) for each in taken] == [4, 4, 6]
    assert not taken[0] & taken[1]
    assert not taken[1] & taken[2]
    assert taken[0] < taken[2]  # what was rolled back is there for the next


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_claims_on_a_limited_queue_take_turns(app: App, database: str) -> None:
    filled(app, 10)
    spec = queue.QueueSpec("q", queue.Limits(concurrency=5))
    with conn_to(database) as one, conn_to(database) as two:

        def flowing(conn: Conn, owner: str) -> flow.Flow:
            def take(number: int, now_ms: int, partition: str | None) -> list[Any]:
                return claim(conn, owner, number)

            return flow.Flow(conn, spec, flow.Counter(), Clock(), take)

        one.say("BEGIN")
        assert len(flowing(one, "one").claim(3, "").rows) == 3
        two.say("BEGIN")
        taken: list[Any] = []
        second = threading.Thread(target=lambda: taken.extend(flowing(two, "two").claim(10, "").rows))
        second.start()
        second.join(0.2)
        assert second.is_alive()  # it waits for its turn, and counts only then
        one.say("COMMIT")
        second.join(20)
        assert len(taken) == 2
        two.say("COMMIT")


# -- plans -----------------------------------------------------------------------------------------------------


WHOSE = {
    "names": [WORKFLOW],
    "targets": ["\x1f"],
    "owner": "o",
    "executor_id": "e",
    "version": "v1",
    "versions": ["v1"],
    "now": 1,
    "most": 10,
}
HOT: tuple[tuple[Statement, dict[str, Any], str], ...] = (
    (transitions.CLAIM, {"queue": "q", **WHOSE}, "idx_workflow_status_in_flight"),
    (
        transitions.CLAIM_PARTITION,
        {"queue": "q", "partition": "p1", **WHOSE},
        "idx_workflow_status_partition",
    ),
    (transitions.CLAIM_KEYLESS, {"queue": "q", **WHOSE}, "idx_workflow_status_in_flight"),
    (WAITING, {"queue": "q", "versions": ["v1"]}, "idx_workflow_status_in_flight"),
    (flow.RUNNING, {"queue": "q"}, "idx_workflow_status_in_flight"),
    (flow.PARTITIONS, {"queue": "q", "after": "", "page": 10}, "idx_workflow_status_partition"),
    (transitions.PROMOTE, {"now": 1}, "idx_workflow_status_delayed"),
    (transitions.NEXT_DELAY, {}, "idx_workflow_status_delayed"),
    (transitions.CANCEL_EXPIRED, {"now": 1}, "idx_workflow_status_deadline"),
)


@pytest.mark.parametrize(("wanted", "parameters", "index"), HOT, ids=[each[0].__name__ for each in HOT])
def test_hot_statements_use_their_index(
    app: App, database: str, wanted: Statement, parameters: dict[str, Any], index: str
) -> None:
    """In a table where thousands have finished, and some wait."""
    filled(app, 30, partition_queue=True)
    with conn_to(database) as conn:
        table = "workflow_status" if conn.dialect.single_writer else "dbos.workflow_status"
        numbers = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n"
            if conn.dialect.single_writer
            else "SELECT i FROM generate_series(1, 5000) AS n(i)"
        )
        conn.say(
            f"INSERT INTO {table} (workflow_uuid, status, name, created_at, updated_at, priority, queue_name) "  # noqa: S608 - names of ours
            f"SELECT 'done-' || i, 'SUCCESS', 'work', i, i, 0, 'q' FROM ({numbers}) AS numbers"
        )
        conn.say("ANALYZE")
        plan = plan_of(conn, wanted, **parameters)
    assert index in plan, plan
    assert "Seq Scan on workflow_status" not in plan, plan
    assert "SCAN operation_outputs" not in plan, plan
    assert "SCAN workflow_status" not in plan.replace(f"SCAN workflow_status USING INDEX {index}", ""), plan
