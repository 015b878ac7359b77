"""Recovery of what is not a plain workflow: started steps and transactions, those of a user, those that retry."""

from __future__ import annotations

import asyncio

import pytest

from dbos import DBOS, DBOSContextSetAuth, SetWorkflowID
from dbos.testing import FakeClock
from tests.compat.acts import again, status_of, step_names
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate


def test_a_started_step_is_a_workflow_and_recovered(app: App, hand: Hand, rows: Rows) -> None:
    """It has one step, which is not run again."""
    ran: list[int] = []

    @hand.step()
    def double(x: int) -> int:
        ran.append(x)
        return 2 * x

    app.launch()
    with SetWorkflowID("w"):
        held = hand.start(double, 4)

    assert 8 == held.result()
    assert "<temp>.double" == held.status().name
    assert 8 == again(rows, "w").get_result()
    assert [4] == ran
    assert ["double"] == step_names("w")


def test_a_started_step_that_fails_is_recovered_with_its_error(app: App, hand: Hand, rows: Rows) -> None:
    ran: list[int] = []

    @hand.step()
    def fail() -> None:
        ran.append(1)
        raise ValueError("no")

    app.launch()
    with SetWorkflowID("w"), pytest.raises(ValueError, match="no"):
        hand.start(fail).result()
    assert "ERROR" == status_of("w")

    with pytest.raises(ValueError, match="no"):
        again(rows, "w").get_result()
    assert [1] == ran


def test_a_started_step_is_retried_as_it_says(app: App, hand: Hand) -> None:
    tries: list[int] = []

    @hand.step(retries_allowed=True, interval_seconds=0, max_attempts=3)
    def fail_twice() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("not yet")
        return "done"

    app.launch()

    assert "done" == hand.start(fail_twice).result()


def test_a_started_transaction_is_a_workflow_and_recovered(app: App, rows: Rows) -> None:
    ran: list[int] = []

    @DBOS.transaction(name="txn")
    def txn(x: int) -> int:
        ran.append(x)
        return 2 * x

    app.launch()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(txn, 4)

    assert 8 == handle.get_result()
    assert "<temp>.txn" == handle.get_status().name
    assert 8 == again(rows, "w").get_result()
    assert [4] == ran


def test_the_user_comes_back_with_the_workflow(app: App, hand: Hand, rows: Rows) -> None:
    @DBOS.required_roles(["user", "admin"])
    @hand.workflow()
    async def tell(do: Inside) -> list:
        return [DBOS.authenticated_user, DBOS.authenticated_roles, DBOS.assumed_role]

    app.launch()
    with DBOSContextSetAuth("me", ["admin", "guest"]), SetWorkflowID("w"):
        assert ["me", ["admin", "guest"], "admin"] == hand.call(tell)

    assert ["me", ["admin", "guest"], "admin"] == again(rows, "w").get_result()


def test_a_recovered_step_counts_its_attempts_anew(app: App, hand: Hand, clock: FakeClock) -> None:
    """The process dies between two tries: afterwards all of max_attempts are there again."""
    attempts: list[int] = []

    @hand.step(retries_allowed=True, interval_seconds=10, max_attempts=2)
    def fail() -> None:
        attempts.append(DBOS.step_status.current_attempt)
        raise ValueError("no")

    @hand.workflow()
    async def work(do: Inside) -> str:
        try:
            await do(fail())
        except Exception as error:
            return str(error)
        return ""

    app.launch()
    with SetWorkflowID("w"):
        hand.start(work)
    clock.wait_for_sleeper(clock.now_ms() + 10_000)
    app.crash()
    clock.advance(1)
    app.launch()
    clock.wait_for_sleeper(clock.now_ms() + 10_000)
    clock.advance(10)

    assert "has exceeded its maximum of 2 retries" in hand.do("get_result", "w")
    assert [0, 0, 1] == attempts


def test_a_step_interrupted_from_the_keyboard_leaves_its_workflow_pending(app: App) -> None:
    tries: list[int] = []

    @DBOS.step(retries_allowed=True, interval_seconds=0)
    def step() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise KeyboardInterrupt
        return "done"

    @DBOS.workflow()
    def work() -> str:
        return step()

    app.launch()
    with SetWorkflowID("w"), pytest.raises(KeyboardInterrupt):
        work()
    assert ("PENDING", []) == (status_of("w"), step_names("w"))

    (handle,) = DBOS._recover_pending_workflows()
    assert "done" == handle.get_result()


def test_an_async_step_interrupted_from_the_keyboard_leaves_its_workflow_pending(app: App) -> None:
    tries: list[int] = []

    @DBOS.step(retries_allowed=True, interval_seconds=0)
    async def step() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise KeyboardInterrupt
        return "done"

    @DBOS.workflow()
    async def work() -> str:
        return await step()

    app.launch()
    with SetWorkflowID("w"), pytest.raises(KeyboardInterrupt):
        asyncio.run(work())
    assert ("PENDING", []) == (status_of("w"), step_names("w"))

    (handle,) = DBOS._recover_pending_workflows()
    assert "done" == handle.get_result()


def test_a_sleep_is_not_slept_again(app: App, hand: Hand, clock: FakeClock) -> None:
    """After a crash only the rest of it is waited for, and the record stays."""

    @hand.workflow()
    async def nap(do: Inside) -> str:
        await do.sleep(60)
        return "rested"

    app.launch()
    ends_ms = clock.now_ms() + 60_000
    with SetWorkflowID("w"):
        hand.start(nap)
    clock.wait_for_sleeper(ends_ms)
    app.crash()
    clock.advance(45)
    app.launch()
    clock.wait_for_sleeper(ends_ms)
    clock.advance(15)

    assert "rested" == hand.do("get_result", "w")
    assert ends_ms / 1000 == hand.do("list_workflow_steps", "w")[0]["output"]


def test_a_direct_and_a_started_step_recover_while_they_run(app: App, hand: Hand) -> None:
    """A step started by itself is taken up after a crash like any workflow."""
    gate = Gate()

    @hand.step()
    def wait() -> str:
        gate.pass_through()
        return "done"

    app.launch()
    with SetWorkflowID("w"):
        hand.start(wait)
    gate.wait_reached()
    app.restart()
    gate.wait_reached(2)
    gate.open()

    assert "done" == hand.do("get_result", "w")
