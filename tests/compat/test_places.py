"""Where operations may be called: in a workflow, in a step, outside; and what is said where they may not."""

from __future__ import annotations

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSException
from tests.compat.acts import step_names
from tests.conftest import App
from tests.hand import Hand, Inside


def test_a_step_outside_a_workflow_is_a_plain_call(app: App, hand: Hand) -> None:
    """Without retries, and without a record."""
    tries: list[int] = []

    @hand.step(retries_allowed=True, interval_seconds=0)
    def fail() -> None:
        tries.append(1)
        raise ValueError("once")

    app.launch()
    with pytest.raises(ValueError, match="once"):
        hand.call(fail)

    assert [1] == tries
    assert [] == DBOS.list_workflows()


def test_a_step_needs_no_runtime(hand: Hand) -> None:
    @hand.step()
    def double(x: int) -> int:
        return 2 * x

    assert 8 == hand.call(double, 4)


def test_run_step_outside_a_workflow_is_a_plain_call(app: App, hand: Hand) -> None:
    app.launch()

    assert 8 == hand.do("run_step", {"retries_allowed": True}, lambda x: 2 * x, 4)
    assert [] == DBOS.list_workflows()


def test_run_step_of_a_coroutine_function_outside_a_workflow(app: App) -> None:
    import asyncio

    async def double(x: int) -> int:
        return 2 * x

    app.launch()

    assert 8 == asyncio.run(DBOS.run_step_async(None, double, 4))


def test_a_transaction_outside_a_workflow_is_a_workflow(app: App) -> None:
    """It has one step."""

    @DBOS.transaction(name="txn")
    def txn(x: int) -> int:
        return 2 * x

    app.launch()
    with SetWorkflowID("w"):
        assert 8 == txn(4)

    status = DBOS.get_workflow_status("w")
    assert ("<temp>.txn", "SUCCESS", 8) == (status.name, status.status, status.output)
    assert ["txn"] == step_names("w")


def test_a_workflow_must_not_be_called_in_a_step(app: App, hand: Hand) -> None:
    """Neither called nor started."""

    @DBOS.workflow()
    def child() -> None:
        return None

    @hand.step()
    def call() -> None:
        child()

    @hand.step()
    def start() -> None:
        DBOS.start_workflow(child)

    @hand.workflow()
    async def body(do: Inside) -> None:
        for step in (call, start):
            with pytest.raises(AssertionError) as caught:
                await do(step())
            assert isinstance(caught.value, DBOSException)

    app.launch()
    with SetWorkflowID("w"):
        hand.call(body)

    assert ["w"] == [each.workflow_id for each in DBOS.list_workflows()]


def test_a_transaction_must_not_be_called_in_a_step(app: App, hand: Hand) -> None:
    @DBOS.transaction()
    def txn() -> None:
        return None

    @hand.step()
    def call() -> None:
        txn()

    @hand.workflow()
    async def body(do: Inside) -> None:
        await do(call())

    app.launch()

    with pytest.raises(AssertionError, match="Transactions must be called from within workflows"):
        hand.call(body)


def test_sleep_must_not_be_called_in_a_step(app: App, hand: Hand) -> None:
    @hand.step()
    def nap() -> None:
        DBOS.sleep(0.001)

    @hand.workflow()
    async def body(do: Inside) -> None:
        await do(nap())

    app.launch()

    with pytest.raises(AssertionError):
        hand.call(body)


def test_sleep_must_not_be_called_outside_a_workflow(app: App, hand: Hand) -> None:
    app.launch()

    with pytest.raises(DBOSException, match=r"sleep\(\) must be called from within a workflow"):
        hand.do("sleep", 0.001)


def test_a_workflow_and_a_step_in_a_transaction(app: App) -> None:
    """A transaction refuses workflows; a step in it cannot be recorded either."""

    @DBOS.workflow()
    def child() -> int:
        return 1

    @DBOS.transaction()
    def txn() -> None:
        DBOS.start_workflow(child)

    @DBOS.workflow()
    def body() -> None:
        txn()

    app.launch()

    with pytest.raises((AssertionError, DBOSException)):
        body()


def test_operations_need_no_workflow(app: App, hand: Hand) -> None:
    """From outside they act at once and record nothing."""

    @hand.workflow()
    async def other(do: Inside) -> int:
        return 7

    app.launch()
    with SetWorkflowID("other"):
        hand.call(other)
    hand.do("list_workflows")
    hand.do("get_workflow_status", "other")
    hand.do("fork_workflow", "other", 1).result()

    assert [] == step_names("other")
    assert 2 == len(DBOS.list_workflows())
