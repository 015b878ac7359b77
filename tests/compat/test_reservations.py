"""Reserved steps: their ids are taken in the order of the program, and they run in any order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, StepReservation
from dbos.error import DBOSException, DBOSMaxStepRetriesExceeded
from tests.compat.acts import again, step_ids, step_names
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside

ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def note(name: str) -> str:
    ran.append(name)
    return name


async def reserved(do: Inside, reservation: StepReservation, options: Any, fn: Any, *args: Any) -> Any:
    """Run a reserved step in the colour of the workflow."""
    return await do((reservation.run_async if do.is_async else reservation.run)(options, fn, *args))


def test_ids_are_those_of_the_reservation(app: App, hand: Hand, rows: Rows) -> None:
    """Whatever comes first; a replay repeats nothing, and finds the same."""

    @hand.workflow()
    async def body(do: Inside) -> list[Any]:
        early, late, unused = DBOS.reserve_step(), DBOS.reserve_step(), DBOS.reserve_step()
        plain = await do.run_step({"name": "plain"}, note, "plain")
        return [
            (early.step_id, late.step_id, unused.step_id),
            plain,
            await reserved(do, late, {"name": "late"}, note, "late"),
            await reserved(do, early, {"name": "early"}, note, "early"),
        ]

    app.launch()
    with SetWorkflowID("w"):
        first = hand.call(body)
    assert [(1, 2, 3), "plain", "late", "early"] == first
    assert ([1, 2, 4], ["early", "late", "plain"]) == (step_ids("w"), step_names("w"))
    assert first == again(rows, "w").get_result()

    assert ["plain", "late", "early"] == ran


def test_tasks_that_run_several_steps_keep_their_ids(app: App, rows: Rows) -> None:
    """In whatever order they come to run: the replay runs in another one."""
    first = "a"

    @DBOS.workflow()
    async def body() -> list[str]:
        gate = asyncio.Event()

        async def task(name: str, steps: list[StepReservation]) -> str:
            if name == first:
                gate.set()
            await gate.wait()
            for number, step in enumerate(steps):
                if name != first:
                    await asyncio.sleep(0)
                await step.run_async({"name": f"{name}-{number}"}, note, f"{name}-{number}")
            return name

        steps = [DBOS.reserve_step() for _ in range(4)]
        return list(await asyncio.gather(task("a", steps[:2]), task("b", steps[2:])))

    app.launch()
    with SetWorkflowID("w"):
        asyncio.run(body())
    first = "b"
    again(rows, "w").get_result()

    assert ["a-0", "a-1", "b-0", "b-1"] == step_names("w")
    assert 4 == len(ran)


def test_options_are_those_of_any_step(app: App, hand: Hand) -> None:
    def fail() -> None:
        raise ValueError(note("fail"))

    @hand.workflow()
    async def body(do: Inside) -> None:
        options = {"retries_allowed": True, "max_attempts": 2, "interval_seconds": 0}
        await reserved(do, DBOS.reserve_step(), options, fail)

    app.launch()
    with pytest.raises(DBOSMaxStepRetriesExceeded):
        hand.call(body)
    assert ["fail", "fail"] == ran


def test_it_can_be_run_once(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def body(do: Inside) -> None:
        reservation = DBOS.reserve_step()
        await reserved(do, reservation, None, note, "once")
        await reserved(do, reservation, None, note, "twice")

    app.launch()
    with pytest.raises(DBOSException, match="only be run once"):
        hand.call(body)
    assert ["once"] == ran


def test_it_belongs_to_its_workflow(app: App, hand: Hand) -> None:
    """Elsewhere it is refused, and can still be run at home."""
    kept: list[StepReservation] = []
    refused: list[str] = []

    async def try_it(do: Inside) -> None:
        try:
            await reserved(do, kept[0], None, note, "elsewhere")
        except DBOSException as error:
            refused.append(str(error))

    @hand.workflow()
    async def child(do: Inside) -> None:
        await try_it(do)

    inside = hand.function(try_it)

    @hand.workflow()
    async def body(do: Inside) -> str:
        kept.append(DBOS.reserve_step())
        await do(child())
        await do.run_step(None, inside)
        return await reserved(do, kept[0], None, note, "home")

    app.launch()
    assert "home" == hand.call(body)
    hand.call(hand.function(try_it))

    assert (3, ["home"]) == (len(refused), ran)
    assert all("must be run from that workflow" in each for each in refused)


def test_only_a_workflow_can_reserve(app: App, hand: Hand) -> None:
    @hand.step()
    def step() -> None:
        DBOS.reserve_step()

    @hand.workflow()
    async def body(do: Inside) -> None:
        await do(step())

    app.launch()
    with pytest.raises(DBOSException, match="outside any step or transaction"):
        DBOS.reserve_step()
    with pytest.raises(DBOSException, match="outside any step or transaction"):
        hand.call(body)


def test_the_sync_form_is_refused_on_a_loop(app: App) -> None:
    @DBOS.workflow()
    async def body() -> None:
        DBOS.reserve_step().run(None, note, "never")

    app.launch()
    with pytest.raises(RuntimeError, match="event loop is running"):
        asyncio.run(body())
    assert [] == ran
