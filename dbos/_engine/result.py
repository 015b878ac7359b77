"""The outcome of any workflow: waiting for it, and recording it in the workflow that waited.

A run of this process is listened to directly and hands over its value; any other is known by its row. What a
workflow learned of another is copied from row to row inside the database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select

from dbos._engine.claim import adopt
from dbos._engine.runtime import Runtime
from dbos._engine.transitions import RECORD_RESULT
from dbos._engine.workflow import Ending, execute_claimed
from dbos._kernel import model
from dbos._kernel.bell import done
from dbos._kernel.journal import STANDING, answer, check_standing, commit, ensure_running, promise, record, replay
from dbos._kernel.layout import layout_of
from dbos._kernel.model import PENDING
from dbos._kernel.slot import Slot
from dbos._kernel.statement import Entry, one_of, statement
from dbos._kernel.waiting import wait_until
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded,
    DBOSNonExistentWorkflowError,
)

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.codec import Codec
    from dbos._kernel.schema import Tables
    from dbos._kernel.scope import Awaited, Here, Run
    from dbos._kernel.statement import Conn, Row

GET_RESULT = "DBOS.getResult"


@statement
def OUTCOME(t: Tables) -> Executable:
    """How a workflow ended, if it has."""
    c = t.status.c
    columns = (c.status, c.name, c.owner_xid, t.output, t.error, c.serialization)
    return select(*columns).where(c.workflow_uuid == bindparam("workflow_id"))


@statement
def UNFINISHED(t: Tables) -> Executable:
    """Which of these workflows have not ended."""
    c = t.status.c
    return select(c.workflow_uuid).where(
        t.dialect.among(c.workflow_uuid, "workflow_ids"), one_of(c.status, model.UNFINISHED)
    )


def look_for_done(conn: Conn, workflow_ids: list[str]) -> set[str]:
    """The awaited workflows that have ended, or are gone."""
    return set(workflow_ids) - {row.workflow_uuid for row in conn.run(UNFINISHED, workflow_ids=workflow_ids)}


def ending_of(codec: Codec, workflow_id: str, row: Row) -> Ending | None:
    """The ending that a row tells of."""
    match row.status:
        case "SUCCESS":
            return Ending(codec.decode(row.output, row.serialization, Slot.output(workflow_id)), None)
        case "ERROR":
            return Ending(None, codec.decode_error(row.error or "null", row.serialization, Slot.error(workflow_id)))
        case "CANCELLED":
            return Ending(None, DBOSAwaitedWorkflowCancelledError(workflow_id))
        case "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
            return Ending(None, DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded(workflow_id))
        case _:
            return None


async def await_ending(
    here: Here, workflow_id: str, *, run: Run | Awaited | None = None, may_be_missing: bool = False
) -> Ending:
    """Wait for a workflow to end. `run` is its run in this process, if the caller knows one."""
    ground = here.ground

    async def look() -> Ending | None:
        if run is not None and run.is_over:
            return Ending(run.result, run.failure)
        if ground.running(workflow_id) is not None:
            return None
        row = await here.read(lambda conn: conn.first(OUTCOME, workflow_id=workflow_id))
        if row is not None and _is_hollow(row) and not ground.store.tables.layout.split:
            # Every outcome has a text. Another program migrated the database a moment ago, and keeps it elsewhere.
            ground.store.adopt_layout(await here.read(layout_of))
            row = await here.read(lambda conn: conn.first(OUTCOME, workflow_id=workflow_id))
        if row is None:
            if may_be_missing:
                return None
            raise DBOSNonExistentWorkflowError("target", workflow_id)
        if row.status == PENDING and here.run is not None:
            await _take_up(here, workflow_id, row)
        return ending_of(ground.codec, workflow_id, row)

    ending = await wait_until(here, look, done(workflow_id))
    assert ending is not None  # there is no moment at which this wait ends without one
    return ending


def _is_hollow(row: Row) -> bool:
    return row.status in model.FINISHED and row.output is None and row.error is None


async def _take_up(here: Here, workflow_id: str, row: Row) -> None:
    """Run an awaited workflow that this launch owns but does not run: it was interrupted, like the one that waits."""
    runtime = here.ground
    if not isinstance(runtime, Runtime) or not runtime.has_left(workflow_id, row.owner_xid):
        return
    spec = runtime.registry.workflows.get(row.name)
    if spec is None:
        return
    claimed = await adopt(here, runtime, spec, workflow_id, row.owner_xid)
    if claimed is not None:
        runtime.spawn(lambda: execute_claimed(runtime, claimed), is_async=spec.is_async, on_this_loop=True)


async def result_step(
    here: Here, workflow_id: str, *, run: Run | Awaited | None = None, may_be_missing: bool = False
) -> Any:
    """Another workflow's outcome, as a step of this one."""
    me = here.run
    assert me is not None
    step_id = me.next_step()
    found = replay(me, step_id, GET_RESULT)
    if found is not None:
        return answer(me, found)
    await ensure_running(me, settles=False)  # what others came to is not changed by asking
    started_ms = here.ground.clock.now_ms()
    try:
        ending = await await_ending(here, workflow_id, run=run, may_be_missing=may_be_missing)
    except Exception as error:
        await _record_failure(here, step_id, workflow_id, error, started_ms)
        raise
    await record_ending(here, step_id, workflow_id, ending, started_ms)
    return ending.unwrap()


def ending_entry(me: Run, step_id: int, workflow_id: str, started_ms: int) -> Entry | None:
    """The record of another workflow's outcome, to be copied from its row. None: a copy must be signed anew."""
    if me.ground.codec.is_bound(None):
        return None
    now = me.ground.clock.now_ms()
    return Entry(RECORD_RESULT, (me.workflow_id, step_id, me.owner, GET_RESULT, workflow_id, started_ms, now))


async def record_ending(here: Here, step_id: int, workflow_id: str, ending: Ending, started_ms: int) -> None:
    """Record how an awaited workflow ended."""
    me = here.run
    assert me is not None
    failure = ending.failure
    if isinstance(failure, DBOSAwaitedWorkflowCancelledError | DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded):
        await _record_failure(here, step_id, workflow_id, failure, started_ms)
        return

    async def explain() -> None:
        if not await _is_recorded(me, step_id, workflow_id):
            await _record_seen(here, step_id, workflow_id, ending, started_ms)

    entry = ending_entry(me, step_id, workflow_id, started_ms)
    if entry is None:
        await _record_seen(here, step_id, workflow_id, ending, started_ms)
    else:
        await promise(me, entry, explain)


async def _record_seen(here: Here, step_id: int, workflow_id: str, ending: Ending, started_ms: int) -> None:
    """Record what was seen of a workflow whose row has changed since."""
    if ending.failure is not None:
        await _record_failure(here, step_id, workflow_id, ending.failure, started_ms)
        return
    me, codec = here.run, here.ground.codec
    assert me is not None
    slot = Slot.step_output(me.workflow_id, step_id)
    output = codec.encode(ending.result, codec.default, slot, f"the result of workflow {workflow_id}")
    serialization = codec.default.name()
    entry = record(
        me, step_id, GET_RESULT, output=output, child_id=workflow_id, serialization=serialization, started_ms=started_ms
    )
    await commit(here, entry)


async def _is_recorded(me: Run, step_id: int, workflow_id: str) -> bool:
    """Whether the outcome is recorded after all: the first answer was lost."""
    standing = await me.here.read(lambda conn: conn.first(STANDING, workflow_id=me.workflow_id, step_id=step_id))
    check_standing(me, standing)
    assert standing is not None
    return (standing.function_name, standing.child_workflow_id) == (GET_RESULT, workflow_id)


async def _record_failure(here: Here, step_id: int, workflow_id: str, error: BaseException, started_ms: int) -> None:
    me = here.run
    assert me is not None
    serializer = here.ground.codec.default
    text = here.ground.codec.encode_error(error, serializer, Slot.step_error(me.workflow_id, step_id))
    await commit(
        here,
        record(
            me,
            step_id,
            GET_RESULT,
            error=text,
            child_id=workflow_id,
            serialization=serializer.name(),
            started_ms=started_ms,
        ),
    )
