"""Debouncing: of a burst of calls, the last one is run when the burst is over.

The first call makes the workflow, DELAYED, under a deduplication id made of its name and the key. Every later one
gives it new arguments and a new moment. When the moment comes, the dispatcher gives the deduplication id back in the
statement that makes the workflow ready, so each call either finds one that it can still put off, or begins another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Text, bindparam, case, exists, null, or_, select, update

from dbos._engine.attributes import set_attributes
from dbos._engine.copies import sign_inputs
from dbos._engine.handle import Reference
from dbos._engine.row import TAKEN, NewRow, Order, refuse_conflict, row_of
from dbos._kernel.bell import DELAYS
from dbos._kernel.journal import (
    RECORD_WITH,
    STANDING,
    answer,
    ensure_running,
    explain_refusal,
    record,
    record_error,
    refuse_in_transaction,
    replay,
)
from dbos._kernel.model import DELAYED
from dbos._kernel.naming import checked_id, new_id
from dbos._kernel.plan import op
from dbos._kernel.scope import Here, Run
from dbos._kernel.slot import Slot
from dbos._kernel.statement import Entry, statement
from dbos.error import DBOSException, DBOSQueueDeduplicatedError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn

DEBOUNCE = "DBOS.debounce_delayed_workflow"

NOW: Any = bindparam("now", type_=BigInteger())


def _holds(t: Tables) -> list[ColumnElement[bool]]:
    """The workflow that holds the deduplication id."""
    c = t.status.c
    return [c.queue_name == bindparam("queue"), c.deduplication_id == bindparam("deduplication_id")]


def _is_debounced(t: Tables) -> ColumnElement[bool]:
    return exists().where(t.debounces.c.workflow_uuid == t.status.c.workflow_uuid)


@statement
def PUT_OFF(t: Tables) -> Executable:
    """Give the workflow that waits for the end of this burst new arguments and a new moment, up to its deadline."""
    c = t.status.c
    until: Any = bindparam("until", type_=BigInteger())
    mine = t.debounces.c.workflow_uuid == c.workflow_uuid
    deadline = select(t.debounces.c.deadline).where(mine).correlate(t.status).scalar_subquery()
    return (
        update(t.status)
        .values(
            inputs=bindparam("inputs", type_=Text()),
            serialization=bindparam("serialization", type_=Text()),
            delay_until_epoch_ms=case((or_(deadline.is_(None), deadline > until), until), else_=deadline),
            updated_at=NOW,
        )
        .where(*_holds(t), c.status == DELAYED, c.name == bindparam("name"), _is_debounced(t))
        .returning(c.workflow_uuid)
    )


@statement
def LET_GO(t: Tables) -> Executable:
    """Take the deduplication id from a debounced workflow that another program made ready."""
    return (
        update(t.status)
        .values(deduplication_id=null())
        .where(*_holds(t), t.status.c.status != DELAYED, _is_debounced(t))
    )


@statement
def HOLDER(t: Tables) -> Executable:
    """Who holds the deduplication id, and whether it can be put off."""
    c = t.status.c
    return select(c.name, c.status, _is_debounced(t).label("is_debounced")).where(*_holds(t))


@statement
def NOTE(t: Tables) -> Executable:
    """Until its moment comes this workflow can be put off, up to a deadline."""
    deadline: Any = bindparam("deadline", type_=BigInteger())
    return (  # type: ignore[no-any-return]  # the two dialects' inserts have no common type
        t.dialect.insert(t.debounces)
        .values(workflow_uuid=bindparam("workflow_id"), deadline=deadline)
        .on_conflict_do_update(index_elements=["workflow_uuid"], set_={"deadline": deadline})
    )


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a workflow waits for another call, and how long after the first call it starts at the latest."""

    period_ms: int
    timeout_ms: int | None

    @classmethod
    def of(cls, period_seconds: float, timeout_seconds: float | None) -> Pace:
        for what, seconds in (("debounce_period_sec", period_seconds), ("debounce_timeout_sec", timeout_seconds)):
            if seconds is not None and not (isinstance(seconds, int | float) and 0 <= seconds < math.inf):
                raise DBOSException(f"{what} must be a number of seconds, not negative, but is {seconds!r}")
        return cls(int(period_seconds * 1000), None if timeout_seconds is None else int(timeout_seconds * 1000))


@op(DEBOUNCE, blocks=True)
async def debounce(here: Here, order: Order, key: str, pace: Pace) -> Reference:
    """Run a workflow when no further call with this key has come for a while, with the arguments of the last call.

    All calls of one burst have one workflow. Raises DBOSQueueDeduplicatedError where something that cannot be put off
    holds the deduplication id. A recorded step in a workflow.
    """
    refuse_in_transaction(here, DEBOUNCE)
    checked_id(f"{order.name}-{key}", "A workflow name with a debounce key")
    if here.in_body:
        workflow_id = await _debounce_in_workflow(here, order, key, pace)
    else:
        row = row_of(here.ground, order, _id_of(order, None))
        workflow_id = await here.tx(lambda conn: _join(conn, here, row, key, pace, order.attributes), rings=[DELAYS])
    return Reference(here.ground, workflow_id, here.ground.running(workflow_id))


async def _debounce_in_workflow(here: Here, order: Order, key: str, pace: Pace) -> str:
    """The same as a step: the workflow is made, or put off, in the commit that records so."""
    run, codec = here.run, here.ground.codec
    assert run is not None
    step_id = run.next_step()
    found = replay(run, step_id, DEBOUNCE)
    if found is not None:
        return found.child_id or _id_on_record(run, answer(run, found), order.name)
    await ensure_running(run)
    started_ms = here.ground.clock.now_ms()
    try:
        row = row_of(here.ground, order, _id_of(order, f"{run.workflow_id}-{step_id}"))
        row = row._replace(parent_workflow_id=run.workflow_id)
        step = record(run, step_id, DEBOUNCE, started_ms=started_ms)
        completed_ms = step.row[8]

        def work(conn: Conn) -> str:
            standing = conn.first(STANDING, workflow_id=run.workflow_id, step_id=step_id)
            if standing is not None and (standing.function_name, standing.completed_at_epoch_ms) == (
                DEBOUNCE,
                completed_ms,
            ):
                return str(standing.child_workflow_id)  # it is done: the first answer was lost
            workflow_id = _join(conn, here, row, key, pace, order.attributes)
            slot = Slot.step_output(run.workflow_id, step_id)
            output = codec.encode(workflow_id, codec.default, slot, "a workflow ID")
            own = (run.workflow_id, step_id, run.owner, DEBOUNCE, output, None, workflow_id)
            if not conn.add(Entry(RECORD_WITH, (*own, started_ms, completed_ms, codec.default.name()))):
                raise _RefusedError  # takes back what was done to the other workflow
            return workflow_id

        workflow_id: str = await here.tx(work, rings=[DELAYS])
    except _RefusedError:
        await explain_refusal(run, step)
        raise AssertionError("a record was refused that is there") from None
    except Exception as error:
        await record_error(here, step_id, DEBOUNCE, error, started_ms)
        raise
    run.confirm()
    return workflow_id


class _RefusedError(Exception):
    """The workflow that debounces is not ours any more."""


def _id_on_record(run: Run, value: Any, name: str) -> str:
    """The workflow, as other DBOS programs record it: the one that was put off, or a child made in the next step."""
    if isinstance(value, dict):
        value = value.get("bounced_workflow_id")
        if value is None:
            started = replay(run, run.next_step(), name)
            value = None if started is None else started.child_id
    if value is None:
        raise DBOSException(f"Workflow {run.workflow_id} has no record of the workflow that it debounced")
    return str(value)


def _id_of(order: Order, child_id: str | None) -> str:
    if order.workflow_id is not None:
        return checked_id(order.workflow_id, "A workflow ID")
    return child_id or new_id()


def _join(conn: Conn, here: Here, row: NewRow, key: str, pace: Pace, attributes: str | None) -> str:
    """Put the workflow of this burst off, or make it; its id."""
    now = here.ground.clock.now_ms()
    deduplication_id = f"{row.name}-{key}"
    held = {"queue": row.queue_name, "deduplication_id": deduplication_id}
    deadline = None if pace.timeout_ms is None else now + pace.timeout_ms
    until = now + pace.period_ms
    row = row._replace(
        status=DELAYED,
        deduplication_id=deduplication_id,
        delay_until_epoch_ms=until if deadline is None else min(until, deadline),
        created_at=now,
    )
    while True:
        put_off = conn.first(
            PUT_OFF, **held, name=row.name, inputs=row.inputs, serialization=row.serialization, until=until, now=now
        )
        if put_off is not None:
            there = str(put_off.workflow_uuid)
            sign_inputs(conn, here.ground.codec, row.inputs, row.serialization, row.workflow_uuid, there)
            return there
        conn.run(LET_GO, **held)
        if conn.add(row.entry):
            conn.run(NOTE, workflow_id=row.workflow_uuid, deadline=deadline)
            if attributes is not None:
                set_attributes(conn, row.workflow_uuid, attributes)
            return row.workflow_uuid
        taken = conn.first(TAKEN, workflow_id=row.workflow_uuid)
        if taken is not None:
            refuse_conflict(row.workflow_uuid, taken, row.name, row.class_name, row.config_name)
            return row.workflow_uuid
        holder = conn.first(HOLDER, **held)
        if holder is not None and not (holder.is_debounced and holder.name == row.name):
            raise DBOSQueueDeduplicatedError(row.workflow_uuid, str(row.queue_name), deduplication_id)
        # Another call made one, or its moment came, between our looks.
