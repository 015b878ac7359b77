"""Waiting for something to appear in the database.

Listen, look, wait, look again: in this order nothing is missed. A wait in a workflow, or in one of its steps,
also listens for the workflow being cancelled or taken over: neither is kept waiting for what never comes.

How long a workflow waits is a step of its own, the moment at which it stops: a crash costs none of the time.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, TypeVar

from dbos._kernel.bell import stop
from dbos._kernel.codec import PORTABLE
from dbos._kernel.journal import commit, ensure_running, record, replay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbos._kernel.bell import Channel, Waiter
    from dbos._kernel.scope import Here, Run

T = TypeVar("T")

SLEEP = "DBOS.sleep"


async def wait_until(
    here: Here,
    look: Callable[[], Awaitable[T | None]],
    *channels: Channel,
    until_ms: int | None = None,
    moment: Callable[[], Awaitable[int]] | None = None,
) -> T | None:
    """What `look` finds, as soon as it finds something; None when the moment comes first.

    `moment` tells `until_ms` when there is something to wait for: it is asked once, if the first look finds nothing.
    """
    run = here.run
    if run is not None:
        channels = (*channels, stop(run.workflow_id))
    with here.ground.bell.listening(*channels) as waiter:
        while True:
            found = await look()
            if found is not None:
                return found
            if moment is not None and until_ms is None:
                until_ms = await moment()
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
    told = stop(run.workflow_id)
    if told in waiter.heard:
        waiter.heard.discard(told)
        run.doubt()
        await ensure_running(run)


async def nothing() -> None:
    """A look that never finds anything: waiting for a moment alone."""
    return


async def waking_moment(here: Here, step_id: int, seconds: float) -> int:
    """When the wait of that step ends: as recorded, or so many seconds from now, recorded now."""
    run = here.run
    assert run is not None
    found = replay(run, step_id, SLEEP)
    if found is not None:
        return int(float(found.output or 0) * 1000)
    await ensure_running(run)
    until_ms = here.ground.clock.now_ms() + int(seconds * 1000)
    # In seconds, as every DBOS program for Python records it.
    await commit(here, record(run, step_id, SLEEP, output=json.dumps(until_ms / 1000), serialization=PORTABLE))
    return until_ms


def checked_timeout(seconds: float) -> float:
    """How long an operation may wait, if it is a number of seconds; raises ValueError if it is none."""
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise ValueError(f"A timeout is a finite number of seconds and must not be negative, but is {seconds}")
    return seconds
