"""How a workflow ends: with a result, with an error, or not at all because it was interrupted."""

from __future__ import annotations

import threading

import pytest

from dbos import DBOS, SetWorkflowID
from tests.compat.acts import again, status_of
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import eventually


class Interrupt(BaseException):
    """Like KeyboardInterrupt, but one that leaves an event loop alone."""


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("it fell down")
        self.lock = threading.Lock()


class PickledOnlyOneWay(Exception):
    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")


def test_an_error_is_raised_alike_by_call_replay_and_handle(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def fail(do: Inside) -> None:
        raise KeyError("no", 7)

    app.launch()
    for _ in range(2):
        with SetWorkflowID("f"), pytest.raises(KeyError) as caught:
            hand.call(fail)
        assert ("no", 7) == caught.value.args
    with pytest.raises(KeyError) as caught:
        hand.do("retrieve_workflow", "f").result()
    assert ("no", 7) == caught.value.args


def test_the_status_of_a_failed_workflow_has_its_error(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def fail(do: Inside) -> None:
        raise ValueError("no")

    app.launch()
    held = hand.start(fail)
    with pytest.raises(ValueError, match="no"):
        held.result()

    status = held.status()
    assert ("ERROR", None) == (status.status, status.output)
    assert isinstance(status.error, ValueError)
    assert "no" == str(status.error)


def test_an_error_of_a_step_is_the_workflows_unless_caught(app: App, hand: Hand) -> None:
    @hand.step()
    def fail() -> None:
        raise ValueError("step")

    @hand.workflow()
    async def careful(do: Inside) -> str:
        try:
            await do(fail())
        except ValueError as error:
            return f"caught {error}"
        return "nothing"

    @hand.workflow()
    async def careless(do: Inside) -> None:
        await do(fail())

    app.launch()
    assert "caught step" == hand.call(careful)
    with pytest.raises(ValueError, match="step"):
        hand.call(careless)


def test_an_output_that_cannot_be_stored_is_the_workflows_error(app: App, hand: Hand) -> None:
    """The serializer's error is raised and recorded: the workflow is not stuck."""

    @hand.workflow()
    async def give_lock(do: Inside) -> object:
        return threading.Lock()

    app.launch()
    with SetWorkflowID("w"), pytest.raises(TypeError, match="pickle"):
        hand.call(give_lock)

    assert "ERROR" == status_of("w")
    with pytest.raises(TypeError, match="pickle"):
        hand.do("get_result", "w")


@pytest.mark.parametrize("error", [Unpicklable(), PickledOnlyOneWay("fell", "down")], ids=["no-pickle", "one-way"])
def test_an_error_that_cannot_be_stored_is_recorded_by_its_text(app: App, hand: Hand, error: Exception) -> None:
    @hand.workflow()
    async def fail(do: Inside) -> None:
        raise error

    app.launch()
    with SetWorkflowID("w"), pytest.raises(Exception, match=str(error)):
        hand.call(fail)
    hand_over = hand.do("get_workflow_status", "w")

    assert "ERROR" == hand_over.status
    app.relaunch()
    with pytest.raises(Exception, match=str(error)):
        hand.do("get_result", "w")


@pytest.mark.parametrize("error", [Unpicklable(), PickledOnlyOneWay("fell", "down")], ids=["no-pickle", "one-way"])
def test_an_error_of_a_step_that_cannot_be_stored_is_replayed_by_its_text(
    app: App, hand: Hand, rows: Rows, error: Exception
) -> None:
    @hand.step()
    def fail() -> None:
        raise error

    @hand.workflow()
    async def tell(do: Inside) -> str:
        try:
            await do(fail())
        except Exception as caught:
            return str(caught)
        return "nothing"

    app.launch()
    with SetWorkflowID("w"):
        assert str(error) in hand.call(tell)

    assert str(error) in again(rows, "w").get_result()


def test_an_interrupted_workflow_stays_pending_and_is_recovered(app: App, hand: Hand) -> None:
    """A BaseException is no outcome: it goes to the caller, and recovery finishes the workflow."""
    ran: list[int] = []

    @hand.workflow()
    async def work(do: Inside) -> str:
        ran.append(1)
        if len(ran) == 1:
            raise Interrupt
        return "done"

    app.launch()
    with SetWorkflowID("w"), pytest.raises(Interrupt):
        hand.call(work)
    assert "PENDING" == status_of("w")
    (handle,) = DBOS._recover_pending_workflows()

    assert "done" == handle.get_result()
    assert 2 == handle.get_status().recovery_attempts


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_a_user_who_interrupts_a_workflow_leaves_it_pending(app: App, interrupt: type[BaseException]) -> None:
    ran: list[int] = []

    @DBOS.workflow()
    def work() -> str:
        ran.append(1)
        if len(ran) == 1:
            raise interrupt
        return "done"

    app.launch()
    with SetWorkflowID("w"), pytest.raises(interrupt):
        work()
    assert "PENDING" == status_of("w")

    (handle,) = DBOS._recover_pending_workflows()
    assert "done" == handle.get_result()


def test_an_interrupted_start_stays_pending(app: App, hand: Hand) -> None:
    """The same beside: the runtime lives on and can recover it."""
    ran: list[int] = []

    @hand.workflow()
    async def work(do: Inside) -> str:
        ran.append(1)
        if len(ran) == 1:
            raise Interrupt
        return "done"

    app.launch()
    with SetWorkflowID("w"):
        hand.start(work)
    eventually(lambda: ran)
    assert "PENDING" == status_of("w")

    assert "done" == eventually(lambda: [each.get_result() for each in DBOS._recover_pending_workflows()])[0]


def test_a_workflow_that_was_cancelled_in_its_last_step_ends_cancelled(app: App, hand: Hand) -> None:
    """The outcome of a run does not overwrite CANCELLED."""

    @hand.step()
    def cancel_me(workflow_id: str) -> None:
        DBOS.cancel_workflow(workflow_id)

    @hand.workflow()
    async def work(do: Inside) -> str:
        try:
            await do(cancel_me(DBOS.workflow_id))
        except Exception:
            return "caught"
        return "done"

    app.launch()
    with SetWorkflowID("w"), pytest.raises(Exception, match="was cancelled"):
        hand.call(work)

    assert "CANCELLED" == status_of("w")


def test_an_outcome_of_another_execution_is_not_overwritten(app: App, hand: Hand, rows: Rows) -> None:
    """A run that finds its workflow finished by another returns that one's result."""

    @hand.workflow()
    async def work(do: Inside) -> str:
        rows.change("w", status="SUCCESS", output='"of another"', serialization="portable_json")
        return "of this"

    app.launch()
    with SetWorkflowID("w"):
        assert "of another" == hand.call(work)
    assert "of another" == hand.do("get_result", "w")
