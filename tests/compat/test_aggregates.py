"""Counting workflows, and repairing many of them: forks from a failure, and repairs by a filter."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import DBOS, DBOSClient, Metric, SetWorkflowID, WorkflowRate
from dbos.error import DBOSException, DBOSMisuseError, DBOSNonExistentWorkflowError
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside

MANY = [
    ("a", "one", "SUCCESS", "q", 1),
    ("b", "one", "SUCCESS", None, 1),
    ("c", "one", "ERROR", "q", 2),
    ("d", "two", "ERROR", "q", 3),
    ("e", "two", "CANCELLED", None, 9),
]


@pytest.fixture
def many(app: App, rows: Rows) -> App:
    for workflow_id, name, status, queue, second in MANY:
        rows.add(
            workflow_id,
            name,
            status=status,
            queue_name=queue,
            created_at=1000 * second,
            executor_id="x",
            application_version="v0",
        )
    app.launch()
    return app


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"group_by_status": True}, [("ERROR", 2), ("SUCCESS", 2), ("CANCELLED", 1)]),
        ({"group_by_name": True}, [("one", 3), ("two", 2)]),
        ({"group_by_queue_name": True, "name": "one"}, [("q", 2), (None, 1)]),
        ({"group_by_executor_id": True}, [("x", 5)]),
        ({"group_by_application_version": True, "status": ["ERROR"]}, [("v0", 2)]),
        (
            {"group_by_name": True, "group_by_status": True, "status": "ERROR"},
            [("ERROR", "one", 1), ("ERROR", "two", 1)],
        ),
        ({"group_by_name": True, "end_time": "1970-01-01T00:00:02+00:00"}, [("one", 3)]),
        ({"group_by_name": True, "status": []}, []),
    ],
)
def test_workflows_are_counted_by_what_they_have(many: App, hand: Hand, wanted: dict, expected: list[tuple]) -> None:
    found = hand.do("get_workflow_aggregates", **wanted)

    assert expected == [(*each.group.values(), each.number) for each in found]


@pytest.mark.parametrize(
    ("wanted", "error", "says"),
    [
        ({}, ValueError, "At least one"),
        ({"status": "ERROR"}, ValueError, "At least one"),
        ({"group_by_name": True, "limit": 5}, TypeError, "limit"),
        ({"group_by_name": True, "stauts": "ERROR"}, TypeError, "stauts"),
        ({"group_by_name": True, "status": "FAILED"}, ValueError, "FAILED"),
    ],
)
def test_a_count_that_makes_no_sense_is_refused(
    many: App, hand: Hand, wanted: dict, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        hand.do("get_workflow_aggregates", **wanted)


def test_metrics_count_workflows_and_steps_of_a_stretch(many: App, hand: Hand, rows: Rows) -> None:
    for number, second in enumerate((1, 2, 3), 1):
        rows.run(
            "INSERT INTO {}operation_outputs (workflow_uuid, function_id, function_name, completed_at_epoch_ms)"
            " VALUES ('a', :number, 's', :at)",
            number=number,
            at=1000 * second,
        )

    found = hand.do("get_metrics", "1970-01-01T00:00:01+00:00", "1970-01-01T00:00:02+00:00")

    assert [Metric("step_count", "s", 2), Metric("workflow_count", "one", 3)] == found


def test_rates_count_what_comes_in_each_interval(many: App, hand: Hand) -> None:
    bounds = ("1970-01-01T00:00:01+00:00", "1970-01-01T00:00:09+00:00")

    assert [
        WorkflowRate(1000, "one", "ERROR", 1),
        WorkflowRate(1000, "one", "SUCCESS", 2),
        WorkflowRate(3000, "two", "ERROR", 1),
        WorkflowRate(9000, "two", "CANCELLED", 1),
    ] == hand.do("get_workflow_rates", *bounds, 2)
    assert [WorkflowRate(1000, "two", "ERROR", 1)] == hand.do(
        "get_workflow_rates", *bounds, 3600, name="two", status="ERROR"
    )
    for seconds in (0, -1, 0.00001):
        with pytest.raises(ValueError, match="interval_seconds"):
            hand.do("get_workflow_rates", *bounds, seconds)


def test_a_client_counts_too(many: App) -> None:
    with DBOSClient(system_database_url=many.database) as client:
        assert [5] == [each.number for each in client.get_workflow_aggregates(group_by_executor_id=True)]


# -- forks from a failure --------------------------------------------------------------------------------------


class Flaky:
    """A workflow whose second step fails until it is mended."""

    def __init__(self, hand: Hand) -> None:
        self.calls: list[str] = []
        self.is_broken = True

        @hand.step(name="first")
        def first() -> str:
            self.calls.append("first")
            return "1"

        @hand.step(name="second")
        def second() -> str:
            self.calls.append("second")
            if self.is_broken:
                raise RuntimeError("broken")
            return "2"

        @hand.workflow(name="flaky")
        async def flaky(do: Inside) -> list[str]:
            return [await do(first()), await do(second())]

        self.run = flaky


@pytest.fixture
def flaky(app: App, hand: Hand) -> Flaky:
    app.launch()
    made = Flaky(hand)
    with SetWorkflowID("w"):
        handle = hand.start(made.run)
    with pytest.raises(RuntimeError):
        handle.result()
    made.calls.clear()
    made.is_broken = False
    return made


@pytest.mark.parametrize(
    ("mode", "calls"),
    [
        ({"from_last_failure": True}, ["second"]),
        ({"from_last_step": True}, ["second"]),
        ({"from_step_name": "second"}, ["second"]),
        ({"from_step_name": "first"}, ["first", "second"]),
    ],
)
def test_a_fork_repeats_what_failed_and_keeps_the_rest(
    flaky: Flaky, hand: Hand, mode: dict[str, Any], calls: list[str]
) -> None:
    assert ["1", "2"] == hand.do("fork_from_failure", "w", **mode).result()
    assert calls == flaky.calls


def test_without_a_failed_step_all_steps_are_kept(app: App, hand: Hand) -> None:
    app.launch()
    calls, is_broken = [], [True]

    @hand.step(name="s")
    def s() -> int:
        calls.append(1)
        return 5

    @hand.workflow(name="body-fails")
    async def body_fails(do: Inside) -> int:
        found = await do(s())
        if is_broken:
            raise RuntimeError("in the body")
        return found

    with SetWorkflowID("w"):
        handle = hand.start(body_fails)
    with pytest.raises(RuntimeError):
        handle.result()
    is_broken.clear()

    assert 5 == hand.do("fork_from_failure", "w", from_last_failure=True).result()
    assert [1] == calls


@pytest.mark.parametrize("mode", [{}, {"from_last_step": True, "from_last_failure": True}, {"from_last_step": False}])
def test_a_fork_from_a_failure_needs_one_mode(flaky: Flaky, hand: Hand, mode: dict[str, bool]) -> None:
    with pytest.raises(ValueError, match="Exactly one"):
        hand.do("fork_from_failure", "w", **mode)


def test_a_fork_from_a_step_that_is_not_there_is_refused(flaky: Flaky, hand: Hand) -> None:
    with pytest.raises(DBOSException, match="has no step named 'third'"):
        hand.do("fork_from_failure", "w", from_step_name="third")
    with pytest.raises(DBOSNonExistentWorkflowError):
        hand.do("fork_from_failure", "nobody", from_last_failure=True)
    assert ["w"] == [each.workflow_id for each in DBOS.list_workflows()]


def test_a_fork_from_a_failure_in_a_workflow_is_made_once(flaky: Flaky, hand: Hand, rows: Rows) -> None:
    @hand.workflow(name="mends")
    async def mends(do: Inside) -> list[str]:
        handle = await do.fork_from_failure("w", from_last_failure=True)
        return await do(handle.get_result())

    with SetWorkflowID("mender"):
        assert ["1", "2"] == hand.call(mends)
    rows.interrupt("mender")
    rows.run("DELETE FROM {}operation_outputs WHERE workflow_uuid = 'w'")
    DBOS.recover_pending_workflows(["local"])

    assert ["1", "2"] == hand.do("retrieve_workflow", "mender").result()
    assert 1 == len(DBOS.list_workflows(forked_from="w"))


# -- repairs by a filter ---------------------------------------------------------------------------------------


def test_many_failures_are_forked_by_a_filter(app: App, hand: Hand) -> None:
    app.launch()
    made = Flaky(hand)
    for number in range(3):
        with SetWorkflowID(f"w-{number}"):
            handle = hand.start(made.run)
        with pytest.raises(RuntimeError):
            handle.result()
    made.is_broken = False
    made.calls.clear()
    wanted = {"name": "flaky", "status": "ERROR", "was_forked_from": False}

    assert ["w-0", "w-1"] == hand.do("repair_workflows", "fork_from_last_failure", limit=2, dry_run=True, **wanted)
    assert [] == made.calls
    assert ["w-0", "w-1"] == hand.do("repair_workflows", "fork_from_last_failure", limit=2, **wanted)
    assert ["w-2"] == hand.do("repair_workflows", "fork_from_last_failure", limit=2, **wanted)
    assert [] == hand.do("repair_workflows", "fork_from_last_failure", limit=2, **wanted)

    for each in DBOS.list_workflows(forked_from=["w-0", "w-1", "w-2"]):
        assert ["1", "2"] == hand.do("retrieve_workflow", each.workflow_id).result()
    assert ["second"] * 3 == made.calls


def test_what_waits_is_cancelled_and_resumed_by_a_filter(app: App, hand: Hand, rows: Rows) -> None:
    app.launch()
    for number in range(3):
        rows.add(f"w-{number}", "unknown", queue_name="nowhere", created_at=number, application_version="old")
    rows.add("other", "other", queue_name="nowhere", application_version="old")
    rows.add("over", "unknown", status="SUCCESS")

    assert ["w-0", "w-1", "w-2"] == hand.do("repair_workflows", "cancel", limit=10, name="unknown")
    assert ["w-0"] == hand.do("repair_workflows", "resume", limit=1, name="unknown", queue_name="nowhere")

    status = {each.workflow_id: each.status for each in DBOS.list_workflows()}
    assert status == {
        "w-0": "ENQUEUED",
        "w-1": "CANCELLED",
        "w-2": "CANCELLED",
        "other": "ENQUEUED",
        "over": "SUCCESS",
    }
    assert [] == hand.do("repair_workflows", "cancel", limit=5, status="SUCCESS")


@pytest.mark.parametrize(
    ("repair", "wanted", "error", "says"),
    [
        ("delete", {"limit": 1, "name": "n"}, ValueError, "'delete'"),
        ("cancel", {"limit": 0, "name": "n"}, ValueError, "limit"),
        ("cancel", {"limit": 1}, ValueError, "at least one condition"),
        ("cancel", {"limit": 1, "name": None}, ValueError, "at least one condition"),
        ("cancel", {"limit": 1, "nmae": "n"}, TypeError, "nmae"),
        ("cancel", {"limit": 1, "status": "FAILED"}, ValueError, "FAILED"),
    ],
)
def test_a_repair_that_makes_no_sense_is_refused(
    app: App, hand: Hand, repair: str, wanted: dict, error: type[Exception], says: str
) -> None:
    app.launch()
    with pytest.raises(error, match=says):
        hand.do("repair_workflows", repair, **wanted)


def test_a_repair_in_the_body_of_a_workflow_is_refused(app: App, hand: Hand) -> None:
    app.launch()

    @hand.workflow(name="repairs")
    async def repairs(do: Inside) -> None:
        await do.repair_workflows("cancel", limit=1, name="n")

    with pytest.raises(DBOSMisuseError, match="call it in a step"):
        hand.call(repairs)
