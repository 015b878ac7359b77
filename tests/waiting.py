"""Waiting in tests: for a condition, with a limit, never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

LIMIT_SECONDS = 20.0


def eventually(condition: Callable[[], Any], seconds: float = LIMIT_SECONDS) -> Any:
    """What the condition comes to, once it is true."""
    until = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"still {value!r} after {seconds} seconds")
        pause.wait(0.005)


class Gate:
    """A place where a step waits until the test lets it go on; `reached` counts who came."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._lock = threading.Condition()
        self.reached = 0

    def pass_through(self) -> None:
        with self._lock:
            self.reached += 1
            self._lock.notify_all()
        assert self._open.wait(LIMIT_SECONDS), "nobody opened the gate"

    def wait_reached(self, times: int = 1) -> None:
        with self._lock:
            assert self._lock.wait_for(lambda: self.reached >= times, LIMIT_SECONDS), f"reached {self.reached} times"

    def open(self) -> None:
        self._open.set()
