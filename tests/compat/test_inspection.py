"""What lies in the database, as programs read it that look on: many workflows at once, no value decoded."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSClient,
    Queue,
    SetWorkflowID,
    StoredEvent,
    StoredMessage,
    StoredStreamEntry,
    WorkflowSerializationFormat,
)
from dbos._features import inspection
from tests.compat.clients import Caller
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside

PORTABLE = WorkflowSerializationFormat.PORTABLE
OPERATIONS = ["list_values", "list_steps", "list_messages", "list_events", "list_stream_entries"]


@pytest.fixture
def ask(database: str, hand: Hand) -> Iterator[Caller]:
    with DBOSClient(system_database_url=database) as client:
        yield Caller(hand, client)


@pytest.fixture
def talk(app: App, hand: Hand) -> Any:
    """A workflow that does a little of everything, launched."""

    @hand.step(name="halve")
    def halve(number: int) -> int:
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number // 2

    @hand.workflow(name="talk", serialization_type=PORTABLE)
    async def talk(do: Inside, number: int) -> int:
        await do.set_event("begun", {"with": number})
        await do.set_event("begun", [number])
        await do.write_stream("log", "x" * 100)
        await do.close_stream("log")
        await do.recv("none", 0)
        return await do(halve(number))

    app.launch()

    def run(workflow_id: str, number: int) -> None:
        with SetWorkflowID(workflow_id):
            hand.call(talk, number)

    return run


def text(value: Any) -> Any:
    return None if value is None else json.loads(value)


def unpickled(value: str) -> Any:
    return pickle.loads(base64.b64decode(value))


def test_steps_of_many_workflows_come_in_one_answer(talk: Any, ask: Caller, hand: Hand) -> None:
    """By workflow and in their order, their values as texts, and which of them failed."""
    talk("b", 4)
    with pytest.raises(ValueError, match="3 is odd"):
        talk("a", 3)

    found = ask("list_steps", ["b", "a", "nobody"])

    assert sorted({each.workflow_id for each in found}) == ["a", "b"]
    assert [(each.workflow_id, each.step_id) for each in found] == sorted((each[0], each[1]) for each in found)
    failed = [each for each in found if each.failed]
    assert [("a", "halve", None)] == [(each.workflow_id, each.name, each.output) for each in failed]
    assert "3 is odd" == str(unpickled(failed[0].error))
    (halved,) = (each for each in found if each.name == "halve" and not each.failed)
    assert (2, "py_pickle", None) == (unpickled(halved.output), halved.serialization, halved.error)
    assert all(each.started_at <= each.completed_at for each in found)
    assert found == hand.do("list_steps", ["b", "a", "nobody"])


def test_inputs_and_outcomes_come_as_they_are_stored(talk: Any, ask: Caller) -> None:
    talk("b", 4)
    with pytest.raises(ValueError, match="3 is odd"):
        talk("a", 3)

    a, b = sorted(ask("list_values", ["a", "b"]))

    assert ([3], None) == (text(a.input)["positionalArgs"], a.output)
    assert "3 is odd" == text(a.error)["message"]
    assert (2, None, "portable_json") == (text(b.output), b.error, b.serialization)


def test_long_texts_are_left_out_when_asked(talk: Any, ask: Caller) -> None:
    """What failed is told all the same."""
    with pytest.raises(ValueError, match="3 is odd"):
        talk("a", 3)

    assert [None, None] == [each.value for each in ask("list_stream_entries", ["a"], longest=10)]
    (failed,) = (each for each in ask("list_steps", ["a"], longest=0) if each.failed)
    assert ("halve", None) == (failed.name, failed.error)


def test_events_name_the_step_that_set_them(talk: Any, ask: Caller) -> None:
    talk("a", 4)

    assert [StoredEvent("a", "begun", "[4]", 2, "portable_json")] == ask("list_events", ["a"])


def test_streams_are_read_with_their_closing_marks(talk: Any, ask: Caller) -> None:
    talk("a", 4)

    first, last = ask("list_stream_entries", ["a"])

    assert StoredStreamEntry("a", "log", 0, json.dumps("x" * 100), 3, "portable_json") == first
    assert ("log", 1) == (last.key, last.offset)
    assert "__DBOS_STREAM_CLOSED__" in last.value


def test_messages_tell_whether_they_were_received(app: App, hand: Hand, ask: Caller) -> None:
    @hand.workflow(name="takes", serialization_type=PORTABLE)
    async def takes(do: Inside) -> Any:
        return await do.recv("mail", 20)

    app.launch()
    with SetWorkflowID("w"):
        handle = hand.start(takes)
    ask("send", "w", "first", "mail")
    assert "first" == handle.result()
    ask("send", "w", "second")

    first, second = sorted(ask("list_messages", ["w"]), key=lambda each: not each.consumed)

    assert [StoredMessage, StoredMessage] == [type(first), type(second)]
    assert ("w", "mail", True) == (first.workflow_id, first.topic, first.consumed)
    assert first.sent_at <= second.sent_at
    assert not second.consumed


def test_one_step_is_decoded_when_asked_for(talk: Any, ask: Caller) -> None:
    with pytest.raises(ValueError, match="3 is odd"):
        talk("a", 3)
    last = max(each.step_id for each in ask("list_steps", ["a"]))

    step = ask("get_step", "a", last)

    assert ("halve", "3 is odd") == (step["function_name"], str(step["error"]))
    assert ask("get_step", "a", 99) is None


def test_nothing_is_decoded_otherwise(app: App, ask: Caller, rows: Rows) -> None:
    """A value that cannot be read is shown as it is stored, and so is one that would run code."""
    app.launch()
    rows.add("w", "any", status="SUCCESS", inputs="!", output="gASVBAAAAAAAAACMAAAu", serialization="py_pickle")

    (found,) = ask("list_values", ["w"])

    assert ("!", "gASVBAAAAAAAAACMAAAu", "py_pickle") == (found.input, found.output, found.serialization)


def test_backlogs_count_what_waits_and_runs(app: App, ask: Caller, rows: Rows) -> None:
    Queue("served", concurrency=1)
    DBOS.listen_queues(["none"])
    app.launch()
    for number, status in enumerate(("ENQUEUED", "ENQUEUED", "SUCCESS", "DELAYED", "PENDING")):
        rows.add(f"w-{number}", "any", status=status, queue_name="q", created_at=5_000 - number, owner_xid="x:1")
    rows.add("w-9", "any", status="DELAYED", queue_name="p", delay_until_epoch_ms=9_000_000_000_000)
    rows.add("w-8", "any", status="PENDING", owner_xid="x:1")

    assert [("p", 0, 1, 0, None), ("q", 2, 1, 1, 4_999)] == ask("list_backlogs")


def test_versions_are_counted(app: App, ask: Caller, rows: Rows) -> None:
    app.launch()
    for number, version in enumerate(("a", "a", "b", None)):
        rows.add(f"w-{number}", "any", status="SUCCESS", application_version=version)

    assert {"a": 2, "b": 1, None: 1} == ask("count_by_version")


def test_the_next_fire_times_are_in_the_zone_of_the_schedule(app: App, ask: Caller) -> None:
    """By the rule of the scheduler, also in the night in which the clocks are set forward; a paused one has none."""
    app.launch()
    for name in ("early", "paused"):
        given = {"workflow_name": "w", "schedule": "30 2 * * *", "cron_timezone": "Europe/Berlin"}
        ask("create_schedule", schedule_name=name, **given)
    ask("pause_schedule", "paused")

    found = ask("list_fire_times", number=3, after=datetime(2026, 3, 27, 12, tzinfo=UTC))

    expected = ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    assert expected == [moment.isoformat() for moment in found["early"]]
    assert [] == found["paused"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_of_none_there_is_nothing(app: App, ask: Caller, operation: str) -> None:
    app.launch()

    assert [] == ask(operation, []) == ask(operation, ["nobody"])
    with pytest.raises(TypeError, match="takes a list of ids"):
        ask(operation, "nobody")


def test_thousands_are_asked_for_at_once(app: App, ask: Caller, rows: Rows) -> None:
    app.launch()
    rows.add("w", "any", status="SUCCESS")

    assert ["w"] == [each.workflow_id for each in ask("list_values", [*map(str, range(40_000)), "w"])]


def test_looking_on_leaves_no_step(app: App, hand: Hand) -> None:
    @hand.workflow(name="looks")
    async def looks(do: Inside) -> int:
        return len(await do.list_steps(["w"])) + len(await do.list_backlogs())

    app.launch()
    with SetWorkflowID("w"):
        assert 0 == hand.call(looks)

    assert [] == DBOS.list_workflow_steps("w")


def test_every_read_of_the_slice_is_tested_here() -> None:
    names = {name for name in vars(inspection) if name.startswith(("list_", "get_", "count_"))}
    source = Path(__file__).read_text()

    assert [] == sorted(name for name in names if f'"{name}"' not in source)
