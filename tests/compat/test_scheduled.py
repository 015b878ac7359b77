"""`@DBOS.scheduled`: functions that are run by the clock as long as a process has them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from dbos import DBOS
from dbos.testing import FakeClock
from tests.compat.conftest import Log
from tests.compat.rows import INTERNAL_QUEUE
from tests.compat.timed import NOW, due
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import eventually

MINUTE = timedelta(minutes=1)


def finished(number: int) -> list[str]:
    """The ids of so many workflows that have ended."""
    return [each.workflow_id for each in eventually(lambda: _finished(number))]


def _finished(number: int) -> list[Any]:
    found = DBOS.list_workflows(status="SUCCESS")
    return found if len(found) >= number else []


def test_a_workflow_is_given_two_moments(app: App, hand: Hand, clock: FakeClock) -> None:
    """When it was to run, and when it was placed."""
    given: list[tuple[datetime, datetime]] = []

    @DBOS.scheduled("* * * * *")
    @hand.workflow(name="minutely")
    async def minutely(do: Inside, scheduled: datetime, actual: datetime) -> None:
        given.append((scheduled, actual))

    app.launch()
    due(clock, NOW + MINUTE)
    finished(1)
    clock.wait_for_sleeper(int((NOW + 2 * MINUTE).timestamp() * 1000))
    clock.advance(75)

    assert [f"sched-minutely-2027-01-15T08:0{minute}:00+00:00" for minute in (1, 2)] == finished(2)
    assert [(NOW + MINUTE, NOW + MINUTE), (NOW + 2 * MINUTE, NOW + 2 * MINUTE + timedelta(seconds=15))] == given
    status = DBOS.get_workflow_status("sched-minutely-2027-01-15T08:01:00+00:00")
    assert ("minutely", INTERNAL_QUEUE, "v1") == (status.name, status.queue_name, status.app_version)
    assert [] == DBOS.list_schedules()


def test_steps_transactions_and_methods_may_be_scheduled(app: App, clock: FakeClock) -> None:
    ran: list[Any] = []

    @DBOS.dbos_class("Tools")
    class Tools:
        @classmethod
        @DBOS.scheduled("* * * * *")
        @DBOS.workflow(name="class_method")
        def class_method(cls, scheduled: datetime, actual: datetime) -> None:
            ran.append(cls)

        @staticmethod
        @DBOS.scheduled("* * * * *")
        @DBOS.workflow(name="static_method")
        def static_method(scheduled: datetime, actual: datetime) -> None:
            ran.append("static")

    @DBOS.scheduled("* * * * *")
    @DBOS.step(name="step")
    def step(scheduled: datetime, actual: datetime) -> None:
        ran.append("step")

    @DBOS.scheduled("* * * * *")
    @DBOS.transaction(name="transaction")
    def transaction(scheduled: datetime, actual: datetime) -> None:
        ran.append(DBOS.sql_session.execute(sa.text("SELECT 'transaction'")).scalar())

    @DBOS.workflow(name="inside_out")
    @DBOS.scheduled("* * * * *")
    def inside_out(scheduled: datetime, actual: datetime) -> None:
        ran.append("inside out")

    app.launch()
    due(clock, NOW + MINUTE)
    ids = finished(5)

    assert {Tools, "static", "step", "transaction", "inside out"} == set(ran)
    assert 5 == len(ran)
    assert "sched-step-2027-01-15T08:01:00+00:00" in ids
    assert "Tools" == DBOS.get_workflow_status("sched-class_method-2027-01-15T08:01:00+00:00").class_name


@pytest.mark.parametrize("crontab", ["not a crontab", "* * *", "0 0 30 2 *", "99 * * * *"])
def test_a_wrong_crontab_is_refused_where_it_is_written(crontab: str) -> None:
    with pytest.raises(ValueError, match="Invalid crontab"):
        DBOS.scheduled(crontab)


def test_a_function_that_comes_after_launch(app: App, hand: Hand, clock: FakeClock) -> None:
    """A notebook's cell, run again with another crontab: from then on that one counts."""
    ran: list[str] = []

    def define(crontab: str) -> None:
        @DBOS.scheduled(crontab)
        @hand.workflow(name="late")
        async def late(do: Inside, scheduled: datetime, actual: datetime) -> None:
            ran.append(crontab)

    app.launch(log_level="CRITICAL")
    define("30 * * * *")
    clock.wait_for_sleeper(int((NOW + 30 * MINUTE).timestamp() * 1000))
    define("*/5 * * * *")
    due(clock, NOW + 5 * MINUTE)
    finished(1)
    due(clock, NOW + 10 * MINUTE)
    finished(2)

    assert ["*/5 * * * *"] * 2 == ran


def test_nothing_is_made_up_for(app: App, hand: Hand, clock: FakeClock) -> None:
    """What was missed between two lives is skipped."""

    @DBOS.scheduled("* * * * *")
    @hand.workflow(name="minutely")
    async def minutely(do: Inside, scheduled: datetime, actual: datetime) -> None: ...

    app.launch()
    due(clock, NOW + MINUTE)
    finished(1)
    app.crash()
    clock.advance(600)
    app.launch()
    due(clock, NOW + 12 * MINUTE)

    assert [f"sched-minutely-2027-01-15T08:{minute}:00+00:00" for minute in ("01", "12")] == finished(2)


def test_an_error_does_not_end_it(app: App, hand: Hand, clock: FakeClock, log: Log) -> None:
    """Neither one of the workflow, nor one of the placing: here nobody decorated the function as a workflow."""
    ran: list[datetime] = []

    @DBOS.scheduled("* * * * *")
    def nothing(scheduled: datetime, actual: datetime) -> None: ...

    @DBOS.scheduled("* * * * *")
    @hand.workflow(name="fails")
    async def fails(do: Inside, scheduled: datetime, actual: datetime) -> None:
        ran.append(scheduled)
        raise ValueError("once more")

    app.launch(log_level="DEBUG")
    due(clock, NOW + MINUTE)
    for number in (1, 2):
        # What cannot be placed is tried again before the next moment comes.
        clock.wait_for_sleeper(int((NOW + number * MINUTE + timedelta(seconds=5)).timestamp() * 1000))
        eventually(lambda: len(DBOS.list_workflows(status="ERROR")) == number)
        clock.advance(60)

    assert [NOW + MINUTE, NOW + 2 * MINUTE] == ran
    assert log.says("nothing cannot fire")
