"""Claiming within limits: how many workflows of a queue may start now is counted in the transaction that takes them.

Claims on one queue take turns over all processes, so what was counted is still true when it is used. What runs
is every PENDING row of the queue, whoever owns it; what runs here is what this process runs. Starts are written
down apart from the rows (`notebook_starts`), because a recovered workflow forgets its start and the limit must
not; they never go backwards in time, so no stretch of a period holds more of them than the rate allows.

Partitions are served in a circle, each in turn a fair share of what may start: none waits for ever behind
another, however much that one has waiting. What another program put on the queue without a key is a partition
of its own, and has its turn when nothing with a key waits: no index could find it among those.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import BigInteger, Integer, Text, bindparam, delete, func, insert, select

from dbos._engine.queue import UNBOUNDED, Limits, Rate
from dbos._kernel.model import ENQUEUED, PENDING
from dbos._kernel.statement import has_status, statement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.sql.expression import Executable

    from dbos._engine.queue import QueueSpec
    from dbos._kernel.clock import Clock
    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn, Row

# So many partitions are looked at together.
PAGE = 100
# Stands for no key at all, in counts and in what is noted.
KEYLESS = ""

QUEUE: Any = bindparam("queue", type_=Text())
NOW: Any = bindparam("now", type_=BigInteger())


@statement
def RUNNING(t: Tables) -> Executable:
    """How many workflows of a queue run, by partition."""
    c = t.status.c
    numbers = select(c.queue_partition_key.label("partition"), func.count().label("number"))
    return numbers.where(c.queue_name == QUEUE, has_status(t, PENDING)).group_by(c.queue_partition_key)


@statement
def STARTS(t: Tables) -> Executable:
    """What was started lately, the earliest first."""
    c = t.starts.c
    columns = (c.queue_partition_key.label("partition"), c.started_at, c.number)
    lately = c.started_at > bindparam("since", type_=BigInteger())
    return select(*columns).where(c.queue_name == QUEUE, lately).order_by(c.started_at)


@statement
def FORGET_STARTS(t: Tables) -> Executable:
    c = t.starts.c
    return delete(t.starts).where(c.queue_name == QUEUE, c.started_at <= bindparam("since", type_=BigInteger()))


@statement
def NOTE_STARTS(t: Tables) -> Executable:
    values = {
        "queue_name": QUEUE,
        "queue_partition_key": bindparam("partition", type_=Text()),
        "started_at": NOW,
        "number": bindparam("number", type_=Integer()),
    }
    return insert(t.starts).values(values)


@statement
def PARTITIONS(t: Tables) -> Executable:
    """The partitions that have something waiting, after a given one: each is found by one look at the index."""
    c = t.status.c
    waiting = (c.queue_name == QUEUE, has_status(t, ENQUEUED))
    first = select(func.min(c.queue_partition_key).label("partition")).where(
        *waiting, c.queue_partition_key > bindparam("after", type_=Text())
    )
    keys = first.cte("keys", recursive=True)
    following = (
        select(func.min(c.queue_partition_key))
        .where(*waiting, c.queue_partition_key > keys.c.partition)
        .scalar_subquery()
    )
    keys = keys.union_all(select(following).where(keys.c.partition.isnot(None)))
    found = select(keys.c.partition).where(keys.c.partition.isnot(None))
    return found.limit(bindparam("page", type_=Integer()))


class Taken(NamedTuple):
    """What was taken, and how to go on."""

    rows: list[Row]
    #: When a rate lets the next one start, if that is what holds them back.
    due_ms: int | None = None
    #: The last partition that was served.
    partition: str = ""


# Takes so many workflows, at a moment, of a partition if one is named; of those without a key for `KEYLESS`.
Take = Callable[[int, int, "str | None"], "list[Row]"]


class Flow:
    """One claim: what runs, what was started, and what may be."""

    def __init__(self, conn: Conn, spec: QueueSpec, mine: Counter[str], clock: Clock, take: Take) -> None:
        self.conn, self.spec, self.mine, self.take = conn, spec, mine, take
        conn.dialect.take_turns(conn, f"dbos queue {conn.tables.schema} {spec.name}")
        self.running = Counter({row.partition or KEYLESS: row.number for row in conn.run(RUNNING, queue=spec.name)})
        now_ms = clock.now_ms()  # after the count: what is not in it had ended before
        self.since_ms = now_ms - spec.longest_period_ms
        starts = conn.run(STARTS, queue=spec.name, since=self.since_ms) if spec.longest_period_ms else []
        # Processes whose clocks disagree by a little still start one after the other.
        self.now_ms = max([now_ms, *(row.started_at for row in starts)])
        self.starts: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for row in starts:
            self.starts[row.partition or KEYLESS].append((row.started_at, row.number))

    def claim(self, most: int, after: str) -> Taken:
        """Take what may start, at most so many; of partitions, those after the given one first."""
        whole = self._allowance(self.spec.whole, KEYLESS)
        most = min(most, whole)
        if self.spec.each is None:
            rows = self.take(most, self.now_ms, None) if most else []
            return Taken(self._noted(rows), self._due([(self.spec.whole, KEYLESS)]))
        rows, last = self._around(most, after, self.spec.each)
        limits = [(self.spec.whole, KEYLESS), *((self.spec.each, partition) for partition in self.starts)]
        return Taken(self._noted(rows), self._due(limits), last)

    def _around(self, most: int, after: str, each: Limits) -> tuple[list[Row], str]:
        """Once around the circle of partitions, or until enough is taken."""
        rows: list[Row] = []
        last = after
        nothing_waits = True
        for beyond, until in ((after, None), ("", after)):
            start: str | None = beyond
            while start is not None and len(rows) < most:
                page = self._page(start, until)
                nothing_waits = nothing_waits and not page
                share = max(1, (most - len(rows)) // max(1, len(page)))
                for partition in page:
                    number = min(share, most - len(rows), self._allowance(each, partition))
                    if number > 0:
                        rows += self._take_of(partition, number)
                        last = partition
                start = page[-1] if len(page) == PAGE else None
        if nothing_waits and (number := min(most, self._allowance(each, KEYLESS))) > 0:
            rows = self._take_of(KEYLESS, number)
        return rows, last

    def _page(self, after: str, until: str | None) -> list[str]:
        found = self.conn.run(PARTITIONS, queue=self.spec.name, after=after, page=PAGE)
        return [row.partition for row in found if until is None or row.partition <= until]

    def _take_of(self, partition: str, number: int) -> list[Row]:
        rows = self.take(number, self.now_ms, partition)
        self.running[partition] += len(rows)
        self.mine[partition] += len(rows)
        if rows:
            self.starts[partition].append((self.now_ms, len(rows)))
        return rows

    # -- counting ----------------------------------------------------------------------------------------------

    def _allowance(self, limits: Limits, partition: str) -> int:
        if not limits:
            return UNBOUNDED
        if limits is self.spec.each:
            running, mine = self.running[partition], self.mine[partition]
        else:
            running, mine = self.running.total(), self.mine.total()
        return limits.allowance(running, mine, sum(number for _, number in self._lately(limits, partition)))

    def _lately(self, limits: Limits, partition: str) -> list[tuple[int, int]]:
        """The starts that count now, the earliest first."""
        if limits.rate is None:
            return []
        since = self.now_ms - limits.rate.period_ms
        if limits is self.spec.each:
            starts: Iterable[tuple[int, int]] = self.starts.get(partition, ())
        else:
            starts = sorted(each for some in self.starts.values() for each in some)
        return [each for each in starts if each[0] > since]

    def _due(self, limits: list[tuple[Limits, str]]) -> int | None:
        """When the first of these rates that are used up lets another one start."""
        moments = [_free_at(each.rate, self._lately(each, partition)) for each, partition in limits if each.rate]
        return min((moment for moment in moments if moment is not None), default=None)

    def _noted(self, rows: list[Row]) -> list[Row]:
        if rows and self.spec.longest_period_ms:
            self.conn.run(FORGET_STARTS, queue=self.spec.name, since=self.since_ms)
            for partition, number in Counter(row.queue_partition_key or KEYLESS for row in rows).items():
                self.conn.run(NOTE_STARTS, queue=self.spec.name, partition=partition, now=self.now_ms, number=number)
            if self.spec.each is None:
                self.starts[KEYLESS].append((self.now_ms, len(rows)))
        return rows


def _free_at(rate: Rate, lately: list[tuple[int, int]]) -> int | None:
    """When a rate that is used up allows the next start; None: it is not used up."""
    started = sum(number for _, number in lately)
    for moment, number in lately:
        if started < rate.limit:
            return None
        started -= number
        if started < rate.limit:
            return moment + rate.period_ms
    return None
