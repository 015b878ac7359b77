"""Messages: what is refused, what is stored of them, and what becomes of them when their workflows die."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import DBOS, SendMessage, SetWorkflowID, WorkflowSerializationFormat
from dbos.error import (
    DBOSConcurrentReceiveError,
    DBOSException,
    DBOSNonExistentWorkflowError,
    DBOSSerializationError,
    DBOSWorkflowConflictIDError,
)
from dbos.testing import FakeClock
from tests.compat.acts import again, beside, status_of, step_names
from tests.compat.rows import Rows
from tests.compat.talking import messages, receiver
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate

PORTABLE = WorkflowSerializationFormat.PORTABLE


# -- refusals --------------------------------------------------------------------------------------------------


def test_nobody_is_told(app: App, hand: Hand) -> None:
    app.launch()

    with pytest.raises(DBOSNonExistentWorkflowError, match="Non-existent `send` destination workflow ID: nobody"):
        hand.do("send", "nobody", 1)


def test_a_send_that_failed_fails_again(app: App, hand: Hand, rows: Rows) -> None:
    """Although the workflow exists by then."""

    @hand.workflow()
    async def sender(do: Inside) -> str:
        try:
            await do.send("to", 1)
        except DBOSNonExistentWorkflowError as error:
            return str(error)
        return "sent"

    begin = receiver(hand)
    app.launch()
    with SetWorkflowID("from"):
        first = hand.call(sender)
    begin()

    assert "Non-existent `send` destination workflow ID: to" in first
    assert first == again(rows, "from").get_result()
    assert [] == messages(rows)
    hand.do("send", "to", 1)


def test_a_message_to_a_workflow_that_has_ended_stays_unread(app: App, hand: Hand, rows: Rows) -> None:
    begin = receiver(hand)
    app.launch()
    begin(None, 0).result()
    hand.do("send", "to", 1)

    assert [False] == [bool(each.consumed) for each in messages(rows)]


def test_recv_belongs_into_a_workflow(app: App, hand: Hand) -> None:
    """Not outside, and not into a step."""

    @hand.step()
    def step() -> None:
        DBOS.recv()

    @hand.workflow()
    async def work(do: Inside) -> None:
        await do(step())

    app.launch()
    for attempt in (lambda: hand.do("recv"), lambda: hand.call(work)):
        with pytest.raises(DBOSException, match=r"recv\(\) must be called from within a workflow"):
            attempt()


def test_nothing_is_sent_or_received_in_a_transaction(app: App) -> None:
    @DBOS.transaction(name="sends")
    def sends() -> None:
        DBOS.send("to", 1)

    @DBOS.transaction(name="receives")
    def receives() -> None:
        DBOS.recv()

    app.launch()
    with pytest.raises(Exception, match="Invalid call to `DBOS.send` inside a transaction"):
        sends()
    with pytest.raises(Exception, match="Invalid call to `DBOS.recv` inside a transaction"):
        receives()


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("", 1), {}),
        (("to", 1, " "), {}),
        (("to", 1, "a\0b"), {}),
        (("to", 1, "\ud800"), {}),
        (("to", 1), {"idempotency_key": ""}),
        (("to", 1, "t" * 600), {}),
    ],
    ids=["no id", "blank topic", "NUL", "half a pair", "no key", "too long"],
)
def test_a_name_must_be_one(app: App, hand: Hand, rows: Rows, arguments: tuple, options: dict) -> None:
    rows.add("to", "any", queue_name="nobody")
    app.launch()

    with pytest.raises(DBOSException):
        hand.do("send", *arguments, **options)
    assert [] == messages(rows)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_timeout_must_be_one(app: App, hand: Hand, seconds: float) -> None:
    begin = receiver(hand, timeout_seconds=seconds)
    app.launch()

    with pytest.raises(ValueError, match="must not be negative"):
        begin().result()
    assert [] == step_names("to")


@pytest.mark.parametrize("message", ["half a pair: \ud800", object()], ids=["half a pair", "object"])
def test_a_message_that_cannot_be_stored(app: App, hand: Hand, rows: Rows, message: object) -> None:
    rows.add("to", "any", queue_name="nobody")
    app.launch()

    with pytest.raises(DBOSSerializationError):
        hand.do("send", "to", [message], serialization_type=PORTABLE)
    assert [] == messages(rows)


def test_a_message_may_hold_any_character(app: App, hand: Hand) -> None:
    begin = receiver(hand)
    app.launch()
    held = begin(None, 2)
    text = "a\0b\x01 ü 𝄞 \u2028"
    hand.do("send", "to", text, serialization_type=PORTABLE)
    hand.do("send_bulk", [SendMessage("to", text)], serialization_type=PORTABLE)

    assert [text, text] == held.result()


def test_a_message_that_cannot_be_serialized_is_the_workflows_error(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def sender(do: Inside) -> None:
        await do.send("from", lambda: None)

    app.launch()
    with SetWorkflowID("from"), pytest.raises(Exception):
        hand.call(sender)

    assert "ERROR" == status_of("from")
    assert [] == messages(rows)


def test_two_receivers_of_one_topic(app: App) -> None:
    """The second one fails, now and whenever it is done again; another topic is another matter."""

    is_refused = asyncio.Event()

    async def too_many() -> Any:
        try:
            return await DBOS.recv_async("t")
        finally:
            is_refused.set()

    @DBOS.workflow(name="both")
    async def both() -> list[Any]:
        return await asyncio.gather(DBOS.recv_async("t"), too_many(), DBOS.recv_async("u"), return_exceptions=True)

    async def run() -> list[Any]:
        with SetWorkflowID("to"):
            handle = await DBOS.start_workflow_async(both)
        await is_refused.wait()  # before the first one may have had its message, and be no receiver any more
        await DBOS.send_async("to", 1, "t")
        await DBOS.send_async("to", 2, "u")
        return await handle.get_result()

    app.launch()
    first, second, third = asyncio.run(run())

    assert (1, 2) == (first, third)
    assert isinstance(second, DBOSConcurrentReceiveError)
    assert isinstance(second, DBOSWorkflowConflictIDError)
    assert "DBOS Error 1" in str(second)


def test_two_receivers_end_their_workflow_with_an_error(app: App, rows: Rows) -> None:
    """It is not left unfinished, although the error has the name of control flow."""

    @DBOS.workflow(name="both")
    async def both() -> list[Any]:
        return await asyncio.gather(DBOS.recv_async("t"), DBOS.recv_async("t"))

    async def run() -> None:
        with SetWorkflowID("to"):
            await both()

    app.launch()
    with pytest.raises(DBOSConcurrentReceiveError):
        asyncio.run(run())

    assert "ERROR" == status_of("to")


# -- what is stored --------------------------------------------------------------------------------------------


def test_a_message_as_other_programs_see_it(app: App, hand: Hand, rows: Rows) -> None:
    rows.add("to", "any", queue_name="nobody")
    app.launch()
    hand.do("send", "to", [1])
    hand.do("send", "to", [2], "topic", serialization_type=PORTABLE)
    first, second = messages(rows)

    assert ("to", "__null__topic__", "py_pickle") == (first.destination_uuid, first.topic, first.serialization)
    assert ("topic", "[2]", "portable_json") == (second.topic, second.message, second.serialization)
    assert not first.consumed
    assert first.created_at_epoch_ms <= second.created_at_epoch_ms


def test_a_portable_workflow_sends_portable_messages(app: App, hand: Hand, rows: Rows) -> None:
    """Unless it says otherwise; its steps too."""

    @hand.step()
    def step() -> None:
        DBOS.send("to", [2])

    @hand.workflow(serialization_type=PORTABLE)
    async def sender(do: Inside) -> None:
        await do.send("to", [1])
        await do(step())
        await do.send("to", [3], serialization_type=WorkflowSerializationFormat.NATIVE)

    rows.add("to", "any", queue_name="nobody")
    app.launch()
    hand.call(sender)

    assert ["portable_json", "portable_json", "py_pickle"] == [each.serialization for each in messages(rows)]


def test_what_was_received_keeps_its_format(app: App, hand: Hand, rows: Rows) -> None:
    begin = receiver(hand)
    app.launch()
    held = begin()
    hand.do("send", "to", [1], serialization_type=PORTABLE)
    held.result()
    step = rows.steps("to")[0]

    assert ("DBOS.recv", "[1]", "portable_json") == (step.function_name, step.output, step.serialization)


def insert(rows: Rows, message_id: str, message: str, serialization: str | None, topic: str | None) -> None:
    rows.run(
        "INSERT INTO {}notifications (message_uuid, destination_uuid, topic, message, serialization)"
        " VALUES (:id, 'to', :topic, :message, :serialization)",
        id=message_id,
        topic=topic,
        message=message,
        serialization=serialization,
    )


def test_a_message_of_another_program(app: App, hand: Hand, rows: Rows) -> None:
    """That knows nothing of us but the table."""
    begin = receiver(hand)
    app.launch()
    held = begin("topic")
    insert(rows, "m", '{"a":1}', "portable_json", "topic")

    assert [{"a": 1}] == held.result()


@pytest.mark.parametrize(
    ("message", "serialization"),
    [("{not json", "portable_json"), ("not a pickle", "py_pickle"), ("", None), ("1", "of another language")],
)
def test_a_message_that_nobody_can_read_blocks_nobody(
    app: App, hand: Hand, rows: Rows, message: str, serialization: str | None
) -> None:
    """It is taken, and `recv` raises, also when it is done again; the next message follows."""

    @hand.workflow()
    async def receive(do: Inside) -> list[Any]:
        try:
            await do.recv("t")
        except DBOSSerializationError as error:
            return [type(error).__name__, "cannot be read" in str(error), await do.recv("t")]
        return []

    rows.add("to", "receive", queue_name="later")
    insert(rows, "bad", message, serialization, "t")
    insert(rows, "no topic", message, serialization, None)
    app.launch()
    hand.do("send", "to", "good", "t")
    hand.do("resume_workflow", "to")
    expected = ["DBOSSerializationError", True, "good"]

    assert expected == hand.do("get_result", "to")
    assert expected == again(rows, "to").get_result()


# -- death and rivals ------------------------------------------------------------------------------------------


def test_a_receiver_that_died_waits_only_the_rest(app: App, hand: Hand, clock: FakeClock) -> None:
    begin = receiver(hand, timeout_seconds=100)
    app.launch()
    begin()
    until_ms = clock.now_ms() + 100_000
    clock.wait_for_sleeper(until_ms)
    app.crash()
    clock.advance(60)
    app.launch()
    held = hand.do("retrieve_workflow", "to")
    clock.wait_for_sleeper(until_ms)
    clock.advance(40)

    assert [None] == held.result()
    assert ["DBOS.recv", "DBOS.sleep"] == step_names("to")


def test_a_timeout_is_not_waited_for_again(app: App, hand: Hand, clock: FakeClock, rows: Rows) -> None:
    begin = receiver(hand, timeout_seconds=100)
    app.launch()
    held = begin()
    clock.wait_for_sleeper(clock.now_ms() + 100_000)
    clock.advance(100)
    held.result()

    assert [None] == beside(again(rows, "to").get_result).result(5)


def test_a_cancelled_receiver_takes_nothing(app: App, hand: Hand, clock: FakeClock, rows: Rows) -> None:
    begin = receiver(hand)
    app.launch()
    held = begin()
    clock.wait_for_sleeper(clock.now_ms() + 60_000)
    hand.do("cancel_workflow", "to")
    with pytest.raises(Exception, match="cancelled"):
        beside(held.result).result(5)
    hand.do("send", "to", 1)

    assert [False] == [bool(each.consumed) for each in messages(rows)]
    assert [1] == hand.do("resume_workflow", "to").result()


@pytest.mark.parametrize("place", ["step", "body"])
def test_a_sender_that_lost_its_workflow_sends_nothing(app: App, hand: Hand, rows: Rows, place: str) -> None:
    """What is sent comes from the run that has it now, once."""
    gate = Gate()
    runs: list[str] = []

    async def wait(do: Inside) -> None:
        runs.append(str(DBOS.fencing_token))
        await do(asyncio.to_thread(gate.pass_through) if do.is_async else gate.pass_through())

    @DBOS.step(name="step")
    def step() -> None:
        runs.append(str(DBOS.fencing_token))
        gate.pass_through()
        DBOS.send("to", DBOS.fencing_token)

    @DBOS.workflow(name="steps")
    def steps() -> None:
        step()

    @hand.workflow()
    async def sender(do: Inside) -> None:
        await wait(do)
        await do.send("to", DBOS.fencing_token)

    begin = receiver(hand)
    app.launch()
    held = begin()
    with SetWorkflowID("from"):
        lost = DBOS.start_workflow(steps) if place == "step" else hand.start(sender)
    gate.wait_reached()
    resumed = hand.do("resume_workflow", "from")
    gate.wait_reached(2)
    gate.open()
    resumed.result()
    lost.get_result() if place == "step" else lost.result()

    assert 2 == len(set(runs))
    assert runs[1:] == held.result()
    assert 1 == len(messages(rows))


def test_messages_go_with_their_workflow(app: App, hand: Hand, rows: Rows) -> None:
    rows.add("to", "any", queue_name="nobody")
    app.launch()
    hand.do("send", "to", 1)
    hand.do("delete_workflow", "to")

    assert [] == messages(rows)
