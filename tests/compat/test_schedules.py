"""Schedules fire: at each of their moments, by a clock that jumps, over deaths, pauses and changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dbos import DBOS, Queue
from dbos.testing import FakeClock
from tests.compat.conftest import Log
from tests.compat.rows import INTERNAL_QUEUE, Rows
from tests.compat.timed import NOW, Timed, create, due, ids
from tests.conftest import App
from tests.hand import Hand
from tests.waiting import eventually


def test_a_schedule_runs_its_workflow_at_each_moment(app: App, hand: Hand, clock: FakeClock) -> None:
    timed = Timed(hand)
    app.launch()
    create(hand, timed, context={"days": 30})
    for minute in (1, 2, 3):
        due(clock, NOW + timedelta(minutes=minute))
        timed.moments(minute)

    assert [(NOW + timedelta(minutes=minute), {"days": 30}) for minute in (1, 2, 3)] == timed.given
    assert [f"sched-s-2027-01-15T08:0{minute}:00+00:00" for minute in (1, 2, 3)] == ids()
    assert "2027-01-15T08:03:00+00:00" == hand.do("get_schedule", "s")["last_fired_at"]
    status = DBOS.get_workflow_status("sched-s-2027-01-15T08:01:00+00:00")
    assert ("timed", INTERNAL_QUEUE, "v1") == (status.name, status.queue_name, status.app_version)


def test_seconds_stand_in_front(app: App, hand: Hand, clock: FakeClock) -> None:
    timed = Timed(hand)
    app.launch()
    create(hand, timed, schedule="*/20 * * * * *")
    for seconds in (20, 40, 60, 80):
        due(clock, NOW + timedelta(seconds=seconds))

    assert ["20", "40", "00", "20"] == [each[17:19] for each in timed.moments(4)]


def test_days_pass_over_a_moved_clock_in_many_zones(app: App, hand: Hand, clock: FakeClock) -> None:
    """Five schedules in five zones, each at its own half past two, over the night in which Europe moves its clocks."""
    timed = Timed(hand)
    app.launch()
    clock.advance((datetime(2027, 3, 27, tzinfo=UTC) - NOW).total_seconds())
    zones = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Chatham"]
    for zone in zones:
        create(hand, timed, zone, "30 2 * * *", cron_timezone=zone, context=zone)
    expected = []
    for zone in zones:
        days = [datetime(2027, 3, day, 2, 30, tzinfo=ZoneInfo(zone)) for day in (26, 27, 28, 29, 30)]
        if zone == "Europe/Berlin":
            days[2] = datetime(2027, 3, 28, 3, 0, tzinfo=ZoneInfo(zone))
        expected += [
            (day, zone) for day in days if datetime(2027, 3, 27, tzinfo=UTC) < day < datetime(2027, 3, 30, tzinfo=UTC)
        ]
    expected.sort(key=lambda each: each[0].timestamp())
    for number, (moment, _) in enumerate(expected, 1):
        due(clock, moment)
        timed.moments(number)

    assert expected == timed.given
    assert "sched-Europe/Berlin-2027-03-28T03:00:00+02:00" in ids()


def test_what_came_while_the_process_was_held_up(app: App, hand: Hand, clock: FakeClock) -> None:
    """A laptop slept for an hour: the moments of the last minute fire, of a slower schedule the last one."""
    timed = Timed(hand)
    app.launch()
    create(hand, timed, "fast", "*/20 * * * * *", context="fast")
    create(hand, timed, "slow", "*/25 * * * *", context="slow")
    clock.wait_for_sleeper(int((NOW + timedelta(seconds=20)).timestamp() * 1000))
    clock.advance(3610)

    timed.moments(4)
    found = sorted((context, moment.strftime("%H:%M:%S")) for moment, context in timed.given)
    assert [("fast", "08:59:20"), ("fast", "08:59:40"), ("fast", "09:00:00"), ("slow", "09:00:00")] == found


def test_with_backfill_nothing_is_skipped(app: App, hand: Hand, clock: FakeClock) -> None:
    timed = Timed(hand)
    app.launch()
    create(hand, timed, automatic_backfill=True)
    clock.wait_for_sleeper(int((NOW + timedelta(minutes=1)).timestamp() * 1000))
    clock.advance(250 * 60)  # more than go into one transaction

    assert [(NOW + timedelta(minutes=minute)).isoformat() for minute in range(1, 251)] == timed.moments(250)


@pytest.mark.parametrize("automatic_backfill", [True, False])
def test_what_was_missed_between_two_lives(app: App, hand: Hand, clock: FakeClock, automatic_backfill: bool) -> None:
    """Is made up for since it fired last, or skipped."""
    timed = Timed(hand)
    app.launch()
    create(hand, timed, automatic_backfill=automatic_backfill)
    due(clock, NOW + timedelta(minutes=1))
    timed.moments(1)
    DBOS.destroy()
    clock.advance(10 * 60)
    app.launch()
    due(clock, NOW + timedelta(minutes=12))

    minutes = range(1, 13) if automatic_backfill else (1, 12)
    assert [(NOW + timedelta(minutes=minute)).isoformat() for minute in minutes] == timed.moments(len(minutes))


def test_backfill_begins_with_the_schedule(app: App, hand: Hand, clock: FakeClock) -> None:
    """Also where the process died before the first moment came; and it goes to the version that is launched."""
    timed = Timed(hand)
    app.launch()
    create(hand, timed, automatic_backfill=True)
    app.crash()
    clock.advance(3 * 60)
    app.launch(application_version="v2")

    assert 3 == len(timed.moments(3))
    assert {"v2"} == {each.app_version for each in DBOS.list_workflows()}


def test_a_paused_schedule_does_not_fire(app: App, hand: Hand, clock: FakeClock) -> None:
    """And when it is resumed nothing of the pause is made up for, with backfill or without."""
    timed = Timed(hand)
    app.launch()
    create(hand, timed, "paused", automatic_backfill=True, context="paused")
    create(hand, timed, "other", context="other")
    hand.do("pause_schedule", "paused")
    assert "PAUSED" == hand.do("get_schedule", "paused")["status"]
    for minute in (1, 2):
        due(clock, NOW + timedelta(minutes=minute))
    timed.moments(2)
    hand.do("resume_schedule", "paused")
    due(clock, NOW + timedelta(minutes=3))
    timed.moments(4)
    app.restart()

    assert [("other", 1), ("other", 2), ("other", 3), ("paused", 3)] == sorted(
        (context, moment.minute) for moment, context in timed.given
    )


def test_a_deleted_schedule_does_not_fire(app: App, hand: Hand, clock: FakeClock) -> None:
    timed = Timed(hand)
    app.launch()
    create(hand, timed, "deleted")
    create(hand, timed, "other", context="other")
    hand.do("delete_schedule", "deleted")
    due(clock, NOW + timedelta(minutes=1))
    timed.moments(1)
    clock.wait_for_sleeper(int((NOW + timedelta(minutes=2)).timestamp() * 1000))

    assert ["other"] == [context for _, context in timed.given]
    assert hand.do("get_schedule", "deleted") is None
    create(hand, timed, "deleted")  # the name is free


def test_two_lives_fire_for_one_moment_once(app: App, hand: Hand, clock: FakeClock, rows: Rows) -> None:
    """Its workflow is found by its id; a schedule that forgot that it fired does no harm."""
    timed = Timed(hand)
    app.launch()
    create(hand, timed, automatic_backfill=True)
    due(clock, NOW + timedelta(minutes=1))
    timed.moments(1)
    app.crash()
    rows.run("UPDATE {}workflow_schedules SET last_fired_at = NULL")
    clock.advance(60)
    app.launch()

    assert 2 == len(timed.moments(2))
    eventually(lambda: rows.run("SELECT last_fired_at FROM {}workflow_schedules WHERE last_fired_at LIKE '%08:02%'"))
    assert 2 == len(timed.given)


def test_workflows_are_for_the_latest_version(app: App, hand: Hand, clock: FakeClock) -> None:
    timed = Timed(hand)
    app.launch(application_version="v1")
    app.relaunch(application_version="v2")
    create(hand, timed)
    DBOS.set_latest_application_version("v1")
    clock.advance(1)
    DBOS.set_latest_application_version("v1")
    due(clock, NOW + timedelta(minutes=1))

    (workflow,) = eventually(DBOS.list_workflows)
    assert ("v1", "ENQUEUED") == (workflow.app_version, workflow.status)


def test_a_schedule_on_a_queue(app: App, hand: Hand, clock: FakeClock) -> None:
    timed, queue = Timed(hand), Queue("reports")
    app.launch()
    create(hand, timed, queue_name="reports")
    due(clock, NOW + timedelta(minutes=1))
    timed.moments(1)

    assert queue.name == DBOS.get_workflow_status("sched-s-2027-01-15T08:01:00+00:00").queue_name


def test_a_class_method_is_called_on_its_class(app: App, hand: Hand, clock: FakeClock) -> None:
    called: list[Any] = []

    @DBOS.dbos_class("Reports")
    class Reports:
        @classmethod
        @DBOS.workflow(name="daily")
        def daily(cls, moment: datetime, context: Any) -> None:
            called.append((cls, moment, context))

        @staticmethod
        @DBOS.workflow(name="hourly")
        def hourly(moment: datetime, context: Any) -> None:
            called.append(("static", moment, context))

    app.launch()
    hand.do("create_schedule", schedule_name="c", workflow_fn=Reports.daily, schedule="* * * * *", context=1)
    hand.do("create_schedule", schedule_name="s", workflow_fn=Reports.hourly, schedule="* * * * *", context=2)
    due(clock, NOW + timedelta(minutes=1))
    eventually(lambda: len(called) == 2)

    moment = NOW + timedelta(minutes=1)
    assert {(Reports, moment, 1), ("static", moment, 2)} == set(called)
    assert ["Reports", None] == [each["workflow_class_name"] for each in hand.do("list_schedules")]


def test_a_context_that_cannot_be_read_holds_up_nobody_else(
    app: App, hand: Hand, clock: FakeClock, rows: Rows, log: Log
) -> None:
    timed = Timed(hand)
    app.launch()
    create(hand, timed, "bad")
    create(hand, timed, "odd")
    create(hand, timed, "good", context="good")
    app.crash()
    rows.run("UPDATE {}workflow_schedules SET context = 'what is this' WHERE schedule_name = 'bad'")
    rows.run("UPDATE {}workflow_schedules SET schedule = 'never' WHERE schedule_name = 'odd'")
    app.launch(log_level="DEBUG")
    due(clock, NOW + timedelta(minutes=1))
    timed.moments(1)

    assert ["good"] == [context for _, context in timed.given]
    eventually(lambda: log.says("Schedule bad cannot fire"))
    assert log.says("Schedule odd cannot be followed")
    assert "what is this" == hand.do("get_schedule", "bad")["context"]


def test_it_ends_at_once_although_the_next_moment_is_far(app: App, hand: Hand, clock: FakeClock) -> None:
    timed = Timed(hand)
    app.launch()
    create(hand, timed, schedule="0 0 1 1 *")
    clock.wait_for_sleeper(int(datetime(2028, 1, 1, tzinfo=UTC).timestamp() * 1000))
    DBOS.destroy()
