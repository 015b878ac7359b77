"""The runtime as everybody sees it: ground, registry, threads, loops, and the runs that are under way.

It is passive. What uses it (starting, dispatching, keeping leases) imports it; what puts all together is
`launch.py`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from dbos._engine.executors import Executors
from dbos._engine.queue import INTERNAL, QueueSpec
from dbos._engine.transitions import OWNER_ID_LENGTH
from dbos._kernel.bell import stop
from dbos._kernel.extension import installed
from dbos._kernel.forks import watch_forks
from dbos._kernel.plan import Effect, arun, loop_is_running, run
from dbos._kernel.pool import Pool
from dbos._kernel.scope import HERE, Awaited, Ground, Here, Run
from dbos.error import DBOSException

if TYPE_CHECKING:
    import contextvars

    from dbos._engine.registry import Registry
    from dbos._engine.transaction import Application
    from dbos._kernel.bell import Bell
    from dbos._kernel.clock import Clock
    from dbos._kernel.codec import Codec
    from dbos._kernel.lane import Farewell
    from dbos._kernel.store import Store

R = TypeVar("R")

logger = logging.getLogger("dbos")


# So many runs may be busy at once before no more are claimed; those that wait do not count.
MOST_BUSY_RUNS = 1000
# Rung when a run ends or begins to wait while this process is full.
ROOM = ("room", "")


class Runtime(Ground):
    """One launch."""

    def __init__(
        self,
        store: Store,
        bell: Bell,
        clock: Clock,
        codec: Codec,
        registry: Registry,
        *,
        executor_id: str,
        app_version: str,
        app_id: str = "",
        max_threads: int | None = None,
        main_loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(store, bell, clock, codec, executor_id, app_version)
        self.registry, self.app_id, self.main_loop = registry, app_id, main_loop
        #: Unlike the executor id, never given twice: the first part of every `owner_xid` of this launch.
        self.owner_id = uuid.uuid4().hex[:OWNER_ID_LENGTH]
        self.pool = Pool("dbos-executor", max_threads)
        self.loop = BackgroundLoop()
        self.executors = Executors()
        #: Where transactions run; set at launch.
        self.application: Application | None = None
        self.runs: dict[str, Run] = {}
        #: Told of what somebody may want to know of: a rule, whom it is about, and facts.
        self.witnesses: list[Callable[[str, str, dict[str, str]], None]] = []
        #: Functions that are scheduled in the code do not fire any more: other code is about to take over.
        self.is_deactivated = False
        #: Owners under which rows may be committed already whose runs are not among `runs` yet.
        self.beginning: set[str] = set()
        #: The queues that are registered in the database, as last seen.
        self.registered_queues: dict[str, QueueSpec] = {}
        self._awaited: WeakValueDictionary[str, Awaited] = WeakValueDictionary()
        self._is_full = False
        self._claims = 0
        self._claims_lock = threading.Lock()
        # Tasks are referenced weakly by their loop; a workflow must not be collected while it waits.
        self._tasks: set[asyncio.Task[Any]] = set()
        watch_forks(self)

    def after_fork(self) -> None:
        self._claims_lock, self.loop = threading.Lock(), BackgroundLoop()
        self.loop.close()
        self.registry.on_change.clear()
        for each in self.runs.values():
            each.doubt()  # no step may begin on what was known a moment ago

    def new_owner(self) -> str:
        """The right under which one execution, or one batch of them, writes."""
        with self._claims_lock:
            self._claims += 1
            return f"{self.owner_id}:{self._claims}"

    @contextmanager
    def new_rows(self, owner: str, run: Run | None = None) -> Iterator[None]:
        """In the block rows get this owner, and enter their runs; until then nobody takes them for abandoned.

        A run that is known before its row hears from then on what happens to that.
        """
        self.beginning.add(owner)
        if run is not None:
            self.bell.add(run.stops, [stop(run.workflow_id)])
        try:
            yield
        except BaseException:
            for begun in list(self.runs.values()):
                if begun.owner == owner:
                    self.leave(begun)
            raise
        finally:
            self.beginning.discard(owner)
            if run is not None and self.runs.get(run.workflow_id) is not run:
                self.leave(run)

    def has_left(self, workflow_id: str, owner: str | None) -> bool:
        """Whether a workflow is ours by its row, but does not run: its execution was interrupted."""
        if owner is None or not owner.startswith(self.owner_id) or owner in self.beginning:
            return False
        running = self.runs.get(workflow_id)
        return running is None or running.owner != owner

    def enter(self, run: Run) -> None:
        """A run begins."""
        self.bell.add(run.stops, [stop(run.workflow_id)])
        self.runs[run.workflow_id] = run

    def leave(self, run: Run) -> None:
        """A run is over, in whatever way."""
        self.bell.remove(run.stops, [stop(run.workflow_id)])
        if self.runs.get(run.workflow_id) is run:
            del self.runs[run.workflow_id]
        self.made_room()

    def report(self, rule: str, subject: str, **facts: str) -> None:
        """Something happened that somebody may want to know of."""
        for each in self.witnesses:
            try:
                each(rule, subject, facts)
            except Exception:
                logger.exception("Nobody could be told of %s of %s", rule, subject)

    def versions(self) -> list[str]:
        """The versions of the code that are served here."""
        return [self.app_version, *self.registry.versions]

    def queues(self) -> dict[str, QueueSpec]:
        """The queues that are known here, by name. What code declares goes before what the database says."""
        return {INTERNAL.name: INTERNAL, **self.registered_queues, **self.registry.queues}

    def expect(self, workflow_id: str) -> Awaited:
        awaited = self._awaited.get(workflow_id)
        if awaited is None or awaited.is_over:  # over, and perhaps rewound since: the row knows
            awaited = self._awaited[workflow_id] = Awaited()
        return awaited

    def tell(self, run: Run) -> None:
        """Tell whoever holds a handle how a run ended."""
        awaited = self._awaited.get(run.workflow_id)
        if awaited is not None:
            awaited.result, awaited.failure, awaited.is_over = run.result, run.failure, True

    def taken_from(self, queue: str) -> Counter[str]:
        """How many runs here were taken from a queue, by partition."""
        places = (run.queue for run in list(self.runs.values()))
        return Counter(place[1] for place in places if place is not None and place[0] == queue)

    def room(self) -> int:
        """How many more workflows this process can begin. Notes that it is full, if it is."""
        busy = sum(not each.is_waiting for each in list(self.runs.values()))
        self._is_full = busy >= MOST_BUSY_RUNS
        return MOST_BUSY_RUNS - busy

    def made_room(self) -> None:
        if self._is_full:
            self.bell.ring_here([ROOM])

    def running(self, workflow_id: str) -> Run | None:
        return self.runs.get(workflow_id)

    def spawn(self, plan: Callable[[], Coroutine[Any, Any, Any]], *, is_async: bool, on_this_loop: bool) -> None:
        """Perform a plan beside: in a thread, or where its user code is async on this, the main or our own loop."""
        if not is_async:
            self.pool.submit(_perform_beside, plan)
        elif on_this_loop and loop_is_running() and installed() is None:  # else that loop may be held by a cell
            self._start_task(plan)
        else:
            try:
                if self.main_loop is not None and self.main_loop.is_running():
                    self.main_loop.call_soon_threadsafe(self._start_task, plan)
                    return
            except RuntimeError:  # it was closed just now
                self.main_loop = None
            self.loop.submit(lambda: self._start_task(plan))

    def _start_task(self, plan: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        task = asyncio.get_running_loop().create_task(arun(plan()))
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("A workflow task failed", exc_info=task.exception())

    def close(self, farewell: Farewell) -> None:
        """End the threads and loops; runs in user code notice at their next operation."""
        self.store.close(farewell)
        if self.application is not None:
            self.application.close()
        self.bell.wake_all()
        self.executors.close()
        self.loop.close()
        self.pool.close()


class BackgroundLoop:
    """An event loop in a thread of its own, started when first needed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        #: None until there is something to run.
        self.thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, callback: Callable[[], Any]) -> None:
        """Call it on the loop, in a copy of this context."""
        self._running().call_soon_threadsafe(callback)

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the loop and wait for it in this thread."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupted wait takes what it waited for with it; otherwise it is done already
            raise

    def close(self) -> None:
        with self._lock:
            # Once: a second stop would cut short the farewell of the tasks, or meet a loop that is closed.
            was_closed, self._closed = self._closed, True
            if self._loop is not None and not was_closed:
                self._loop.call_soon_threadsafe(self._loop.stop)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise DBOSException("DBOS was destroyed; launch it again")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self.thread = threading.Thread(target=self._serve, args=(self._loop,), name="dbos-loop", daemon=True)
                self.thread.start()
            return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            while not self._closed:
                try:
                    loop.run_forever()
                except BaseException as error:  # noqa: BLE001 - of one task; those of other workflows go on
                    logger.warning("A task on the loop of workflows raised %r", error)
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()


class Call(Effect[Any]):
    """Call the user's function, at the given place."""

    __slots__ = ("args", "fn", "here", "is_async", "kwargs")

    def __init__(
        self, here: Here, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, is_async: bool
    ) -> None:
        self.here, self.fn, self.args, self.kwargs, self.is_async = here, fn, args, kwargs, is_async

    def block(self) -> Any:
        token = HERE.set(self.here)
        try:
            value = self.fn(*self.args, **self.kwargs)
            if type(value) is CoroutineType:  # an async function called by sync code: it needs a loop to run on
                return _runtime(self.here).loop.run(value)
            return value
        finally:
            HERE.reset(token)

    async def wait(self) -> Any:
        token: contextvars.Token[Here | None] = HERE.set(self.here)
        try:
            if self.is_async:
                return await self.fn(*self.args, **self.kwargs)
            # A sync function would hold the loop: it runs in a thread, in a copy of this context.
            value = await _runtime(self.here).pool.call(self.fn, *self.args, **self.kwargs)
            return await value if type(value) is CoroutineType else value
        finally:
            HERE.reset(token)


def _perform_beside(plan: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    try:
        run(plan())
    except Exception:
        logger.exception("A workflow could not be brought to an end")
    except BaseException as interrupt:  # noqa: BLE001 - of the workflow, which said so in the log; not of this thread
        logger.debug("A workflow was interrupted: %r", interrupt)


def _runtime(here: Here) -> Runtime:
    assert isinstance(here.ground, Runtime)
    return here.ground
