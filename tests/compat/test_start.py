"""Starting a workflow: its id, its row, and what a second start of the same id does."""

from __future__ import annotations

import threading
import uuid

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSAwaitedWorkflowCancelledError, DBOSConflictingWorkflowError
from tests.compat.acts import beside
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate

ELSEWHERE = {"executor_id": "other", "owner_xid": "another-program", "application_version": "v1"}


def test_a_generated_id_is_a_random_uuid(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def tell_id(do: Inside) -> str | None:
        return DBOS.workflow_id

    app.launch()
    first, second = hand.call(tell_id), hand.call(tell_id)

    assert first != second
    assert 4 == uuid.UUID(first).version


def test_the_row_is_there_before_the_body_runs(app: App, hand: Hand) -> None:
    """It says PENDING, with the inputs, the name, one attempt, priority 0, executor and version."""

    @hand.workflow()
    async def look(do: Inside, x: int, *, y: str) -> None:
        seen.append(await do.get_workflow_status(DBOS.workflow_id))

    seen: list = []
    app.launch(executor_id="me")
    with SetWorkflowID("w"):
        hand.call(look, 1, y="two")

    (row,) = seen
    assert ("w", "PENDING", "look", "me", "v1") == (
        row.workflow_id,
        row.status,
        row.name,
        row.executor_id,
        row.app_version,
    )
    assert (1, 0, None) == (row.recovery_attempts, row.priority, row.queue_name)
    assert {"args": (1,), "kwargs": {"y": "two"}} == row.input
    assert (None, None, None, None) == (row.class_name, row.config_name, row.output, row.error)


def test_arguments_that_cannot_be_stored_raise_at_the_call_and_leave_no_row(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def take(do: Inside, thing: object) -> None:
        return None

    app.launch()
    with pytest.raises(TypeError, match="pickle"):
        hand.call(take, threading.Lock())
    with pytest.raises(TypeError, match="pickle"):
        hand.start(take, threading.Lock())

    assert [] == DBOS.list_workflows()


def test_a_started_workflow_can_be_retrieved(app: App, hand: Hand) -> None:
    """The handle of retrieve_workflow has the same id and result; the status has the function's name."""

    @hand.workflow()
    async def double(do: Inside, x: int) -> int:
        return 2 * x

    app.launch()
    started = hand.start(double, 4)
    retrieved = hand.do("retrieve_workflow", started.workflow_id)

    assert (8, 8) == (started.result(), retrieved.result())
    assert started.workflow_id == retrieved.workflow_id == retrieved.handle.get_workflow_id()
    assert ("double", "SUCCESS", 8) == (retrieved.status().name, retrieved.status().status, retrieved.status().output)


def test_none_is_a_result_too(app: App, hand: Hand) -> None:
    """A workflow and a step that return nothing are not run again."""
    ran: list[str] = []

    @hand.step()
    def nothing() -> None:
        ran.append("step")

    @hand.workflow()
    async def silent(do: Inside) -> None:
        ran.append("workflow")
        return await do(nothing())

    app.launch()
    for _ in range(2):
        with SetWorkflowID("w"):
            assert hand.call(silent) is None

    assert ["workflow", "step"] == ran


def test_the_first_arguments_win(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def echo(do: Inside, x: int) -> int:
        return x

    app.launch()
    with SetWorkflowID("w"):
        hand.call(echo, 1)

    with SetWorkflowID("w"):
        assert 1 == hand.call(echo, 2)
    with SetWorkflowID("w"):
        assert 1 == hand.start(echo, 3).result()


def test_a_second_call_is_no_attempt(app: App, hand: Hand) -> None:
    """Neither while it runs nor afterwards does a call of the same id change attempts or executor."""
    gate = Gate()

    @hand.step()
    def wait() -> None:
        gate.pass_through()

    @hand.workflow()
    async def waiting(do: Inside) -> None:
        await do(wait())

    app.launch()
    with SetWorkflowID("w"):
        first = hand.start(waiting)
    gate.wait_reached()
    with SetWorkflowID("w"):
        second = hand.start(waiting)
    gate.open()
    first.result(), second.result()

    assert (1, "local") == (first.status().recovery_attempts, first.status().executor_id)
    assert 1 == gate.reached


def test_two_threads_with_one_id_run_it_once(app: App, hand: Hand) -> None:
    gate, ran = Gate(), []

    @hand.step()
    def wait() -> int:
        ran.append(1)
        gate.pass_through()
        return 7

    @hand.workflow()
    async def waiting(do: Inside) -> int:
        return await do(wait())

    def call() -> int:
        with SetWorkflowID("w"):
            return hand.call(waiting)

    app.launch()
    calls = [beside(call) for _ in range(4)]
    gate.wait_reached()
    gate.open()

    assert [7] * 4 == [each.result(20) for each in calls]
    assert [1] == ran


def test_a_workflow_that_runs_elsewhere_is_waited_for(app: App, hand: Hand, rows: Rows) -> None:
    """A call or start of an id that another process runs runs nothing and returns that process's result."""

    @hand.workflow()
    async def run_here(do: Inside) -> str:
        return "here"

    def call() -> str:
        with SetWorkflowID("w"):
            return hand.call(run_here)

    rows.add("w", "run_here", status="PENDING", **ELSEWHERE)
    app.launch()
    called = beside(call)
    with SetWorkflowID("w"):
        started = hand.start(run_here)
    rows.change("w", status="SUCCESS", output='"elsewhere"', owner_xid=None)

    assert "elsewhere" == called.result(20)
    assert "elsewhere" == started.result()


def test_an_enqueued_workflow_is_waited_for(app: App, hand: Hand, rows: Rows) -> None:
    """A start of an id that waits on a queue does not take it from there."""

    @hand.workflow()
    async def run_here(do: Inside) -> str:
        return "here"

    rows.add("w", "run_here", queue_name="served-by-nobody")
    app.launch()
    with SetWorkflowID("w"):
        started = hand.start(run_here)
    assert "ENQUEUED" == started.status().status
    rows.change("w", status="SUCCESS", output='"elsewhere"')

    assert "elsewhere" == started.result()


def test_a_call_of_a_cancelled_id_raises(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    app.launch()
    gone = hand.do("fork_workflow", _done(hand, work), 1, queue_name="served-by-nobody")
    hand.do("cancel_workflow", gone.workflow_id)

    with SetWorkflowID(gone.workflow_id), pytest.raises(DBOSAwaitedWorkflowCancelledError) as caught:
        hand.call(work)
    assert gone.workflow_id == caught.value.workflow_id
    with SetWorkflowID(gone.workflow_id), pytest.raises(DBOSAwaitedWorkflowCancelledError):
        hand.start(work).result()


def _done(hand: Hand, workflow) -> str:
    with SetWorkflowID("done"):
        hand.call(workflow)
    return "done"


def test_an_id_belongs_to_one_function(app: App, hand: Hand) -> None:
    """The id of another function is refused, and the other's row stays as it is."""

    @hand.workflow()
    async def one(do: Inside) -> int:
        return 1

    @hand.workflow()
    async def two(do: Inside) -> int:
        return 2

    app.launch()
    with SetWorkflowID("w"):
        hand.call(one)

    with (
        SetWorkflowID("w"),
        pytest.raises(DBOSConflictingWorkflowError, match="already exists with a different function name"),
    ):
        hand.call(two)
    with SetWorkflowID("w"), pytest.raises(DBOSConflictingWorkflowError) as caught:
        hand.start(two)
    assert 9 == caught.value.dbos_error_code
    assert 1 == hand.do("get_result", "w")


def test_an_id_of_another_function_fails_the_start_of_a_child(app: App, hand: Hand) -> None:
    """The parent may catch it; its replay meets it again."""

    @hand.workflow()
    async def one(do: Inside) -> int:
        return 1

    @hand.workflow()
    async def parent(do: Inside) -> str:
        try:
            with SetWorkflowID("taken"):
                await do.start(parent)
        except DBOSConflictingWorkflowError as error:
            return str(error)
        return "started"

    app.launch()
    with SetWorkflowID("taken"):
        hand.call(one)

    with SetWorkflowID("p"):
        assert "different function name" in hand.call(parent)
