"""Two executions of one workflow: the one that lost it stops, and takes the other's result."""

from __future__ import annotations

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSAwaitedWorkflowCancelledError
from tests.compat.acts import Stages, beside, status_of, step_names
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import eventually

OTHERS = {"owner_xid": "another-program", "executor_id": "other"}


def start_and_wait(hand: Hand, stages: Stages):
    with SetWorkflowID("w"):
        held = hand.start(stages.workflow)
    stages.gate.wait_reached()
    return held


def test_a_run_that_lost_its_workflow_records_nothing_more(app: App, hand: Hand, rows: Rows) -> None:
    """It stops at its next write and waits for the result of the new owner."""
    stages = Stages(hand)
    app.launch()
    held = start_and_wait(hand, stages)
    rows.change("w", **OTHERS)
    result = beside(held.result)
    stages.gate.open()
    eventually(lambda: [1, 2] == stages.ran)
    rows.change("w", status="SUCCESS", output='"of the new owner"', serialization="portable_json", owner_xid=None)

    assert "of the new owner" == result.result(20)
    assert ["stage"] == step_names("w")
    assert [1, 2] == stages.ran


def test_a_run_that_lost_its_workflow_raises_the_new_owners_error(app: App, hand: Hand, rows: Rows) -> None:
    stages = Stages(hand)
    app.launch()
    held = start_and_wait(hand, stages)
    error = '{"name":"ValueError","message":"of the new owner","code":null}'
    rows.change("w", status="ERROR", error=error, serialization="portable_json", owner_xid=None)
    stages.gate.open()

    with pytest.raises(Exception, match="of the new owner"):
        held.result()
    assert [1, 2] == stages.ran


def test_a_record_of_another_execution_wins(app: App, hand: Hand, rows: Rows) -> None:
    """The step that both ran has the result that was recorded first, and the loser does not go on."""
    stages = Stages(hand)
    app.launch()
    held = start_and_wait(hand, stages)
    rows.run(
        "INSERT INTO {}operation_outputs (workflow_uuid, function_id, function_name, output, serialization) "
        "VALUES ('w', 2, 'stage', '22', 'portable_json')"
    )
    rows.change("w", **OTHERS)
    stages.gate.open()
    eventually(lambda: [1, 2] == stages.ran)
    rows.interrupt("w", executor_id="local")
    DBOS._recover_pending_workflows()

    assert [1, 22, 3] == held.result()
    assert [1, 2, 3] == stages.ran


def test_a_workflow_that_another_program_cancelled_stops(app: App, hand: Hand, rows: Rows) -> None:
    stages = Stages(hand)
    app.launch()
    held = start_and_wait(hand, stages)
    rows.change("w", status="CANCELLED", owner_xid=None)
    stages.gate.open()

    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        held.result()
    assert [1, 2] == stages.ran


def test_a_workflow_that_another_program_deleted_stops(app: App, hand: Hand, rows: Rows) -> None:
    stages = Stages(hand)
    app.launch()
    held = start_and_wait(hand, stages)
    rows.run("DELETE FROM {}workflow_status WHERE workflow_uuid = 'w'")
    stages.gate.open()

    with pytest.raises(Exception, match="w"):
        held.result()
    assert [1, 2] == stages.ran
    assert status_of("w") is None


def test_a_stale_run_neither_sleeps_nor_starts_children(app: App, hand: Hand, rows: Rows) -> None:
    """A sleep and the start of a child are refused like a step."""
    from tests.waiting import Gate

    gate = Gate()

    @hand.step()
    def wait() -> None:
        gate.pass_through()

    @hand.workflow()
    async def child(do: Inside) -> None:
        return None

    @hand.workflow()
    async def body(do: Inside, sleeps: bool) -> None:
        try:
            await do(wait())
        finally:
            await (do.sleep(0.001) if sleeps else do.start(child))

    app.launch()
    for workflow_id, sleeps in (("s", True), ("c", False)):
        with SetWorkflowID(workflow_id):
            hand.start(body, sleeps)
        gate.wait_reached()
        rows.change(workflow_id, **OTHERS)
    gate.wait_reached(2)
    gate.open()
    with SetWorkflowID("other"):
        hand.call(child)

    assert [[], []] == [eventually(lambda: gate.reached == 2) and step_names(each) for each in ("s", "c")]
    assert ["other"] == [each.workflow_id for each in DBOS.list_workflows(name="child")]


def test_a_resumed_workflow_that_was_running_is_run_by_one_only(app: App, hand: Hand) -> None:
    """The execution under way is fenced off, the new one finishes."""
    stages = Stages(hand)
    app.launch()
    held = start_and_wait(hand, stages)
    resumed = hand.do("resume_workflow", "w")
    stages.gate.wait_reached(2)
    stages.gate.open()

    assert [1, 2, 3] == held.result() == resumed.result()
    assert [1, 2, 2, 3] == stages.ran
    assert ["stage"] * 3 == step_names("w")
