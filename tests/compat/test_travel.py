"""Travel: the arguments and variables of any step of an earlier run, with no step run and no row written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from dbos import DBOS, DBOSConfiguredInstance, SetWorkflowID, extension
from dbos.error import DBOSException
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside

EVERYTHING = "SELECT workflow_uuid, status, updated_at, recovery_attempts FROM {}workflow_status ORDER BY 1"


class Flow:
    """A workflow with steps, a child, a sleep and an event; and what ran."""

    def __init__(self, hand: Hand) -> None:
        self.ran: list[Any] = []

        @hand.step(name="load")
        def load(x: int, *, times: int = 1) -> list[int]:
            self.ran.append("load")
            return [x] * times

        @hand.step(name="total")
        def total(rows: list[int]) -> float:
            self.ran.append("total")
            return sum(rows) / (len(rows) - 3)

        @hand.workflow(name="child")
        async def child(do: Inside, x: int) -> int:
            return x

        @hand.workflow(name="flow")
        async def flow(do: Inside, day: str) -> float:
            rows = await do(load(2, times=3))
            await do.sleep(0.01)
            extra = await do(child(5))
            kept = [*rows, extra]
            try:
                return await do(total(kept))
            finally:
                kept = []
                self.ran.append("finally")

        self.load, self.total, self.flow = load, total, flow


@pytest.fixture
def flow(app: App, hand: Hand) -> Flow:
    made = Flow(hand)
    app.launch()
    with SetWorkflowID("w"):
        assert 11.0 == hand.call(made.flow, "monday")
    made.ran.clear()
    return made


def test_a_recorded_step_is_seen_as_it_was_called(flow: Flow, rows: Rows) -> None:
    before = rows.run(EVERYTHING)

    stop = extension.stop_at("w", 5)

    assert ("flow", "total", "total") == (stop.workflow, stop.name, stop.recorded)
    assert (([2, 2, 2, 5],), {}) == (stop.args, stop.kwargs)
    assert {"day": "monday", "rows": [2, 2, 2], "extra": 5, "kept": [2, 2, 2, 5]}.items() <= stop.locals.items()
    assert ["finally"] == flow.ran
    assert before == rows.run(EVERYTHING)


def test_each_step_of_every_kind_can_be_seen(flow: Flow) -> None:
    first = extension.stop_at("w", 1)
    assert ("load", (2,), {"times": 3}) == (first.name, first.args, first.kwargs)
    sleep, child, result = (extension.stop_at("w", step_id) for step_id in (2, 3, 4))

    assert ("DBOS.sleep", (0.01,)) == (sleep.name, sleep.args)
    assert ("child", (5,)) == (child.name, child.args)
    assert "DBOS.getResult" == result.name
    assert None is child.fn is sleep.fn
    with pytest.raises(DBOSException, match="is no step function"):
        child.call()


def test_the_next_step_of_a_run_in_flight_is_seen(flow: Flow, rows: Rows) -> None:
    rows.run("DELETE FROM {}operation_outputs WHERE workflow_uuid = 'w' AND function_id > 4")

    stop = extension.stop_at("w", 5)

    assert ("total", None, ([2, 2, 2, 5],)) == (stop.name, stop.recorded, stop.args)
    with pytest.raises(DBOSException, match="cannot be followed to step 6: the record ends before step 5"):
        extension.stop_at("w", 6)


def test_a_call_runs_the_step_once_and_records_nothing(flow: Flow, rows: Rows) -> None:
    before = rows.run(EVERYTHING)
    steps = rows.run("SELECT count(*) FROM {}operation_outputs")

    assert 11.0 == extension.stop_at("w", 5).call()

    assert ["finally", "total"] == flow.ran
    assert before == rows.run(EVERYTHING)
    assert steps == rows.run("SELECT count(*) FROM {}operation_outputs")


def test_what_cannot_be_reached_says_why(flow: Flow, rows: Rows) -> None:
    with pytest.raises(DBOSException, match="it ends after step 5"):
        extension.stop_at("w", 9)
    with pytest.raises(DBOSException, match="numbered from 1"):
        extension.stop_at("w", 0)
    rows.run("UPDATE {}operation_outputs SET function_name = 'read' WHERE workflow_uuid = 'w' AND function_id = 1")
    with pytest.raises(DBOSException, match="step 1 is 'load', where 'read' is recorded"):
        extension.stop_at("w", 5)
    with pytest.raises(DBOSException, match="its code calls 'load' there, where 'read' is recorded"):
        extension.stop_at("w", 1)


def test_what_a_step_raised_is_found_again(app: App, hand: Hand) -> None:
    @hand.step(name="good")
    def good() -> None: ...

    @hand.step(name="bad")
    def bad(x: int) -> None:
        raise ValueError(x)

    @hand.workflow(name="fails")
    async def fails(do: Inside) -> None:
        await do(good())
        try:
            await do(bad(1))
        except ValueError:
            await do(bad(2))

    app.launch()
    with SetWorkflowID("w"), pytest.raises(ValueError):
        hand.call(fails)

    found = extension.replay("w")

    assert ("2", 3) == (str(found.error), found.step_id)
    with pytest.raises(ValueError, match="2"):
        extension.stop_at("w", 3).call()


def test_methods_and_generators_are_followed(app: App) -> None:
    @DBOS.dbos_class()
    class Shop(DBOSConfiguredInstance):
        def __init__(self, factor: int) -> None:
            self.factor = factor
            super().__init__("shop")

        @DBOS.step(name="price")
        def price(self, item: int) -> int:
            return item * self.factor

        def prices(self, items: list[int]) -> Iterator[int]:
            for item in items:
                yield self.price(item)

        @DBOS.workflow(name="sell")
        def sell(self, items: list[int]) -> int:
            paid = 0
            for price in self.prices(items):
                paid += price
            return paid

    shop = Shop(10)
    app.launch()
    with SetWorkflowID("w"):
        assert 60 == shop.sell([1, 2, 3])

    stop = extension.stop_at("w", 3)

    assert (shop, 3) == stop.args
    assert (30, 20) == (stop.locals["paid"], stop.locals["price"])
    assert 3 == stop.sights[-1].locals["item"]
    assert 30 == stop.call()


def test_parallel_steps_show_the_workflow_that_waits_for_them(app: App) -> None:
    hand = Hand("async")

    @DBOS.step(name="fetch")
    async def fetch(x: int) -> int:
        return x

    @DBOS.workflow(name="many")
    async def many(count: int) -> int:
        base = 7
        found = await asyncio.gather(*(fetch(base + each) for each in range(count)))
        return sum(found)

    app.launch()
    with SetWorkflowID("w"):
        assert 24 == hand.call(many, 3)

    stop = extension.stop_at("w", 2)

    assert ((8,), 7, 3) == (stop.args, stop.locals["base"], stop.locals["count"])
    assert 8 == stop.call()
    hand.close()


def test_patches_are_passed(app: App) -> None:
    @DBOS.step(name="new")
    def new(x: int) -> int:
        return x

    @DBOS.workflow(name="patched")
    def patched() -> int:
        is_new = DBOS.patch("new")
        return new(1) if is_new else 0

    app.launch(enable_patching=True)
    with SetWorkflowID("w"):
        assert 1 == patched()

    assert {"is_new": True}.items() <= extension.stop_at("w", 2).locals.items()
    marker = extension.stop_at("w", 1)
    assert ("DBOS.patch-new", ("new",)) == (marker.name, marker.args)


def test_a_step_that_would_write_is_refused(app: App, rows: Rows) -> None:
    @DBOS.step(name="tells")
    def tells(other: str) -> None:
        DBOS.send(other, "hello")

    @DBOS.workflow(name="waits")
    def waits() -> None:
        tells(DBOS.workflow_id)

    app.launch()
    with SetWorkflowID("w"):
        waits()

    with pytest.raises(DBOSException, match="a call of it writes nothing"):
        extension.stop_at("w", 1).call()
    assert [(1,)] == [tuple(row) for row in rows.run("SELECT count(*) FROM {}notifications")]


def test_many_are_rehearsed_at_once(flow: Flow, rows: Rows) -> None:
    rows.add("foreign", "not here", status="SUCCESS")

    found = extension.rehearse_all(["w", "foreign", "deleted"])

    assert [None, True] == [found[0].difference, found[0].is_complete]
    assert "'not here' is not registered" in str(found[1].difference)
    assert "it is deleted" == found[2].difference


def test_a_difference_that_the_code_catches_is_named(flow: Flow, rows: Rows, hand: Hand) -> None:
    async def careless(do: Inside, day: str) -> None:
        for step in (flow.load, flow.total):
            try:
                await do(step([1]))
            except Exception:
                pass

    found = extension.rehearse("w", hand.function(careless))

    assert "step 2 is 'total', where 'DBOS.sleep' is recorded" == found.difference


def test_transactions_are_seen_and_never_called(app: App, rows: Rows) -> None:
    ran = []

    @DBOS.transaction(name="count")
    def count(x: int) -> int:
        ran.append(x)
        return DBOS.sql_session.execute(text("SELECT 1")).scalar_one() + x

    @DBOS.workflow(name="counts")
    def counts() -> int:
        first = count(1)
        return count(first)

    app.launch()
    with SetWorkflowID("w"):
        assert 3 == counts()

    stop = extension.stop_at("w", 2)

    assert ("count", (2,), 2) == (stop.name, stop.args, stop.locals["first"])
    with pytest.raises(DBOSException, match="is no step function"):
        stop.call()
    assert extension.rehearse("w").fits
    rows.run("DELETE FROM {}operation_outputs WHERE function_id = 2")
    assert (2,) == extension.stop_at("w", 2).args
    assert extension.rehearse("w").fits
    assert [1, 2] == ran


def test_a_step_that_ran_by_itself_is_seen(app: App) -> None:
    @DBOS.step(name="alone")
    def alone(x: int) -> int:
        return x

    app.launch()
    with SetWorkflowID("w"):
        DBOS.start_workflow(alone, 5).get_result()

    stop = extension.stop_at("w", 1)

    assert ("alone", (5,), {}) == (stop.name, stop.args, stop.locals)
    assert 5 == stop.call()


def test_what_comes_from_other_workflows_is_answered(app: App, hand: Hand) -> None:
    @hand.workflow(name="other")
    async def other(do: Inside) -> str:
        return "done"

    @hand.workflow(name="listens")
    async def listens(do: Inside) -> list[Any]:
        handle = await do.start(other)
        found = [await do(handle.get_result()), await do.recv("topic"), await do.recv("never", timeout_seconds=0)]
        await do.set_event("key", 1)
        await do.write_stream("stream", 2)
        found.append(await do.get_event("nobody", "key", timeout_seconds=0))
        return found

    app.launch()
    with SetWorkflowID("w"):
        held = hand.start(listens)
    DBOS.send("w", "hello", "topic")
    assert ["done", "hello", None, None] == held.result()
    steps = DBOS.list_workflow_steps("w")

    names = [extension.stop_at("w", step["function_id"]).name for step in steps]

    assert [step["function_name"] for step in steps] == names
    assert extension.rehearse("w").is_complete


def test_several_may_look_at_once(app: App) -> None:
    @DBOS.step(name="fetch")
    def fetch(x: int) -> int:
        return x

    @DBOS.workflow(name="many")
    def many(x: int) -> int:
        return sum(fetch(x + each) for each in range(50))

    app.launch()
    for number in range(8):
        with SetWorkflowID(f"w{number}"):
            many(100 * number)

    with ThreadPoolExecutor(8) as pool:
        stops = list(pool.map(lambda number: extension.stop_at(f"w{number}", 40), range(8)))

    assert [(100 * number + 39,) for number in range(8)] == [stop.args for stop in stops]


def test_what_a_check_suggests_fits_old_and_new_runs(app: App) -> None:
    """A new step behind its patch, and a step that new runs leave out."""

    @DBOS.step(name="load")
    def load() -> None: ...

    @DBOS.step(name="clean")
    def clean() -> None: ...

    @DBOS.step(name="fit")
    def fit() -> None: ...

    @DBOS.workflow(name="nightly")
    def nightly() -> None:
        load()
        clean()

    app.launch(enable_patching=True)
    with SetWorkflowID("old"):
        nightly()

    @DBOS.workflow(name="nightly")
    def patched() -> None:
        load()
        if DBOS.patch("fit"):
            fit()
        if not DBOS.patch("no clean"):
            clean()

    with SetWorkflowID("new"):
        patched()

    assert [None, None] == [each.difference for each in extension.rehearse_all(["old", "new"])]
    assert ["load", "DBOS.patch-fit", "fit", "DBOS.patch-no clean"] == [
        step["function_name"] for step in DBOS.list_workflow_steps("new")
    ]
