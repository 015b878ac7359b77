"""Replay: what is recorded is the answer, and what does not fit the record is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSUnexpectedStepError
from tests.compat.acts import again, status_of, step_names
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside


def test_a_replay_takes_results_and_errors_from_the_record(app: App, hand: Hand, rows: Rows) -> None:
    ran: list[str] = []

    @hand.step()
    def add(x: int) -> int:
        ran.append("add")
        return x + 1

    @hand.step()
    def fail() -> None:
        ran.append("fail")
        raise ValueError("no", 7)

    @hand.workflow()
    async def body(do: Inside) -> list[Any]:
        try:
            await do(fail())
        except ValueError as error:
            return [await do(add(1)), error.args]
        return []

    app.launch()
    with SetWorkflowID("w"):
        assert [2, ("no", 7)] == hand.call(body)

    assert [2, ("no", 7)] == again(rows, "w").get_result()
    assert ["fail", "add"] == ran


def test_a_replay_goes_on_where_the_record_ends(app: App, hand: Hand, rows: Rows) -> None:
    ran: list[int] = []

    @hand.step()
    def step(number: int) -> int:
        ran.append(number)
        return number

    @hand.workflow()
    async def body(do: Inside) -> int:
        return sum([await do(step(number)) for number in range(4)])

    app.launch()
    with SetWorkflowID("w"):
        hand.call(body)
    rows.run("DELETE FROM {}operation_outputs WHERE workflow_uuid = 'w' AND function_id > 2")

    assert 6 == again(rows, "w").get_result()
    assert [0, 1, 2, 3, 2, 3] == ran


def test_another_step_than_the_recorded_one_is_an_error(app: App, hand: Hand, rows: Rows) -> None:
    """The order of the steps was changed between two executions."""
    order = ["one", "two"]

    @hand.step()
    def one() -> int:
        return 1

    @hand.step()
    def two() -> int:
        return 2

    @hand.workflow()
    async def body(do: Inside) -> None:
        for name in order:
            await do({"one": one, "two": two}[name]())

    app.launch()
    with SetWorkflowID("w"):
        hand.call(body)
    order.reverse()

    with pytest.raises(DBOSUnexpectedStepError) as caught:
        again(rows, "w").get_result()
    assert 11 == caught.value.dbos_error_code
    assert "ERROR" == status_of("w")


def test_an_unexpected_step_may_be_caught(app: App, hand: Hand, rows: Rows) -> None:
    names = ["one"]

    @hand.workflow()
    async def body(do: Inside) -> str:
        try:
            return await do.run_step({"name": names[0]}, lambda: "ran")
        except DBOSUnexpectedStepError:
            return "caught"

    app.launch()
    with SetWorkflowID("w"):
        assert "ran" == hand.call(body)
    names[0] = "two"

    assert "caught" == again(rows, "w").get_result()


@pytest.mark.parametrize("now", ["child", "sleep", "status", "start"])
def test_another_operation_than_the_recorded_one_is_an_error(app: App, hand: Hand, rows: Rows, now: str) -> None:
    """Not steps alone are compared with the record."""
    wanted = ["step"]

    @hand.workflow()
    async def child(do: Inside) -> None:
        return None

    @hand.workflow()
    async def body(do: Inside) -> None:
        operations: dict[str, Callable[[], Any]] = {
            "step": lambda: do.run_step({"name": "step"}, lambda: None),
            "child": lambda: do(child()),
            "sleep": lambda: do.sleep(0.001),
            "status": lambda: do.get_workflow_status("w"),
            "start": lambda: do.start(child),
        }
        await operations[wanted[0]]()

    app.launch()
    with SetWorkflowID("w"):
        hand.call(body)
    wanted[0] = now

    with pytest.raises(DBOSUnexpectedStepError):
        again(rows, "w").get_result()


def test_arguments_and_missing_last_steps_are_not_compared(app: App, hand: Hand, rows: Rows) -> None:
    numbers = [1, 2, 3]

    @hand.step()
    def step(number: int) -> int:
        return number

    @hand.workflow()
    async def body(do: Inside) -> list[int]:
        return [await do(step(number)) for number in numbers]

    app.launch()
    with SetWorkflowID("w"):
        hand.call(body)
    numbers[:] = [7, 8]

    assert [1, 2] == again(rows, "w").get_result()


def test_a_replayed_error_of_a_step_is_equal_to_the_first(app: App, hand: Hand, rows: Rows) -> None:
    """Type, text and arguments; without the traceback."""
    seen: list[Exception] = []

    @hand.step()
    def fail() -> None:
        raise KeyError("missing", 4)

    @hand.workflow()
    async def body(do: Inside) -> None:
        try:
            await do(fail())
        except KeyError as error:
            seen.append(error)

    app.launch()
    with SetWorkflowID("w"):
        hand.call(body)
    again(rows, "w").get_result()

    first, second = seen
    assert (type(first), first.args, str(first)) == (type(second), second.args, str(second))


def test_a_listing_in_a_workflow_is_replayed(app: App, hand: Hand, rows: Rows) -> None:
    """What changed since is not seen."""

    @hand.workflow()
    async def other(do: Inside) -> None:
        return None

    @hand.workflow()
    async def body(do: Inside) -> list[int]:
        found = [await do.list_workflows(name="other"), await do.list_workflow_steps("other")]
        return [*map(len, found), 0 if await do.get_workflow_status("later") is None else 1]

    app.launch()
    with SetWorkflowID("w"):
        assert [0, 0, 0] == hand.call(body)
    with SetWorkflowID("later"):
        hand.call(other)

    assert [0, 0, 0] == again(rows, "w").get_result()


def test_a_fork_in_a_workflow_is_made_once(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def other(do: Inside) -> int:
        return 7

    @hand.workflow()
    async def body(do: Inside) -> str:
        return (await do.fork_workflow("other", 1)).workflow_id

    app.launch()
    with SetWorkflowID("other"):
        hand.call(other)
    with SetWorkflowID("w"):
        fork = hand.call(body)

    assert fork == again(rows, "w").get_result()
    assert [fork] == [each.workflow_id for each in DBOS.list_workflows(forked_from="other")]


def test_a_cancel_or_resume_in_a_workflow_is_done_once(app: App, hand: Hand, rows: Rows) -> None:
    """What was decided about the other workflow since stays."""

    @hand.workflow()
    async def other(do: Inside) -> None:
        return None

    @hand.workflow()
    async def cancel(do: Inside) -> None:
        await do.cancel_workflow("other")

    @hand.workflow()
    async def resume(do: Inside) -> None:
        await do.resume_workflow("other", queue_name="served-by-nobody")

    rows.add("other", "other", queue_name="served-by-nobody")
    app.launch()
    with SetWorkflowID("c"):
        hand.call(cancel)
    assert "CANCELLED" == status_of("other")
    with SetWorkflowID("r"):
        hand.call(resume)
    assert "ENQUEUED" == status_of("other")

    again(rows, "c").get_result()
    assert "ENQUEUED" == status_of("other")
    hand.do("cancel_workflow", "other")
    again(rows, "r").get_result()
    assert "CANCELLED" == status_of("other")


def test_a_delete_in_a_workflow_is_done_once(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def other(do: Inside) -> None:
        return None

    @hand.workflow()
    async def body(do: Inside) -> None:
        await do.delete_workflow("other")

    app.launch()
    for workflow_id, function in (("other", other), ("w", body), ("other", other)):
        with SetWorkflowID(workflow_id):
            hand.call(function)

    again(rows, "w").get_result()
    assert "SUCCESS" == status_of("other")


def test_waiting_for_the_first_is_replayed(app: App, hand: Hand, rows: Rows) -> None:
    """The same handle is returned, although by now both are done."""
    from tests.waiting import Gate

    gate = Gate()

    @hand.step()
    def wait() -> None:
        gate.pass_through()

    @hand.workflow()
    async def child(do: Inside, waits: bool) -> None:
        if waits:
            await do(wait())

    @hand.workflow()
    async def body(do: Inside) -> str:
        handles = [await do.start(child, waits) for waits in (True, False)]
        return (await do.wait_first(handles)).workflow_id

    app.launch()
    with SetWorkflowID("w"):
        assert "w-2" == hand.call(body)
    gate.open()
    hand.do("get_result", "w-1")

    assert "w-2" == again(rows, "w").get_result()
    assert ["child", "child", "DBOS.waitFirst"] == step_names("w")
