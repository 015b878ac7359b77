"""Who waits for what, and who wakes them.

A channel is a pair (kind, key), such as ("done", workflow id). A plan that waits listens first, then looks at
the database, then waits: a ring in between is not lost. A commit rings its channels in this process at once;
other processes hear of it by NOTIFY, or by seeing that the file changed.

A ring is a hint and never the truth. A lost one costs latency, never progress: every few seconds, after every
reconnect, and (where the database cannot tell what changed) after every foreign commit, each kind that is
waited for is looked at with one statement for all its keys, its *look*, and those that have something are rung.
"""

from __future__ import annotations

import asyncio
import threading
from _thread import allocate_lock
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dbos._kernel.forks import watch_forks
from dbos._kernel.plan import Effect

if TYPE_CHECKING:
    from dbos._kernel.clock import Clock
    from dbos._kernel.statement import Conn

Channel = tuple[str, str]


def done(workflow_id: str) -> Channel:
    """Rung when a workflow ends."""
    return ("done", workflow_id)


def stop(workflow_id: str) -> Channel:
    """Rung when a workflow is taken from its run."""
    return ("stop", workflow_id)


def queued(queue_name: str) -> Channel:
    """Rung when a queue has work."""
    return ("queue", queue_name)


def event_of(workflow_id: str, key: str) -> Channel:
    """Rung when that workflow is given that event; the trigger on Postgres says the same."""
    return ("event", f"{workflow_id}::{key}")


# Rung when the moment of a delayed workflow is set.
DELAYS: Channel = ("delay", "")

# Which of these keys have something for those who wait? Asked with all waited-for keys of the kind at once.
Look = Callable[["Conn", list[str]], Iterable[str]]


class Waiter:
    """One plan's place at the bell; woken from any thread, in either colour."""

    __slots__ = ("_future", "_lock", "_loop", "_rung", "heard")

    def __init__(self) -> None:
        #: The channels that were rung since somebody took them out.
        self.heard: set[Channel] = set()
        self._rung = False
        self._lock = allocate_lock()
        self._lock.acquire()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._future: asyncio.Future[None] | None = None

    def wake(self, channel: Channel) -> None:
        """Let the plan look again. More often than needed is harmless."""
        self.heard.add(channel)
        self._rung = True
        loop = self._loop
        if loop is None:
            try:
                self._lock.release()
            except RuntimeError:
                return  # woken before and not yet looked
        else:
            try:
                loop.call_soon_threadsafe(self._settle)
            except RuntimeError:
                return  # the loop is closed, and its plan with it

    def take(self) -> set[Channel]:
        """What was heard, taken out piece by piece: what is rung meanwhile stays for the next time."""
        taken = set()
        while self.heard:
            taken.add(self.heard.pop())
        return taken

    def block(self, clock: Clock, until_ms: int | None) -> bool:
        """Wait in this thread; say whether it was rung."""
        rung = clock.block(self._lock, until_ms)
        self._rung = False
        return rung

    async def wait(self, clock: Clock, until_ms: int | None) -> bool:
        """Wait on this loop; say whether it was rung."""
        loop = self._loop = asyncio.get_running_loop()
        future = self._future = loop.create_future()
        # In this order: who rings sets the mark first and looks for the loop afterwards.
        if self._rung:
            self._rung = False
            return True
        call_off = None if until_ms is None else clock.alarm(loop, until_ms, self._settle)
        try:
            await future
        finally:
            if call_off is not None:
                call_off()
        rung, self._rung = self._rung, False
        return rung

    def _settle(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class Wait(Effect[bool]):
    """Wait until rung (True) or until a moment (False)."""

    __slots__ = ("clock", "until_ms", "waiter")

    def __init__(self, waiter: Waiter, clock: Clock, until_ms: int | None = None) -> None:
        self.waiter, self.clock, self.until_ms = waiter, clock, until_ms

    def block(self) -> bool:
        return self.waiter.block(self.clock, self.until_ms)

    async def wait(self) -> bool:
        return await self.waiter.wait(self.clock, self.until_ms)


class Bell:
    """The waiters of one process, by channel."""

    def __init__(self) -> None:
        self._waiters: dict[Channel, set[Waiter]] = {}
        self._looks: dict[str, Look] = {}
        self._lock = threading.Lock()
        #: Told of every ring of this process, to pass it on to others.
        self.herald: Callable[[list[Channel]], None] | None = None
        watch_forks(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self.herald = None

    def add_look(self, kind: str, look: Look) -> None:
        """Say how to find, with one statement, who of all that wait for this kind has something."""
        self._looks[kind] = look

    @contextmanager
    def listening(self, *channels: Channel) -> Iterator[Waiter]:
        """A place at the bell for the length of the block."""
        waiter = Waiter()
        self.add(waiter, channels)
        try:
            yield waiter
        finally:
            self.remove(waiter, channels)

    def add(self, waiter: Waiter, channels: Iterable[Channel]) -> None:
        """Give a waiter its place, for as long as it wants; see `listening`."""
        with self._lock:
            for channel in channels:
                self._waiters.setdefault(channel, set()).add(waiter)

    def remove(self, waiter: Waiter, channels: Iterable[Channel]) -> None:
        """Take the place back, if there was one."""
        with self._lock:
            for channel in channels:
                waiters = self._waiters.get(channel, set())
                waiters.discard(waiter)
                if not waiters:
                    self._waiters.pop(channel, None)

    def ring(self, channels: Iterable[Channel]) -> None:
        """Something was committed: wake whoever waits for it, here and in other processes."""
        channels = list(channels)
        self.ring_here(channels)
        if self.herald is not None:
            self.herald(channels)

    def ring_here(self, channels: Iterable[Channel]) -> None:
        with self._lock:
            woken = [(waiter, channel) for channel in channels for waiter in self._waiters.get(channel, ())]
        for waiter, channel in woken:
            waiter.wake(channel)

    def wake_all(self) -> None:
        """Everything changed, such as the end of this process's runtime."""
        with self._lock:
            channels = list(self._waiters)
        self.ring_here(channels)

    def awaited(self) -> dict[str, list[str]]:
        """The keys that are waited for, by kind."""
        with self._lock:
            channels = list(self._waiters)
        kinds: dict[str, list[str]] = {}
        for kind, key in channels:
            kinds.setdefault(kind, []).append(key)
        return kinds

    def awaits(self, kinds: Collection[str]) -> bool:
        """Whether anything of these kinds is waited for."""
        with self._lock:
            return any(kind in kinds for kind, _ in self._waiters)

    def look(self, conn: Conn, kinds: Collection[str] | None = None) -> None:
        """Ring those for whom the database has something, of these kinds or of all."""
        found = [
            (each, key)
            for each, keys in self.awaited().items()
            if each in self._looks and (kinds is None or each in kinds)
            for key in self._looks[each](conn, keys)
        ]
        self.ring_here(found)
