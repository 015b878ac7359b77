"""One test, both colours: a body written once runs as a sync or as an async workflow.

A body is `async def body(do, ...)`. In it, `await do(step(1))` calls a step and `await do.sleep(1)` an operation of
DBOS; in the sync colour these happen at once and nothing is ever suspended, so the body is a plain function then.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from dbos import DBOS

LIMIT_SECONDS = 30


class Hand:
    """A colour, and how things are done in it."""

    def __init__(self, colour: str) -> None:
        self.is_async = colour == "async"
        self._loop = asyncio.new_event_loop() if self.is_async else None
        if self._loop is not None:
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()

    def close(self) -> None:
        if self._loop is not None:
            self.wait(_cancel_all())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    # -- defining ----------------------------------------------------------------------------------------------

    def workflow(self, **options: Any) -> Callable[[Callable[..., Coroutine[Any, Any, Any]]], Callable[..., Any]]:
        def make(body: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
            name = options.pop("name", body.__name__)
            return DBOS.workflow(name=name, **options)(self.function(body))

        return make

    def function(self, body: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        """The body as a function of this colour."""
        if self.is_async:

            @functools.wraps(body)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                return await body(Inside(is_async=True), *args, **kwargs)

            return run_async

        @functools.wraps(body)
        def run_sync(*args: Any, **kwargs: Any) -> Any:
            return unsuspended(body(Inside(is_async=False), *args, **kwargs))

        return run_sync

    def step(self, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A step of a plain function."""

        def make(fn: Callable[..., Any]) -> Callable[..., Any]:
            options.setdefault("name", fn.__name__)
            if not self.is_async:
                return DBOS.step(**options)(fn)

            @functools.wraps(fn)
            async def async_step(*args: Any, **kwargs: Any) -> Any:
                # Waiting in a thread, so that a step that blocks does not block what is to release it.
                return await asyncio.to_thread(fn, *args, **kwargs)

            return DBOS.step(**options)(async_step)

        return make

    # -- doing, from a test ------------------------------------------------------------------------------------

    def wait(self, awaitable: Awaitable[Any]) -> Any:
        assert self._loop is not None

        async def settled() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(settled(), self._loop).result(LIMIT_SECONDS)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of this colour and return its result."""
        if not self.is_async:
            return function(*args, **kwargs)

        async def called() -> Any:
            return await function(*args, **kwargs)

        return self.wait(called())

    def start(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Held:
        if not self.is_async:
            return Held(self, DBOS.start_workflow(function, *args, **kwargs))
        return Held(self, self.call(DBOS.start_workflow_async, function, *args, **kwargs))

    def do(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Perform an operation of DBOS in this colour."""
        value = self.call(getattr(DBOS, f"{operation}_async" if self.is_async else operation), *args, **kwargs)
        if isinstance(value, list) and value and hasattr(value[0], "get_result"):
            return [Held(self, each) for each in value]
        return Held(self, value) if hasattr(value, "get_result") else value


class Held:
    """A handle, whose methods are called in the hand's colour."""

    def __init__(self, hand: Hand, handle: Any) -> None:
        self.hand, self.handle, self.workflow_id = hand, handle, handle.workflow_id

    def result(self) -> Any:
        return self.hand.call(self.handle.get_result)

    def status(self) -> Any:
        return self.hand.call(self.handle.get_status)


class Inside:
    """What a body does with."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async

    async def __call__(self, value: Any) -> Any:
        """What a call came to: a value in the sync colour, something to await in the other."""
        return await value if inspect.isawaitable(value) else value

    def __getattr__(self, operation: str) -> Callable[..., Awaitable[Any]]:
        if self.is_async:
            return getattr(DBOS, f"{operation}_async")
        function = getattr(DBOS, operation)

        async def at_once(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return at_once

    async def start(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self.start_workflow(function, *args, **kwargs)


def unsuspended(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a body waited for something outside of its hand")


async def _cancel_all() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
