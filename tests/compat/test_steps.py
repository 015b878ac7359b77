"""Steps: how they are named, what they see, and what `run_step` takes."""

from __future__ import annotations

import asyncio

import pytest

from dbos import DBOS, SetWorkflowID
from tests.compat.acts import step_names
from tests.conftest import App
from tests.hand import Hand, Inside


def test_a_step_is_named_after_its_function_unless_it_says_otherwise(app: App) -> None:
    @DBOS.step()
    def plain() -> None:
        return None

    @DBOS.step(name="a name")
    def named() -> None:
        return None

    @DBOS.workflow()
    def body() -> None:
        plain()
        named()

    app.launch()
    with SetWorkflowID("w"):
        body()

    here = "test_a_step_is_named_after_its_function_unless_it_says_otherwise.<locals>"
    assert [f"{here}.plain", "a name"] == step_names("w")


def test_run_step_takes_any_function(app: App, hand: Hand) -> None:
    """Named after it, or by its options; a lambda has the name Python gives it."""

    def add(x: int, *, y: int) -> int:
        return x + y

    @hand.workflow()
    async def body(do: Inside) -> list[int]:
        return [
            await do.run_step(None, add, 1, y=2),
            await do.run_step({"name": "other"}, add, 2, y=2),
            await do.run_step({}, lambda x: x, 5),
        ]

    app.launch()
    with SetWorkflowID("w"):
        assert [3, 4, 5] == hand.call(body)

    here = "test_run_step_takes_any_function.<locals>"
    assert [f"{here}.add", "other", f"{here}.body.<locals>.<lambda>"] == step_names("w")


def test_run_step_of_a_step_is_one_record(app: App, hand: Hand) -> None:
    @hand.step()
    def one() -> int:
        return 1

    @hand.workflow()
    async def body(do: Inside) -> int:
        return await do.run_step({"name": "outer"}, one)

    app.launch()
    with SetWorkflowID("w"):
        assert 1 == hand.call(body)

    assert ["outer"] == step_names("w")


def test_run_step_in_sync_code_runs_a_coroutine_function_to_its_end(app: App) -> None:
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    @DBOS.workflow()
    def body() -> int:
        return DBOS.run_step(None, double, 4)

    app.launch()

    assert 8 == body()


def test_run_step_in_async_code_runs_a_sync_function(app: App) -> None:
    @DBOS.workflow()
    async def body() -> int:
        return await DBOS.run_step_async({"name": "double"}, lambda x: 2 * x, 4)

    app.launch()

    assert 8 == asyncio.run(body())


def test_run_step_async_needs_a_running_loop(app: App) -> None:
    app.launch()
    call = DBOS.run_step_async(None, lambda: 1)

    with pytest.raises(RuntimeError, match=r"event loop is not running. Use run_step\(\.\.\.\) instead\."):
        call.send(None)


def test_run_step_retries_as_its_options_say(app: App, hand: Hand) -> None:
    tries: list[int] = []

    def fail_twice() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("not yet")
        return "done"

    @hand.workflow()
    async def body(do: Inside) -> str:
        options = {"retries_allowed": True, "max_attempts": 3, "interval_seconds": 0, "backoff_rate": 1}
        return await do.run_step(options, fail_twice)

    app.launch()

    assert "done" == hand.call(body)
    assert 3 == len(tries)


def test_an_async_workflow_may_call_a_sync_step_and_transaction(app: App) -> None:
    @DBOS.step()
    def one() -> int:
        return 1

    @DBOS.transaction()
    def two() -> int:
        return 2

    @DBOS.workflow()
    async def body() -> int:
        return one() + two()

    app.launch()

    assert 3 == asyncio.run(body())


def test_a_step_knows_where_it_is(app: App, hand: Hand) -> None:
    """Its id, the workflow's id, and no attempts when it is not retried."""

    @hand.step()
    def look() -> list:
        status = DBOS.step_status
        return [DBOS.workflow_id, DBOS.step_id, status.step_id, status.current_attempt, status.max_attempts]

    @hand.workflow()
    async def body(do: Inside) -> list:
        return [await do(look()), await do(look()), [DBOS.workflow_id, DBOS.step_id, DBOS.step_status]]

    app.launch()
    with SetWorkflowID("w"):
        assert [["w", 1, 1, None, None], ["w", 2, 2, None, None], ["w", None, None]] == hand.call(body)


def test_a_retried_step_knows_its_attempt(app: App, hand: Hand) -> None:
    """Counted from 0."""
    seen: list = []

    @hand.step(retries_allowed=True, max_attempts=4, interval_seconds=0)
    def look() -> None:
        status = DBOS.step_status
        seen.append((status.step_id, status.current_attempt, status.max_attempts))
        if len(seen) < 3:
            raise ValueError("not yet")

    @hand.workflow()
    async def body(do: Inside) -> None:
        await do(look())

    app.launch()
    hand.call(body)

    assert [(1, 0, 4), (1, 1, 4), (1, 2, 4)] == seen


def test_a_transaction_knows_where_it_is(app: App) -> None:
    @DBOS.transaction()
    def look() -> list:
        return [DBOS.workflow_id, DBOS.step_id]

    @DBOS.workflow()
    def body() -> list:
        return [look(), look()]

    app.launch()
    with SetWorkflowID("w"):
        assert [["w", 1], ["w", 2]] == body()


def test_steps_of_one_name_in_two_workflows_do_not_mix(app: App, hand: Hand) -> None:
    """Each workflow counts its own steps."""

    @hand.step()
    def echo(x: str) -> str:
        return x

    @hand.workflow()
    async def body(do: Inside, x: str) -> list[str]:
        return [await do(echo(f"{x}{number}")) for number in range(3)]

    app.launch()
    for workflow_id in ("a", "b"):
        with SetWorkflowID(workflow_id):
            assert [f"{workflow_id}{number}" for number in range(3)] == hand.call(body, workflow_id)
    assert ["a0", "a1", "a2"] == [step["output"] for step in DBOS.list_workflow_steps("a")]


def test_a_step_sees_its_own_arguments_as_they_were_given(app: App, hand: Hand) -> None:
    """Arguments of steps are not stored: they may be anything."""
    import threading

    lock = threading.Lock()

    @hand.step()
    def same(thing: object) -> bool:
        return thing is lock

    @hand.workflow()
    async def body(do: Inside) -> bool:
        return await do(same(lock))

    app.launch()

    assert hand.call(body)
