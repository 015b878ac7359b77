"""Durable sleep: the moment of waking is recorded before the first wait, so a crash costs none of it."""

from __future__ import annotations

import json
import math

from dbos._kernel.codec import PORTABLE
from dbos._kernel.journal import commit, ensure_running, record, refuse_in_transaction, replay
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.waiting import nothing, wait_until
from dbos.error import DBOSException, DBOSMisuseError

SLEEP = "DBOS.sleep"


@op(SLEEP)
async def sleep(here: Here, seconds: float) -> None:
    """Sleep in a workflow for so many seconds, over crashes and restarts.

    Raises DBOSException outside of a workflow and DBOSMisuseError inside a step. Not more than 0 seconds is no sleep
    and no step. A workflow that is cancelled while it sleeps ends at once.
    """
    refuse_in_transaction(here, SLEEP)
    if here.run is None:
        raise DBOSException("sleep() must be called from within a workflow")
    if not here.in_body:
        raise DBOSMisuseError("sleep() must be called from within a workflow, not from a step: use time.sleep there")
    if not math.isfinite(seconds):
        raise ValueError(f"sleep() takes a finite number of seconds, not {seconds}")
    if seconds > 0:
        until_ms = await waking_moment(here, here.run.next_step(), seconds)
        await wait_until(here, nothing, until_ms=until_ms)


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
