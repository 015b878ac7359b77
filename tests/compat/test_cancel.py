"""Cancelling: who stops where, what stays, and what cancel does not touch."""

from __future__ import annotations

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSAwaitedWorkflowCancelledError, DBOSWorkflowCancelledError
from tests.compat.acts import Stages, status_of, step_names
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate


def test_a_cancelled_workflow_stops_at_its_next_operation(app: App, hand: Hand) -> None:
    """The step under way finishes; the one after it never runs."""
    stages = Stages(hand)
    app.launch()
    with SetWorkflowID("w"):
        held = hand.start(stages.workflow)
    stages.gate.wait_reached()
    hand.do("cancel_workflow", "w")
    assert "CANCELLED" == status_of("w")
    stages.gate.open()

    with pytest.raises(DBOSAwaitedWorkflowCancelledError, match="was cancelled") as caught:
        held.result()
    assert ("w", 13) == (caught.value.workflow_id, caught.value.dbos_error_code)
    assert [1, 2] == stages.ran


def test_a_direct_call_of_a_cancelled_workflow_raises(app: App, hand: Hand) -> None:
    """To its caller it is an ordinary error; inside it is control flow that `except Exception` does not see."""
    seen: list[BaseException] = []

    @hand.step()
    def cancel() -> None:
        DBOS.cancel_workflow("w")

    @hand.workflow()
    async def work(do: Inside) -> str:
        try:
            await do(cancel())
            await do.sleep(0.001)
        except Exception:
            return "swallowed"
        except BaseException as error:
            seen.append(error)
            raise
        return "done"

    app.launch()
    with SetWorkflowID("w"), pytest.raises(DBOSAwaitedWorkflowCancelledError):
        hand.call(work)

    assert [DBOSWorkflowCancelledError] == [type(each) for each in seen]
    assert 10 == seen[0].dbos_error_code


def test_a_workflow_cancelled_while_it_sleeps_wakes_up(app: App, hand: Hand) -> None:
    began = Gate()

    @hand.step()
    def note() -> None:
        began.pass_through()

    @hand.workflow()
    async def nap(do: Inside) -> None:
        await do(note())
        await do.sleep(3600)

    app.launch()
    held = hand.start(nap)
    began.open()
    began.wait_reached()
    hand.do("cancel_workflow", held.workflow_id)

    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        held.result()


def test_a_cancelled_workflow_is_resumed_after_its_last_step(app: App, hand: Hand) -> None:
    """What it had recorded is not run again."""
    stages = Stages(hand)
    app.launch()
    with SetWorkflowID("w"):
        held = hand.start(stages.workflow)
    stages.gate.wait_reached()
    hand.do("cancel_workflow", "w")
    stages.gate.open()
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        held.result()
    resumed = hand.do("resume_workflow", "w")

    assert [1, 2, 3] == resumed.result()
    assert 1 == stages.ran.count(1)
    assert 3 == stages.ran[-1]


@pytest.mark.parametrize("status", ["ENQUEUED", "DELAYED", "PENDING"])
def test_cancelling_takes_a_workflow_off_its_queue(app: App, hand: Hand, rows: Rows, status: str) -> None:
    """Its queue, its deduplication id and its start time are cleared."""
    place = {"queue_name": "mine", "deduplication_id": "once", "started_at_epoch_ms": 5}
    rows.add("w", "work", status=status, executor_id="other", delay_until_epoch_ms=9_000_000_000_000, **place)
    app.launch()
    hand.do("cancel_workflow", "w")

    status = hand.do("get_workflow_status", "w")
    assert ("CANCELLED", None, None, None) == (
        status.status,
        status.queue_name,
        status.deduplication_id,
        status.dequeued_at,
    )


@pytest.mark.parametrize("status", ["SUCCESS", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "CANCELLED"])
def test_what_has_ended_is_not_cancelled(app: App, hand: Hand, rows: Rows, status: str) -> None:
    rows.add("w", "work", status=status)
    app.launch()
    before = rows.workflow("w")
    hand.do("cancel_workflow", "w")
    hand.do("cancel_workflows", ["w"])

    assert before == rows.workflow("w")


def test_unknown_workflows_are_passed_over(app: App, hand: Hand) -> None:
    app.launch()

    assert hand.do("cancel_workflow", "nobody") is None
    assert hand.do("cancel_workflows", ["nobody", "nothing"]) is None
    assert hand.do("cancel_workflows", []) is None


def test_many_are_cancelled_like_one(app: App, hand: Hand, rows: Rows) -> None:
    for workflow_id, status in (("a", "ENQUEUED"), ("b", "SUCCESS"), ("c", "ENQUEUED"), ("d", "ENQUEUED")):
        rows.add(workflow_id, "work", status=status, queue_name="mine")
    app.launch()
    hand.do("cancel_workflows", ["a", "b", "c", "nobody"])

    assert ["CANCELLED", "SUCCESS", "CANCELLED", "ENQUEUED"] == [status_of(each) for each in "abcd"]


def test_children_are_not_cancelled_with_their_parent(app: App, hand: Hand) -> None:
    stages = Stages(hand)

    @hand.workflow()
    async def parent(do: Inside) -> None:
        await do((await do.start(stages.workflow)).get_result())

    app.launch()
    with SetWorkflowID("p"):
        held = hand.start(parent)
    stages.gate.wait_reached()
    hand.do("cancel_workflow", "p")
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        held.result()
    stages.gate.open()

    assert [1, 2, 3] == hand.do("get_result", "p-1")


def test_children_are_cancelled_with_their_parent_on_request(app: App, hand: Hand, rows: Rows) -> None:
    """And theirs."""
    for workflow_id, parent in (("p", None), ("c", "p"), ("g", "c"), ("x", None)):
        rows.add(workflow_id, "work", queue_name="mine", parent_workflow_id=parent)
    app.launch()
    hand.do("cancel_workflow", "p", cancel_children=True)

    assert ["CANCELLED", "CANCELLED", "CANCELLED", "ENQUEUED"] == [status_of(each) for each in "pcgx"]


def test_a_workflow_can_cancel_itself(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def work(do: Inside) -> str:
        await do.cancel_workflow(DBOS.workflow_id)
        await do.run_step({"name": "never"}, lambda: None)
        return "done"

    app.launch()
    with SetWorkflowID("w"), pytest.raises(DBOSAwaitedWorkflowCancelledError):
        hand.call(work)

    assert "CANCELLED" == status_of("w")
    assert "never" not in step_names("w")


def test_cancelling_leaves_the_others_on_the_queue(app: App, hand: Hand, rows: Rows) -> None:
    """A cancelled workflow is never taken from the queue, the one behind it is."""
    ran: list[str] = []

    @hand.workflow()
    async def work(do: Inside) -> None:
        ran.append(DBOS.workflow_id)

    rows.add("a", "work", queue_name="mine")
    rows.add("b", "work", queue_name="mine")
    app.launch()
    hand.do("cancel_workflow", "a")
    for workflow_id in ("b",):
        hand.do("resume_workflow", workflow_id).result()

    assert ["b"] == ran
    assert "CANCELLED" == status_of("a")
