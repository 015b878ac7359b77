"""The scheduler: one thread of a runtime that waits for the next moment of all schedules.

Every process has one and all of them fire: the workflow's id is made from the moment, so nobody has to be chosen and
nobody spreads the moments. It sleeps until the earliest moment, or until a schedule is changed by anybody.

What was due while nobody watched is skipped; a schedule with `automatic_backfill` makes up for it. What became due
while this process was held up (by a busy database, or a laptop that slept) still fires: each moment of the last
minute, and of what is older the latest.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from dbos._engine.dispatch import REGISTERED
from dbos._engine.row import Order, row_of
from dbos._engine.schedule import ACTIVE, CHANGED, Schedule, fingerprint, firing, read_schedules
from dbos._kernel.bell import queued
from dbos._kernel.cron import EPOCH, Cron
from dbos._kernel.job import Put, Tx
from dbos._kernel.model import INTERNAL_QUEUE
from dbos._kernel.plan import perform
from dbos._kernel.service import Service
from dbos._kernel.statement import statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.sql.expression import Executable

    from dbos._engine.registry import Scheduled
    from dbos._engine.runtime import Runtime
    from dbos._kernel.bell import Channel
    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn

logger = logging.getLogger("dbos")

# So many moments fire in one transaction.
BATCH = 100
# A moment that is no older fires although a later one has come.
LATE = timedelta(seconds=60)
# After an error a schedule is tried again so much later.
PAUSE = timedelta(seconds=5)
INSTANT = timedelta(microseconds=1)
# Rung when a version of the application is listed, or made the latest.
VERSIONS = ("version", "")


def moment_of(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


def ms_of(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


@statement
def LISTED(t: Tables) -> Executable:
    """All versions of the application."""
    return select(t.versions.c.version_name)


def due(cron: Cron, since: datetime, now: datetime, *, keeps_all: bool) -> list[datetime]:
    """The moments after `since`, up to `now`, that are to fire now: the first of them, if they are very many."""
    moments: list[datetime] = []
    start = since if keeps_all else max(since, now - LATE)
    for moment in cron.between(start, now + INSTANT):
        moments.append(moment)
        if keeps_all and len(moments) == BATCH:
            break
    if moments or keeps_all:
        return moments
    # The latest of those that are older: looked for backwards, because they may be millions.
    width = LATE
    while start > since:
        end, width = start + INSTANT, width * 4
        start = max(since, now - width)
        moments = list(cron.between(start, end))
        if moments:
            return moments[-1:]
    return []


class Watch(ABC):
    """Something that fires by the clock, and how far it has."""

    keeps_all = False

    def __init__(self, name: str, cron: Cron, since: datetime) -> None:
        self.name, self.cron, self.since = name, cron, since
        self.next = cron.after(since)
        self.failed = False

    @abstractmethod
    def place(self, moments: list[datetime], now: datetime) -> Sequence[Channel] | None:
        """Make the workflows for these moments and say what is to be rung; None: look again what is due."""

    def fire(self, now: datetime) -> Sequence[Channel]:
        """Fire for what is due."""
        if self.next is None or self.next > now:
            return ()
        moments = due(self.cron, self.since, now, keeps_all=self.keeps_all)
        rings = self.place(moments, now) if moments else ()
        self.failed = False
        if rings is None:
            return ()
        # A full batch may have left some over.
        self.pass_over(moments[-1] if len(moments) == BATCH and self.keeps_all else now)
        return rings

    def pass_over(self, until: datetime) -> None:
        """What is due up to then has fired, here or elsewhere, or does not."""
        if until > self.since:
            self.since = until
            self.next = self.cron.after(until)


class StoredWatch(Watch):
    """A schedule of the database."""

    def __init__(self, runtime: Runtime, schedule: Schedule, since: datetime) -> None:
        super().__init__(schedule.schedule_name, schedule.cron(), since)
        self.runtime, self.schedule = runtime, schedule

    def place(self, moments: list[datetime], now: datetime) -> Sequence[Channel] | None:
        is_as_seen = perform(Tx(self.runtime.store.lane, firing(self.runtime, self.schedule, moments)))
        return [queued(self.schedule.queue)] if is_as_seen else None


class CodeWatch(Watch):
    """A function that is scheduled in the code."""

    def __init__(self, runtime: Runtime, name: str, scheduled: Scheduled, since: datetime) -> None:
        super().__init__(name, scheduled.cron, since)
        self.runtime, self.scheduled = runtime, scheduled

    def place(self, moments: list[datetime], now: datetime) -> Sequence[Channel]:
        spec, class_name = self.runtime.registry.place_of(self.scheduled.fn)
        entries = [
            row_of(
                self.runtime,
                Order(
                    name=spec.name,
                    class_name=class_name,
                    queue=INTERNAL_QUEUE,
                    args=(moment, now),
                    # It runs the code that schedules it, whatever version is the latest.
                    app_version=self.runtime.app_version,
                ),
                f"sched-{self.name}-{moment.isoformat()}",
            ).entry
            for moment in moments
        ]
        perform(Put(self.runtime.store.lane, tuple(entries)))
        return [queued(INTERNAL_QUEUE)]


class Scheduler(Service):
    """Fires what is due."""

    name = "scheduler"

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bell, runtime.clock)
        self.runtime = runtime
        self._stored: dict[str, StoredWatch] = {}
        self._coded: dict[str, CodeWatch] = {}
        self._seen = "nothing yet"
        #: When the schedules were read last; before the first time, the launch.
        self._looked_at = moment_of(runtime.clock.now_ms())
        self._pauses: dict[Watch, datetime] = {}
        self._refused: set[tuple[str, ...]] = set()

    def channels(self) -> Sequence[Channel]:
        return [CHANGED, (CHANGED[0], self._seen), VERSIONS, REGISTERED]

    def tick(self) -> int | None:
        begun = moment_of(self.clock.now_ms())
        schedules, versions = self.runtime.store.read(_read)
        now = moment_of(self.clock.now_ms())
        self._watch_functions(now)
        self._watch_schedules(schedules, versions, now)
        self._looked_at = begun
        moments = [self._fire(watch, now) for watch in (*self._coded.values(), *self._stored.values())]
        return min((ms_of(moment) for moment in moments if moment is not None), default=None)

    def _fire(self, watch: Watch, now: datetime) -> datetime | None:
        """Let one fire; say when it is due again."""
        paused = self._pauses.pop(watch, now)
        if paused > now:
            self._pauses[watch] = paused
            return paused
        try:
            self.bell.ring(watch.fire(now))
        except Exception as error:
            if self._stopping:
                raise
            if not watch.failed:
                logger.warning("Schedule %s cannot fire and tries again: %r", watch.name, error, exc_info=True)
            watch.failed = True
            self._pauses[watch] = now + PAUSE
            return now + PAUSE
        return watch.next

    # -- what is watched ---------------------------------------------------------------------------------------

    def _watch_functions(self, now: datetime) -> None:
        known = {} if self.runtime.is_deactivated else self.runtime.registry.scheduled
        for name, scheduled in list(known.items()):
            watch = self._coded.get(name)
            if watch is None or watch.scheduled is not scheduled:
                self._coded[name] = CodeWatch(self.runtime, name, scheduled, now)
        for name in set(self._coded) - set(known):
            del self._coded[name]

    def _watch_schedules(self, schedules: list[Schedule], versions: set[str], now: datetime) -> None:
        self._seen = fingerprint(schedules)
        if self.runtime.app_version not in versions:
            self._stored.clear()  # in the midst of a launch: what fires now would be for the version before ours
            return
        active = {each.schedule_id: each for each in schedules if each.status == ACTIVE}
        for gone in set(self._stored) - set(active):
            del self._stored[gone]
        for schedule_id, schedule in active.items():
            watch = self._stored.get(schedule_id)
            if watch is None or watch.schedule.timing != schedule.timing:
                watch = self._begin(schedule, now)
                if watch is None:
                    continue
                self._stored[schedule_id] = watch
            watch.schedule = schedule
            watch.keeps_all = schedule.automatic_backfill
            if schedule.fired is not None:
                watch.pass_over(schedule.fired)

    def _begin(self, schedule: Schedule, now: datetime) -> StoredWatch | None:
        """Watch a schedule that is new here, or fires at other times from now on."""
        origin = None if schedule.counts_from is None else moment_of(schedule.counts_from)
        if schedule.automatic_backfill:
            since = max((each for each in (origin, schedule.fired) if each is not None), default=now)
        else:
            since = now if origin is None else max(origin, self._looked_at)
        try:
            return StoredWatch(self.runtime, schedule, since)
        except ValueError as error:  # another program made it
            reason = (schedule.schedule_id, str(error))
            if reason not in self._refused:
                self._refused.add(reason)
                logger.warning("Schedule %s cannot be followed: %s", schedule.schedule_name, error)
            self._stored.pop(schedule.schedule_id, None)
            return None


def _read(conn: Conn) -> tuple[list[Schedule], set[str]]:
    return read_schedules(conn), {row.version_name for row in conn.run(LISTED)}
