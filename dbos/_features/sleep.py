"""Durable sleep: the moment of waking is recorded before the first wait, so a crash costs none of it."""

from __future__ import annotations

import math

from dbos._kernel.journal import refuse_in_transaction
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.waiting import SLEEP, nothing, wait_until, waking_moment
from dbos.error import DBOSException, DBOSMisuseError


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
