"""Tells when the loop of async workflows is held up: by code that blocks instead of awaiting.

Everything else goes on meanwhile, because no service lives on that loop; only the other async workflows stand still.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING

from dbos._kernel.service import Service

if TYPE_CHECKING:
    from dbos._engine.runtime import Runtime

logger = logging.getLogger("dbos")

# How often the loop is asked for an answer, and how long it may take.
EVERY_MS, PATIENCE_MS = 5_000, 10_000


class LoopWatch(Service):
    """Asks our own loop for a sign of life. Loops of the program's are its own affair."""

    name = "loop watch"

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bell, runtime.clock)
        self.loop = runtime.loop
        self._asked_ms: int | None = None
        self._told = False

    def tick(self) -> int | None:
        now_ms = self.clock.now_ms()
        if self._asked_ms is None:
            if self.loop.thread is not None:
                self._asked_ms = now_ms
                self.loop.submit(self._answer)
        elif now_ms - self._asked_ms >= PATIENCE_MS and not self._told:
            self._told = True
            self._complain(now_ms - self._asked_ms)
        return now_ms + EVERY_MS

    def _answer(self) -> None:
        if self._told:
            logger.warning("The loop of async workflows goes on")
        self._asked_ms, self._told = None, False

    def _complain(self, waited_ms: int) -> None:
        thread = self.loop.thread
        frame = None if thread is None else sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - the one way to ask
        # The innermost last; lines of code, and no values.
        stack = "".join(traceback.format_list(traceback.extract_stack(frame)[-5:])) if frame is not None else ""
        logger.warning(
            "Async workflows stand still: their loop has not answered for %d s. Something blocks it instead of awaiting, "
            "such as time.sleep or a sync call of DBOS. It is here:\n%s",
            waited_ms // 1000,
            stack,
        )
