"""The dispatcher: takes what waits on the queues this process serves, and runs it.

It sleeps until something is enqueued, room is made or code is registered, and claims in batches, one queue after
the other. It does not take more than this process can begin: runs that merely wait (for a message, a child, a
moment) do not count, so parents that wait for their children never keep those from being claimed.

A queue with a polling interval longer than the default is looked at so often and not when something is rung: that
is what whoever sets it asks for. Any other is looked at at once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, literal_column, or_, select

from dbos._engine.claim import claim_work
from dbos._engine.queue import RESERVED_PREFIX, UNBOUNDED
from dbos._engine.runtime import ROOM
from dbos._engine.transitions import FORGET_DEBOUNCES, GIVE_BACK, NEXT_DELAY, PROMOTE
from dbos._engine.workflow import execute_claimed
from dbos._kernel.bell import DELAYS, done, queued
from dbos._kernel.job import Short, Tx
from dbos._kernel.model import ENQUEUED
from dbos._kernel.plan import perform
from dbos._kernel.service import Service
from dbos._kernel.statement import has_status, statement
from dbos._kernel.store import Aside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.sql.expression import Executable

    from dbos._engine.claim import Claimed
    from dbos._engine.queue import QueueSpec
    from dbos._engine.runtime import Runtime
    from dbos._kernel.bell import Channel
    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn

logger = logging.getLogger("dbos")

# So many are claimed by one statement.
BATCH = 100
# So long after it took something the dispatcher lets more come.
GATHER_SECONDS = 0.002
# How long the database may take when claimed work is given back: longer, and it waits for the end of our lease.
GIVE_BACK_SECONDS = 5
# Rung when a function or a queue is registered.
REGISTERED = ("registered", "")


class Line:
    """A queue that is served here, and how far."""

    def __init__(self, spec: QueueSpec) -> None:
        self.spec = spec
        #: There may be something to take.
        self.is_rung = True
        #: When to look although nothing was rung.
        self.due_ms: int | None = None
        #: The partition that was served last.
        self.partition = ""
        self.has_warned = False


class Dispatcher(Service):
    """Claims what is ready, and runs it."""

    name = "dispatcher"

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bell, runtime.clock)
        self.runtime = runtime
        #: The names of the queues to serve besides the internal one; None: all there are.
        self.wanted: frozenset[str] | None = runtime.registry.listened
        self._lines: dict[str, Line] = {}
        self._find_lines()

    def channels(self) -> Sequence[Channel]:
        rung = [queued(line.spec.name) for line in self._lines.values() if line.spec.looks_every_ms is None]
        return [REGISTERED, ROOM, *rung]

    def tick(self) -> int | None:
        now_ms = self.clock.now_ms()
        for line in self._lines.values():
            if queued(line.spec.name) in self.heard or (line.due_ms is not None and line.due_ms <= now_ms):
                line.is_rung = True
        if (REGISTERED in self.heard or ROOM in self.heard) and self._find_lines():
            return now_ms  # once more, when we listen to the new ones: what is enqueued until then would be missed
        took = False
        # In turns, a batch of each: a long queue does not keep the others waiting.
        while rung := [line for line in self._lines.values() if line.is_rung]:
            for line in rung:
                if self.runtime.room() <= 0:
                    return None  # until some is made
                took = self._take_batch(line) or took
        if took:  # whoever enqueues one after the other has several taken together
            self.clock.pause(GATHER_SECONDS)
        return min((line.due_ms for line in self._lines.values() if line.due_ms is not None), default=None)

    def _find_lines(self) -> bool:
        """Serve the queues that are declared now; say whether there are new ones.

        Code that came meanwhile may be what waits on any of them.
        """
        known = set(self._lines)
        specs = self.runtime.queues()
        for name, spec in specs.items():
            if self.wanted is not None and name not in self.wanted and not name.startswith(RESERVED_PREFIX):
                continue  # those of the runtime's own are always served
            line = self._lines.setdefault(name, Line(spec))
            line.spec = spec
            line.is_rung = line.is_rung or spec.looks_every_ms is None
        for name in known - set(specs):
            del self._lines[name]
        return not known.issuperset(self._lines)

    def _take_batch(self, line: Line) -> bool:
        """Take one batch of what waits on a queue, and begin it; say whether there was any."""
        runtime, most = self.runtime, min(self.runtime.room(), BATCH)
        interval_ms = line.spec.looks_every_ms
        owner = runtime.new_owner()
        begun: list[str] = []
        try:
            with runtime.new_rows(owner):
                work = claim_work(runtime, owner, line.spec, most, line.partition)
                claims = perform(Aside(runtime.store, work, transacts=line.spec.is_limited))
            for each in claims.taken:
                self.begin(each)
                begun.append(each.run.workflow_id)
        except BaseException:
            self._give_back(owner, begun)
            raise
        line.partition = claims.partition
        line.due_ms = claims.due_ms if interval_ms is None else self.clock.now_ms() + interval_ms
        number = len(claims.taken) + len(claims.ended)
        # What was ended instead of begun has made room again.
        line.is_rung = number >= most or bool(claims.ended) or (number > 0 and line.spec.each is not None)
        self.bell.ring(map(done, claims.ended))
        if not number:
            self._warn_if_stuck(line)
        return number > 0

    def _give_back(self, owner: str, begun: list[str]) -> None:
        """Something struck between the claim and the beginning: what did not begin must not wait for our end."""
        for run in list(self.runtime.runs.values()):
            if run.owner == owner and run.workflow_id not in begun:
                self.runtime.leave(run)
        work = Tx(
            self.runtime.store.lane,
            lambda conn: conn.run(GIVE_BACK, owner=owner, begun=begun, now=self.clock.now_ms()),
            patience_seconds=GIVE_BACK_SECONDS,
        )
        try:
            perform(work)
        except BaseException as error:  # noqa: BLE001 - what struck is what counts
            logger.warning("Claimed workflows could not be given back: %r", error)

    def _warn_if_stuck(self, line: Line) -> None:
        """Parents that wait for children on their own queue hold the places that those need: nobody can help them."""
        runs = [
            run for run in list(self.runtime.runs.values()) if run.queue is not None and run.queue[0] == line.spec.name
        ]
        limits = (line.spec.whole.concurrency, line.spec.whole.worker_concurrency)
        places = min((limit for limit in limits if limit), default=UNBOUNDED)
        if line.has_warned or len(runs) < places or not all(run.is_waiting for run in runs) or not self._waits(line):
            return
        line.has_warned = True
        logger.warning(
            "Nothing can start from queue %s: all %d workflows that run from it here are waiting. If they wait for others "
            "on the same queue, they wait for ever: put those on a queue of their own.",
            line.spec.name,
            len(runs),
        )

    def _waits(self, line: Line) -> bool:
        query = {"queue": line.spec.name, "versions": self.runtime.versions()}
        return bool(self.runtime.store.read(lambda conn: conn.run(WAITING, **query)))

    def begin(self, claimed: Claimed) -> None:
        runtime = self.runtime
        runtime.spawn(lambda: execute_claimed(runtime, claimed), is_async=claimed.spec.is_async, on_this_loop=False)


class Promoter(Service):
    """Makes delayed workflows ready when their moment comes."""

    name = "promoter"

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bell, runtime.clock)
        self.runtime = runtime

    def channels(self) -> Sequence[Channel]:
        return [DELAYS]

    def tick(self) -> int | None:
        due_ms = self.runtime.store.read(_next_delay)
        if due_ms is None or due_ms > self.clock.now_ms():
            return due_ms

        def work(conn: Conn) -> tuple[set[str], int | None]:
            promoted = conn.run(PROMOTE, now=self.clock.now_ms())
            conn.run(FORGET_DEBOUNCES, workflow_ids=[row.workflow_uuid for row in promoted])
            return {row.queue_name for row in promoted if row.queue_name}, _next_delay(conn)

        queues, due_ms = perform(Short(self.runtime.store.lane, work))
        self.bell.ring([queued(name) for name in queues])
        return due_ms


def _next_delay(conn: Conn) -> int | None:
    row = conn.first(NEXT_DELAY)
    return None if row is None else row.due


# -- what is looked for ----------------------------------------------------------------------------------------


@statement
def WAITING(t: Tables) -> Executable:
    """Whether a queue has work for these versions."""
    c = t.status.c
    mine = or_(c.application_version.is_(None), t.dialect.among(c.application_version, "versions"))
    return select(literal_column("1")).where(c.queue_name == bindparam("queue"), has_status(t, ENQUEUED), mine).limit(1)


def looks(runtime: Runtime) -> dict[str, Callable[[Conn, list[str]], list[str]]]:
    """How to find, for those that wait here, what other processes have put on queues."""

    def look_for_queued(conn: Conn, queues: list[str]) -> list[str]:
        return [name for name in queues if conn.run(WAITING, queue=name, versions=runtime.versions())]

    def look_for_delayed(conn: Conn, _: list[str]) -> list[str]:
        return [""] if _next_delay(conn) is not None else []

    return {"queue": look_for_queued, "delay": look_for_delayed}
