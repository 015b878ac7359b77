"""Signals that want a program to end: the first one drains, a later one does what it does to any program.

A handler may have interrupted anything, so it does next to nothing itself: the draining is done in a thread. When that
is over the same signal is sent once more, so that it is the main thread which ends the program, with its `finally`s.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

from dbos.error import DBOSMisuseError

# A terminal and a program in between may both pass on one Ctrl-C: what comes so soon is no second one.
SAME_SIGNAL_SECONDS = 1.0


def on_signals(numbers: Sequence[int], act: Callable[[int], None], is_over: Callable[[], bool] = lambda: False) -> None:
    """Act on the first of these signals. A later one ends the process, or raises SystemExit when all is over."""
    first: list[float] = []

    def handle(number: int, _: object) -> None:
        if not first:
            first.append(time.monotonic())
            act(number)
        elif is_over():
            raise SystemExit(128 + number)
        elif time.monotonic() - first[0] > SAME_SIGNAL_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    try:
        for number in numbers:
            signal.signal(number, handle)
    except ValueError:
        raise DBOSMisuseError("Signals can only be handled by the main thread: call this there") from None


def drain_on(drain: Callable[[], None], numbers: Sequence[int]) -> None:
    """Drain on the first of these signals, then end the program."""
    drained = threading.Event()

    def work(number: int) -> None:
        try:
            drain()
        finally:
            drained.set()
            os.kill(os.getpid(), number)

    def begin(number: int) -> None:
        threading.Thread(target=work, args=(number,), name="dbos-drain").start()

    on_signals(numbers, begin, drained.is_set)
