"""Schedules: made, read, changed, caught up and triggered, from outside and in workflows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dbos import (
    DBOS,
    ClientScheduleInput,
    DBOSConfiguredInstance,
    ScheduleInput,
    SetWorkflowID,
    WorkflowSchedule,
)
from dbos.error import DBOSException
from dbos.testing import FakeClock
from tests.compat.acts import again, step_names
from tests.compat.rows import Rows
from tests.compat.timed import NOW, Timed, create, due
from tests.conftest import App
from tests.hand import Hand, Inside

FIELDS = set(WorkflowSchedule.__annotations__)


def test_a_schedule_is_read_as_it_was_made(app: App, hand: Hand) -> None:
    timed = Timed(hand)
    app.launch()
    create(hand, timed, schedule="0 0 * * *", context=[1], cron_timezone="Asia/Tokyo", automatic_backfill=True)

    found = hand.do("get_schedule", "s")
    assert FIELDS == set(found)
    assert 36 == len(found.pop("schedule_id"))
    assert {
        "schedule_name": "s",
        "workflow_name": "timed",
        "workflow_class_name": None,
        "schedule": "0 0 * * *",
        "status": "ACTIVE",
        "context": [1],
        "last_fired_at": None,
        "automatic_backfill": True,
        "cron_timezone": "Asia/Tokyo",
        "queue_name": None,
    } == found
    assert hand.do("get_schedule", "t") is None


def test_listings_are_by_name_and_filtered(app: App, hand: Hand) -> None:
    timed, other = Timed(hand), hand.workflow(name="other")(_other)
    app.launch()
    for name in ("b-2", "a-1", "b-1"):
        create(hand, timed, name, "0 0 * * *")
    hand.do("create_schedule", schedule_name="c", workflow_fn=other, schedule="0 0 * * *")
    hand.do("pause_schedule", "b-1")

    def names(**wanted: Any) -> list[str]:
        return [each["schedule_name"] for each in hand.do("list_schedules", **wanted)]

    assert ["a-1", "b-1", "b-2", "c"] == names()
    assert ["a-1", "b-2", "c"] == names(status="ACTIVE")
    assert ["b-1"] == names(status=["PAUSED"])
    assert ["c"] == names(workflow_name="other")
    assert ["a-1", "b-1", "b-2"] == names(workflow_name=["timed"], schedule_name_prefix=["a", "b"])
    assert ["b-2"] == names(schedule_name_prefix="b", status="ACTIVE")
    assert [] == names(schedule_name_prefix=[])
    with pytest.raises(ValueError, match="there is no status"):
        names(status="PENDING")


async def _other(do: Inside, moment: datetime, context: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"schedule": "not a cron"}, "Invalid cron schedule: 'not a cron'"),
        ({"schedule": "0 0 30 2 *"}, "Invalid cron schedule: '0 0 30 2 .'"),
        ({"cron_timezone": "Mars/Olympus"}, "Invalid timezone: 'Mars/Olympus'"),
        ({"workflow_fn": datetime.now}, "is not registered"),
        ({"queue_name": "nowhere"}, "Queue 'nowhere' is not declared"),
        ({"schedule_name": ""}, "non-empty"),
        ({"schedule_name": "x" * 500}, "at most"),
    ],
)
def test_what_cannot_work_is_refused(app: App, hand: Hand, wrong: dict[str, Any], says: str) -> None:
    timed = Timed(hand)
    app.launch()
    entry = {"schedule_name": "s", "workflow_fn": timed.workflow, "schedule": "0 0 * * *", **wrong}

    with pytest.raises(DBOSException, match=says):
        hand.do("create_schedule", **entry)
    with pytest.raises(DBOSException, match=says):
        hand.do("apply_schedules", [{**entry, "schedule_name": "first", **wrong}])
    assert [] == hand.do("list_schedules")


def test_instance_methods_and_steps_are_refused(app: App, hand: Hand) -> None:
    @DBOS.dbos_class()
    class Instance(DBOSConfiguredInstance):
        @DBOS.workflow()
        def work(self, moment: datetime, context: Any) -> None: ...

    @DBOS.step()
    def step(moment: datetime, context: Any) -> None: ...

    instance = Instance("one")
    app.launch()
    for fn in (instance.work, Instance.work):
        with pytest.raises(DBOSException, match="Configured instance methods cannot be used"):
            hand.do("create_schedule", schedule_name="s", workflow_fn=fn, schedule="* * * * *")
    with pytest.raises(DBOSException, match="is not registered"):
        hand.do("create_schedule", schedule_name="s", workflow_fn=step, schedule="* * * * *")


def test_a_name_is_given_once(app: App, hand: Hand) -> None:
    timed = Timed(hand)
    app.launch()
    create(hand, timed)

    with pytest.raises(DBOSException, match="Schedule 's' already exists"):
        create(hand, timed, schedule="0 0 * * *")
    assert "* * * * *" == hand.do("get_schedule", "s")["schedule"]


def test_unknown_names_are_passed_over(app: App, hand: Hand) -> None:
    app.launch()
    for operation in ("pause_schedule", "resume_schedule", "delete_schedule"):
        assert hand.do(operation, "nobody") is None


# -- apply -----------------------------------------------------------------------------------------------------


def test_applying_keeps_what_a_schedule_has_done(app: App, hand: Hand, clock: FakeClock) -> None:
    timed = Timed(hand)
    app.launch()
    create(hand, timed, "kept", context="old")
    create(hand, timed, "untouched", "0 0 * * *")
    due(clock, NOW + timedelta(minutes=1))
    timed.moments(1)
    hand.do("pause_schedule", "kept")
    before = hand.do("get_schedule", "kept")
    entries: list[ScheduleInput] = [
        {"schedule_name": "new", "workflow_fn": timed.workflow, "schedule": "0 1 * * *"},
        {"schedule_name": "kept", "workflow_fn": timed.workflow, "schedule": "0 2 * * *", "context": "new"},
    ]
    hand.do("apply_schedules", entries)

    assert {**before, "schedule": "0 2 * * *", "context": "new"} == hand.do("get_schedule", "kept")
    assert "2027-01-15T08:01:00+00:00" == before["last_fired_at"]
    assert ["kept", "new", "untouched"] == [each["schedule_name"] for each in hand.do("list_schedules")]
    assert None is hand.do("get_schedule", "new")["context"]


def test_a_changed_schedule_fires_at_its_new_moments(app: App, hand: Hand, clock: FakeClock) -> None:
    """From now on: what the new expression would have meant before is not made up for."""
    timed = Timed(hand)
    app.launch()
    create(hand, timed, schedule="0 0 * * *", automatic_backfill=True)
    clock.wait_for_sleeper(int(datetime(2027, 1, 16, tzinfo=UTC).timestamp() * 1000))
    clock.advance(600)
    entry = {"workflow_fn": timed.workflow, "automatic_backfill": True}
    hand.do("apply_schedules", [{"schedule_name": "s", "schedule": "*/15 * * * *", **entry}])
    due(clock, NOW + timedelta(minutes=15))
    timed.moments(1)
    app.restart()
    due(clock, NOW + timedelta(minutes=30))

    assert ["2027-01-15T08:15:00+00:00", "2027-01-15T08:30:00+00:00"] == timed.moments(2)


@pytest.mark.parametrize("missing", ["schedule_name", "workflow_fn", "schedule"])
def test_applying_is_all_or_nothing(app: App, hand: Hand, missing: str) -> None:
    timed = Timed(hand)
    app.launch()
    good = {"schedule_name": "good", "workflow_fn": timed.workflow, "schedule": "0 0 * * *"}
    bad = {key: value for key, value in {**good, "schedule_name": "bad"}.items() if key != missing}

    with pytest.raises(DBOSException, match=f"Schedule entry 1 is missing required field '{missing}'"):
        hand.do("apply_schedules", [good, bad])
    with pytest.raises(DBOSException, match="given twice"):
        hand.do("apply_schedules", [good, good])
    assert [] == hand.do("list_schedules")


def test_the_inputs_have_the_documented_fields() -> None:
    shared = {"schedule_name", "schedule", "context", "automatic_backfill", "cron_timezone", "queue_name"}
    assert shared | {"workflow_fn"} == set(ScheduleInput.__annotations__)
    assert shared | {"workflow_name", "workflow_class_name"} == set(ClientScheduleInput.__annotations__)


# -- backfill and trigger --------------------------------------------------------------------------------------


def test_a_backfill_runs_what_was_missed(app: App, hand: Hand, clock: FakeClock) -> None:
    """Strictly between the moments, in the schedule's zone; what ran for a moment does not run again."""
    timed = Timed(hand)
    app.launch()
    create(hand, timed, schedule="0 9 * * *", cron_timezone="America/New_York", context="c")
    hand.do("pause_schedule", "s")
    start = datetime(2026, 10, 30, 9, tzinfo=ZoneInfo("America/New_York"))
    handles = hand.do("backfill_schedule", "s", start, datetime(2026, 11, 3))

    expected = ["2026-10-31T09:00:00-04:00", "2026-11-01T09:00:00-05:00", "2026-11-02T09:00:00-05:00"]
    assert [f"sched-s-{each}" for each in expected] == [each.workflow_id for each in handles]
    assert ["c"] * 3 == [each.result() for each in handles]
    assert expected == timed.moments(3)
    more = hand.do("backfill_schedule", "s", start, datetime(2026, 11, 3, 14, 0, 1))
    assert ["c"] * 4 == [each.result() for each in more]
    assert 4 == len(timed.given)
    assert [] == hand.do("backfill_schedule", "s", start, start)


def test_a_trigger_runs_at_once(app: App, hand: Hand, clock: FakeClock) -> None:
    """Each time anew, also twice in one moment and while the schedule is paused."""
    timed = Timed(hand)
    app.launch()
    create(hand, timed, schedule="0 9 * * *", context="c")
    hand.do("pause_schedule", "s")
    handles = [hand.do("trigger_schedule", "s") for _ in range(2)]

    assert ["c", "c"] == [each.result() for each in handles]
    assert 2 == len({each.workflow_id for each in handles})
    assert all(each.workflow_id.startswith("sched-s-trigger-2027-01-15T08:00:00.000") for each in handles)
    assert {"2027-01-15T08:00:00"} == {each[:19] for each in timed.moments(2)}


def test_nothing_is_done_for_a_schedule_that_does_not_exist(app: App, hand: Hand) -> None:
    app.launch()
    with pytest.raises(DBOSException, match="Schedule 'nobody' does not exist"):
        hand.do("trigger_schedule", "nobody")
    with pytest.raises(DBOSException, match="Schedule 'nobody' does not exist"):
        hand.do("backfill_schedule", "nobody", NOW, NOW)


# -- in a workflow ---------------------------------------------------------------------------------------------


def test_a_workflow_manages_schedules_in_recorded_steps(app: App, hand: Hand, rows: Rows) -> None:
    timed = Timed(hand)

    @hand.workflow()
    async def manages(do: Inside) -> list[Any]:
        await do.create_schedule(schedule_name="w", workflow_fn=timed.workflow, schedule="0 0 * * *", context=1)
        await do.pause_schedule("w")
        found = [await do.get_schedule("w"), await do.list_schedules(status="PAUSED")]
        await do.resume_schedule("w")
        await do.delete_schedule("w")
        return [found[0]["status"], len(found[1]), await do.get_schedule("w")]

    app.launch()
    with SetWorkflowID("m"):
        assert ["PAUSED", 1, None] == hand.call(manages)
    create(hand, timed, "w", "0 1 * * *")

    assert ["PAUSED", 1, None] == again(rows, "m").get_result()
    assert "0 1 * * *" == hand.do("get_schedule", "w")["schedule"]
    assert [
        "DBOS.createSchedule",
        "DBOS.pauseSchedule",
        "DBOS.getSchedule",
        "DBOS.listSchedules",
        "DBOS.resumeSchedule",
        "DBOS.deleteSchedule",
        "DBOS.getSchedule",
    ] == step_names("m")


def test_a_name_that_is_taken_is_an_error_on_record(app: App, hand: Hand, rows: Rows) -> None:
    timed = Timed(hand)

    @hand.workflow()
    async def creates(do: Inside) -> str:
        try:
            await do.create_schedule(schedule_name="s", workflow_fn=timed.workflow, schedule="0 0 * * *")
        except DBOSException as error:
            return str(error)
        return "created"

    app.launch()
    create(hand, timed)
    with SetWorkflowID("c"):
        said = hand.call(creates)
    hand.do("delete_schedule", "s")

    assert "already exists" in said
    assert said == again(rows, "c").get_result()


def test_a_creation_that_was_not_recorded_finds_its_own_work(app: App, hand: Hand, rows: Rows) -> None:
    """The process died between the two."""
    timed = Timed(hand)

    @hand.workflow()
    async def creates(do: Inside) -> str:
        await do.create_schedule(schedule_name="s", workflow_fn=timed.workflow, schedule="0 0 * * *")
        return "created"

    app.launch()
    with SetWorkflowID("c"):
        hand.call(creates)
    rows.run("DELETE FROM {}operation_outputs")

    assert "created" == again(rows, "c").get_result()
    assert 1 == len(hand.do("list_schedules"))


@pytest.mark.parametrize(
    "act",
    [
        lambda do: do.apply_schedules([]),
        lambda do: do.trigger_schedule("s"),
        lambda do: do.backfill_schedule("s", NOW, NOW),
    ],
)
def test_what_starts_many_is_not_for_workflows(app: App, hand: Hand, act: Callable[[Inside], Any]) -> None:
    @hand.step(name="after")
    def after() -> None: ...

    @hand.workflow()
    async def tries(do: Inside) -> str:
        try:
            await act(do)
        except DBOSException as error:
            await do(after())
            return str(error)
        return ""

    app.launch()
    with SetWorkflowID("t"):
        assert "cannot be called from within a workflow" in hand.call(tries)
    assert [2] == [each["function_id"] for each in DBOS.list_workflow_steps("t")]  # one id is taken, as by others
