"""Deleting workflows, and moving the moment of those that are delayed."""

from __future__ import annotations

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSException, DBOSNonExistentWorkflowError
from dbos.testing import FakeClock
from tests.compat.acts import Stages, status_of, step_names
from tests.compat.rows import INTERNAL_QUEUE, Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import eventually

OWNED = (
    "INSERT INTO {}notifications (message_uuid, destination_uuid, topic, message) VALUES ('m', 'w', 't', 'x')",
    "INSERT INTO {}workflow_events (workflow_uuid, key, value) VALUES ('w', 'k', 'x')",
    "INSERT INTO {}workflow_events_history (workflow_uuid, function_id, key, value) VALUES ('w', 1, 'k', 'x')",
    "INSERT INTO {}streams (workflow_uuid, key, value, \"offset\", function_id) VALUES ('w', 's', 'x', 0, 1)",
)
TABLES = ("notifications", "workflow_events", "workflow_events_history", "streams", "operation_outputs")


def call_with_step(hand: Hand, workflow_id: str):
    @hand.step()
    def one() -> int:
        return 1

    @hand.workflow()
    async def work(do: Inside) -> int:
        return await do(one())

    with SetWorkflowID(workflow_id):
        hand.call(work)
    return work


def test_a_deleted_workflow_is_gone_with_all_it_owned(app: App, hand: Hand, rows: Rows) -> None:
    app.launch()
    call_with_step(hand, "w")
    for statement in OWNED:
        rows.run(statement)
    hand.do("delete_workflow", "w")

    assert hand.do("get_workflow_status", "w") is None
    assert [] == hand.do("list_workflows")
    assert [[]] * 5 == [rows.run(f"SELECT * FROM {{}}{table}") for table in TABLES]


def test_the_id_of_a_deleted_workflow_starts_afresh(app: App, hand: Hand) -> None:
    ran: list[int] = []

    @hand.step()
    def one() -> int:
        ran.append(1)
        return len(ran)

    @hand.workflow()
    async def work(do: Inside) -> int:
        return await do(one())

    app.launch()
    for number in (1, 2):
        with SetWorkflowID("w"):
            assert number == hand.call(work)
        hand.do("delete_workflow", "w")


def test_unknown_workflows_are_passed_over(app: App, hand: Hand) -> None:
    app.launch()

    assert hand.do("delete_workflow", "nobody") is None
    assert hand.do("delete_workflows", ["nobody", "nothing"]) is None
    assert hand.do("delete_workflows", []) is None


def test_many_are_deleted_like_one(app: App, hand: Hand, rows: Rows) -> None:
    for workflow_id in "abc":
        rows.add(workflow_id, "work", status="SUCCESS")
    app.launch()
    hand.do("delete_workflows", ["a", "b", "nobody"])

    assert [None, None, "SUCCESS"] == [status_of(each) for each in "abc"]


def test_children_stay_unless_they_are_to_go_too(app: App, hand: Hand, rows: Rows) -> None:
    """With delete_children also theirs go."""
    for workflow_id, parent in (("p", None), ("c", "p"), ("g", "c"), ("q", None), ("d", "q")):
        rows.add(workflow_id, "work", status="SUCCESS", parent_workflow_id=parent)
    app.launch()
    hand.do("delete_workflow", "p", delete_children=True)
    hand.do("delete_workflow", "q")

    assert [None, None, None, None, "SUCCESS"] == [status_of(each) for each in "pcgqd"]


def test_many_are_deleted_with_their_children(app: App, hand: Hand, rows: Rows) -> None:
    for workflow_id, parent in (("p", None), ("c", "p"), ("q", None), ("d", "q")):
        rows.add(workflow_id, "work", status="SUCCESS", parent_workflow_id=parent)
    app.launch()
    hand.do("delete_workflows", ["p", "q"], delete_children=True)

    assert [] == hand.do("list_workflows")


def test_what_was_only_awaited_is_no_child(app: App, hand: Hand) -> None:
    """delete_children does not delete the workflow whose result was asked for."""

    @hand.workflow()
    async def foreign(do: Inside) -> int:
        return 7

    @hand.workflow()
    async def work(do: Inside) -> int:
        handle = await do.retrieve_workflow("foreign")
        return await do(handle.get_result())

    app.launch()
    for workflow_id, function in (("foreign", foreign), ("w", work)):
        with SetWorkflowID(workflow_id):
            hand.call(function)
    hand.do("delete_workflow", "w", delete_children=True)

    assert [None, "SUCCESS"] == [status_of("w"), status_of("foreign")]


def test_a_running_workflow_that_is_deleted_stops(app: App, hand: Hand) -> None:
    """At its next operation; its row does not come back."""
    stages = Stages(hand)
    app.launch()
    with SetWorkflowID("w"):
        held = hand.start(stages.workflow)
    stages.gate.wait_reached()
    hand.do("delete_workflow", "w")
    stages.gate.open()

    with pytest.raises(DBOSNonExistentWorkflowError):
        held.result()
    assert [1, 2] == stages.ran
    assert ([], []) == (hand.do("list_workflows"), step_names("w"))


# -- delay -----------------------------------------------------------------------------------------------------


def test_a_delay_is_set_from_now_or_absolutely(app: App, hand: Hand, clock: FakeClock, rows: Rows) -> None:
    for workflow_id in "ab":
        rows.add(workflow_id, "work", status="DELAYED", queue_name="mine", delay_until_epoch_ms=9_000_000_000_000)
    app.launch()
    hand.do("set_workflow_delay", "a", delay_seconds=60)
    hand.do("set_workflow_delay", "b", delay_until_epoch_ms=clock.now_ms() + 5)

    found = [hand.do("get_workflow_status", each).delay_until_epoch_ms - clock.now_ms() for each in "ab"]
    assert [60_000, 5] == found


def test_a_delay_of_nothing_starts_the_workflow(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    rows.add("w", "work", status="DELAYED", queue_name=INTERNAL_QUEUE, delay_until_epoch_ms=9_000_000_000_000)
    app.launch()
    hand.do("set_workflow_delay", "w", delay_seconds=0)

    assert 7 == hand.do("get_result", "w")


def test_a_delay_can_be_shortened_and_lengthened(app: App, hand: Hand, clock: FakeClock, rows: Rows) -> None:
    @hand.workflow()
    async def work(do: Inside) -> int:
        return clock.now_ms()

    began_ms = clock.now_ms()
    for workflow_id, seconds in (("a", 900), ("b", 10)):
        due_ms = began_ms + seconds * 1000
        rows.add(workflow_id, "work", status="DELAYED", queue_name=INTERNAL_QUEUE, delay_until_epoch_ms=due_ms)
    app.launch()
    hand.do("set_workflow_delay", "a", delay_seconds=20)
    hand.do("set_workflow_delay", "b", delay_seconds=30)

    clock.advance(20)
    eventually(lambda: "SUCCESS" == status_of("a"))
    assert "DELAYED" == status_of("b")
    clock.advance(10)
    eventually(lambda: "SUCCESS" == status_of("b"))


@pytest.mark.parametrize("status", ["ENQUEUED", "SUCCESS", "CANCELLED"])
def test_only_delayed_workflows_have_their_delay_set(app: App, hand: Hand, rows: Rows, status: str) -> None:
    rows.add("w", "work", status=status, queue_name="mine", delay_until_epoch_ms=5)
    app.launch()
    hand.do("set_workflow_delay", "w", delay_seconds=60)
    hand.do("set_workflow_delay", "nobody", delay_seconds=60)

    assert (status, 5) == (rows.workflow("w").status, rows.workflow("w").delay_until_epoch_ms)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "delay_seconds"),
        ({"delay_seconds": 1, "delay_until_epoch_ms": 1}, "delay_seconds"),
        ({"delay_seconds": -1}, "delay_seconds must be >= 0"),
        ({"delay_until_epoch_ms": -1}, "delay_until_epoch_ms must be >= 0"),
    ],
    ids=["none", "both", "negative-seconds", "negative-moment"],
)
def test_a_delay_that_makes_no_sense_is_refused(app: App, hand: Hand, options: dict, text: str) -> None:
    app.launch()

    with pytest.raises(DBOSException, match=text):
        hand.do("set_workflow_delay", "w", **options)
    assert [] == DBOS.list_workflows()
