"""Retention: what is old enough is forgotten, and what should have ended long ago is cancelled.

Nothing is ever deleted that has not ended: each batch says so again in the transaction that deletes it, because a
workflow may be resumed while we look. A batch is one small transaction, so work never waits for the tidying; whoever
is killed in the midst of it leaves whole workflows, and the next call goes on where it stopped.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import BigInteger, Integer, Text, and_, bindparam, func, or_, select

from dbos._engine.many import cancel, remove_ended
from dbos._engine.transaction import Forget, application_apart, databases_apart
from dbos._kernel.journal import step_op
from dbos._kernel.model import TERMINAL, UNFINISHED
from dbos._kernel.scope import Here
from dbos._kernel.statement import one_of, statement
from dbos._kernel.store import Blocking

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn, Row

# So many go in one transaction: a few milliseconds. After it work has its turn, for as long as the transaction took.
BATCH = 20
LONGEST_PAUSE_SECONDS = 0.1

CUTOFF: Any = bindparam("cutoff", type_=BigInteger())
MOST: Any = bindparam("most", type_=Integer())


class _Place(NamedTuple):
    """How far we are, in the order of creation."""

    created_at: int
    workflow_id: str


START = _Place(-1, "")


def _next(t: Tables, statuses: frozenset[str]) -> Executable:
    """The next workflows in one of these statuses that were created before the cutoff."""
    c = t.status.c
    at, last = bindparam("at", type_=BigInteger()), bindparam("last", type_=Text())
    # The first condition says what the index understands; the second is exact.
    behind = and_(c.created_at >= at, or_(c.created_at > at, c.workflow_uuid > last))
    return (
        select(c.workflow_uuid, c.created_at)
        .where(c.created_at < CUTOFF, behind, one_of(c.status, statuses))
        .order_by(c.created_at, c.workflow_uuid)
        .limit(MOST)
    )


@statement
def NEXT_ENDED(t: Tables) -> Executable:
    return _next(t, TERMINAL)


@statement
def NEXT_UNFINISHED(t: Tables) -> Executable:
    return _next(t, UNFINISHED)


@statement
def COUNT_ENDED(t: Tables) -> Executable:
    c = t.status.c
    return select(func.count().label("number")).where(c.created_at < CUTOFF, one_of(c.status, TERMINAL))


@statement
def NTH_NEWEST(t: Tables) -> Executable:
    """When the workflow was created that is so far from the newest one."""
    c = t.status.c
    return select(c.created_at).order_by(c.created_at.desc()).limit(1).offset(bindparam("place", type_=Integer()))


@statement
def STILL_THERE(t: Tables) -> Executable:
    c = t.status.c
    return select(c.workflow_uuid).where(t.dialect.among(c.workflow_uuid, "workflow_ids"))


async def _cutoff(here: Here, cutoff_ms: int | None, rows: int | None) -> int | None:
    """Before which moment workflows are to go; None: there is nothing to forget."""
    for name, value in (("cutoff_epoch_timestamp_ms", cutoff_ms), ("rows_threshold", rows)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ValueError(f"{name} must be a whole number that is not negative, not {value!r}")
    found = [] if cutoff_ms is None else [cutoff_ms]
    if rows == 0:
        found.append(here.ground.clock.now_ms())
    elif rows is not None:
        oldest_kept = await here.read(lambda conn: conn.first(NTH_NEWEST, place=rows - 1))
        if oldest_kept is not None:
            found.append(oldest_kept.created_at)
    return max(found, default=None)


@step_op("DBOS.garbageCollect")
async def garbage_collect(
    here: Here,
    *,
    cutoff_epoch_timestamp_ms: int | None = None,
    rows_threshold: int | None = None,
    dry_run: bool = False,
) -> int:
    """Forget workflows that have ended and are old, with everything they own; return how many. It cannot be undone.

    They go if they were created before the cutoff; `rows_threshold` puts the cutoff before that many of the newest
    workflows, and of two cutoffs the later one counts. Without either nothing is done. What waits or runs stays,
    however old it is. Records of transactions in an application database go with their workflows, and also those that
    belong to none any more. `dry_run` only counts.
    """
    cutoff = await _cutoff(here, cutoff_epoch_timestamp_ms, rows_threshold)
    if cutoff is None:
        return 0
    if dry_run:
        (row,) = await here.read(lambda conn: conn.run(COUNT_ENDED, cutoff=cutoff))
        return int(row.number)
    begun_ms = here.ground.clock.now_ms()
    databases = databases_apart(here.ground)
    removed, place = 0, START
    while True:
        rows = await _batch(here, NEXT_ENDED, cutoff, place)
        if not rows:
            break
        place = _Place(rows[-1].created_at, rows[-1].workflow_uuid)
        ids = [row.workflow_uuid for row in rows]
        begun = here.ground.clock.patience()
        for each in databases:  # first, for later nobody would know what to delete
            await Forget(here, each, ids)
        removed += len(await here.tx(partial(remove_ended, workflow_ids=ids)))
        await _give_way(here, begun)
    await _sweep(here, min(cutoff, begun_ms))
    return removed


async def _give_way(here: Here, begun: float) -> None:
    """Do nothing for as long as has been done something since that moment."""
    clock = here.ground.clock
    pause = min(clock.patience() - begun, LONGEST_PAUSE_SECONDS)
    await Blocking(here.ground.store, partial(clock.pause, pause))


async def _batch(here: Here, wanted: Any, cutoff: int, place: _Place) -> list[Row]:
    given = {"cutoff": cutoff, "at": place.created_at, "last": place.workflow_id, "most": BATCH}
    rows: list[Row] = await here.read(lambda conn: conn.run(wanted, **given))
    return rows


async def _sweep(here: Here, before_ms: int) -> None:
    """Forget what an application database recorded, before that moment, of workflows that are not there any more."""

    def known(conn: Conn, ids: list[str]) -> set[str]:
        return {row.workflow_uuid for row in conn.run(STILL_THERE, workflow_ids=ids)}

    application = application_apart(here.ground)
    if application is None:
        return
    after = ""
    while True:
        ids = await Blocking(here.ground.store, partial(application.recorded_ids, after, before_ms))
        if not ids:
            return
        after = ids[-1]
        there = await here.read(partial(known, ids=ids))
        gone = [each for each in ids if each not in there]
        # Only what is so old: meanwhile a workflow may have begun under an id that was free.
        await Blocking(here.ground.store, partial(application.forget, gone, 0, before_ms))


@step_op("DBOS.globalTimeout")
async def global_timeout(here: Here, cutoff_epoch_timestamp_ms: int) -> int:
    """Cancel every workflow that was created before a moment and has not ended; return how many.

    Those that wait on a queue or for their delay are among them.
    """
    cutoff = await _cutoff(here, cutoff_epoch_timestamp_ms, None)
    assert cutoff is not None
    cancelled, place = 0, START
    while True:
        rows = await _batch(here, NEXT_UNFINISHED, cutoff, place)
        if not rows:
            return cancelled
        place = _Place(rows[-1].created_at, rows[-1].workflow_uuid)
        begun = here.ground.clock.patience()
        cancelled += len(await cancel(here, [row.workflow_uuid for row in rows], cancel_children=False))
        await _give_way(here, begun)
