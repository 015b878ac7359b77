"""The workflows that the machine drives: functions that follow the scripts, and the gates at which their steps wait.

Each execution of a step waits at a gate of its own until the machine opens it: nothing here depends on time, and an
execution that was fenced off can be let go whenever the machine likes.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from dbos import DBOS, Queue, SetEnqueueOptions
from tests.hand import Inside, unsuspended
from tests.model.scripts import (
    ASK,
    ASYNC,
    AWAIT,
    DEFAULT_LIMIT,
    FAILING_STEP,
    LIMITS,
    PUT,
    RECV,
    SCRIPTS,
    SET,
    STEP,
    TELL,
    Visit,
    numbers_of,
)
from tests.waiting import LIMIT_SECONDS


class StepFailed(Exception):
    """What a failing step raises: it says which execution of which step it was."""


class Turnstile:
    """Every execution of a step passes here: it is counted, and waits until it is let go."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, int]] = Counter()
        self._waiting: dict[Visit, tuple[Future[Visit], threading.Event]] = {}

    def enter(self, over: threading.Event) -> Future[Visit]:
        """Come, in a step of a run which sets `over` when its workflow function is left; the future is the gate."""
        where = str(DBOS.workflow_id), int(DBOS.step_id or 0)
        gate: Future[Visit] = Future()
        gate.set_running_or_notify_cancel()  # a task that is cancelled leaves it as it is
        with self._lock:
            self._counts[where] += 1
            self._waiting[Visit(*where, self._counts[where])] = gate, over
        return gate

    def counts(self) -> dict[tuple[str, int], int]:
        """How often each step was executed."""
        with self._lock:
            return dict(self._counts)

    def let_go(self, visit: Visit) -> threading.Event:
        """Let this execution go on; the event is set when its workflow function is left."""
        with self._lock:
            gate, over = self._waiting.pop(visit)
        gate.set_result(visit)
        return over

    def empty(self) -> None:
        """Let everybody go, wait until they are gone, and forget them."""
        with self._lock:
            waiting = list(self._waiting)
        for over in [self.let_go(visit) for visit in waiting]:
            assert over.wait(LIMIT_SECONDS), "a run does not end"
        self._counts.clear()


class Program:
    """The workflow function of each script, by its name."""

    def __init__(
        self, turnstile: Turnstile, scripts: dict[str, tuple[str, ...]] = SCRIPTS, queues: Iterable[Queue] = ()
    ) -> None:
        self.turnstile, self.scripts = turnstile, scripts
        self.queues = {queue.name: queue for queue in queues}
        self.functions = {name: self._function(name, script) for name, script in scripts.items()}

    def _function(self, name: str, script: tuple[str, ...]) -> Callable[[], Any]:
        if name in ASYNC:

            async def function() -> list[Any]:
                return await self._follow(Inside(is_async=True), script)
        else:

            def function() -> list[Any]:  # type: ignore[misc]
                return unsuspended(self._follow(Inside(is_async=False), script))

        return DBOS.workflow(name=name, max_recovery_attempts=LIMITS.get(name, DEFAULT_LIMIT))(function)

    async def _follow(self, do: Inside, script: tuple[str, ...]) -> list[Any]:
        """Do what the script says. The results, numbers of executions, tell whose record was taken."""
        over = threading.Event()
        results: list[Any] = []
        child: Any = None
        try:
            for act, number in zip(script, numbers_of(script), strict=True):
                if act in self.scripts:
                    child = await do.start(self.functions[act])
                elif act == AWAIT:
                    results.append(await do(child.get_result()))
                elif act in (STEP, FAILING_STEP):
                    results.append(await do.run_step({"name": act}, self._step(act, do), over))
                elif act.startswith(PUT):
                    child = await self._put(do, *act.split()[1:])
                else:
                    results += await self._talk(do, number, *act.split())
            return results
        finally:
            over.set()

    async def _put(self, do: Inside, queue: str, name: str, deduplication_id: str | None = None) -> Any:
        """Enqueue a child; its handle."""
        with SetEnqueueOptions(deduplication_id=deduplication_id):
            enqueue = self.queues[queue].enqueue_async if do.is_async else self.queues[queue].enqueue
            return await do(enqueue(self.functions[name]))

    async def _talk(self, do: Inside, number: int, kind: str, *words: str) -> list[Any]:
        """Say or hear something; what was heard."""
        said = f"{DBOS.workflow_id}: {number}"
        if kind == SET:
            await do.set_event(words[0], said)
        elif kind == TELL:
            await do.send(words[0], said, topic=words[1])
        elif kind == RECV:
            return [await do.recv(words[0], timeout_seconds=float(words[1]))]
        elif kind == ASK:
            return [await do.get_event(words[0], words[1], timeout_seconds=float(words[2]))]
        return []

    def _step(self, act: str, do: Inside) -> Callable[[threading.Event], Any]:
        def outcome(visit: Visit) -> int:
            if act == FAILING_STEP:
                raise StepFailed(*visit)
            return visit.number

        def step(over: threading.Event) -> int:
            return outcome(self.turnstile.enter(over).result())

        async def async_step(over: threading.Event) -> int:
            return outcome(await asyncio.wrap_future(self.turnstile.enter(over)))

        return async_step if do.is_async else step
