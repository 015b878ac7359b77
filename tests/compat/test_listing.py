"""Listing workflows: every condition, their order, and pages."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dbos import DBOS, SetWorkflowID, WorkflowStatus
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside

MANY: dict[str, dict] = {
    "a-1": {"status": "SUCCESS", "name": "one", "application_version": "v1", "executor_id": "x", "queue_name": "q"},
    "a-2": {"status": "ERROR", "name": "two", "application_version": "v2", "authenticated_user": "me"},
    "a%3": {"status": "PENDING", "name": "one", "executor_id": "y", "queue_name": "q", "parent_workflow_id": "a-1"},
    "b_4": {"status": "ENQUEUED", "name": "three", "queue_name": "r", "forked_from": "a-1"},
    "bx4": {"status": "CANCELLED", "name": "three", "was_forked_from": True, "authenticated_user": "you"},
    "c-5": {"status": "DELAYED", "name": "two", "queue_name": "r", "delay_until_epoch_ms": 9_000_000_000_000},
}


@pytest.fixture
def many(app: App, rows: Rows) -> App:
    """Six workflows of other programs, one second apart."""
    for number, (workflow_id, columns) in enumerate(MANY.items()):
        moment = 1_700_000_000_000 + 1000 * number
        rows.add(workflow_id, **{"executor_id": "z", **columns}, created_at=moment, updated_at=moment)
    app.launch(application_version="other")
    return app


def found(hand: Hand, operation: str = "list_workflows", **conditions) -> list[str]:
    return [each.workflow_id for each in hand.do(operation, **conditions)]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, list(MANY)),
        ({"workflow_ids": ["c-5", "a-1", "nobody"]}, ["a-1", "c-5"]),
        ({"workflow_ids": []}, []),
        ({"status": "ERROR"}, ["a-2"]),
        ({"status": ["ERROR", "PENDING"]}, ["a-2", "a%3"]),
        ({"name": "one"}, ["a-1", "a%3"]),
        ({"name": ["one", "two"]}, ["a-1", "a-2", "a%3", "c-5"]),
        ({"app_version": "v1"}, ["a-1"]),
        ({"app_version": ["v1", "v2"]}, ["a-1", "a-2"]),
        ({"forked_from": "a-1"}, ["b_4"]),
        ({"forked_from": ["a-1", "a-2"]}, ["b_4"]),
        ({"parent_workflow_id": "a-1"}, ["a%3"]),
        ({"parent_workflow_id": ["a-1", "x"]}, ["a%3"]),
        ({"user": "me"}, ["a-2"]),
        ({"user": ["me", "you"]}, ["a-2", "bx4"]),
        ({"queue_name": "q"}, ["a-1", "a%3"]),
        ({"queue_name": ["q", "r"]}, ["a-1", "a%3", "b_4", "c-5"]),
        ({"executor_id": "x"}, ["a-1"]),
        ({"executor_id": ["x", "y"]}, ["a-1", "a%3"]),
        ({"was_forked_from": True}, ["bx4"]),
        ({"was_forked_from": False}, ["a-1", "a-2", "a%3", "b_4", "c-5"]),
        ({"has_parent": True}, ["a%3"]),
        ({"has_parent": False}, ["a-1", "a-2", "b_4", "bx4", "c-5"]),
        ({"workflow_id_prefix": "a"}, ["a-1", "a-2", "a%3"]),
        ({"workflow_id_prefix": "a%"}, ["a%3"]),
        ({"workflow_id_prefix": "b_"}, ["b_4"]),
        ({"workflow_id_prefix": ["a-", "c"]}, ["a-1", "a-2", "c-5"]),
        ({"queues_only": True}, ["a%3", "b_4", "c-5"]),
        ({"queues_only": True, "status": "SUCCESS"}, ["a-1"]),
        ({"name": "two", "status": "DELAYED"}, ["c-5"]),
        ({"name": "two", "status": "PENDING"}, []),
        ({"sort_desc": True}, list(MANY)[::-1]),
        ({"limit": 2}, ["a-1", "a-2"]),
        ({"limit": 2, "offset": 3}, ["b_4", "bx4"]),
        ({"offset": 4}, ["bx4", "c-5"]),
        ({"limit": 2, "sort_desc": True}, ["c-5", "bx4"]),
        ({"limit": 0, "offset": 0}, list(MANY)),
    ],
    ids=str,
)
def test_a_condition_finds_its_workflows(many: App, hand: Hand, conditions: dict, expected: list[str]) -> None:
    """A list of words means any of them; several conditions mean all of them; oldest first."""
    assert expected == found(hand, **conditions)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, ["a%3", "b_4", "c-5"]),
        ({"queue_name": "r"}, ["b_4", "c-5"]),
        ({"status": "ENQUEUED"}, ["b_4"]),
        ({"status": ["PENDING", "DELAYED"]}, ["a%3", "c-5"]),
        ({"name": "one"}, ["a%3"]),
        ({"has_parent": True}, ["a%3"]),
        ({"sort_desc": True, "limit": 1}, ["c-5"]),
        ({"workflow_id_prefix": "b"}, ["b_4"]),
        ({"executor_id": "y"}, ["a%3"]),
        ({"workflow_ids": ["a-1", "b_4"]}, ["b_4"]),
    ],
    ids=str,
)
def test_a_listing_of_queues_finds_what_waits_or_runs(
    many: App, hand: Hand, conditions: dict, expected: list[str]
) -> None:
    assert expected == found(hand, "list_queued_workflows", **conditions)


def test_times_bound_the_creation(many: App, hand: Hand) -> None:
    """Both bounds belong to what is found; with a zone or in local time."""

    def moment(number: int, zone=UTC) -> str:
        return datetime.fromtimestamp(1_700_000_000 + number, zone).isoformat()

    assert ["a%3", "b_4", "bx4", "c-5"] == found(hand, start_time=moment(2))
    assert ["a-1", "a-2", "a%3"] == found(hand, end_time=moment(2))
    assert ["a%3", "b_4"] == found(hand, start_time=moment(2), end_time=moment(3))
    assert ["a%3", "b_4"] == found(hand, start_time=moment(2, None), end_time=moment(3, None))
    assert ["a-2"] == found(hand, start_time="2023-11-15T00:13:21.000+02:00", end_time="2023-11-14T22:13:21.999Z")


def test_a_time_that_is_none_is_refused(app: App, hand: Hand) -> None:
    app.launch()

    for key in ("start_time", "end_time"):
        with pytest.raises(ValueError, match=r"."):
            hand.do("list_workflows", **{key: "yesterday"})


def test_a_listing_shows_inputs_and_outputs_unless_told_not_to(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def echo(do: Inside, x: int) -> int:
        if x < 0:
            raise ValueError("negative")
        return x

    app.launch()
    with SetWorkflowID("good"):
        hand.call(echo, 1)
    with SetWorkflowID("bad"), pytest.raises(ValueError, match="negative"):
        hand.call(echo, -1)

    def seen(**options) -> list:
        good, bad = hand.do("list_workflows", **options)
        return [
            good.input is not None,
            good.output,
            good.error,
            bad.output,
            None if bad.error is None else str(bad.error),
        ]

    assert [True, 1, None, None, "negative"] == seen()
    assert [False, 1, None, None, "negative"] == seen(load_input=False)
    assert [True, None, None, None, None] == seen(load_output=False)


def test_a_listing_of_queues_does_not_load_outputs(app: App, hand: Hand, rows: Rows) -> None:
    rows.add("w", "work", queue_name="q", output='"left over"', inputs='{"positionalArgs":[1]}')
    app.launch()

    (status,) = hand.do("list_queued_workflows")
    assert (None, {"args": (1,), "kwargs": {}}) == (status.output, status.input)
    (status,) = hand.do("list_queued_workflows", load_input=False)
    assert status.input is None


def test_a_listing_is_of_statuses(app: App, hand: Hand) -> None:
    @hand.step()
    def one() -> int:
        return 1

    app.launch()
    hand.start(one).result()

    (status,) = hand.do("list_workflows")
    assert isinstance(status, WorkflowStatus)
    assert "<temp>.one" == status.name


def test_an_unknown_workflow_has_no_status(app: App, hand: Hand) -> None:
    app.launch()

    assert hand.do("get_workflow_status", "nobody") is None


def test_steps_come_in_order_and_in_pages(app: App, hand: Hand) -> None:
    @hand.step()
    def step(number: int) -> int:
        return number

    @hand.workflow()
    async def work(do: Inside) -> None:
        for number in range(1, 6):
            await do(step(number))

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)

    def ids(**options) -> list[int]:
        return [each["function_id"] for each in hand.do("list_workflow_steps", "w", **options)]

    assert [1, 2, 3, 4, 5] == ids()
    assert [1, 2] == ids(limit=2)
    assert [3, 4] == ids(limit=2, offset=2)
    assert [5] == ids(offset=4)
    unread = hand.do("list_workflow_steps", "w", limit=1, load_output=False)
    assert [("step", None, None)] == [(each["function_name"], each["output"], each["error"]) for each in unread]


def test_an_unknown_workflow_has_no_steps(app: App, hand: Hand) -> None:
    app.launch()

    assert [] == hand.do("list_workflow_steps", "nobody")


def test_values_that_cannot_be_read_are_listed_as_they_are_stored(app: App, hand: Hand, rows: Rows) -> None:
    """Of workflows and of steps: one bad row hides no other."""
    rows.add("bad", "work", status="SUCCESS", inputs="no json", output="no json", executor_id="z")
    rows.add("good", "work", status="SUCCESS", output="7", executor_id="z")
    rows.run(
        "INSERT INTO {}operation_outputs (workflow_uuid, function_id, function_name, output, serialization) "
        "VALUES ('good', 1, 'step', 'no pickle', 'py_pickle')"
    )
    app.launch()

    bad, good = hand.do("list_workflows")
    assert ("no json", "no json", 7) == (bad.input, bad.output, good.output)
    assert "no json" == DBOS.get_workflow_status("bad").output
    assert ["no pickle"] == [step["output"] for step in hand.do("list_workflow_steps", "good")]
