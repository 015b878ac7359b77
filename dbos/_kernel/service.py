"""Services: what a runtime does by itself, each in a thread that survives its errors.

A service ticks, says when it wants to tick next, and sleeps until then or until one of its channels is rung. An
error in a tick is logged, and the next tick comes a little later: no fault of one tick ends a service.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from dbos._kernel.bell import Waiter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbos._kernel.bell import Bell, Channel
    from dbos._kernel.clock import Clock

logger = logging.getLogger("dbos")

FIRST_PAUSE_MS, LAST_PAUSE_MS = 100, 5_000


class Service(ABC):
    """One thing that a runtime does all the time."""

    name: str
    #: Goes on while the runtime drains.
    serves_to_the_end = False

    def __init__(self, bell: Bell, clock: Clock) -> None:
        self.bell, self.clock = bell, clock
        #: What was rung since the tick before this one.
        self.heard: set[Channel] = set()
        self._waiter = Waiter()
        self._heeded: set[Channel] = set()
        self._stopping = False
        self._failures = 0
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    @abstractmethod
    def tick(self) -> int | None:
        """Do what is due; say when to do so again (None: when rung)."""

    def channels(self) -> Sequence[Channel]:
        """What wakes this service; asked before each tick."""
        return ()

    def start(self) -> None:
        """Begin ticking in a thread."""
        self._thread = threading.Thread(target=self._serve, name=f"dbos-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end after the tick under way."""
        self._stopping = True
        self.bell.ring_here([("service", self.name)])

    def join(self, seconds: float) -> bool:
        """Wait for the end; say whether it came."""
        return self._thread is None or self._thread is threading.current_thread() or self._ended.wait(seconds)

    def _serve(self) -> None:
        try:
            while not self._stopping:
                try:
                    self._round()
                except BaseException as error:  # noqa: BLE001 - thrown into this thread from outside, between two ticks
                    logger.warning("The %s was disturbed and goes on: %r", self.name, error)
        finally:
            self._close()
            self._ended.set()

    def _round(self) -> None:
        """Tick, and sleep until the next one is due."""
        wanted = {("service", self.name), *self.channels()}
        self.bell.add(self._waiter, wanted - self._heeded)
        self.bell.remove(self._waiter, self._heeded - wanted)
        self._heeded = wanted
        self.heard = self._waiter.take()
        until_ms = self._tick()
        if not self._stopping:
            self._waiter.block(self.clock, until_ms)

    def _close(self) -> None:
        """Let go of what the thread held."""
        self.bell.remove(self._waiter, self._heeded)

    def _tick(self) -> int | None:
        try:
            until_ms: int | None = self.tick()
        except BaseException as error:
            if self._stopping:
                return None
            self._failures += 1
            logger.warning("The %s failed and tries again: %r", self.name, error, exc_info=self._failures == 1)
            pause_ms = min(FIRST_PAUSE_MS << min(self._failures, 10), LAST_PAUSE_MS)
            return self.clock.now_ms() + pause_ms
        self._failures = 0
        return until_ms
