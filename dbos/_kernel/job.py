"""What is to be written, and who waits for it: the jobs that the lane does.

A job is an effect: awaiting it writes and waits. `HandOver` and `Settle` are the two halves of that, for a record
that must be durable before the next effect and need not be before the next line of code.
"""

from __future__ import annotations

import asyncio
from _thread import allocate_lock
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dbos._kernel.plan import Effect

if TYPE_CHECKING:
    from dbos._kernel.bell import Channel
    from dbos._kernel.lane import Lane
    from dbos._kernel.statement import Conn, Entry

T = TypeVar("T")


class Job(Effect[T], Generic[T]):
    """Something to write, and who waits for it; made for one use."""

    __slots__ = (
        "_futures", "_lock", "_loop", "abandoned", "behind", "done", "entries", "error", "lane", "patience_seconds", "result", "rings", "work",
    )  # fmt: skip

    def __init__(
        self,
        lane: Lane,
        entries: tuple[Entry, ...],
        work: Callable[[Conn], T] | None,
        rings: Iterable[Channel],
        patience_seconds: float | None,
    ) -> None:
        self.lane, self.entries, self.work, self.rings = lane, entries, work, rings
        self.patience_seconds = patience_seconds
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = self.abandoned = False
        #: A job that was left to the committer, and must not be overtaken by this one.
        self.behind: Job[Any] | None = None
        self._lock: Any = None
        self._futures: tuple[asyncio.Future[None], ...] = ()
        self._loop: asyncio.AbstractEventLoop | None = None

    def block(self) -> T:
        return self.lane.write(self)  # type: ignore[no-any-return]  # the lane does not know what a work returns

    async def wait(self) -> T:
        return await self.lane.write_async(self)  # type: ignore[no-any-return]  # as above

    def expect(self) -> Any:
        """Prepare to wait in this thread, on the lock that is returned."""
        lock = self._lock = allocate_lock()
        lock.acquire()
        return lock

    def expect_async(self) -> asyncio.Future[None]:
        """Prepare to wait on this loop."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._futures = (*self._futures, future)  # several tasks of one run may wait for one record
        self._loop = loop
        return future

    def settle(self) -> asyncio.AbstractEventLoop | None:
        """Wake the thread that waits; where a loop waits, name it."""
        self.done = True
        if self._lock is not None:
            self._lock.release()
        return self._loop

    def settle_on_loop(self) -> None:
        for future in self._futures:
            if not future.done():
                future.set_result(None)


class Put(Job[tuple[bool, ...]]):
    """Write rows, in the same commit as what others write now; says of each whether it was accepted."""

    __slots__ = ()

    def __init__(
        self,
        lane: Lane,
        entries: tuple[Entry, ...],
        rings: Iterable[Channel] = (),
        patience_seconds: float | None = None,
    ) -> None:
        super().__init__(lane, entries, None, rings, patience_seconds)


class HandOver(Effect[None]):
    """Leave a job to the committer and do not wait: `Settle` comes later."""

    __slots__ = ("job",)

    def __init__(self, job: Job[Any]) -> None:
        self.job = job

    def block(self) -> None:
        self.job.lane.hand_over(self.job)

    async def wait(self) -> None:
        self.job.lane.hand_over(self.job)


class Settle(Effect[T], Generic[T]):
    """Wait for a job that was left, and return its result."""

    __slots__ = ("job",)

    def __init__(self, job: Job[T]) -> None:
        self.job = job

    def block(self) -> T:
        return self.job.lane.settle(self.job)  # type: ignore[no-any-return]  # as for jobs

    async def wait(self) -> T:
        return await self.job.lane.settle_async(self.job)  # type: ignore[no-any-return]  # as for jobs


class Tx(Job[T]):
    """Do a work in one read-write transaction, of its own unless it is a `Short` one."""

    __slots__ = ()

    def __init__(
        self,
        lane: Lane,
        work: Callable[[Conn], T],
        rings: Iterable[Channel] = (),
        patience_seconds: float | None = None,
    ) -> None:
        super().__init__(lane, (), work, rings, patience_seconds)


class Short(Tx[T]):
    """A work that is soon done: it may go into one commit with what others write now."""

    __slots__ = ()
