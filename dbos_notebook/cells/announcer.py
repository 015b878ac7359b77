"""Telling of steps while they run: what takes longer than a moment is noted before it is recorded, with its prints.

So a live view shows the step that is under way. Short steps are never announced, and cost nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from dbos.extension import Note

LOOK_SECONDS = 0.25

logger = logging.getLogger("dbos")


class Announced(Protocol):
    """What has something to tell now and then."""

    write: Callable[[Iterable[Note]], None]
    #: Held from the question to the end of the writing: what is told at the end of a step comes after it.
    telling: threading.Lock

    def news(self) -> list[Note]: ...


class Announcer:
    """One thread that writes what the running steps of this kernel have to tell. It sleeps while nothing runs."""

    def __init__(self, running: Callable[[], Iterable[Announced]]) -> None:
        self._running = running
        self._wake, self._is_closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def wake(self) -> None:
        """A run begins."""
        self._wake.set()
        with self._lock:
            if self._thread is None and not self._is_closed.is_set():
                self._thread = threading.Thread(target=self._tell, name="dbos-notebook-announcer", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Tell nothing more."""
        self._is_closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(1)

    def _tell(self) -> None:
        while not self._is_closed.is_set():
            running = list(self._running())
            if not running:
                self._wake.wait()
                self._wake.clear()
                continue
            for each in running:
                self._tell_of(each)
            self._is_closed.wait(LOOK_SECONDS)

    def _tell_of(self, run: Announced) -> None:
        try:
            with run.telling:
                news = run.news()
                if news:
                    run.write(news)
        except BaseException as error:  # noqa: BLE001 - the run or its runtime has ended; the next one needs this thread
            logger.debug("A running step was not announced: %r", error)
