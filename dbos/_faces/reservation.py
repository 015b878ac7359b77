"""Reserved steps: the id is taken now and the step run later, so that tasks that run side by side keep their ids."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dbos._engine.step import StepOptions, perform_step, step_options
from dbos._kernel.plan import arun, refuse_to_block, run
from dbos._kernel.scope import HERE
from dbos.error import DBOSException

if TYPE_CHECKING:
    from dbos._kernel.scope import Here, Run

P = ParamSpec("P")
R = TypeVar("R")


class StepReservation:
    """The next step of a workflow, to be run once and at any time; if it is not run, its id stays unused.

    Ids are otherwise taken when a step starts. Where several tasks of a workflow each run more than one step, which
    of them comes next is chance, and a replay would mix them up.
    """

    def __init__(self, owner: Run) -> None:
        self._owner = owner
        self._is_used = False
        #: The step's position in the workflow, from 1.
        self.step_id = owner.next_step()

    def __repr__(self) -> str:
        return f"<StepReservation {self.step_id} of {self._owner.workflow_id}>"

    def run(self, dbos_step_options: StepOptions | None, func: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run any function as the reserved step, like `DBOS.run_step`."""
        refuse_to_block("StepReservation.run")
        place, spec = self._take(), step_options(dbos_step_options, func)
        return run(perform_step(place, spec, func, args, kwargs, is_async=False, step_id=self.step_id))  # type: ignore[no-any-return]  # as the function promised

    async def run_async(
        self,
        dbos_step_options: StepOptions | None,
        func: Callable[P, Coroutine[Any, Any, R]] | Callable[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Run any function as the reserved step, like `DBOS.run_step_async`."""
        place, spec = self._take(), step_options(dbos_step_options, func)
        is_async = spec.is_awaited(func)
        return await arun(perform_step(place, spec, func, args, kwargs, is_async=is_async, step_id=self.step_id))

    def _take(self) -> Here:
        place = HERE.get()
        if place is None or not place.in_body or place.session is not None or place.run is not self._owner:
            raise DBOSException(
                f"Step {self.step_id} was reserved by workflow {self._owner.workflow_id} and must be run from that "
                "workflow, outside any step or transaction"
            )
        if self._is_used:
            raise DBOSException("A step reservation can only be run once")
        self._is_used = True
        return place


def reserve_step() -> StepReservation:
    """Take the id of the next step of this workflow now, for a step that is run later.

    Raises DBOSException outside of a workflow, and in a step or transaction.
    """
    place = HERE.get()
    if place is None or place.run is None or not place.in_body or place.session is not None:
        raise DBOSException("reserve_step() must be called from a workflow, outside any step or transaction")
    return StepReservation(place.run)
