"""The replay rule, once: is this step recorded? Then its record is the answer; else do it and record it.

A record is written only while the workflow is PENDING and this run owns it: that condition is part of the
statement. A refused record means that the workflow was cancelled, taken over, deleted, or that the step is
already recorded; only then do we look which, in `explain_refusal`.

Nothing is read on the way of a run that goes well: its journal came with it when it was claimed, and a fresh
run has none. Before user code starts, the last answer of the database must not be older than FRESH_SECONDS, and
nothing may have been heard since: where we know that nobody else has written meanwhile, that is answer enough.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import BigInteger, Integer, Text, and_, bindparam, exists, literal_column, select

from dbos._kernel.extension import notes_of
from dbos._kernel.job import HandOver, Settle
from dbos._kernel.model import CANCELLED, PENDING, Recorded
from dbos._kernel.plan import Op
from dbos._kernel.scope import Here, Promise, Run, StepStatus
from dbos._kernel.slot import Slot
from dbos._kernel.statement import Entry, constant, kind, statement
from dbos.error import (
    DBOSException,
    DBOSStepNondeterminismError,
    DBOSUnexpectedStepError,
    DBOSWorkflowCancelledError,
    DBOSWorkflowConflictIDError,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, FromClause, Select
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.bell import Channel
    from dbos._kernel.codec import Serializer
    from dbos._kernel.extension import Note
    from dbos._kernel.job import Put
    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn

P = ParamSpec("P")
R = TypeVar("R")

# For so long an answer of the database counts as the present state of the row.
FRESH_SECONDS = 0.005
# A record that is longer is waited for.
SHORT_TEXT = 100_000
# So many records of one run may be on their way.
MOST_UNSETTLED = 100


# -- statements ------------------------------------------------------------------------------------------------


def is_mine(t: Tables, workflow_id: Any, owner: Any) -> ColumnElement[bool]:
    """The row is PENDING and has this owner."""
    return and_(
        t.status.c.workflow_uuid == workflow_id,
        t.status.c.owner_xid == owner,
        # Said with an empty text behind it, so that no planner takes the partial index on PENDING for cheaper than
        # the primary key when its statistics are old.
        t.status.c.status.concat(constant("")) == constant(PENDING),
    )


@kind(
    2,
    workflow_uuid=Text(),
    function_id=Integer(),
    owner=Text(),
    function_name=Text(),
    output=Text(),
    error=Text(),
    child_workflow_id=Text(),
    started_at_epoch_ms=BigInteger(),
    completed_at_epoch_ms=BigInteger(),
    serialization=Text(),
)
def RECORD(t: Tables, given: FromClause) -> Executable:
    """Record a step of a workflow that is PENDING and ours."""
    return record_statement(t, given)


def held(t: Tables, workflow_id: Any, owner: Any) -> ColumnElement[bool]:
    """The row is ours, and stays so until this commit: for rows that belong together.

    Without the lock a cancel could come between two statements of one commit on Postgres, and only one of them
    would be refused.
    """
    return exists(_mine(t, workflow_id, owner).with_for_update(read=True))


def _mine(t: Tables, workflow_id: Any, owner: Any) -> Select[Any]:
    return select(literal_column("1")).select_from(t.status).where(is_mine(t, workflow_id, owner))


@kind(2, rank=1, **RECORD.columns)
def RECORD_WITH(t: Tables, given: FromClause) -> Executable:
    """Record a step together with rows that the same commit writes after it, each guarded by `held`."""
    return record_statement(t, given, holds=True)


def record_statement(t: Tables, given: FromClause, *conditions: ColumnElement[bool], holds: bool = False) -> Executable:
    """The insertion of step records, under further conditions; `holds` for what brings other rows with it."""
    columns = [name for name in RECORD.names if name != "owner"]
    who = (given.c.workflow_uuid, given.c.owner)
    mine = held(t, *who) if holds else exists(_mine(t, *who))
    return (  # type: ignore[no-any-return]  # the two dialects' inserts have no common type
        t.dialect.insert(t.steps)
        .from_select(columns, select(*(given.c[name] for name in columns)).where(mine, *conditions))
        .on_conflict_do_nothing()
        .returning(t.steps.c.workflow_uuid, t.steps.c.function_id)
    )


@kind(3, rank=1, workflow_uuid=Text(), function_id=Integer(), kind=Text(), text=Text(), owner=Text())
def NOTE(t: Tables, given: FromClause) -> Executable:
    """What an extension keeps of a run of ours; the last word where it says more than one."""
    columns = [name for name in NOTE.names if name != "owner"]
    source = select(*(given.c[name] for name in columns)).where(held(t, given.c.workflow_uuid, given.c.owner))
    insert = t.dialect.insert(t.notes).from_select(columns, source)
    c = t.notes.c
    key = [c.workflow_uuid, c.function_id, c.kind]
    return insert.on_conflict_do_update(index_elements=key, set_={"text": insert.excluded.text}).returning(*key)  # type: ignore[no-any-return]  # as above


@kind(2, rank=-1, workflow_uuid=Text(), owner=Text())
def STANDS(t: Tables, given: FromClause) -> Executable:
    """Which of these workflows are PENDING and ours."""
    mine = is_mine(t, given.c.workflow_uuid, given.c.owner)
    return select(given.c.workflow_uuid, given.c.owner).join(t.status, mine)


@statement
def STANDING(t: Tables) -> Executable:
    """How a workflow and one of its steps stand."""
    step = and_(t.steps.c.workflow_uuid == t.status.c.workflow_uuid, t.steps.c.function_id == bindparam("step_id"))
    return (
        select(
            t.status.c.status,
            t.status.c.owner_xid,
            t.steps.c.function_name,
            t.steps.c.completed_at_epoch_ms,
            t.steps.c.child_workflow_id,
        )
        .select_from(t.status.outerjoin(t.steps, step))
        .where(t.status.c.workflow_uuid == bindparam("workflow_id"))
    )


@statement
def LOAD_JOURNALS(t: Tables) -> Executable:
    """The records of several workflows."""
    c = t.steps.c
    columns = (c.workflow_uuid, c.function_id, c.function_name, c.output, c.error, c.child_workflow_id, c.serialization)
    return select(*columns).where(t.dialect.among(c.workflow_uuid, "workflow_ids"))


# -- reading ---------------------------------------------------------------------------------------------------


def load(conn: Conn, workflow_ids: list[str]) -> dict[str, dict[int, Recorded]]:
    """The journals of several workflows, by workflow and step id."""
    journals: dict[str, dict[int, Recorded]] = {workflow_id: {} for workflow_id in workflow_ids}
    for workflow_id, step_id, *rest in conn.run(LOAD_JOURNALS, workflow_ids=workflow_ids):
        journals[workflow_id][step_id] = Recorded(step_id, *rest)
    return journals


def replay(run: Run, step_id: int, name: str) -> Recorded | None:
    """The record of this step, if there is one; it must be of the operation that the code performs now."""
    if not run.journal:
        return None
    found = run.journal.pop(step_id, None)
    if found is not None and found.name != name:
        raise DBOSUnexpectedStepError(run.workflow_id, step_id, name, found.name)
    return found


def answer(run: Run, found: Recorded) -> Any:
    """What the recorded step returned; raises what it raised."""
    codec = run.ground.codec
    if found.error is not None:
        raise codec.decode_error(found.error, found.serialization, Slot.step_error(run.workflow_id, found.step_id))
    return codec.decode(found.output, found.serialization, Slot.step_output(run.workflow_id, found.step_id))


def reread(run: Run, found: Recorded, what: str) -> Any:
    """The value of somebody else's that the recorded step got; DBOSSerializationError if it cannot be read."""
    if found.error is not None:
        return answer(run, found)
    slot = Slot.step_output(run.workflow_id, found.step_id)
    return run.ground.codec.read(found.output, found.serialization, slot, what)


# -- writing ---------------------------------------------------------------------------------------------------


def record(
    run: Run,
    step_id: int,
    name: str,
    *,
    output: str | None = None,
    error: str | None = None,
    child_id: str | None = None,
    serialization: str | None = None,
    started_ms: int | None = None,
) -> Entry:
    """The row of a step that ends now."""
    now = run.ground.clock.now_ms()
    row = (run.workflow_id, step_id, run.owner, name, output, error, child_id, started_ms or now, now, serialization)
    return Entry(RECORD, row)


async def commit(here: Here, step: Entry, *others: Entry, rings: tuple[Channel, ...] = ()) -> tuple[bool, ...]:
    """Write a step's record, and what belongs to it, in one commit; says of the others whether they were accepted."""
    run = here.run
    assert run is not None
    accepted, *rest = await here.put(step, *others, rings=rings)
    if not accepted:
        await explain_refusal(run, step)
    run.confirm()
    return tuple(rest)


async def record_error(here: Here, step_id: int, name: str, error: Exception, started_ms: int) -> None:
    """Record that a step of this workflow failed."""
    run, serializer = here.run, here.ground.codec.default
    assert run is not None
    text = here.ground.codec.encode_error(error, serializer, Slot.step_error(run.workflow_id, step_id))
    await commit(here, record(run, step_id, name, error=text, serialization=serializer.name(), started_ms=started_ms))


async def record_value(here: Here, step_id: int, name: str, value: Any, started_ms: int) -> None:
    """Record what a step of this workflow came to."""
    run, serializer = here.run, here.ground.codec.default
    assert run is not None
    slot = Slot.step_output(run.workflow_id, step_id)
    text = here.ground.codec.encode(value, serializer, slot, f"the output of step {name!r}")
    await commit(here, record(run, step_id, name, output=text, serialization=serializer.name(), started_ms=started_ms))


def noted(run: Run, notes: Iterable[Note]) -> list[Entry]:
    """The rows of what an extension keeps. No text breaks the commit that it is in."""
    return [
        Entry(
            NOTE, (run.workflow_id, step_id, kind, text.replace("\0", "␀").encode(errors="replace").decode(), run.owner)
        )
        for step_id, kind, text in notes
    ]


def _step_notes(run: Run, step_id: int, value: Any, error: Exception | None) -> list[Entry]:
    return noted(run, notes_of(run, lambda observer: observer.step_notes(step_id, value, error)))


async def commit_soon(here: Here, step: Entry, *others: Entry) -> None:
    """Write a step's record; where many write, hand it over and go on: not the code waits then, but the next effect."""
    run = here.run
    assert run is not None
    # A text that some database might refuse is better refused here, where the program can see which.
    plain = all(text is None or (len(text) < SHORT_TEXT and text.isascii()) for text in step.row[4:6])
    if not plain or not here.ground.store.lane.is_busy:
        await commit(here, step, *others)
        return
    await promise(run, step, lambda: explain_refusal(run, step), *others)


async def promise(
    run: Run,
    entry: Entry,
    explain: Callable[[], Coroutine[Any, Any, None]],
    *others: Entry,
    rings: tuple[Channel, ...] = (),
) -> Put:
    """Hand a record over to be written, with what belongs to it; the job that will write it.

    If it turns out to be refused, `explain` says why, or mends it.
    """
    job = run.here.put(entry, *others, rings=rings)
    if run.unsettled:  # also where each is written alone, as on a full disk, the order is that of the program
        job.behind = run.unsettled[-1].job
    await HandOver(job)
    run.unsettled.append(Promise(job, explain))
    if len(run.unsettled) > MOST_UNSETTLED:
        await settle(run)
    return job


async def put_in_turn(here: Here, *entries: Entry, rings: Iterable[Channel] = ()) -> tuple[bool, ...]:
    """Write rows after the records that are on their way: in one commit with them, if they wait for it still."""
    job = here.put(*entries, rings=rings)
    if here.run is not None and here.run.unsettled:
        job.behind = here.run.unsettled[-1].job
    return await job


async def settle(run: Run) -> None:
    """Await the records that are on their way."""
    while run.unsettled:
        promise = run.unsettled[0]
        try:
            accepted, *_ = await Settle(promise.job)
        finally:
            # Taken out only when it is done: a sibling task that comes meanwhile waits for it too.
            is_first = promise.job.done and bool(run.unsettled) and run.unsettled[0] is promise
            if is_first:
                run.unsettled.pop(0)
        if is_first:
            if not accepted:
                await promise.explain()
            run.confirm()


async def explain_refusal(run: Run, step: Entry) -> None:
    """Raise what the refusal of a record means; return if it is ours after all (its first answer was lost)."""
    if not await is_recorded(run, step):
        _, step_id, _, name, *_ = step.row
        raise DBOSStepNondeterminismError(run.workflow_id, step_id, name)


async def is_recorded(run: Run, step: Entry) -> bool:
    """Whether a refused record is ours after all. False: nothing is, so a condition of its own was not met."""
    _, step_id, _, name, _, _, child_id, _, completed_ms, *_ = step.row
    found = await run.here.read(lambda conn: conn.first(STANDING, workflow_id=run.workflow_id, step_id=step_id))
    check_standing(run, found)
    assert found is not None
    if found.function_name is None:
        return False
    same = (found.function_name, found.completed_at_epoch_ms, found.child_workflow_id) == (name, completed_ms, child_id)
    if not same:
        raise DBOSStepNondeterminismError(run.workflow_id, step_id, name)
    return True


def check_standing(run: Run, found: Any) -> None:
    """Raise the control flow that a row demands which is not PENDING, or not ours."""
    if found is not None and found.status == CANCELLED:
        raise DBOSWorkflowCancelledError(f"Workflow {run.workflow_id} was cancelled. The workflow stops here.")
    if found is None or found.status != PENDING or found.owner_xid != run.owner:
        raise DBOSWorkflowConflictIDError(run.workflow_id)


async def ensure_running(run: Run, *, settles: bool = True) -> None:
    """Raise if the workflow was cancelled or taken over; free when the database said otherwise a moment ago.

    Without `settles`, for what has no effect outside, records may still be on their way.
    """
    if settles and run.unsettled:
        await settle(run)
    if not run.stops.heard:
        since = run.ground.clock.monotonic() - FRESH_SECONDS
        if run.confirmed_at > since or run.ground.store.is_abreast(since - FRESH_SECONDS):
            return
    run.stops.take()
    # Asked with what others write now: under load one question is for many.
    (mine,) = await run.here.put(Entry(STANDS, (run.workflow_id, run.owner)))
    if not mine:
        found = await run.here.read(lambda conn: conn.first(STANDING, workflow_id=run.workflow_id, step_id=0))
        check_standing(run, found)
    run.confirm()


async def recorded(
    here: Here,
    name: str,
    body: Callable[[Here], Awaitable[R]],
    *,
    serializer: Serializer | None = None,
    step_id: int | None = None,
) -> R:
    """Do a step of this workflow, or answer it from its record. `body` is given the place inside the step.

    `step_id` is its id where that was taken before.
    """
    run = here.run
    assert run is not None
    if step_id is None:
        step_id = run.next_step()
    found = replay(run, step_id, name)
    if found is not None:
        return answer(run, found)  # type: ignore[no-any-return]  # a recorded value has no static type
    await ensure_running(run)
    codec = here.ground.codec
    serializer = serializer or codec.default
    started_ms = here.ground.clock.now_ms()
    try:
        value = await body(here.within(StepStatus(step_id)))
    except Exception as error:
        text = codec.encode_error(error, serializer, Slot.step_error(run.workflow_id, step_id))
        step = record(run, step_id, name, error=text, serialization=serializer.name(), started_ms=started_ms)
        await commit_soon(here, step, *_step_notes(run, step_id, None, error))
        raise
    slot = Slot.step_output(run.workflow_id, step_id)
    output = codec.encode(value, serializer, slot, f"the output of step {name!r}")
    step = record(run, step_id, name, output=output, serialization=serializer.name(), started_ms=started_ms)
    await commit_soon(here, step, *_step_notes(run, step_id, value, None))
    return value


async def as_step(here: Here, title: str, body: Callable[[Here], Awaitable[R]]) -> R:
    """A recorded step in a workflow's body, and done plainly elsewhere: the way of all operations on workflows."""
    refuse_in_transaction(here, title)
    if here.in_body:
        return await recorded(here, title, body)
    return await body(here)


def step_op(
    title: str,
) -> Callable[[Callable[Concatenate[Here, P], Coroutine[Any, Any, R]]], Op[Here, P, R]]:
    """Make an operation of a plan that is wholly such a step."""

    def make(plan: Callable[Concatenate[Here, P], Coroutine[Any, Any, R]]) -> Op[Here, P, R]:
        @functools.wraps(plan)
        async def in_place(here: Here, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return await as_step(here, title, lambda inside: plan(inside, *args, **kwargs))

        return Op(in_place, title, blocks=False)

    return make


def refuse_in_transaction(here: Here, title: str) -> None:
    """A transaction may be repeated and holds locks: nothing else of DBOS goes on inside it."""
    if here.session is not None:
        raise DBOSException(f"Invalid call to `{title}` inside a transaction")
