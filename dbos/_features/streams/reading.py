"""Reading streams, from anywhere: fetch many values at a time, hand them out one by one, wait at the bell.

A reader hands out what is next and nothing beyond a gap, since a later value may be committed first; when the
workflow has ended nobody fills a gap any more.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Integer, Text, bindparam, exists, literal_column, select, true

from dbos._features.streams.mark import CLOSED, KEY, LAST, MARKS, POSITION, WORKFLOW, stream_of
from dbos._kernel.bell import done
from dbos._kernel.journal import (
    commit,
    ensure_running,
    record,
    record_error,
    record_value,
    refuse_in_transaction,
    replay,
    reread,
)
from dbos._kernel.model import UNFINISHED
from dbos._kernel.naming import checked_id
from dbos._kernel.plan import arun, op
from dbos._kernel.plan import run as run_plan
from dbos._kernel.scope import Here
from dbos._kernel.slot import Slot
from dbos._kernel.statement import statement
from dbos._kernel.waiting import checked_timeout, wait_until
from dbos.error import DBOSNonExistentWorkflowError, DBOSStreamNondeterminismError, DBOSStreamTimeoutError

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.bell import Channel
    from dbos._kernel.model import Recorded
    from dbos._kernel.schema import Tables
    from dbos._kernel.scope import Run
    from dbos._kernel.statement import Conn, Row

READ_NAME, READ_OFFSET_NAME = "DBOS.readStream", "DBOS.readStreamOffset"
# A reader fetches a few values first, then more at a time, up to so many or about so much text.
FIRST_FETCH, LARGEST_FETCH, LARGEST_TEXT = 16, 1_000, 1_000_000
SHORTEST_POLLING_SECONDS = 0.001

Place = Callable[[], Awaitable[Here]]


def value_at(workflow_id: str, key: str, offset: int) -> Channel:
    """Rung when a look at the database finds that value."""
    return ("stream_at", json.dumps([workflow_id, key, offset], ensure_ascii=False))


@statement
def AHEAD(t: Tables) -> Executable:
    """The next values of a stream beside the status of its workflow: seen at one moment, so none is overlooked."""
    c = t.streams.c
    values = (
        select(c.offset, c.value, c.serialization)
        .where(c.workflow_uuid == WORKFLOW, c.key == KEY, c.offset >= POSITION)
        .order_by(c.offset)
        .limit(bindparam("most", type_=Integer()))
        .subquery("ahead")
    )
    return (
        select(t.status.c.status, values.c.offset, values.c.value, values.c.serialization)
        .select_from(t.status.outerjoin(values, true()))
        .where(t.status.c.workflow_uuid == WORKFLOW)
        .order_by(values.c.offset)
    )


@statement
def WRITTEN(t: Tables) -> Executable:
    """Which of these values are there."""
    c = t.streams.c
    given = t.dialect.rows({"workflow_id": Text(), "stream_key": Text(), "place": BigInteger()}, many=True)
    found: Select[Any] = select(literal_column("1")).where(
        c.workflow_uuid == given.c.workflow_id, c.key == given.c.stream_key, c.offset >= given.c.place
    )
    return select(given.c.workflow_id, given.c.stream_key, given.c.place).where(exists(found))


def look_for_values(conn: Conn, keys: list[str]) -> list[str]:
    """The awaited values that are there."""
    wanted = json.dumps([json.loads(key) for key in keys], ensure_ascii=False)
    return [value_at(row.workflow_id, row.stream_key, row.place)[1] for row in conn.run(WRITTEN, rows=wanted)]


# -- one reader -------------------------------------------------------------------------------------------------


class Reading:
    """One reader's way through a stream: where it is, and what it has fetched and not handed out."""

    def __init__(
        self,
        workflow_id: str,
        key: str,
        offset: int = 0,
        timeout_seconds: float | None = None,
        polling_interval_sec: float | None = None,
    ) -> None:
        self.workflow_id = checked_id(workflow_id, "A workflow ID")
        self.key = checked_id(key, "The key of a stream")
        if isinstance(offset, bool) or not isinstance(offset, int) or offset < 0:
            raise ValueError(f"offset must be a whole number and must not be negative, but is {offset!r}")
        if polling_interval_sec is not None and not (
            polling_interval_sec >= SHORTEST_POLLING_SECONDS and math.isfinite(polling_interval_sec)
        ):
            raise ValueError(
                f"polling_interval_sec must be a finite number of at least {SHORTEST_POLLING_SECONDS} seconds, "
                f"but is {polling_interval_sec}"
            )
        self.timeout_seconds = None if timeout_seconds is None else checked_timeout(timeout_seconds)
        self.offset = offset
        self.is_over = False
        self._begins_at = offset
        self._ahead: deque[Row] = deque()
        self._most = FIRST_FETCH

    async def fetch(self, here: Here) -> Row | None:
        """The next value as it is stored, waiting for it. None: there are no more."""
        if not self._ahead and not self.is_over:
            await self._wait(here)
        if not self._ahead:
            return None
        found = self._ahead.popleft()
        self.offset = found.offset + 1
        return found

    @property
    def slot(self) -> Slot:
        """That of the values in the stream."""
        return Slot.stream(self.workflow_id, self.key)

    @property
    def what(self) -> str:
        """The value that was fetched last, in words."""
        return f"The value at offset {self.offset - 1} of stream {self.key!r}"

    def opened(self, here: Here, found: Row) -> Any:
        """The value that was fetched last."""
        return here.ground.codec.read(found.value, found.serialization, self.slot, self.what)

    async def _wait(self, here: Here) -> None:
        until_ms = None
        if self.timeout_seconds is not None:
            until_ms = here.ground.clock.now_ms() + int(self.timeout_seconds * 1000)

        async def look() -> bool | None:
            return await here.read(self._look) or None

        channels = (
            stream_of(self.workflow_id, self.key),
            value_at(self.workflow_id, self.key, self.offset),
            done(self.workflow_id),
        )
        if not await wait_until(here, look, *channels, until_ms=until_ms):
            raise DBOSStreamTimeoutError(self.workflow_id, self.key, self.timeout_seconds)

    def _look(self, conn: Conn) -> bool:
        """Fetch what there is; say whether that settles what is next."""
        where = {"workflow_id": self.workflow_id, "key": self.key}
        rows = conn.run(AHEAD, **where, position=self.offset, most=self._most)
        if not rows:
            raise DBOSNonExistentWorkflowError("target", self.workflow_id)
        has_ended = rows[0].status not in UNFINISHED
        values = rows if rows[0].offset is not None else []
        self._ahead.clear()
        for place, row in enumerate(values, self.offset):
            if row.offset != place and not has_ended:
                return place > self.offset
            if row.value in MARKS:
                self.is_over = True
                return True
            self._ahead.append(row)
        if values:
            self._adapt(sum(len(row.value) for row in values))
            return True
        # Who begins behind the end of a closed stream waits for nothing.
        if has_ended or (self.offset == self._begins_at > 0 and _is_closed(conn.first(LAST, **where))):
            self.is_over = True
        return self.is_over

    def _adapt(self, size: int) -> None:
        """Fetch more next time, if it is not too much text."""
        fitting = self._most * LARGEST_TEXT // max(size, 1)
        self._most = max(1, min(self._most * 4, fitting, LARGEST_FETCH))


def _is_closed(last: Row | None) -> bool:
    return last is not None and last.value in MARKS


END = object()


async def next_value(here: Here, reading: Reading) -> Any:
    """The next value of a stream, or END. A recorded step in a workflow."""
    refuse_in_transaction(here, READ_NAME)
    if here.in_body:
        return await _next_as_step(here, reading)
    found = await reading.fetch(here)
    return END if found is None else reading.opened(here, found)


async def _next_as_step(here: Here, reading: Reading) -> Any:
    run = here.run
    assert run is not None
    me = object()
    if run.notes.setdefault(READ_NAME, me) is not me:
        raise DBOSStreamNondeterminismError(run.workflow_id)
    try:
        step_id = run.next_step()
        known = replay(run, step_id, READ_NAME)
        if known is not None:
            value = _replayed(run, reading, known)
            return END if isinstance(value, str) and value == CLOSED else value
        await ensure_running(run)
        started_ms = here.ground.clock.now_ms()
        try:
            found = await reading.fetch(here)
        except Exception as error:
            await record_error(here, step_id, READ_NAME, error, started_ms)
            raise
        if found is None:
            await record_value(here, step_id, READ_NAME, CLOSED, started_ms)
            return END
        return await _record_found(here, run, reading, step_id, READ_NAME, found, started_ms)
    finally:
        del run.notes[READ_NAME]


def _replayed(run: Run, reading: Reading, known: Recorded) -> Any:
    if known.error is None:
        reading.offset += 1
    return reread(run, known, reading.what)


async def _record_found(
    here: Here, run: Run, reading: Reading, step_id: int, name: str, found: Row, started_ms: int
) -> Any:
    """Record the value that was fetched, and open it."""
    slot, serialization = Slot.step_output(run.workflow_id, step_id), found.serialization
    text = here.ground.codec.copied(found.value, serialization, reading.slot, slot)
    await commit(here, record(run, step_id, name, output=text, serialization=serialization, started_ms=started_ms))
    return reading.opened(here, found)


def values(place: Place, reading: Reading) -> Generator[Any, None, None]:
    """The values of a stream, for sync code; `place` says where each of them is asked for."""

    async def following() -> Any:
        return await next_value(await place(), reading)

    while (value := run_plan(following())) is not END:
        yield value


async def values_async(place: Place, reading: Reading) -> AsyncGenerator[Any, None]:
    """The same for async code."""

    async def following() -> Any:
        return await next_value(await place(), reading)

    while (value := await arun(following())) is not END:
        yield value


@op(READ_OFFSET_NAME)
async def read_stream_offset(
    here: Here,
    workflow_id: str,
    key: str,
    offset: int,
    *,
    timeout_seconds: float | None = None,
    polling_interval_sec: float | None = None,
) -> Any:
    """Return the value of a stream at an offset, waiting for it. A recorded step in a workflow.

    Raises DBOSStreamTimeoutError when it does not come in time, or the stream ends before it. Nothing is polled,
    whatever the interval.
    """
    refuse_in_transaction(here, READ_OFFSET_NAME)
    reading = Reading(workflow_id, key, offset, timeout_seconds, polling_interval_sec)
    if not here.in_body:
        found = await _fetch_one(here, reading)
        return reading.opened(here, found)
    run = here.run
    assert run is not None
    step_id = run.next_step()
    known = replay(run, step_id, READ_OFFSET_NAME)
    if known is not None:
        return _replayed(run, reading, known)
    await ensure_running(run)
    started_ms = here.ground.clock.now_ms()
    try:
        found = await _fetch_one(here, reading)
    except Exception as error:
        await record_error(here, step_id, READ_OFFSET_NAME, error, started_ms)
        raise
    return await _record_found(here, run, reading, step_id, READ_OFFSET_NAME, found, started_ms)


async def _fetch_one(here: Here, reading: Reading) -> Row:
    wanted = reading.offset
    found = await reading.fetch(here)
    if found is None or found.offset != wanted:
        raise DBOSStreamTimeoutError(reading.workflow_id, reading.key)
    return found
