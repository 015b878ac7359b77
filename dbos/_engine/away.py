"""Steps on executors: the function runs in another process or on another machine, its result is recorded here.

Whoever waits does so as any operation does: a cancel, a timeout or an interrupt ends the wait at once, though not what
already runs over there. A worker that is lost is a failed attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import TYPE_CHECKING, Any

from dbos._engine.executors import Packed, Parcel
from dbos._engine.runtime import Call, Runtime
from dbos._kernel.plan import in_its_colour
from dbos._kernel.waiting import wait_until
from dbos.error import DBOSStepTimeoutError, DBOSStepWorkerLostError

if TYPE_CHECKING:
    from dbos._engine.executors import Executors, ExecutorSource
    from dbos._kernel.scope import Here

# What tells that a worker died, in the words of those who do not use the standard library's.
LOST = ("KilledWorker", "WorkerCrashedError", "OwnerDiedError", "NodeDiedError")
# What Ray puts around the error of a function, which is its `cause`.
AROUND = "RayTaskError"


def away(
    here: Here,
    name: str,
    fn: Callable[..., Any],
    source: ExecutorSource,
    timeout_seconds: float | None,
    *,
    is_async: bool,
) -> Callable[..., Any]:
    """The function, called on the executor; as an async one it holds no thread while it waits."""

    def plan(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _perform(here, name, Parcel(name, fn, args, kwargs), source, timeout_seconds)

    return in_its_colour(fn, is_async, plan)


async def _perform(here: Here, name: str, parcel: Parcel, source: ExecutorSource, timeout_seconds: float | None) -> Any:
    """Send it, wait for it, and say what it came to. A plan."""
    assert isinstance(here.ground, Runtime)
    executors, bell = here.ground.executors, here.ground.bell
    until_ms = None if timeout_seconds is None else here.ground.clock.now_ms() + int(timeout_seconds * 1000)
    # In a thread, where that matters: an executor may be long in the making.
    executor: Executor = await Call(here, executors.of, (source,), {}, is_async=False)
    try:
        future: Future[Any] = await Call(here, parcel.send, (executor,), {}, is_async=False)
    except RuntimeError as error:  # broken, or shut down
        raise _lost(name, executors, executor, error) from error
    channel = ("executor", str(id(future)))
    future.add_done_callback(lambda _: bell.ring_here([channel]))

    async def look() -> bool | None:
        return future.done() or None

    try:
        is_done = await wait_until(here, look, channel, until_ms=until_ms)
    finally:
        future.cancel()  # nothing, if it is done; else it need not begin any more
    if is_done is None:
        assert timeout_seconds is not None
        raise DBOSStepTimeoutError(name, timeout_seconds)
    return _outcome(name, executors, executor, future)


def _outcome(name: str, executors: Executors, executor: Executor, future: Future[Any]) -> Any:
    """What the function returned or raised, if its worker lived so long."""
    try:
        error = future.exception()
    except CancelledError as cancelled:
        error = cancelled
    if error is None:
        value = future.result()
        return value.unpacked(name) if isinstance(value, Packed) else value
    # What is no Exception ended the worker, such as SystemExit.
    is_lost = isinstance(error, BrokenExecutor | CancelledError) or type(error).__name__ in LOST
    if is_lost or not isinstance(error, Exception):
        raise _lost(name, executors, executor, error) from error
    cause = getattr(error, "cause", None)
    if type(error).__name__.startswith(AROUND) and isinstance(cause, Exception):
        raise cause
    raise error


def _lost(name: str, executors: Executors, executor: Executor, error: BaseException) -> DBOSStepWorkerLostError:
    """The error that says so; a broken executor of ours is made anew for the next attempt."""
    advice = ""
    if isinstance(error, RuntimeError) and not executors.forget(executor):
        advice = (
            " This executor cannot be used any more: give the step a function that makes one (executor=make_pool), and "
            "a new one is made for the next attempt."
        )
    return DBOSStepWorkerLostError(name, f"{type(error).__name__}: {error}.{advice}" if str(error) else repr(error))
