"""The only reader of time. Everything else asks a Clock, so that a test can hold it still and let it jump.

Moments are whole milliseconds since the epoch, by the clock of the database: `offset_ms` is what the last
heartbeat measured between that clock and ours, so executors whose clocks disagree still agree on a deadline.
Waiting goes by short monotonic pieces and looks at the moment again after each: a laptop that slept, or a
clock that was set, makes a wait end at its moment and not at its duration.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

# A wait longer than this is looked at again: the wall clock may have jumped meanwhile.
LONGEST_PIECE_SECONDS = 30.0


class Lock(Protocol):
    """What a waiting thread sleeps on: held while nothing happened, released by whoever wakes it."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...


class Clock:
    """Real time."""

    def __init__(self) -> None:
        self.offset_ms = 0

    def now_ms(self) -> int:
        """This moment, by the database's clock."""
        return int(time.time() * 1000) + self.offset_ms

    def monotonic(self) -> float:
        """Seconds that only ever grow; for durations inside this process."""
        return time.monotonic()

    def patience(self) -> float:
        """Seconds that only ever grow, also in a test that holds time still: for how long an answer may be away.

        A database that fails does so in real time, as `pause` pauses in real time: counted by a clock that stands
        still, what is tried again would be tried for ever.
        """
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Do nothing for a moment, between two tries of the same thing."""
        time.sleep(seconds)

    def align(self, asked_ms: int, database_now_ms: int | None) -> None:
        """Take the database's time for ours; None when both are the same machine's.

        It was that time at some moment since we asked. Only what cannot be explained so moves our clock, and no
        further than needed: one that follows every delay of an answer would jump back and forth.
        """
        if database_now_ms is not None:
            self.offset_ms += max(database_now_ms - self.now_ms(), 0) - max(asked_ms - database_now_ms, 0)

    def block(self, lock: Lock, until_ms: int | None) -> bool:
        """Sleep until the lock is released or the moment comes; say whether it was released."""
        while True:
            piece = self._piece(until_ms)
            if lock.acquire(True, piece):
                return True
            if until_ms is not None and self.now_ms() >= until_ms:
                return False

    def alarm(self, loop: asyncio.AbstractEventLoop, until_ms: int, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` on the loop when the moment comes; returns what calls it off."""
        handle: list[asyncio.TimerHandle] = []

        def look() -> None:
            if self.now_ms() >= until_ms:
                wake()
            else:
                handle[0] = loop.call_later(self._piece(until_ms), look)

        handle.append(loop.call_later(self._piece(until_ms), look))
        return lambda: handle[0].cancel()  # noqa: PLW0108 - the handle of that moment

    def _piece(self, until_ms: int | None) -> float:
        if until_ms is None:
            return LONGEST_PIECE_SECONDS
        return min(max((until_ms - self.now_ms()) / 1000, 0.0), LONGEST_PIECE_SECONDS)


def timeout_ms_of(seconds: float | None) -> int | None:
    """How long a workflow may run, from what its user says; 0 and None are no timeout."""
    if seconds is not None and not (isinstance(seconds, int | float) and 0 <= seconds < math.inf):
        raise ValueError(f"Invalid workflow timeout {seconds!r}: it must be a number of seconds, not negative")
    return max(1, int(seconds * 1000)) if seconds else None


def epoch_ms_of(text: str) -> int:
    """The moment that an ISO 8601 text names; without a zone it is local time, as datetime reads it."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)
