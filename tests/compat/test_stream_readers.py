"""Readers of streams: how long they wait, and what they record in a workflow."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, WorkflowSerializationFormat
from dbos.error import (
    DBOSNonExistentWorkflowError,
    DBOSStreamNondeterminismError,
    DBOSStreamTimeoutError,
)
from dbos.testing import FakeClock
from tests.compat.acts import again, beside, step_names
from tests.compat.rows import Rows
from tests.compat.talking import collected, read, run, writer
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate, eventually

PORTABLE = WorkflowSerializationFormat.PORTABLE
CLOSED = "__DBOS_STREAM_CLOSED__"


# -- waiting ---------------------------------------------------------------------------------------------------


def test_a_reader_follows_a_writer(app: App, hand: Hand, clock: FakeClock) -> None:
    """It is woken by each value, by the close and by the end; the clock stands still."""
    gates = [Gate() for _ in range(3)]

    @hand.step()
    def wait(number: int) -> None:
        gates[number].pass_through()

    @hand.workflow()
    async def work(do: Inside) -> None:
        for number in range(3):
            await do(wait(number))
            if number < 2:
                await do.write_stream("closed", number)
                await do.write_stream("open", number)
            if number == 1:
                await do.close_stream("closed")

    app.launch()
    with SetWorkflowID("w"):
        held = hand.start(work)
    seen: dict[str, list[Any]] = {"closed": [], "open": []}

    def follow(key: str) -> None:
        for value in DBOS.read_stream("w", key):
            seen[key].append(value)

    async def follow_async(key: str) -> None:
        async for value in DBOS.read_stream_async("w", key):
            seen[key].append(value)

    followers = {
        key: beside(lambda key=key: hand.wait(follow_async(key)) if hand.is_async else follow(key)) for key in seen
    }
    for number in range(2):
        assert number == len(seen["closed"])
        gates[number].open()
        eventually(lambda number=number: [list(range(number + 1))] * 2 == list(seen.values()))

    followers["closed"].result(5)
    assert not followers["open"].done()
    gates[2].open()
    followers["open"].result(5)
    held.result()
    assert {"closed": [0, 1], "open": [0, 1]} == seen


def test_a_reader_hands_out_nothing_beyond_a_gap(app: App, hand: Hand, rows: Rows) -> None:
    """Until it is filled, or nobody is left to fill it."""
    rows.add("w", "any", queue_name="nobody")
    for place in (0, 2):
        rows.run(f"INSERT INTO {{}}streams VALUES ('w', 'k', '{place}', {place}, 1, 'portable_json')")
    app.launch()
    with pytest.raises(DBOSStreamTimeoutError):
        hand.do("read_stream_offset", "w", "k", 1, timeout_seconds=0)
    assert 2 == hand.do("read_stream_offset", "w", "k", 2, timeout_seconds=0)
    reading = DBOS.read_stream("w", "k", timeout_seconds=0)
    assert 0 == next(reading)
    with pytest.raises(DBOSStreamTimeoutError):
        next(reading)
    rows.change("w", status="CANCELLED")

    assert [0, 2] == read(hand, "w", "k")


def test_an_unknown_workflow(app: App, hand: Hand) -> None:
    app.launch()

    with pytest.raises(DBOSNonExistentWorkflowError):
        read(hand, "unknown", "k")
    with pytest.raises(DBOSNonExistentWorkflowError):
        hand.do("read_stream_offset", "unknown", "k", 0)


def test_a_reader_is_told_when_the_workflow_is_deleted(app: App, hand: Hand, rows: Rows, clock: FakeClock) -> None:
    rows.add("w", "any", queue_name="nobody")
    app.launch()
    reading = beside(read, hand, "w", "k", timeout_seconds=60)
    clock.wait_for_sleeper(clock.now_ms() + 60_000)
    hand.do("delete_workflow", "w")

    with pytest.raises(DBOSNonExistentWorkflowError):
        reading.result(5)


def test_a_loop_is_not_blocked(app: App) -> None:
    async def main() -> None:
        next(DBOS.read_stream("w", "k"))

    app.launch()
    with pytest.raises(RuntimeError, match=r"Use await read_stream_async\(\.\.\.\) instead"):
        asyncio.run(main())


def test_the_next_value_must_come_in_time(app: App, hand: Hand, rows: Rows, clock: FakeClock) -> None:
    """The time is that of each value and not of all."""
    rows.add("w", "any", queue_name="nobody")
    rows.run("INSERT INTO {}streams VALUES ('w', 'k', '1', 0, 1, 'portable_json')")
    app.launch()
    reading = beside(read, hand, "w", "k", timeout_seconds=30)
    clock.wait_for_sleeper(clock.now_ms() + 30_000)
    clock.advance(30)

    with pytest.raises(DBOSStreamTimeoutError) as raised:
        reading.result(5)
    error = raised.value
    assert ("w", "k", 30, 16) == (error.workflow_id, error.key, error.timeout_seconds, error.dbos_error_code)
    assert "DBOS Error 16: No value arrived on stream k of workflow w within 30 seconds" == str(error)


def test_one_value(app: App, hand: Hand, rows: Rows) -> None:
    """In a workflow it is one step, and done again it is the same value."""

    @hand.workflow()
    async def one(do: Inside) -> list[Any]:
        found = [await do.read_stream_offset("w", "k", 1)]
        try:
            await do.read_stream_offset("w", "k", 9)
        except DBOSStreamTimeoutError as error:
            found.append((str(error), error.timeout_seconds))
        return found

    app.launch()
    run(hand, writer(hand, 0, [1], serialization_type=PORTABLE))
    first = run(hand, one, "reader")
    rows.run("UPDATE {}streams SET value = '7' WHERE \"offset\" = 1")

    assert [[1], ("DBOS Error 16: No value arrived on stream k of workflow w", None)] == first
    assert first == again(rows, "reader").get_result()
    assert ["DBOS.readStreamOffset"] * 2 == step_names("reader")
    assert "[1]" == rows.steps("reader")[0].output
    assert 7 == hand.do("read_stream_offset", "w", "k", 1)


# -- reading in a workflow -------------------------------------------------------------------------------------


def test_each_value_read_in_a_workflow_is_a_step(app: App, hand: Hand, rows: Rows) -> None:
    """And the end is one."""

    @hand.workflow()
    async def reader(do: Inside) -> list[Any]:
        return await collected(do, "w", "k")

    app.launch()
    run(hand, writer(hand, 0, None, 2, serialization_type=PORTABLE))
    first = run(hand, reader, "reader")
    rows.run("UPDATE {}streams SET value = '7'")

    assert [0, None, 2] == first == again(rows, "reader").get_result()
    assert ["DBOS.readStream"] * 4 == step_names("reader")
    assert [0, None, 2, CLOSED] == [each["output"] for each in DBOS.list_workflow_steps("reader")]


def test_a_reader_that_died_goes_on_where_it_was(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def reader(do: Inside) -> list[Any]:
        return await collected(do, "w", "k", offset=1)

    rows.add("w", "any", queue_name="nobody")
    for place in range(3):
        rows.run(f"INSERT INTO {{}}streams VALUES ('w', 'k', '{place}', {place}, 1, 'portable_json')")
    app.launch()
    with SetWorkflowID("reader"):
        hand.start(reader)
    eventually(lambda: ["DBOS.readStream"] * 2 == step_names("reader"))
    app.restart()
    rows.run("INSERT INTO {}streams VALUES ('w', 'k', '3', 3, 1, 'portable_json')")
    hand.do("cancel_workflow", "w")

    assert [1, 2, 3] == hand.do("get_result", "reader")
    assert ["DBOS.readStream"] * 4 == step_names("reader")


def test_who_stops_reading_leaves_no_end(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def reader(do: Inside) -> Any:
        if do.is_async:
            async for value in DBOS.read_stream_async("w", "k"):
                return value
        for value in DBOS.read_stream("w", "k"):
            return value
        return None

    app.launch()
    run(hand, writer(hand, 5, 6))

    assert 5 == run(hand, reader, "reader")
    assert ["DBOS.readStream"] == step_names("reader")


def test_reading_in_a_step_is_not_recorded(app: App, hand: Hand) -> None:
    @DBOS.step(name="reads")
    def reads() -> list[Any]:
        return list(DBOS.read_stream("w", "k"))

    @DBOS.workflow(name="reader")
    def reader() -> list[Any]:
        return reads()

    app.launch()
    run(hand, writer(hand, 5, 6))
    with SetWorkflowID("reader"):
        assert [5, 6] == reader()

    assert ["reads"] == step_names("reader")


def test_a_timeout_in_a_workflow_is_recorded(app: App, hand: Hand, rows: Rows, clock: FakeClock) -> None:
    @hand.workflow()
    async def reader(do: Inside) -> str:
        try:
            await collected(do, "w", "k", timeout_seconds=30)
        except DBOSStreamTimeoutError as error:
            return str(error)
        return "read"

    rows.add("w", "any", queue_name="nobody")
    app.launch()
    with SetWorkflowID("reader"):
        held = hand.start(reader)
    clock.wait_for_sleeper(clock.now_ms() + 30_000)
    clock.advance(30)
    first = held.result()

    assert "within 30 seconds" in first
    assert first == beside(again(rows, "reader").get_result).result(5)
    assert ["DBOS.readStream"] == step_names("reader")


def test_a_workflow_reads_one_stream_at_a_time(app: App, rows: Rows) -> None:
    @DBOS.workflow(name="reader")
    async def reader() -> str:
        async def first(key: str) -> Any:
            async for value in DBOS.read_stream_async("w", key):
                return value

        try:
            await asyncio.gather(first("k"), first("other"))
        except DBOSStreamNondeterminismError as error:
            return str(error)
        return "read"

    async def main() -> str:
        return await reader()

    rows.add("w", "any", queue_name="nobody")
    app.launch()

    assert "DBOS Error 17" in asyncio.run(main())


def test_a_reader_in_a_cancelled_workflow_stops(app: App, hand: Hand, rows: Rows, clock: FakeClock) -> None:
    @hand.workflow()
    async def reader(do: Inside) -> list[Any]:
        return await collected(do, "w", "k", timeout_seconds=60)

    rows.add("w", "any", queue_name="nobody")
    app.launch()
    with SetWorkflowID("reader"):
        held = hand.start(reader)
    clock.wait_for_sleeper(clock.now_ms() + 60_000)
    hand.do("cancel_workflow", "reader")

    with pytest.raises(Exception, match="cancelled"):
        beside(held.result).result(5)
    assert [] == step_names("reader")
