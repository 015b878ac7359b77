"""Threads of our own: daemons over one queue, each job in a copy of the context it was submitted from.

Not a ThreadPoolExecutor: one with a running job keeps an interpreter, and a Jupyter kernel, from ending and
their exit handlers from running. A job takes care of its own result; what escapes it is logged.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from dbos._kernel.forks import watch_forks

P = ParamSpec("P")
R = TypeVar("R")
Job = Callable[[], Any]

logger = logging.getLogger("dbos")

# How long a thread without work stays for the next job.
IDLE_SECONDS = 10.0
# How long the start of a thread may take.
START_SECONDS = 1.0


class Pool:
    """As many threads as there are jobs at once, up to `limit`.

    No job waits behind another for long: while jobs wait and no thread is idle, one thread after the other is
    started, each by its predecessor. So a burst of short jobs is done by few threads, and who submits never waits for
    the start of one.
    """

    def __init__(self, name: str, limit: int | None = None) -> None:
        self.name, self.limit = name, limit
        self._begin()
        watch_forks(self)

    def _begin(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        # Threads alive; those of them that wait for a job, less the jobs on their way to them; all there ever were.
        self._threads = self._idle = self._born = 0
        self._growing_since: float | None = None
        self._closed = False

    def after_fork(self) -> None:
        self._begin()

    def submit(self, fn: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run it soon, in a thread, in a copy of this context."""
        context = contextvars.copy_context()
        self._jobs.put(lambda: context.run(fn, *args, **kwargs))
        self._grow()

    def _grow(self) -> None:
        """Start a thread if jobs wait and nobody is about to take them."""
        with self._lock:
            now, since = time.monotonic(), self._growing_since
            # A start that takes so long was interrupted before it began.
            grows = since is not None and now - since < START_SECONDS
            if grows or self._idle or self._jobs.empty() or (self.limit is not None and self._threads >= self.limit):
                return
            self._growing_since = now
            self._born += 1
            number = self._born
        threading.Thread(target=self._work, name=f"{self.name}-{number}", daemon=True).start()

    async def call(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it in a thread and await what it returns."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()

        def job() -> None:
            try:
                value = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - handed on to whoever awaits
                settle(loop, future, None, error)
            else:
                settle(loop, future, value, None)

        self.submit(job)
        return await future

    def close(self) -> None:
        """Let the threads end when they have nothing to do any more."""
        with self._lock:
            self._closed = True
            threads = self._threads
        for _ in range(threads):
            self._jobs.put(None)

    def _work(self) -> None:
        with self._lock:
            self._threads += 1
            self._growing_since = None
        while True:
            job = self._next()
            if job is None:
                return
            self._grow()
            try:
                job()
            except BaseException:  # a job's own business; the thread serves the next one
                logger.exception("A background job failed")
            del job  # its closure may hold large values

    def _next(self) -> Job | None:
        """The next job; None: there is none, and this thread is to end."""
        while True:
            with self._lock:
                self._idle += 1
            try:
                job = self._jobs.get(timeout=0 if self._closed else IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    self._idle -= 1
                    if self._jobs.empty():  # else one came just now, and its sender counted on us
                        self._threads -= 1
                        if self._closed and self._threads:
                            self._jobs.put(None)  # one thread may have taken the word that was meant for another
                        return None
                continue
            with self._lock:
                self._idle -= 1
            if job is not None:
                return job  # None: the pool is closed. Do what is left, then find nothing to do


def settle(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], value: Any, error: BaseException | None
) -> None:
    """Give a future its result from another thread, if its loop still cares."""

    def set_it() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            # A future refuses StopIteration, and a bare KeyboardInterrupt would stop the loop itself.
            future.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)

    try:
        loop.call_soon_threadsafe(set_it)
    except RuntimeError:  # the loop is closed: nobody is left to be told
        logger.debug("An event loop closed before its result arrived")
