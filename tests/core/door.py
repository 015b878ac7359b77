"""The door of a store, shut until jobs have met before it; and rows as the engine writes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from dbos._engine.row import BEGIN
from dbos._engine.transitions import FINISH
from dbos._kernel.job import Job, Put, Tx
from dbos._kernel.journal import RECORD
from dbos._kernel.statement import Conn, Entry, statement
from dbos._kernel.store import Store
from tests.waiting import LIMIT_SECONDS, Gate

NOW_MS = 1_800_000_000_000


def begun(workflow_id: str, owner: str = "me", **columns: Any) -> Entry:
    """The start of a workflow that is PENDING and has this owner."""
    columns = {
        "workflow_uuid": workflow_id,
        "status": "PENDING",
        "name": "made-by-hand",
        "owner_xid": owner,
        "recovery_attempts": 1,
        "priority": 0,
        "created_at": NOW_MS,
        **columns,
    }
    return Entry(BEGIN, tuple(columns.get(name) for name in BEGIN.names))


def stepped(workflow_id: str, step_id: int, owner: str = "me", **columns: Any) -> Entry:
    """The record of a step."""
    columns = {
        "workflow_uuid": workflow_id,
        "function_id": step_id,
        "owner": owner,
        "function_name": "step",
        "completed_at_epoch_ms": NOW_MS,
        **columns,
    }
    return Entry(RECORD, tuple(columns.get(name) for name in RECORD.names))


def ended(workflow_id: str, owner: str = "me", output: str | None = None) -> Entry:
    """The outcome of a workflow."""
    return Entry(FINISH, (workflow_id, owner, "SUCCESS", output, None, NOW_MS))


@statement
def STEPS(t: Any) -> Any:
    return t.steps.select().order_by(t.steps.c.workflow_uuid, t.steps.c.function_id)


@statement
def WORKFLOWS(t: Any) -> Any:
    return t.status.select().order_by(t.status.c.workflow_uuid)


class Door:
    """Lets jobs meet: they are handed over in their order while the committer is kept busy, then taken as one batch."""

    def __init__(self, store: Store) -> None:
        self.store = store
        #: How many statements each transaction of rows had.
        self.transactions: list[int] = []
        #: What the next transactions of rows fail with, before anything is written.
        self.troubles: list[BaseException] = []
        self.prefix = "dbos." if store.dialect.has_schemas else ""
        self._transact = store.dialect.transact

    def put(self, *entries: Entry, patience_seconds: float | None = None) -> Put:
        return Put(self.store.lane, entries, (), patience_seconds)

    def write(self, *entries: Entry) -> tuple[bool, ...]:
        return self.put(*entries).block()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The committer is busy in this block: jobs wait, and are one batch when the block ends."""
        gate = Gate()
        work = Tx(self.store.lane, lambda _: gate.pass_through())
        done = self._hand_over(work)
        gate.wait_reached()
        self.transactions.clear()
        try:
            yield
        finally:
            gate.open()
            assert done.acquire(timeout=LIMIT_SECONDS)

    def meet(self, *jobs: Job[Any]) -> None:
        """Let the committer find all these jobs at once, and wait until they are done. Look at them for what came."""
        with self.busy():
            waiting = [self._hand_over(job) for job in jobs]
        for done in waiting:
            assert done.acquire(timeout=LIMIT_SECONDS)

    def _hand_over(self, job: Job[Any]) -> Any:
        done = job.expect()
        self.store.lane.hand_over(job)
        return done

    def trouble(self) -> BaseException:
        """What the driver raises while the database is away, or busy."""
        if self.store.dialect.has_schemas:
            return psycopg.OperationalError("server closed the connection unexpectedly")
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        return error

    def steps(self) -> list[tuple[str, int]]:
        """The recorded steps, by workflow and id."""
        return [(row.workflow_uuid, row.function_id) for row in self.store.read(lambda conn: conn.run(STEPS))]

    def outputs(self) -> dict[str, str | None]:
        """What the first recorded step of each workflow has as its output."""
        return {row.workflow_uuid: row.output for row in reversed(self.store.read(lambda conn: conn.run(STEPS)))}

    def statuses(self) -> dict[str, str]:
        return {row.workflow_uuid: row.status for row in self.store.read(lambda conn: conn.run(WORKFLOWS))}

    def is_idle(self) -> bool:
        """Whether nobody is in a transaction, and the next job finds an open door."""
        conn = self.store.lane._conn
        return conn is None or not self.store.dialect.in_transaction(conn.raw)

    def transact(self, conn: Conn, statements: Sequence[tuple[str, Any]], *, begun: bool) -> Any:
        self.transactions.append(len(statements))
        if self.troubles:
            raise self.troubles.pop()
        return self._transact(conn, statements, begun=begun)
