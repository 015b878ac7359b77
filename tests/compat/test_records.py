"""What is recorded of each operation, as `list_workflow_steps` shows it."""

from __future__ import annotations

import json

from dbos import DBOS, SetWorkflowID, WorkflowStatus
from dbos.testing import FakeClock
from tests.compat.acts import step_names
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside


def test_two_steps_and_a_sleep_are_three_records(app: App, hand: Hand) -> None:
    @hand.step()
    def one() -> int:
        return 1

    @hand.step()
    def two() -> int:
        return 2

    @hand.workflow()
    async def body(do: Inside) -> None:
        await do(one())
        await do.sleep(0.001)
        await do(two())

    app.launch()
    with SetWorkflowID("w"):
        hand.call(body)

    steps = DBOS.list_workflow_steps("w")
    assert [(1, "one"), (2, "DBOS.sleep"), (3, "two")] == [(s["function_id"], s["function_name"]) for s in steps]


def test_a_step_record_is_a_dictionary(app: App, hand: Hand, clock: FakeClock) -> None:
    @hand.step()
    def slow() -> str:
        clock.advance(2)
        return "done"

    @hand.workflow()
    async def body(do: Inside) -> None:
        await do(slow())

    app.launch()
    began_ms = clock.now_ms()
    with SetWorkflowID("w"):
        hand.call(body)

    (step,) = DBOS.list_workflow_steps("w")
    assert {
        "function_id": 1,
        "function_name": "slow",
        "output": "done",
        "error": None,
        "child_workflow_id": None,
        "started_at_epoch_ms": began_ms,
        "completed_at_epoch_ms": began_ms + 2000,
    } == step


def test_a_failed_step_is_recorded_with_its_error(app: App, hand: Hand) -> None:
    @hand.step()
    def fail() -> None:
        raise ValueError("no", 7)

    @hand.workflow()
    async def body(do: Inside) -> None:
        try:
            await do(fail())
        except ValueError:
            return

    app.launch()
    with SetWorkflowID("w"):
        hand.call(body)

    (step,) = DBOS.list_workflow_steps("w")
    assert step["output"] is None
    assert (ValueError, ("no", 7)) == (type(step["error"]), step["error"].args)


def test_a_sleep_records_when_it_ends(app: App, hand: Hand, rows: Rows) -> None:
    """In seconds since the epoch, as portable JSON."""

    @hand.workflow()
    async def body(do: Inside) -> None:
        await do.sleep(0.25)

    app.launch()
    with SetWorkflowID("w"):
        hand.call(body)

    (step,) = DBOS.list_workflow_steps("w")
    began = DBOS.get_workflow_status("w").created_at / 1000
    assert began + 0.2 < step["output"] < began + 5
    (row,) = rows.steps("w")
    assert ("portable_json", step["output"]) == (row.serialization, json.loads(row.output))


def test_starting_a_child_records_only_its_id(app: App, hand: Hand) -> None:
    """Its result is the record of who asked for it."""

    @hand.workflow()
    async def child(do: Inside) -> int:
        return 7

    @hand.workflow()
    async def body(do: Inside) -> int:
        return await do((await do.start(child)).get_result())

    app.launch()
    with SetWorkflowID("w"):
        assert 7 == hand.call(body)

    start, result = DBOS.list_workflow_steps("w")
    assert (None, None, "w-1") == (start["output"], start["error"], start["child_workflow_id"])
    assert (7, None, "w-1") == (result["output"], result["error"], result["child_workflow_id"])


def test_the_answers_of_operations_are_recorded(app: App, hand: Hand) -> None:
    """A status, a list, the id of a fork; None where there is nothing to answer."""

    @hand.workflow()
    async def other(do: Inside) -> int:
        return 7

    @hand.workflow()
    async def body(do: Inside) -> None:
        await do.get_workflow_status("other")
        await do.list_workflows(name="other")
        with SetWorkflowID("fork"):
            await do.fork_workflow("other", 1)
        await do.cancel_workflow("other")
        await do.get_result("other")
        await do.get_workflow_status("nobody")

    app.launch()
    for workflow_id, function in (("other", other), ("w", body)):
        with SetWorkflowID(workflow_id):
            hand.call(function)

    status, listed, forked, fork_status, cancelled, result, nobody = (
        s["output"] for s in DBOS.list_workflow_steps("w")
    )
    assert isinstance(status, WorkflowStatus)
    assert ("other", ["other"]) == (status.workflow_id, [each.workflow_id for each in listed])
    assert ("fork", "fork", None, 7, None) == (forked, fork_status.workflow_id, cancelled, result, nobody)


def test_an_operation_that_raises_is_recorded_as_a_failed_step(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def body(do: Inside) -> None:
        try:
            await do.set_workflow_delay("other", delay_seconds=-1)
        except Exception:
            return

    app.launch()
    with SetWorkflowID("w"):
        hand.call(body)

    assert ["DBOS.setWorkflowDelay"] == step_names("w")


def test_what_cannot_be_stored_is_no_step(app: App, hand: Hand) -> None:
    """A step's output that cannot be serialized raises in the workflow, which may catch it; nothing is recorded."""
    import threading

    @hand.step()
    def give_lock() -> object:
        return threading.Lock()

    @hand.workflow()
    async def body(do: Inside) -> str:
        try:
            await do(give_lock())
        except TypeError as error:
            return str(error)
        return "nothing"

    app.launch()
    with SetWorkflowID("w"):
        assert "pickle" in hand.call(body)

    assert [] == step_names("w")


def test_a_step_id_is_not_given_again_after_what_could_not_be_stored(app: App, hand: Hand) -> None:
    import threading

    @hand.step()
    def give(thing: object) -> object:
        return threading.Lock() if thing == "lock" else thing

    @hand.workflow()
    async def body(do: Inside) -> int:
        try:
            await do(give("lock"))
        except TypeError:
            return await do(give(2))
        return 0

    app.launch()
    with SetWorkflowID("w"):
        assert 2 == hand.call(body)

    assert [2] == [step["function_id"] for step in DBOS.list_workflow_steps("w")]
