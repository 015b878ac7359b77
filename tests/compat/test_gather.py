"""Concurrency inside an async workflow: gather, tasks, and `DBOS.asyncio_wait`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from tests.compat.acts import again, step_names
from tests.compat.rows import Rows
from tests.conftest import App


def call(workflow: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        with SetWorkflowID("w"):
            return await workflow()

    return asyncio.run(main())


@pytest.fixture
def late_first() -> Callable[..., Any]:
    """A step that is done the sooner, the higher its number is; and how often each ran."""

    @DBOS.step(name="step")
    async def step(number: int) -> int:
        ran.append(number)
        for _ in range(50 * (3 - number)):
            await asyncio.sleep(0)
        return number

    ran: list[int] = []
    step.ran = ran
    return step


def test_gathered_steps_have_ids_in_the_order_of_the_call(app: App, rows: Rows, late_first) -> None:
    @DBOS.workflow()
    async def work() -> list[int]:
        return list(await asyncio.gather(*(late_first(number) for number in range(4))))

    app.launch()
    assert [0, 1, 2, 3] == call(work)

    assert [(n + 1, n) for n in range(4)] == [(s["function_id"], s["output"]) for s in DBOS.list_workflow_steps("w")]
    assert [0, 1, 2, 3] == again(rows, "w").get_result()
    assert 4 == len(late_first.ran)


def test_tasks_have_ids_in_the_order_of_their_making(app: App, rows: Rows, late_first) -> None:
    @DBOS.workflow()
    async def work() -> list[int]:
        tasks = [asyncio.create_task(late_first(number)) for number in range(4)]
        return [await task for task in reversed(tasks)]

    app.launch()
    assert [3, 2, 1, 0] == call(work)

    assert [0, 1, 2, 3] == [step["output"] for step in DBOS.list_workflow_steps("w")]
    assert [3, 2, 1, 0] == again(rows, "w").get_result()


def test_gathered_results_of_children_have_ids_in_the_order_of_the_call(app: App, rows: Rows, late_first) -> None:
    """The id of a getResult is drawn when it is called and not when the result comes."""

    @DBOS.workflow(name="child")
    async def child(number: int) -> int:
        return await late_first(number)

    @DBOS.workflow()
    async def work() -> list[int]:
        handles = [await DBOS.start_workflow_async(child, number) for number in range(4)]
        return list(await asyncio.gather(*(handle.get_result() for handle in handles)))

    app.launch()
    assert [0, 1, 2, 3] == call(work)

    results = DBOS.list_workflow_steps("w")[4:]
    assert [(n + 5, n) for n in range(4)] == [(step["function_id"], step["output"]) for step in results]
    assert [0, 1, 2, 3] == again(rows, "w").get_result()


def test_gathered_sleeps_run_together(app: App, rows: Rows) -> None:
    @DBOS.workflow()
    async def work() -> str:
        await asyncio.gather(*(DBOS.sleep_async(0.03 * number) for number in (3, 1, 2)))
        return "rested"

    app.launch()
    assert "rested" == call(work)

    outputs = [step["output"] for step in DBOS.list_workflow_steps("w")]
    assert outputs[1] < outputs[0]
    assert "rested" == again(rows, "w").get_result()


def test_gathered_errors_are_given_back(app: App, rows: Rows) -> None:
    @DBOS.step()
    async def step(number: int) -> int:
        if number == 1:
            raise ValueError("one")
        return number

    @DBOS.workflow()
    async def work() -> list[str]:
        return [str(each) for each in await asyncio.gather(*map(step, range(3)), return_exceptions=True)]

    app.launch()

    assert ["0", "one", "2"] == call(work) == again(rows, "w").get_result()


def test_waiting_outside_a_workflow_is_that_of_asyncio(app: App) -> None:
    async def main() -> tuple[list[int], int]:
        never = asyncio.get_running_loop().create_future()
        done, pending = await DBOS.asyncio_wait(
            [asyncio.create_task(asyncio.sleep(0, 7)), never], return_when=asyncio.FIRST_COMPLETED
        )
        assert {never} == pending
        return [each.result() for each in done], len(pending)

    app.launch()

    assert ([7], 1) == asyncio.run(main())


def test_waiting_for_all_gives_all(app: App, rows: Rows, late_first) -> None:
    @DBOS.workflow()
    async def work() -> list[int]:
        done, pending = await DBOS.asyncio_wait([late_first(number) for number in range(3)])
        assert not pending
        return sorted(task.result() for task in done)

    app.launch()
    assert [0, 1, 2] == call(work)

    assert ["DBOS.asyncio_wait", "step", "step", "step"] == step_names("w")
    assert [0, 1, 2] == again(rows, "w").get_result()


@pytest.mark.parametrize("when", [asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION])
def test_what_was_done_first_is_recorded(app: App, rows: Rows, when: str) -> None:
    """The replay sees the same one done, and the others pending, although by now all are recorded."""
    order, split = ["slow", "fast"], asyncio.Event()

    @DBOS.step(name="step")
    async def step(name: str) -> str:
        if name == order[0]:
            await asyncio.wait_for(split.wait(), 20)
        if name == order[1] and when == asyncio.FIRST_EXCEPTION:
            raise ValueError(name)
        return name

    @DBOS.workflow()
    async def work() -> list[bool]:
        split.clear()
        tasks = [asyncio.create_task(step(name)) for name in ("slow", "fast")]
        done, pending = await DBOS.asyncio_wait(tasks, return_when=when)
        seen = [task in done for task in tasks]
        split.set()
        await asyncio.gather(*pending)
        return seen

    app.launch()
    assert [False, True] == call(work)

    order.reverse()
    assert [False, True] == again(rows, "w").get_result()
    (wait,) = (each for each in DBOS.list_workflow_steps("w") if each["function_name"] == "DBOS.asyncio_wait")
    assert [1] == wait["output"]


def test_a_wait_that_timed_out_is_recorded(app: App, rows: Rows) -> None:
    """The replay finds nothing done, without waiting."""

    @DBOS.workflow()
    async def work() -> list[int]:
        never = asyncio.get_running_loop().create_future()
        done, pending = await DBOS.asyncio_wait([never], timeout=0.01)
        return [len(done), len(pending)]

    app.launch()

    assert [0, 1] == call(work) == again(rows, "w").get_result()
    assert [[]] == [step["output"] for step in DBOS.list_workflow_steps("w")]


def test_coroutines_tasks_and_futures_can_be_waited_for(app: App) -> None:
    @DBOS.workflow()
    async def work() -> list[int]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(3)
        waiting = [asyncio.sleep(0, 1), asyncio.create_task(asyncio.sleep(0, 2)), future]
        done, _ = await DBOS.asyncio_wait(waiting)
        return sorted(each.result() for each in done)

    app.launch()

    assert [1, 2, 3] == call(work)
