"""The dispatcher: takes what waits on the queues this process serves, and runs it.

It sleeps until something is enqueued, a delay ends or code is registered, and claims in batches. It does not
take more than this process can begin: runs that merely wait (for a message, a child, a moment) do not count, so
parents that wait for their children never keep those from being claimed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbos._engine.claim import claim_work
from dbos._engine.runtime import ROOM
from dbos._engine.transitions import NEXT_DELAY, PROMOTE
from dbos._engine.workflow import execute_claimed
from dbos._kernel.bell import done, queued
from dbos._kernel.lane import Tx
from dbos._kernel.model import INTERNAL_QUEUE
from dbos._kernel.plan import perform
from dbos._kernel.service import Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbos._engine.claim import Claimed
    from dbos._engine.runtime import Runtime
    from dbos._kernel.bell import Channel
    from dbos._kernel.statement import Conn

# So many are claimed by one statement.
BATCH = 100
# Rung when a function is registered.
REGISTERED = ("registered", "")
# Rung when the delay of a workflow is set.
DELAYED = ("delay", "")


class Dispatcher(Service):
    """Claims what is ready, and runs it."""

    name = "dispatcher"

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bell, runtime.clock)
        self.runtime = runtime
        #: The queues this process takes work from.
        self.queues: list[str] = [INTERNAL_QUEUE]

    def channels(self) -> Sequence[Channel]:
        return [REGISTERED, ROOM, DELAYED, *(queued(name) for name in self.queues)]

    def tick(self) -> int | None:
        due_ms = self.promote()
        for queue in self.queues:
            self.drain(queue)
        return due_ms

    def promote(self) -> int | None:
        """Make delayed workflows ready; say when the next one will be."""
        due_ms = self.runtime.store.read(_next_delay)
        if due_ms is None or due_ms > self.clock.now_ms():
            return due_ms

        def work(conn: Conn) -> tuple[set[str], int | None]:
            promoted = conn.run(PROMOTE, now=self.clock.now_ms())
            return {row.queue_name for row in promoted if row.queue_name}, _next_delay(conn)

        queues, due_ms = perform(Tx(self.runtime.store.lane, work))
        self.bell.ring([queued(name) for name in queues])
        return due_ms

    def drain(self, queue: str) -> None:
        """Take what waits on a queue while there is room for it."""
        while (room := self.runtime.room()) > 0:
            owner = self.runtime.new_owner()
            with self.runtime.new_rows(owner):
                work = claim_work(self.runtime, owner, queue, min(room, BATCH))
                claims = perform(Tx(self.runtime.store.lane, work))
                for each in claims.taken:
                    self.runtime.enter(each.run)
            self.bell.ring(map(done, claims.ended))
            for each in claims.taken:
                self.begin(each)
            if len(claims.taken) + len(claims.ended) < min(room, BATCH):
                return

    def begin(self, claimed: Claimed) -> None:
        runtime = self.runtime
        runtime.spawn(lambda: execute_claimed(runtime, claimed), is_async=claimed.spec.is_async, on_this_loop=False)


def _next_delay(conn: Conn) -> int | None:
    row = conn.first(NEXT_DELAY)
    return None if row is None else row.due
