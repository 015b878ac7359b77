"""Events of workflows: a name, and the latest value that the workflow gave it; anybody may wait for the first one.

The record of the step, the value and its line in the history are one commit. The history keeps every value with
the step that set it, so that a fork has the events of the steps it keeps.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, Text, bindparam, exists, literal_column, select

from dbos._kernel.bell import event_of
from dbos._kernel.codec import WorkflowSerializationFormat
from dbos._kernel.journal import (
    RECORD_WITH,
    STANDING,
    answer,
    check_standing,
    commit,
    ensure_running,
    explain_refusal,
    held,
    put_in_turn,
    record,
    record_value,
    refuse_in_transaction,
    replay,
    reread,
    step_op,
)
from dbos._kernel.naming import checked_id, pairs_in
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.slot import Slot
from dbos._kernel.statement import Entry, kind, statement
from dbos._kernel.waiting import checked_timeout, wait_until, waking_moment
from dbos.error import DBOSException, DBOSWorkflowConflictIDError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import FromClause, Select
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.schema import Tables
    from dbos._kernel.scope import Run
    from dbos._kernel.statement import Conn, Row

SET_NAME, GET_NAME, GET_ALL_NAME = "DBOS.setEvent", "DBOS.getEvent", "DBOS.get_events"


# -- statements ------------------------------------------------------------------------------------------------


@kind(
    3,
    rank=2,
    workflow_uuid=Text(),
    function_id=Integer(),
    key=Text(),
    value=Text(),
    serialization=Text(),
    owner=Text(),
)
def NOTE_EVENT(t: Tables, given: FromClause) -> Executable:
    """What a step of ours set an event to; the last value where it set it more than once."""
    columns = [name for name in NOTE_EVENT.names if name != "owner"]
    allowed = held(t, given.c.workflow_uuid, given.c.owner)
    source = select(*(given.c[name] for name in columns)).where(allowed)
    insert = t.dialect.insert(t.event_history).from_select(columns, source)
    c = t.event_history.c
    return (  # type: ignore[no-any-return]  # the two dialects' inserts have no common type
        insert.on_conflict_do_update(
            index_elements=[c.workflow_uuid, c.function_id, c.key],
            set_={"value": insert.excluded.value, "serialization": insert.excluded.serialization},
        ).returning(c.workflow_uuid, c.function_id, c.key)
    )


@kind(2, rank=3, workflow_uuid=Text(), key=Text(), value=Text(), serialization=Text(), owner=Text())
def SET_EVENT(t: Tables, given: FromClause) -> Executable:
    """The latest value of an event of a workflow that is PENDING and ours."""
    columns = [name for name in SET_EVENT.names if name != "owner"]
    allowed = held(t, given.c.workflow_uuid, given.c.owner)
    source = select(*(given.c[name] for name in columns)).where(allowed)
    insert = t.dialect.insert(t.events).from_select(columns, source)
    c = t.events.c
    return (  # type: ignore[no-any-return]  # the two dialects' inserts have no common type
        insert.on_conflict_do_update(
            index_elements=[c.workflow_uuid, c.key],
            set_={"value": insert.excluded.value, "serialization": insert.excluded.serialization},
        ).returning(c.workflow_uuid, c.key)
    )


@statement
def EVENT(t: Tables) -> Executable:
    """The latest value of an event."""
    c = t.events.c
    return select(c.value, c.serialization).where(
        c.workflow_uuid == bindparam("workflow_id"), c.key == bindparam("key")
    )


@statement
def EVENTS(t: Tables) -> Executable:
    """The latest values of all events of a workflow."""
    c = t.events.c
    return select(c.key, c.value, c.serialization).where(c.workflow_uuid == bindparam("workflow_id")).order_by(c.key)


@statement
def THERE(t: Tables) -> Executable:
    """Which of these events are set."""
    c = t.events.c
    given = t.dialect.rows({"workflow_id": Text(), "event_key": Text()}, many=True)
    found: Select[Any] = select(literal_column("1")).where(
        c.workflow_uuid == given.c.workflow_id, c.key == given.c.event_key
    )
    return select(given.c.workflow_id, given.c.event_key).where(exists(found))


def look_for_events(conn: Conn, keys: list[str]) -> list[str]:
    """The awaited events that are set."""
    pairs = [pair for key in keys for pair in pairs_in(key)]
    rows = json.dumps(pairs, ensure_ascii=False)
    return [f"{row.workflow_id}::{row.event_key}" for row in conn.run(THERE, rows=rows)]


# -- setting ---------------------------------------------------------------------------------------------------


@op(SET_NAME)
async def set_event(
    here: Here,
    key: str,
    value: Any,
    *,
    serialization_type: WorkflowSerializationFormat | None = WorkflowSerializationFormat.DEFAULT,
) -> None:
    """Give an event of this workflow a value, and wake those who wait for it.

    From a workflow it is done exactly once, from a step once in each of its attempts. Raises DBOSException outside
    of both.
    """
    refuse_in_transaction(here, SET_NAME)
    run = here.run
    if run is None:
        raise DBOSException("set_event() must be called from within a workflow or step")
    checked_id(key, "The key of an event")
    rings = [event_of(run.workflow_id, key)]
    if here.step is not None:
        rows = _rows(here, run, here.step.step_id, key, value, serialization_type)
        if not all(await here.put(*rows, rings=rings)):
            await _explain(run)
        return
    step_id = run.next_step()
    found = replay(run, step_id, SET_NAME)
    if found is not None:
        answer(run, found)
        return
    await ensure_running(run, settles=False)  # it is written after what was recorded earlier, or together with it
    started_ms = here.ground.clock.now_ms()
    rows = _rows(here, run, step_id, key, value, serialization_type)
    step = Entry(RECORD_WITH, record(run, step_id, SET_NAME, started_ms=started_ms).row)
    recorded, *_ = await put_in_turn(here, step, *rows, rings=rings)
    if not recorded:
        await explain_refusal(run, step)
    run.confirm()


def _rows(
    here: Here, run: Run, step_id: int, key: str, value: Any, choice: WorkflowSerializationFormat | None
) -> tuple[Entry, Entry]:
    serializer = here.serializer(choice)
    text = here.ground.codec.encode(value, serializer, Slot.event(run.workflow_id, key), f"the event {key!r}")
    stored = (key, text, serializer.name(), run.owner)
    return (
        Entry(NOTE_EVENT, (run.workflow_id, step_id, *stored)),
        Entry(SET_EVENT, (run.workflow_id, *stored)),
    )


async def _explain(run: Run) -> None:
    """Raise why nothing was written from a step: the workflow was cancelled or taken over."""
    check_standing(run, await run.here.read(lambda conn: conn.first(STANDING, workflow_id=run.workflow_id, step_id=0)))
    raise DBOSWorkflowConflictIDError(run.workflow_id)


# -- getting ---------------------------------------------------------------------------------------------------


@op(GET_NAME)
async def get_event(here: Here, workflow_id: str, key: str, timeout_seconds: float = 60) -> Any:
    """Return the latest value of an event of a workflow, waiting for the first; None if none comes in time.

    It waits also for a workflow that does not exist yet. In a workflow it is a recorded step, and the time to wait is
    not counted anew after a crash. Raises DBOSSerializationError if the value cannot be read.
    """
    refuse_in_transaction(here, GET_NAME)
    checked_id(workflow_id, "A workflow ID")
    checked_id(key, "The key of an event")
    seconds = checked_timeout(timeout_seconds)

    async def look() -> Row | None:
        return await here.read(lambda conn: conn.first(EVENT, workflow_id=workflow_id, key=key))

    if here.in_body:
        return await _get_as_step(here, look, workflow_id, key, seconds)
    if seconds:
        until_ms = here.ground.clock.now_ms() + int(seconds * 1000)
        found = await wait_until(here, look, event_of(workflow_id, key), until_ms=until_ms)
    else:
        found = await look()
    return None if found is None else _opened(here, workflow_id, key, found.value, found.serialization)


async def _get_as_step(
    here: Here, look: Callable[[], Awaitable[Row | None]], workflow_id: str, key: str, seconds: float
) -> Any:
    run = here.run
    assert run is not None
    step_id, wait_id = run.next_step(), run.next_step()
    known = replay(run, step_id, GET_NAME)
    if known is not None:
        run.journal.pop(wait_id, None)
        return reread(run, known, f"The event {key!r}")
    await ensure_running(run)
    started_ms = here.ground.clock.now_ms()
    channel = event_of(workflow_id, key)
    if seconds:
        found = await wait_until(here, look, channel, moment=lambda: waking_moment(here, wait_id, seconds))
    else:
        found = await look()
    if found is None:
        await record_value(here, step_id, GET_NAME, None, started_ms)
        return None
    name, slots = found.serialization, (Slot.event(workflow_id, key), Slot.step_output(run.workflow_id, step_id))
    value = here.ground.codec.copied(found.value, name, *slots)
    await commit(here, record(run, step_id, GET_NAME, output=value, serialization=name, started_ms=started_ms))
    return _opened(here, workflow_id, key, found.value, name)


@step_op(GET_ALL_NAME)
async def get_all_events(here: Here, workflow_id: str) -> dict[str, Any]:
    """Return the latest values of all events of a workflow, by key; empty if there are none.

    Raises DBOSSerializationError if one of them cannot be read.
    """
    checked_id(workflow_id, "A workflow ID")
    rows = await here.read(lambda conn: conn.run(EVENTS, workflow_id=workflow_id))
    return {row.key: _opened(here, workflow_id, row.key, row.value, row.serialization) for row in rows}


def _opened(here: Here, workflow_id: str, key: str, text: str | None, serialization: str | None) -> Any:
    return here.ground.codec.read(text, serialization, Slot.event(workflow_id, key), f"The event {key!r}")
