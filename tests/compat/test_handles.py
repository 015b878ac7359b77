"""Handles: what they give, and waiting for workflows by them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbos import DBOS, SetWorkflowID, WorkflowHandle, WorkflowHandleAsync
from dbos.error import DBOSAwaitedWorkflowCancelledError, DBOSException, DBOSNonExistentWorkflowError
from tests.compat.acts import Stages, beside, step_names
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside


def define(hand: Hand):
    @hand.workflow()
    async def double(do: Inside, x: int) -> int:
        if x < 0:
            raise ValueError("negative", x)
        return 2 * x

    return double


def test_a_handle_has_its_colour(app: App, hand: Hand) -> None:
    double = define(hand)
    app.launch()
    started = hand.start(double, 4)
    found = [
        started,
        hand.do("retrieve_workflow", started.workflow_id),
        hand.do("resume_workflow", started.workflow_id),
    ]

    assert {WorkflowHandleAsync if hand.is_async else WorkflowHandle} == {type(each.handle) for each in found}
    assert {started.workflow_id} == {each.handle.workflow_id for each in found}
    assert {started.workflow_id} == {each.handle.get_workflow_id() for each in found}


def test_a_handle_gives_the_result_as_often_as_asked(app: App, hand: Hand) -> None:
    double = define(hand)
    app.launch()
    held = hand.start(double, 4)

    assert [8, 8, 8] == [held.result() for _ in range(3)]
    assert 8 == hand.call(held.handle.get_result, polling_interval_sec=0.1)


def test_a_handle_raises_the_error_of_its_workflow(app: App, hand: Hand) -> None:
    double = define(hand)
    app.launch()
    held = hand.start(double, -4)
    retrieved = hand.do("retrieve_workflow", held.workflow_id)

    for each in (held, retrieved, held):
        with pytest.raises(ValueError) as caught:
            each.result()
        assert ("negative", -4) == caught.value.args


def test_a_handle_of_a_cancelled_workflow_raises(app: App, hand: Hand, rows: Rows) -> None:
    rows.add("w", "work", status="CANCELLED")
    app.launch()

    with pytest.raises(DBOSAwaitedWorkflowCancelledError) as caught:
        hand.do("retrieve_workflow", "w").result()
    assert "w" == caught.value.workflow_id


def test_an_unknown_workflow_cannot_be_retrieved(app: App, hand: Hand) -> None:
    app.launch()

    with pytest.raises(DBOSNonExistentWorkflowError, match="nobody"):
        hand.do("retrieve_workflow", "nobody")


def test_the_result_of_an_unknown_workflow_is_an_error(app: App, hand: Hand) -> None:
    app.launch()

    with pytest.raises(DBOSNonExistentWorkflowError, match="nobody"):
        hand.do("get_result", "nobody")


def test_the_status_of_a_deleted_workflow_is_an_error(app: App, hand: Hand) -> None:
    double = define(hand)
    app.launch()
    held = hand.start(double, 4)
    held.result()
    hand.do("delete_workflow", held.workflow_id)

    with pytest.raises(DBOSNonExistentWorkflowError) as caught:
        held.status()
    assert 5 == caught.value.dbos_error_code


def test_a_workflow_that_is_yet_to_come_can_be_waited_for(app: App, hand: Hand) -> None:
    """With existing_workflow=False nothing is checked, and the handle waits."""
    double = define(hand)
    app.launch()
    held = hand.do("retrieve_workflow", "later", existing_workflow=False)
    waiting = beside(held.result)
    with SetWorkflowID("later"):
        hand.call(double, 4)

    assert 8 == waiting.result(20)


def test_the_status_of_a_workflow_that_is_yet_to_come_is_an_error(app: App, hand: Hand) -> None:
    app.launch()
    held = hand.do("retrieve_workflow", "later", existing_workflow=False)

    with pytest.raises(DBOSNonExistentWorkflowError):
        beside(held.status).result(5)


def test_get_result_waits_by_id(app: App, hand: Hand) -> None:
    stages = Stages(hand)
    app.launch()
    held = hand.start(stages.workflow)
    waiting = beside(hand.do, "get_result", held.workflow_id)
    stages.gate.wait_reached()
    stages.gate.open()

    assert [1, 2, 3] == waiting.result(20)


def test_get_result_raises_the_error_by_id(app: App, hand: Hand) -> None:
    double = define(hand)
    app.launch()
    held = hand.start(double, -4)

    with pytest.raises(ValueError) as caught:
        hand.do("get_result", held.workflow_id)
    assert ("negative", -4) == caught.value.args


# -- wait_first ------------------------------------------------------------------------------------------------


def test_the_first_to_end_is_returned(app: App, hand: Hand) -> None:
    """The very handle that was given."""
    stages, double = Stages(hand), define(hand)
    app.launch()
    handles = [hand.start(stages.workflow).handle, hand.start(double, 4).handle]
    first = hand.do("wait_first", handles, polling_interval_sec=0.01)
    stages.gate.open()

    assert handles[1].workflow_id == first.workflow_id
    assert 8 == first.result()


@pytest.mark.parametrize("status", ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"])
def test_any_end_is_an_end(app: App, hand: Hand, rows: Rows, status: str) -> None:
    """A failure does not raise here."""
    rows.add("waits", "work", queue_name="served-by-nobody")
    rows.add("ended", "work", status=status)
    app.launch()
    handles = [hand.do("retrieve_workflow", each).handle for each in ("waits", "ended")]

    assert "ended" == hand.do("wait_first", handles).workflow_id


def test_the_first_of_none_is_refused(app: App, hand: Hand) -> None:
    app.launch()

    with pytest.raises(ValueError, match="must not be empty"):
        hand.do("wait_first", [])


def test_the_first_of_one_twice_is_refused(app: App, hand: Hand) -> None:
    double = define(hand)
    app.launch()
    handle = hand.start(double, 4).handle

    with pytest.raises(ValueError, match="must not contain duplicate workflow IDs"):
        hand.do("wait_first", [handle, handle])


def test_results_are_taken_one_after_the_other(app: App, hand: Hand) -> None:
    """The usual loop over wait_first, in a workflow."""
    double = define(hand)

    @hand.workflow()
    async def work(do: Inside) -> list[int]:
        waiting = {handle.workflow_id: handle for handle in [await do.start(double, x) for x in range(4)]}
        results = []
        while waiting:
            first = await do.wait_first(list(waiting.values()))
            results.append(await do(waiting.pop(first.workflow_id).get_result()))
        return sorted(results)

    app.launch()
    with SetWorkflowID("w"):
        assert [0, 2, 4, 6] == hand.call(work)

    assert ["double"] * 4 + ["DBOS.waitFirst", "DBOS.getResult"] * 4 == step_names("w")


def test_a_handle_goes_from_one_workflow_to_another(app: App, hand: Hand) -> None:
    """A retrieved handle may be used wherever its runtime is."""
    double = define(hand)

    @hand.workflow()
    async def ask(do: Inside, workflow_id: str) -> int:
        handle = await do.retrieve_workflow(workflow_id)
        return await do(handle.get_result())

    app.launch()
    held = hand.start(double, 4)

    assert 8 == hand.call(ask, held.workflow_id)
    assert held.workflow_id in DBOS.list_workflow_steps(DBOS.list_workflows(name="ask")[0].workflow_id)[1].values()


def test_a_handle_goes_on_when_its_runtime_was_launched_again(app: App, hand: Hand, tmp_path: Path) -> None:
    @hand.workflow()
    async def waits(do: Inside) -> str:
        return await do.recv(timeout_seconds=60)

    app.launch()
    held = hand.start(waits)
    DBOS.destroy()
    with pytest.raises(DBOSException, match=r"launch it again on the \w+ database"):
        held.result()
    App(f"sqlite:///{tmp_path / 'other.sqlite'}").launch()
    with pytest.raises(DBOSException, match=r"launch it again on the \w+ database"):
        held.status()

    app.relaunch()
    hand.do("send", held.workflow_id, "here")

    assert "here" == held.result()
    assert "SUCCESS" == held.status().status
