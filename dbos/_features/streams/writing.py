"""Writing streams: exactly once from a workflow, once in each attempt from a step.

Only the run that owns the workflow writes, so the next offset is a number in its memory, and the primary key is the
judge: a value that finds its place taken is refused, and its step with it. A workflow hands its values over and goes
on, so many of them share a commit; its next effect of another kind waits until they are written.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import BigInteger, Integer, Text, exists, literal_column, select

from dbos._features.streams.mark import CLOSED, KEY, LAST, MARKS, POSITION, WORKFLOW, stream_of
from dbos._kernel.codec import PORTABLE, WorkflowSerializationFormat
from dbos._kernel.journal import (
    RECORD,
    SHORT_TEXT,
    STANDING,
    answer,
    check_standing,
    commit,
    ensure_running,
    held,
    is_recorded,
    promise,
    record,
    record_error,
    record_statement,
    refuse_in_transaction,
    replay,
)
from dbos._kernel.naming import checked_id
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.slot import Slot
from dbos._kernel.statement import Entry, kind, statement
from dbos.error import DBOSException

if TYPE_CHECKING:
    from sqlalchemy import FromClause, Select
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.schema import Tables
    from dbos._kernel.scope import Run, StepStatus
    from dbos._kernel.statement import Row

WRITE_NAME, CLOSE_NAME = "DBOS.writeStream", "DBOS.closeStream"


@kind(
    3,
    rank=1,
    workflow_uuid=Text(),
    key=Text(),
    place=BigInteger(),
    value=Text(),
    serialization=Text(),
    function_id=Integer(),
    owner=Text(),
)
def WRITE(t: Tables, given: FromClause) -> Executable:
    """A value at its place, unless that is taken, of a workflow that is PENDING and ours."""
    g = given.c
    columns = {
        "workflow_uuid": g.workflow_uuid,
        "key": g.key,
        "offset": g.place,
        "value": g.value,
        "serialization": g.serialization,
        "function_id": g.function_id,
    }
    c = t.streams.c
    return (  # type: ignore[no-any-return]  # the two dialects' inserts have no common type
        t.dialect.insert(t.streams)
        .from_select(list(columns), select(*columns.values()).where(held(t, g.workflow_uuid, g.owner)))
        .on_conflict_do_nothing()
        .returning(c.workflow_uuid, c.key, c.offset)
    )


# After outcomes, so that a workflow which ends awaits these: what is refused here can be mended before it has ended.
@kind(2, rank=11, **RECORD.columns, key=Text(), place=BigInteger())
def RECORD_WRITE(t: Tables, given: FromClause) -> Executable:
    """Record that a workflow wrote a value, if it is at its place."""
    c = t.streams.c
    written: Select[Any] = select(literal_column("1")).where(
        c.workflow_uuid == given.c.workflow_uuid,
        c.key == given.c.key,
        c.offset == given.c.place,
        c.function_id == given.c.function_id,
    )
    return record_statement(t, given, exists(written), holds=True)


@statement
def AT(t: Tables) -> Executable:
    """The value at a place."""
    c = t.streams.c
    return select(c.value, c.function_id).where(c.workflow_uuid == WORKFLOW, c.key == KEY, c.offset == POSITION)


# -- the writer's view ------------------------------------------------------------------------------------------


class Closing(NamedTuple):
    """Who closed a stream: its step, and which attempt of that (None: an earlier execution)."""

    step_id: int
    attempt: StepStatus | None


class Stream:
    """A stream in the hands of the run that writes it."""

    def __init__(self, workflow_id: str, key: str, length: int = 0, closing: Closing | None = None) -> None:
        self.workflow_id, self.key = workflow_id, key
        self._next, self._closing = length, closing
        self._lock = threading.Lock()

    def take_place(self, here: Here, step_id: int, *, closes: bool) -> int | None:
        """The offset of the next value. None: nothing is to be written, for the stream is closed, and may be here."""
        with self._lock:
            closing = self._closing
            if closing is not None:
                # A step that is done again meets what it closed itself.
                is_again = here.step is not None and closing.step_id == step_id and closing.attempt is not here.step
                if closes or is_again:
                    return None
                raise DBOSException(
                    f"Stream {self.key} of workflow {self.workflow_id} is closed: it takes no more values"
                )
            place, self._next = self._next, self._next + 1
            if closes:
                self._closing = Closing(step_id, here.step)
            return place


async def _stream(here: Here, run: Run, key: str) -> Stream:
    """The stream as this run left it, or as it found it."""
    name = (WRITE_NAME, key)
    known: Stream | None = run.notes.get(name)
    if known is not None:
        return known
    loaded = Stream(run.workflow_id, key)
    if run.is_recovered:
        last = await here.read(lambda conn: conn.first(LAST, workflow_id=run.workflow_id, key=key))
        if last is not None:
            closing = Closing(last.function_id, None) if last.value in MARKS else None
            loaded = Stream(run.workflow_id, key, last.offset + 1, closing)
    # Of several that loaded it at once, the first one's is kept: others may be writing by it already.
    stream: Stream = run.notes.setdefault(name, loaded)
    return stream


@op(WRITE_NAME)
async def write_stream(
    here: Here,
    key: str,
    value: Any,
    *,
    serialization_type: WorkflowSerializationFormat | None = WorkflowSerializationFormat.DEFAULT,
) -> None:
    """Write a value to the end of a stream of this workflow, where anybody can read it at once.

    From a workflow it is written exactly once, from a step once in each of its attempts. Raises DBOSException outside
    of both, and for a stream that is closed.
    """
    refuse_in_transaction(here, WRITE_NAME)
    if here.run is None:
        raise DBOSException("write_stream() must be called from within a workflow or step")
    checked_id(key, "The key of a stream")
    serializer = here.serializer(serialization_type)
    slot = Slot.stream(here.run.workflow_id, key)
    text = here.ground.codec.encode(value, serializer, slot, f"a value of stream {key!r}")
    if text in MARKS or (isinstance(value, str) and value == CLOSED):
        raise DBOSException(f"{CLOSED} is the mark of a closed stream and cannot be a value")
    await _append(here, here.run, WRITE_NAME, key, text, serializer.name(), closes=False)


@op(CLOSE_NAME)
async def close_stream(here: Here, key: str) -> None:
    """Close a stream of this workflow: its readers end, and nothing can be written to it any more.

    A stream that is closed already stays so. When a workflow ends, its streams end too. Raises DBOSException outside
    of a workflow.
    """
    refuse_in_transaction(here, CLOSE_NAME)
    if here.run is None:
        raise DBOSException("close_stream() must be called from within a workflow or step")
    checked_id(key, "The key of a stream")
    await _append(here, here.run, CLOSE_NAME, key, MARKS[0], PORTABLE, closes=True)


async def _append(here: Here, run: Run, name: str, key: str, text: str, serialization: str, *, closes: bool) -> None:
    if here.step is not None:
        written = False
        while not written:
            written = await _write_directly(here, run, here.step.step_id, key, text, serialization, closes=closes)
        return
    step_id = run.next_step()
    found = replay(run, step_id, name)
    if found is not None:
        answer(run, found)
        return
    # What was handed over before is written before: a value is no answer to anything outside.
    await ensure_running(run, settles=False)
    started_ms = here.ground.clock.now_ms()
    stream = await _stream(here, run, key)
    try:
        place = stream.take_place(here, step_id, closes=closes)
    except DBOSException as error:
        await record_error(here, step_id, name, error, started_ms)
        raise
    row = record(run, step_id, name, started_ms=started_ms).row
    if place is None:
        await commit(here, Entry(RECORD, row))
        return
    step, value = _entries(run, row, key, place, text, serialization)

    async def mend() -> None:
        if not await is_recorded(run, step):
            await _write_elsewhere(here, run, row, key, text, serialization)

    if len(text) < SHORT_TEXT:
        await promise(run, step, mend, value, rings=(stream_of(run.workflow_id, key),))
        return
    recorded, _ = await _put(here, run, key, step, value)
    if not recorded:
        await mend()
    run.confirm()


def _entries(
    run: Run, row: tuple[Any, ...], key: str, place: int, text: str, serialization: str
) -> tuple[Entry, Entry]:
    """A step's record, which is of that row, and the value that it writes."""
    value = (run.workflow_id, key, place, text, serialization, row[1], run.owner)
    return Entry(RECORD_WRITE, (*row, key, place)), Entry(WRITE, value)


async def _write_elsewhere(here: Here, run: Run, row: tuple[Any, ...], key: str, text: str, serialization: str) -> None:
    """Write a value whose place was taken by a program that does not own the workflow."""
    while True:
        _forget(run, key)
        stream = await _stream(here, run, key)
        place = stream.take_place(here, row[1], closes=text in MARKS)
        if place is None:
            await commit(here, Entry(RECORD, row))
            return
        step, value = _entries(run, row, key, place, text, serialization)
        recorded, _ = await _put(here, run, key, step, value)
        if recorded or await is_recorded(run, step):
            return


async def _write_directly(
    here: Here, run: Run, step_id: int, key: str, text: str, serialization: str, *, closes: bool
) -> bool:
    """Write from a step. False: the place was taken."""
    stream = await _stream(here, run, key)
    place = stream.take_place(here, step_id, closes=closes)
    if place is None:
        return True
    value = Entry(WRITE, (run.workflow_id, key, place, text, serialization, step_id, run.owner))
    (written,) = await _put(here, run, key, value)
    if written:
        return True
    check_standing(run, await here.read(lambda conn: conn.first(STANDING, workflow_id=run.workflow_id, step_id=0)))
    found: Row | None = await here.read(
        lambda conn: conn.first(AT, workflow_id=run.workflow_id, key=key, position=place)
    )
    if found is not None and (found.function_id, found.value) == (step_id, text):
        return True  # ours after all: the first answer was lost
    _forget(run, key)
    return False


async def _put(here: Here, run: Run, key: str, *entries: Entry) -> tuple[bool, ...]:
    try:
        return await here.put(*entries, rings=[stream_of(run.workflow_id, key)])
    except Exception:
        _forget(run, key)  # its place stays empty
        raise


def _forget(run: Run, key: str) -> None:
    """See next time what is in the database: it is not what this run took it for."""
    run.is_recovered = True
    run.notes.pop((WRITE_NAME, key), None)
