"""Deaths around a moment for which a schedule fires: its workflow is there afterwards, and there once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from dbos import DBOS, DBOSConfig
from dbos._kernel.plan import set_probe
from dbos.testing import MOMENTS, Crash, Death, FakeClock, Killer, crash, use_clock
from tests.waiting import eventually

START = 1_800_000_000_000
FIRST, SECOND = (f"sched-s-2027-01-15T08:0{minute}:00+00:00" for minute in (1, 2))


def live(config: DBOSConfig, clock: FakeClock, workflow: Callable[..., None]) -> None:
    """A program that has a schedule: from its launch until two moments have come and both workflows have ended."""
    use_clock(clock)
    DBOS(config=config)
    DBOS.launch()
    DBOS.apply_schedules(
        [{"schedule_name": "s", "schedule": "* * * * *", "workflow_fn": workflow, "automatic_backfill": True}]
    )
    for number in (1, 2):
        clock.advance(max(0, START + number * 60_000 - clock.now_ms()) / 1000)
        eventually(lambda: len(DBOS.list_workflows(status="SUCCESS")) >= number)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.timeout(600)
def test_a_moment_fires_once_whenever_the_runtime_dies(fresh: Callable[[], DBOSConfig]) -> None:
    ran: list[str] = []

    @DBOS.workflow(name="minutely")
    def minutely(moment: datetime, context: object) -> None:
        ran.append(str(DBOS.workflow_id))

    deaths = 0
    for number in range(1, 21):
        for moment in MOMENTS:
            config, clock, killer = fresh(), FakeClock(START), Killer(Death(number, moment))
            ran.clear()
            set_probe(killer)
            try:
                live(config, clock, minutely)
            except Crash:
                pass
            finally:
                crash()
                set_probe(None)
            live(config, clock, minutely)
            found = {each.workflow_id: each.recovery_attempts for each in DBOS.list_workflows()}
            assert {FIRST, SECOND} == set(found), killer.death
            assert all(ran.count(each) <= (found[each] or 0) for each in found), killer.death
            schedule = DBOS.get_schedule("s")
            assert schedule is not None
            assert "2027-01-15T08:02:00+00:00" == schedule["last_fired_at"]
            DBOS.destroy()
            deaths += killer.fired
    assert deaths > 20  # not all: where two threads act at once, a moment after an effect may pass unseen
