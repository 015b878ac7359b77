"""Steps: calling a function as one recorded step, with retries.

Inside another step, and outside of any workflow, a step is a plain function call. All attempts are one record:
what is stored is what the last of them came to.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from dbos._engine.away import away
from dbos._engine.bounds import within
from dbos._engine.runtime import Call
from dbos._kernel.extension import guarded
from dbos._kernel.journal import recorded, refuse_in_transaction
from dbos._kernel.naming import checked_name
from dbos._kernel.scope import StepStatus
from dbos._kernel.trace import happened, span
from dbos._kernel.waiting import nothing, wait_until
from dbos.error import DBOSException, DBOSMaxStepRetriesExceeded

if TYPE_CHECKING:
    from dbos._engine.executors import ExecutorSource
    from dbos._kernel.scope import Here

logger = logging.getLogger("dbos")

# Is given the exception of a failed attempt.
ShouldRetry = Callable[[Exception], bool | Awaitable[bool]]

# No wait between two attempts is longer, however often the back-off doubled.
LONGEST_WAIT_SECONDS = 3600.0


class StepOptions(TypedDict, total=False):
    """How `DBOS.run_step` names and retries the function it is given; the defaults are those of `@DBOS.step`."""

    name: str | None
    retries_allowed: bool
    interval_seconds: float
    max_attempts: int
    backoff_rate: float
    should_retry: ShouldRetry | None
    timeout_seconds: float | None
    preemptible: bool
    executor: ExecutorSource | None


@dataclass(frozen=True, slots=True)
class StepSpec:
    """How a step is named and retried."""

    name: str
    retries_allowed: bool = False
    interval_seconds: float = 1.0
    max_attempts: int = 3
    backoff_rate: float = 2.0
    #: Whether an exception is worth another attempt; otherwise it is what the step came to.
    should_retry: ShouldRetry | None = None
    #: How long an attempt may take. This and the next are for async functions, and on executors: nothing else can be
    #: interrupted.
    timeout_seconds: float | None = None
    #: Ends at once when its workflow is cancelled or taken over, as it always does on an executor.
    preemptible: bool = False
    #: Where it runs instead of here.
    executor: ExecutorSource | None = None

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts of step {self.name!r} must be at least 1, not {self.max_attempts}")
        if self.interval_seconds < 0 or self.backoff_rate < 0:
            raise ValueError(f"interval_seconds and backoff_rate of step {self.name!r} must not be negative")

    def fitting(self, fn: Callable[..., Any]) -> StepSpec:
        """The same for this function. Raises DBOSException where it asks for what only async functions have."""
        seconds = self.timeout_seconds
        if seconds is not None and not (isinstance(seconds, (int, float)) and 0 < seconds < math.inf):
            raise DBOSException(
                f"Step {self.name} has timeout_seconds={seconds}. Timeouts must be positive and finite."
            )
        if self.executor is not None and not (isinstance(self.executor, Executor) or callable(self.executor)):
            raise DBOSException(
                f"The executor of step {self.name} must be a concurrent.futures.Executor or a function that makes one, "
                f"not {self.executor!r}"
            )
        if inspect.iscoroutinefunction(fn):
            return self
        if inspect.iscoroutinefunction(self.should_retry):
            raise DBOSException(f"Step {self.name} is sync but should_retry is async")
        if self.executor is not None:
            return self
        if seconds is not None:
            raise DBOSException(f"Step {self.name} is sync: timeout_seconds is only supported for async steps")
        if self.preemptible:
            raise DBOSException(f"Step {self.name} is sync: preemptible=True is only supported for async steps")
        return self

    def is_awaited(self, fn: Callable[..., Any]) -> bool:
        """Whether async code awaits this function, instead of giving it a thread."""
        return self.executor is not None or inspect.iscoroutinefunction(fn)

    def wait_seconds(self, failures: int) -> float:
        """How long to wait after so many failed attempts."""
        try:
            return float(min(self.interval_seconds * self.backoff_rate ** (failures - 1), LONGEST_WAIT_SECONDS))
        except OverflowError:
            return LONGEST_WAIT_SECONDS


def step_options(options: StepOptions | None, func: Callable[..., Any]) -> StepSpec:
    """How this function is named and retried, by these options. Raises TypeError for one that does not exist."""
    given = {key: value for key, value in (options or {}).items() if value is not None}
    unknown = sorted(set(given) - set(StepOptions.__annotations__))
    if unknown:
        raise TypeError(f"StepOptions has no such key: {', '.join(unknown)}")
    name = given.pop("name", None) or getattr(func, "__qualname__", None) or type(func).__qualname__
    checked_name(name, "A name")
    return StepSpec(name=name, **given).fitting(func)  # type: ignore[arg-type]  # the keys were looked at


async def perform_step(
    here: Here,
    spec: StepSpec,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    is_async: bool,
    step_id: int | None = None,
) -> Any:
    """Call the function as a step of the workflow whose body this is.

    `step_id` is its id where that was reserved.
    """
    refuse_in_transaction(here, spec.name)

    async def body(inside: Here) -> Any:
        if not spec.retries_allowed:
            called = _as_called(inside, spec, fn, is_async=is_async)
            return await Call(inside, called, args, kwargs, is_async=is_async)
        return await _attempts(here, inside, spec, fn, args, kwargs, is_async=is_async)

    assert here.run is not None
    with span(spec.name, "step", here.run):
        return await recorded(here, spec.name, body, step_id=step_id)


async def _attempts(
    here: Here,
    inside: Here,
    spec: StepSpec,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    is_async: bool,
) -> Any:
    """Call the function until it succeeds or the attempts are used up."""
    assert inside.step is not None
    errors: list[Exception] = []
    for attempt in range(spec.max_attempts):
        if attempt:
            until_ms = here.ground.clock.now_ms() + int(spec.wait_seconds(attempt) * 1000)
            await wait_until(here, nothing, until_ms=until_ms)
        place = inside.within(StepStatus(inside.step.step_id, attempt, spec.max_attempts))
        try:
            return await Call(place, _as_called(place, spec, fn, is_async=is_async), args, kwargs, is_async=is_async)
        except Exception as error:
            errors.append(error)
            happened(f"Step attempt {attempt + 1} failed", error=error)
            if spec.should_retry is not None:
                asks_async = is_async and inspect.iscoroutinefunction(spec.should_retry)
                if not await Call(place, spec.should_retry, (error,), {}, is_async=asks_async):
                    raise
            logger.warning("Step %s failed, attempt %d of %d: %r", spec.name, attempt + 1, spec.max_attempts, error)
    raise DBOSMaxStepRetriesExceeded(spec.name, spec.max_attempts, errors) from errors[-1]


def _as_called(here: Here, spec: StepSpec, fn: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
    """The function as it is called: somewhere else if it has an executor, seen by who observes, within its bounds."""
    if spec.executor is not None:
        fn = away(here, spec.name, fn, spec.executor, spec.timeout_seconds, is_async=is_async)
    if here.run is not None and here.run.observer is not None and here.step is not None:
        observer, step_id = here.run.observer, here.step.step_id
        fn = guarded("An observer of steps", lambda: observer.attempt(step_id, spec.name, fn), fn)
    if spec.executor is not None or (spec.timeout_seconds is None and not spec.preemptible):
        return fn
    return within(here, spec.name, fn, timeout_seconds=spec.timeout_seconds, preemptible=spec.preemptible)
