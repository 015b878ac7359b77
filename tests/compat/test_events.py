"""Events: the latest value of each key, whoever waits for it, and what is stored of it."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, WorkflowSerializationFormat
from dbos.error import DBOSException, DBOSSerializationError, DBOSWorkflowCancelledError
from dbos.testing import FakeClock
from tests.compat.acts import again, beside, step_ids, step_names
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate, eventually

PORTABLE = WorkflowSerializationFormat.PORTABLE


def setter(hand: Hand, *pairs: tuple[str, Any], **options: Any) -> Any:
    """A workflow that sets events, run under the id "w"."""

    @hand.workflow(name="setter", **options)
    async def work(do: Inside) -> None:
        for key, value in pairs:
            await do.set_event(key, value)

    return work


def run(hand: Hand, work: Any, workflow_id: str = "w") -> Any:
    with SetWorkflowID(workflow_id):
        return hand.call(work)


def history(rows: Rows) -> list[tuple[int, str, str]]:
    found = rows.run("SELECT function_id, key, value FROM {}workflow_events_history ORDER BY function_id, key")
    return [tuple(each) for each in found]


def test_the_latest_value_is_had(app: App, hand: Hand) -> None:
    app.launch()
    run(hand, setter(hand, ("a", 1), ("b", {"any": (1,)}), ("a", 2), ("none", None)))

    assert 2 == hand.do("get_event", "w", "a")
    assert {"any": (1,)} == hand.do("get_event", "w", "b")
    assert None is hand.do("get_event", "w", "none")
    assert {"a": 2, "b": {"any": (1,)}, "none": None} == hand.do("get_all_events", "w")
    assert {} == hand.do("get_all_events", "unknown")


def test_all_who_wait_are_woken(app: App, hand: Hand, clock: FakeClock) -> None:
    """At once, also those who waited before there was such a workflow; the clock stands still."""
    app.launch()
    waiting = [beside(hand.do, "get_event", "w::x", key) for key in ("a", "a", "b::c")]
    run(hand, setter(hand, ("a", 1), ("b::c", 2)), "w::x")

    assert [1, 1, 2] == [each.result(5) for each in waiting]


def test_a_workflow_waits_for_an_event(app: App, hand: Hand, clock: FakeClock) -> None:
    """Two ids, of which the second is of the wait."""

    @hand.workflow()
    async def get(do: Inside) -> Any:
        return [await do.get_event("w", "a"), await do.get_event("w", "a"), await do.get_all_events("w")]

    app.launch()
    with SetWorkflowID("getter"):
        held = hand.start(get)
    clock.wait_for_sleeper(clock.now_ms() + 60_000)
    run(hand, setter(hand, ("a", 1)))

    assert [1, 1, {"a": 1}] == beside(held.result).result(5)
    names = ["DBOS.getEvent", "DBOS.sleep", "DBOS.getEvent", "DBOS.get_events"]
    assert ([1, 2, 3, 5], names) == (step_ids("getter"), step_names("getter"))


def test_what_a_workflow_got_it_gets_again(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def get(do: Inside) -> Any:
        return [await do.get_event("w", "a"), await do.get_all_events("w"), await do.get_event("w", "missing", 0)]

    app.launch()
    run(hand, setter(hand, ("a", 1)))
    first = run(hand, get, "getter")
    run(hand, setter(hand, ("missing", 1)), "other")
    rows.run("UPDATE {}workflow_events SET value = '7', serialization = 'portable_json'")
    rows.run("UPDATE {}workflow_events SET workflow_uuid = 'w' WHERE key = 'missing'")

    assert [1, {"a": 1}, None] == first == again(rows, "getter").get_result()
    assert {"a": 7, "missing": 7} == hand.do("get_all_events", "w")


def test_nothing_in_time_is_none(app: App, hand: Hand, clock: FakeClock, rows: Rows) -> None:
    """In a workflow too, where it is not waited for again."""

    @hand.workflow()
    async def get(do: Inside) -> Any:
        return await do.get_event("w", "a", timeout_seconds=30)

    app.launch()
    until_ms = clock.now_ms() + 30_000
    with SetWorkflowID("getter"):
        held = hand.start(get)
    clock.wait_for_sleeper(until_ms)
    clock.advance(30)
    assert None is held.result()
    outside = beside(hand.do, "get_event", "w", "a", 30)
    clock.wait_for_sleeper(until_ms + 30_000)
    clock.advance(30)

    assert None is outside.result(5)
    assert None is beside(again(rows, "getter").get_result).result(5)
    assert None is hand.do("get_event", "w", "a", 0)


def test_a_getter_that_died_waits_only_the_rest(app: App, hand: Hand, clock: FakeClock) -> None:
    @hand.workflow()
    async def get(do: Inside) -> Any:
        return await do.get_event("w", "a", 100)

    app.launch()
    until_ms = clock.now_ms() + 100_000
    with SetWorkflowID("getter"):
        hand.start(get)
    clock.wait_for_sleeper(until_ms)
    app.crash()
    clock.advance(60)
    app.launch()
    clock.wait_for_sleeper(until_ms)
    clock.advance(40)

    assert None is hand.do("get_result", "getter")


def test_an_event_is_set_once(app: App, hand: Hand, rows: Rows) -> None:
    """A replay changes nothing, whatever was set since."""
    app.launch()
    run(hand, setter(hand, ("a", 1), ("a", 2)))
    rows.run("UPDATE {}workflow_events SET value = '7', serialization = 'portable_json'")
    again(rows, "w").get_result()

    assert 7 == hand.do("get_event", "w", "a")
    assert ["DBOS.setEvent", "DBOS.setEvent"] == step_names("w")
    assert [None, None] == [each.output for each in rows.steps("w")]


def test_the_history_has_every_value(app: App, hand: Hand, rows: Rows) -> None:
    app.launch()
    run(hand, setter(hand, ("a", 1), ("b", 1), ("a", 2), serialization_type=PORTABLE))

    assert [(1, "a", "1"), (2, "b", "1"), (3, "a", "2")] == history(rows)


def test_a_fork_has_the_events_of_the_steps_it_keeps(app: App, hand: Hand, rows: Rows) -> None:
    gate = Gate()

    @hand.step()
    def wait() -> None:
        gate.pass_through()

    @hand.workflow()
    async def work(do: Inside) -> None:
        await do.set_event("a", 1)
        await do.set_event("a", 2)
        await do(wait())
        await do.set_event("a", 3)

    gate.open()
    app.launch()
    run(hand, work)
    gate.__init__()
    with SetWorkflowID("fork"):
        held = hand.do("fork_workflow", "w", 3)
    gate.wait_reached()

    assert (2, 3) == (hand.do("get_event", "fork", "a"), hand.do("get_event", "w", "a"))
    gate.open()
    held.result()
    assert 3 == hand.do("get_event", "fork", "a")


def test_a_step_sets_events_in_each_of_its_attempts(app: App, hand: Hand, rows: Rows) -> None:
    """Under its own id."""
    tries: list[int] = []

    @DBOS.step(name="sets", retries_allowed=True, interval_seconds=0, max_attempts=2)
    def sets() -> None:
        tries.append(1)
        DBOS.set_event("a", 0, serialization_type=PORTABLE)
        DBOS.set_event("a", len(tries), serialization_type=PORTABLE)
        if len(tries) == 1:
            raise ValueError("again")

    @DBOS.workflow(name="work")
    def work() -> None:
        DBOS.set_event("b", 1, serialization_type=PORTABLE)
        sets()

    app.launch()
    with SetWorkflowID("w"):
        work()

    assert 2 == hand.do("get_event", "w", "a")
    assert [(1, "b", "1"), (2, "a", "2")] == history(rows)
    assert ["DBOS.setEvent", "sets"] == step_names("w")


def test_events_are_got_in_a_step_without_a_record(app: App, hand: Hand) -> None:
    @DBOS.step(name="gets")
    def gets() -> list[Any]:
        return [DBOS.get_event("w", "a"), DBOS.get_all_events("w")]

    @DBOS.workflow(name="work")
    def work() -> list[Any]:
        DBOS.set_event("a", 1)
        return gets()

    app.launch()
    with SetWorkflowID("w"):
        assert [1, {"a": 1}] == work()
    assert ["DBOS.setEvent", "gets"] == step_names("w")


def test_formats(app: App, hand: Hand, rows: Rows) -> None:
    """As chosen, else that of a portable workflow, else the configured one."""

    @hand.workflow(name="portable", serialization_type=PORTABLE)
    async def portable(do: Inside) -> None:
        await do.set_event("a", 1)
        await do.set_event("b", 1, serialization_type=WorkflowSerializationFormat.NATIVE)

    app.launch()
    run(hand, portable)
    run(hand, setter(hand, ("c", 1)), "other")
    found = rows.run("SELECT key, serialization FROM {}workflow_events ORDER BY key")

    assert [("a", "portable_json"), ("b", "py_pickle"), ("c", "py_pickle")] == [tuple(each) for each in found]
    assert {"a": 1, "b": 1} == hand.do("get_all_events", "w")


@pytest.mark.parametrize(("value", "serialization"), [("{not json", "portable_json"), ("1", "of another language")])
def test_an_event_that_nobody_can_read(app: App, hand: Hand, rows: Rows, value: str, serialization: str) -> None:
    """Raises where it is asked for, and in a workflow again when that is done again."""

    @hand.workflow()
    async def get(do: Inside) -> str:
        try:
            return await do.get_event("w", "bad")
        except DBOSSerializationError as error:
            return str(error)

    app.launch()
    run(hand, setter(hand, ("bad", 1), ("good", 1)))
    rows.run("UPDATE {}workflow_events SET value = :v, serialization = :s WHERE key = 'bad'", v=value, s=serialization)
    for operation in (("get_event", "w", "bad"), ("get_all_events", "w")):
        with pytest.raises(DBOSSerializationError, match="The event 'bad' cannot be read"):
            hand.do(*operation)

    first = run(hand, get, "getter")
    assert "cannot be read" in first
    rows.run("UPDATE {}workflow_events SET value = '1', serialization = 'portable_json'")
    assert first == again(rows, "getter").get_result()
    assert 1 == hand.do("get_event", "w", "good")


def test_an_event_of_another_program(app: App, hand: Hand, rows: Rows, clock: FakeClock) -> None:
    """On Postgres its trigger tells us; a file is looked at when it changed."""
    rows.add("w", "any", queue_name="nobody")
    app.launch()
    waiting = beside(hand.do, "get_event", "w", "a")
    if rows.is_postgres:
        clock.wait_for_sleeper(clock.now_ms() + 60_000)
    rows.run("INSERT INTO {}workflow_events VALUES ('w', 'a', '[1]', 'portable_json')")

    def came() -> bool:
        clock.advance(0.01)
        return waiting.done()

    eventually(came)
    assert [1] == waiting.result()


def test_an_event_belongs_to_a_workflow(app: App, hand: Hand) -> None:
    app.launch()

    with pytest.raises(DBOSException, match=r"set_event\(\) must be called from within a workflow"):
        hand.do("set_event", "a", 1)


def test_no_event_is_set_in_a_transaction(app: App) -> None:
    @DBOS.transaction(name="sets")
    def sets() -> None:
        DBOS.set_event("a", 1)

    app.launch()
    with pytest.raises(Exception, match="Invalid call to `DBOS.setEvent` inside a transaction"):
        sets()


@pytest.mark.parametrize("key", ["", " ", "a\0b", "\ud800", "k" * 600, None])
def test_a_key_must_be_one(app: App, hand: Hand, key: Any) -> None:
    app.launch()

    with pytest.raises(DBOSException):
        run(hand, setter(hand, (key, 1)))
    with pytest.raises(DBOSException):
        hand.do("get_event", "w", key)
    assert [] == step_names("w")


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_timeout_must_be_one(app: App, hand: Hand, seconds: float) -> None:
    app.launch()

    with pytest.raises(ValueError, match="must not be negative"):
        hand.do("get_event", "w", "a", seconds)


def test_a_run_that_lost_its_workflow_sets_nothing(app: App, hand: Hand, rows: Rows) -> None:
    gate = Gate()

    @hand.step()
    def wait() -> None:
        gate.pass_through()

    @hand.workflow()
    async def work(do: Inside) -> None:
        await do(wait())
        await do.set_event("a", 1)

    app.launch()
    with SetWorkflowID("w"):
        held = hand.start(work)
    gate.wait_reached()
    rows.change("w", status="SUCCESS", output="1", serialization="portable_json", owner_xid=None)
    gate.open()

    assert 1 == held.result()
    assert {} == hand.do("get_all_events", "w")


def test_a_step_of_a_cancelled_workflow_sets_nothing(app: App, hand: Hand) -> None:
    gate = Gate()

    refused: list[BaseException] = []

    @DBOS.step(name="sets")
    def sets() -> None:
        gate.pass_through()
        try:
            DBOS.set_event("a", 1)
        except BaseException as refusal:
            refused.append(refusal)
            raise

    @DBOS.workflow(name="work")
    def work() -> None:
        sets()

    app.launch()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(work)
    gate.wait_reached()
    hand.do("cancel_workflow", "w")
    gate.open()

    with pytest.raises(Exception, match="cancelled"):
        handle.get_result()
    assert isinstance(eventually(lambda: refused)[0], DBOSWorkflowCancelledError)
    assert {} == hand.do("get_all_events", "w")
