"""What tests of schedules share: a workflow, a clock that is moved from one moment to the next, and the ids."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dbos import DBOS
from dbos.testing import FakeClock
from tests.hand import Hand, Inside
from tests.waiting import eventually

# Where the clock stands: a Friday.
NOW = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)


class Timed:
    """A workflow for schedules, and what it was given."""

    def __init__(self, hand: Hand) -> None:
        self.given: list[tuple[datetime, Any]] = []

        @hand.workflow()
        async def timed(do: Inside, moment: datetime, context: Any) -> Any:
            self.given.append((moment, context))
            return context

        self.workflow = timed

    def moments(self, number: int) -> list[str]:
        """The first so many moments that it was run for, in their order."""
        eventually(lambda: len(DBOS.list_workflows(name="timed", status="SUCCESS")) >= number)
        return [moment.isoformat() for moment, _ in sorted(self.given, key=lambda each: each[0])]


def due(clock: FakeClock, moment: datetime) -> None:
    """Let the time come to that moment, when the scheduler waits for it."""
    ms = int(moment.timestamp() * 1000)
    clock.wait_for_sleeper(ms)
    clock.advance((ms - clock.now_ms()) / 1000)


def create(hand: Hand, timed: Timed, name: str = "s", schedule: str = "* * * * *", **more: Any) -> None:
    hand.do("create_schedule", schedule_name=name, workflow_fn=timed.workflow, schedule=schedule, **more)


def ids(prefix: str = "sched-") -> list[str]:
    return [each.workflow_id for each in DBOS.list_workflows(workflow_id_prefix=prefix)]
