"""Steps: calling a function as one recorded step, with retries.

Inside another step, and outside of any workflow, a step is a plain function call. All attempts are one record:
what is stored is what the last of them came to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from dbos._engine.runtime import Call
from dbos._kernel.journal import recorded, refuse_in_transaction
from dbos._kernel.scope import StepStatus
from dbos._kernel.trace import span
from dbos._kernel.waiting import nothing, wait_until
from dbos.error import DBOSMaxStepRetriesExceeded

if TYPE_CHECKING:
    from dbos._kernel.scope import Here

logger = logging.getLogger("dbos")

# No wait between two attempts is longer, however often the back-off doubled.
LONGEST_WAIT_SECONDS = 3600.0


class StepOptions(TypedDict, total=False):
    """How `DBOS.run_step` names and retries the function it is given; the defaults are those of `@DBOS.step`."""

    name: str | None
    retries_allowed: bool
    interval_seconds: float
    max_attempts: int
    backoff_rate: float


@dataclass(frozen=True, slots=True)
class StepSpec:
    """How a step is named and retried."""

    name: str
    retries_allowed: bool = False
    interval_seconds: float = 1.0
    max_attempts: int = 3
    backoff_rate: float = 2.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts of step {self.name!r} must be at least 1, not {self.max_attempts}")
        if self.interval_seconds < 0 or self.backoff_rate < 0:
            raise ValueError(f"interval_seconds and backoff_rate of step {self.name!r} must not be negative")

    def wait_seconds(self, failures: int) -> float:
        """How long to wait after so many failed attempts."""
        try:
            return float(min(self.interval_seconds * self.backoff_rate ** (failures - 1), LONGEST_WAIT_SECONDS))
        except OverflowError:
            return LONGEST_WAIT_SECONDS


async def perform_step(
    here: Here, spec: StepSpec, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, is_async: bool
) -> Any:
    """Call the function as a step of the workflow whose body this is."""
    refuse_in_transaction(here, spec.name)

    async def body(inside: Here) -> Any:
        assert inside.run is not None
        with span(spec.name, "step", inside.run):
            if not spec.retries_allowed:
                return await Call(inside, fn, args, kwargs, is_async=is_async)
            return await _attempts(here, inside, spec, fn, args, kwargs, is_async=is_async)

    return await recorded(here, spec.name, body)


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
            return await Call(place, fn, args, kwargs, is_async=is_async)
        except Exception as error:  # noqa: BLE001 - user code; every failed attempt is kept
            errors.append(error)
            logger.warning("Step %s failed, attempt %d of %d: %r", spec.name, attempt + 1, spec.max_attempts, error)
    raise DBOSMaxStepRetriesExceeded(spec.name, spec.max_attempts, errors) from errors[-1]
