"""The bounds of an async step: how long an attempt may take, and that it ends with its workflow.

The step runs as a task beside a watch, and whichever is over first decides. A step that is interrupted is awaited
to its end: it may clean up. If it has a result nevertheless, that counts.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from dbos._kernel.bell import Waiter
from dbos._kernel.plan import arun
from dbos._kernel.waiting import nothing, wait_until
from dbos.error import DBOSStepTimeoutError

if TYPE_CHECKING:
    from dbos._kernel.scope import Here


def within(
    here: Here,
    name: str,
    fn: Callable[..., Coroutine[Any, Any, Any]],
    *,
    timeout_seconds: float | None,
    preemptible: bool,
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """The function, interrupted when its time is up or (if it is preemptible) its workflow is not ours any more."""

    @functools.wraps(fn)
    async def bounded(*args: Any, **kwargs: Any) -> Any:
        step = asyncio.ensure_future(fn(*args, **kwargs))
        watch = asyncio.ensure_future(arun(_watch(here, timeout_seconds, preemptible=preemptible)))
        try:
            await asyncio.wait({step, watch}, return_when=asyncio.FIRST_COMPLETED)
            is_late = not step.done()
        finally:  # also when the task that waits is cancelled itself
            step.cancel()
            watch.cancel()
            await asyncio.gather(step, watch, return_exceptions=True)
        if not is_late or (not step.cancelled() and step.exception() is None):
            return step.result()
        watch.result()  # the workflow was cancelled or taken over
        assert timeout_seconds is not None
        raise DBOSStepTimeoutError(name, timeout_seconds) from (None if step.cancelled() else step.exception())

    return bounded


async def _watch(here: Here, timeout_seconds: float | None, *, preemptible: bool) -> None:
    """Return when the time is up; raise when the workflow is not ours any more. A plan."""
    until_ms = None if timeout_seconds is None else here.ground.clock.now_ms() + int(timeout_seconds * 1000)
    if preemptible:
        await wait_until(here, nothing, until_ms=until_ms)
    else:
        await here.wait(Waiter(), until_ms)
