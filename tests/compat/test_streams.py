"""Streams: values in order, written once; their ends, what is refused, and what is stored of them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, WorkflowSerializationFormat
from dbos.error import (
    DBOSException,
    DBOSSerializationError,
    DBOSWorkflowCancelledError,
)
from tests.compat.acts import again, status_of, step_names
from tests.compat.rows import Rows
from tests.compat.talking import read, run, stored, writer
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate, eventually

PORTABLE = WorkflowSerializationFormat.PORTABLE
CLOSED = "__DBOS_STREAM_CLOSED__"


# -- writing and reading ---------------------------------------------------------------------------------------


def test_values_are_read_in_order(app: App, hand: Hand) -> None:
    """By any number of readers."""
    values = [1, None, {"any": (1,)}, "x" * 100_000, *range(100)]
    app.launch()
    run(hand, writer(hand, *values))

    assert values == read(hand, "w", "k") == read(hand, "w", "k")
    assert values[3:] == read(hand, "w", "k", offset=3)
    assert [] == read(hand, "w", "other")
    assert [] == read(hand, "w", "k", offset=len(values) + 5)


def test_a_stream_ends_with_its_workflow(app: App, hand: Hand) -> None:
    """Closed or not, and however it ended."""

    @hand.workflow()
    async def fails(do: Inside) -> None:
        await do.write_stream("k", 1)
        raise ValueError("failed")

    app.launch()
    run(hand, writer(hand, 1, 2, closes=False))
    with pytest.raises(ValueError, match="failed"):
        run(hand, fails, "failed")

    assert [1, 2] == read(hand, "w", "k")
    assert [1] == read(hand, "failed", "k")


def test_streams_of_one_workflow_do_not_mix(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        for number in range(20):
            await do.write_stream(f"k{number % 3}", number)

    app.launch()
    run(hand, work)

    for rest in range(3):
        expected = [number for number in range(20) if number % 3 == rest]
        assert expected == read(hand, "w", f"k{rest}")
        assert list(range(len(expected))) == [each[0] for each in stored(rows, f"k{rest}")]


def test_gathered_writes_have_offsets_without_gaps(app: App, rows: Rows) -> None:
    """Of several streams at once, closed at the end."""

    @DBOS.step(name="from step")
    async def from_step(number: int) -> None:
        await DBOS.write_stream_async("k", number)

    @DBOS.workflow(name="gathers")
    async def gathers() -> None:
        writes = [DBOS.write_stream_async("k", number) for number in range(200)]
        others = [DBOS.write_stream_async("other", number) for number in range(50)]
        await asyncio.gather(*writes, *others, *(from_step(number) for number in range(200, 250)))
        await DBOS.close_stream_async("k")

    async def both() -> list[Any]:
        with SetWorkflowID("w"):
            handle = await DBOS.start_workflow_async(gathers)
        values = [value async for value in DBOS.read_stream_async("w", "k")]
        await handle.get_result()
        return values

    app.launch()
    values = asyncio.run(both())

    assert list(range(250)) == sorted(values)
    assert list(range(251)) == [each[0] for each in stored(rows)]
    assert list(range(50)) == [each[0] for each in stored(rows, "other")]


def test_writes_from_threads_of_steps_have_offsets_without_gaps(app: App, rows: Rows) -> None:
    @DBOS.step(name="threads")
    def threads() -> None:
        def write(start: int) -> None:
            for number in range(start, start + 50):
                DBOS.write_stream("k", number)

        begun = [
            threading.Thread(target=contextvars.copy_context().run, args=(write, 50 * number)) for number in range(4)
        ]
        for each in begun:
            each.start()
        for each in begun:
            each.join()

    @DBOS.workflow(name="work")
    def work() -> None:
        threads()

    app.launch()
    with SetWorkflowID("w"):
        DBOS.start_workflow(work)
    values = list(DBOS.read_stream("w", "k"))

    assert list(range(200)) == sorted(values)
    assert values.index(0) < values.index(49) < 200
    assert list(range(200)) == [each[0] for each in stored(rows)]


# -- exactly once ----------------------------------------------------------------------------------------------


def test_a_value_is_written_once(app: App, hand: Hand, rows: Rows) -> None:
    """A replay writes none, and one that goes on finds the end of the stream."""
    stops = [True]

    @hand.workflow()
    async def work(do: Inside) -> None:
        await do.write_stream("k", 0)
        await do.write_stream("k", 1)
        if not stops:
            await do.write_stream("k", 2)
            await do.close_stream("k")

    app.launch()
    run(hand, work)
    again(rows, "w").get_result()
    assert [0, 1] == read(hand, "w", "k")
    stops.clear()
    again(rows, "w").get_result()

    assert [0, 1, 2] == read(hand, "w", "k")
    assert [(0, 1), (1, 2), (2, 3), (3, 4)] == [each[:2] for each in stored(rows)]
    assert ["DBOS.writeStream"] * 3 + ["DBOS.closeStream"] == step_names("w")
    assert [None] * 4 == [each.output for each in rows.steps("w")]


def test_a_step_writes_in_each_of_its_attempts(app: App, hand: Hand, rows: Rows) -> None:
    """Under its own id, until one of them closes the stream: what comes again after that is nothing new."""
    tries: list[int] = []

    @DBOS.step(name="writes", retries_allowed=True, interval_seconds=0, max_attempts=3)
    def writes() -> None:
        tries.append(1)
        DBOS.write_stream("k", len(tries))
        if len(tries) == 2:
            DBOS.close_stream("k")
            with pytest.raises(DBOSException, match="is closed"):
                DBOS.write_stream("k", "after the end")
        if len(tries) < 3:
            raise ValueError("again")

    @DBOS.workflow(name="work")
    def work() -> None:
        DBOS.write_stream("k", 0)
        writes()

    app.launch()
    with SetWorkflowID("w"):
        work()

    assert [0, 1, 2] == read(hand, "w", "k")
    assert [(0, 1), (1, 2), (2, 2), (3, 2)] == [each[:2] for each in stored(rows)]
    assert ["DBOS.writeStream", "writes"] == step_names("w")


def test_a_place_that_is_taken_is_passed_over(app: App, hand: Hand, rows: Rows) -> None:
    """By a program that writes without owning the workflow: no value is lost, though it may come later."""
    gate = Gate()

    @hand.step()
    def wait() -> None:
        gate.pass_through()

    @hand.workflow()
    async def work(do: Inside) -> None:
        await do.write_stream("k", 0)
        await do(wait())
        await do.write_stream("k", 1)
        await do.write_stream("k", 2)

    app.launch()
    with SetWorkflowID("w"):
        held = hand.start(work)
    gate.wait_reached()
    rows.run("INSERT INTO {}streams VALUES ('w', 'k', '\"foreign\"', 1, 9, 'portable_json')")
    gate.open()
    held.result()

    values = read(hand, "w", "k")
    assert [0, "foreign"] == values[:2]
    assert {1, 2} == set(values[2:])
    assert list(range(4)) == [each[0] for each in stored(rows)]
    assert ["DBOS.writeStream", "wait", "DBOS.writeStream", "DBOS.writeStream"] == step_names("w")


def test_what_a_workflow_wrote_is_there_when_its_next_step_begins(app: App, hand: Hand, rows: Rows) -> None:
    """And before it ends; until then its values may share a commit."""

    @hand.step()
    def count() -> int:
        return len(stored(rows))

    @hand.workflow()
    async def work(do: Inside) -> list[int]:
        counts = []
        for _ in range(3):
            for number in range(120):
                await do.write_stream("k", number)
            counts.append(await do(count()))
        await do.write_stream("k", 0)
        return counts

    app.launch()

    assert [120, 240, 360] == run(hand, work)
    assert (361, 364) == (len(stored(rows)), len(rows.steps("w")))


def test_a_fork_has_the_values_of_the_steps_it_keeps(app: App, hand: Hand, rows: Rows) -> None:
    app.launch()
    run(hand, writer(hand, 0, 1, 2))
    with SetWorkflowID("fork"):
        hand.do("fork_workflow", "w", 3).result()
    with SetWorkflowID("closed"):
        hand.do("fork_workflow", "w", 5).result()

    assert [0, 1, 2] == read(hand, "fork", "k") == read(hand, "closed", "k")
    found = rows.run('SELECT "offset" FROM {}streams WHERE workflow_uuid = :w ORDER BY 1', w="fork")
    assert [0, 1, 2, 3] == [each[0] for each in found]


# -- the end of a stream ---------------------------------------------------------------------------------------


def test_a_closed_stream_takes_nothing_more(app: App, hand: Hand, rows: Rows) -> None:
    """Now and when it is done again; closing it again is nothing."""

    @hand.workflow()
    async def work(do: Inside) -> str:
        await do.write_stream("k", 1)
        await do.close_stream("k")
        await do.close_stream("k")
        try:
            await do.write_stream("k", 2)
        except DBOSException as error:
            return str(error)
        return "written"

    app.launch()
    first = run(hand, work)

    assert "Stream k of workflow w is closed" in first
    assert first == again(rows, "w").get_result()
    assert [1] == read(hand, "w", "k")
    assert 2 == len(stored(rows))


def test_a_closed_stream_is_known_after_a_death(app: App, hand: Hand, rows: Rows) -> None:
    """Although the record of the refused write is gone."""

    @hand.workflow()
    async def work(do: Inside) -> str:
        await do.close_stream("k")
        try:
            await do.write_stream("k", 2)
        except DBOSException as error:
            return str(error)
        return "written"

    app.launch()
    first = run(hand, work)
    rows.run("DELETE FROM {}operation_outputs WHERE function_id = 2")

    assert first == again(rows, "w").get_result()
    assert 1 == len(stored(rows))


@pytest.mark.parametrize("mark", [f'"{CLOSED}"', CLOSED])
def test_both_marks_of_a_close_are_understood(app: App, hand: Hand, rows: Rows, mark: str) -> None:
    rows.add("w", "any", queue_name="nobody")
    rows.run("INSERT INTO {}streams VALUES ('w', 'k', '1', 0, 1, 'portable_json')")
    rows.run("INSERT INTO {}streams VALUES ('w', 'k', :mark, 1, 2, 'portable_json')", mark=mark)
    app.launch()

    assert [1] == read(hand, "w", "k")
    assert [] == read(hand, "w", "k", offset=1)
    assert [] == read(hand, "w", "k", offset=7)


@pytest.mark.parametrize("format", list(WorkflowSerializationFormat))
def test_the_mark_of_a_close_is_no_value(app: App, hand: Hand, format: WorkflowSerializationFormat) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        await do.write_stream("k", CLOSED, serialization_type=format)

    app.launch()
    with pytest.raises(DBOSException, match="cannot be a value"):
        run(hand, work)


# -- refusals --------------------------------------------------------------------------------------------------


def test_a_stream_belongs_to_a_workflow(app: App, hand: Hand) -> None:
    app.launch()

    with pytest.raises(DBOSException, match=r"write_stream\(\) must be called from within a workflow"):
        hand.do("write_stream", "k", 1)
    with pytest.raises(DBOSException, match=r"close_stream\(\) must be called from within a workflow"):
        hand.do("close_stream", "k")


@pytest.mark.parametrize(
    "options",
    [
        {"offset": -1},
        {"offset": 1.5},
        {"timeout_seconds": -1},
        {"timeout_seconds": float("nan")},
        {"polling_interval_sec": 0},
        {"polling_interval_sec": float("inf")},
    ],
    ids=str,
)
def test_numbers_must_make_sense(app: App, hand: Hand, options: dict) -> None:
    app.launch()

    with pytest.raises(ValueError):
        read(hand, "w", "k", **options)
    if "offset" not in options:
        with pytest.raises(ValueError):
            hand.do("read_stream_offset", "w", "k", 0, **options)


@pytest.mark.parametrize("key", ["", " ", "a\0b", "\ud800", "k" * 600, None])
def test_a_key_must_be_one(app: App, hand: Hand, key: Any) -> None:
    app.launch()

    with pytest.raises(DBOSException):
        run(hand, writer(hand, 1, key=key))
    with pytest.raises(DBOSException):
        read(hand, "w", key)
    assert [] == step_names("w")


def test_nothing_is_written_or_read_in_a_transaction(app: App) -> None:
    def attempt(name: str, act: Any) -> None:
        with pytest.raises(Exception, match=f"Invalid call to `DBOS.{name}` inside a transaction"):
            DBOS.transaction(name=name)(lambda: act())()

    app.launch()
    attempt("writeStream", lambda: DBOS.write_stream("k", 1))
    attempt("closeStream", lambda: DBOS.close_stream("k"))
    attempt("readStream", lambda: list(DBOS.read_stream("w", "k")))
    attempt("readStreamOffset", lambda: DBOS.read_stream_offset("w", "k", 0))


def test_a_value_that_cannot_be_stored_leaves_no_gap(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        for value in (0, "half a pair: \ud800", object(), 1):
            try:
                await do.write_stream("k", value, serialization_type=PORTABLE)
            except TypeError:
                continue

    app.launch()
    run(hand, work)

    assert [0, 1] == read(hand, "w", "k")
    assert [0, 1] == [each[0] for each in stored(rows)]


@pytest.mark.parametrize(("value", "serialization"), [("{not json", "portable_json"), ("1", "of another language")])
def test_a_value_that_nobody_can_read(app: App, hand: Hand, rows: Rows, value: str, serialization: str) -> None:
    """Raises where it is; who begins behind it reads on."""
    app.launch()
    run(hand, writer(hand, 0, 1, 2))
    rows.run('UPDATE {}streams SET value = :v, serialization = :s WHERE "offset" = 1', v=value, s=serialization)

    with pytest.raises(DBOSSerializationError, match="offset 1 of stream 'k' cannot be read"):
        read(hand, "w", "k")
    assert [2] == read(hand, "w", "k", offset=2)


def test_formats(app: App, hand: Hand, rows: Rows) -> None:
    """As chosen, else that of a portable workflow, else the configured one; the close is JSON."""

    @hand.workflow(name="portable", serialization_type=PORTABLE)
    async def portable(do: Inside) -> None:
        await do.write_stream("k", 1)
        await do.write_stream("k", 2, serialization_type=WorkflowSerializationFormat.NATIVE)
        await do.close_stream("k")

    app.launch()
    run(hand, portable)
    run(hand, writer(hand, 1, key="native", closes=False), "other")

    assert ["portable_json", "py_pickle", "portable_json"] == [each[3] for each in stored(rows)]
    assert f'"{CLOSED}"' == stored(rows)[-1][2]
    assert ["py_pickle"] == [each[3] for each in stored(rows, "native")]
    assert [1, 2] == read(hand, "w", "k")


# -- rivals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["step", "body"])
def test_a_cancelled_workflow_writes_nothing_more(app: App, hand: Hand, rows: Rows, place: str) -> None:
    gate = Gate()
    refused: list[BaseException] = []

    @DBOS.step(name="step")
    def step() -> None:
        gate.pass_through()
        if place == "step":
            write()

    def write() -> None:
        try:
            DBOS.write_stream("k", 1)
        except BaseException as refusal:
            refused.append(refusal)
            raise

    @DBOS.workflow(name="work")
    def work() -> None:
        DBOS.write_stream("k", 0)
        try:
            step()
        finally:
            write()

    app.launch()
    with SetWorkflowID("w"):
        DBOS.start_workflow(work)
    gate.wait_reached()
    hand.do("cancel_workflow", "w")
    gate.open()

    assert isinstance(eventually(lambda: refused)[0], DBOSWorkflowCancelledError)
    assert [0] == read(hand, "w", "k")
    assert ("CANCELLED", 1) == (status_of("w"), len(stored(rows)))
