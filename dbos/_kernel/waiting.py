"""Waiting for something to appear in the database.

Listen, look, wait, look again: in this order nothing is missed. A wait in a workflow, or in one of its steps,
also listens for the workflow being cancelled or taken over: neither is kept waiting for what never comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from dbos._kernel.bell import stop
from dbos._kernel.journal import ensure_running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbos._kernel.bell import Channel, Waiter
    from dbos._kernel.scope import Here, Run

T = TypeVar("T")


async def wait_until(
    here: Here, look: Callable[[], Awaitable[T | None]], *channels: Channel, until_ms: int | None = None
) -> T | None:
    """What `look` finds, as soon as it finds something; None when the moment comes first."""
    run = here.run
    if run is not None:
        channels = (*channels, stop(run.workflow_id))
    with here.ground.bell.listening(*channels) as waiter:
        while True:
            found = await look()
            if found is not None:
                return found
            if run is None:
                rung = await here.wait(waiter, until_ms)
            else:
                rung = await _wait_in_run(here, run, waiter, until_ms)
            if not rung:
                return await look()


async def _wait_in_run(here: Here, run: Run, waiter: Waiter, until_ms: int | None) -> bool:
    # What was rung before we listened, the run itself has heard; what is rung from now on, the waiter hears.
    await _stop_if_told(run, run.stops)
    run.is_waiting = True
    here.ground.made_room()
    try:
        rung = await here.wait(waiter, until_ms)
    finally:
        run.is_waiting = False
    await _stop_if_told(run, waiter)
    return rung


async def _stop_if_told(run: Run, waiter: Waiter) -> None:
    if "stop" in waiter.heard:
        waiter.heard.discard("stop")
        run.doubt()
        await ensure_running(run)


async def nothing() -> None:
    """A look that never finds anything: waiting for a moment alone."""
    return
