"""Messages: who may send and receive, what comes in which order, and how often."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dbos import DBOS, SendMessage, SetWorkflowID, WorkflowSerializationFormat
from dbos.error import (
    DBOSNonExistentWorkflowError,
)
from dbos.testing import FakeClock
from tests.compat.acts import again, beside, step_ids, step_names
from tests.compat.rows import Rows
from tests.compat.talking import messages, receiver
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate, eventually

PORTABLE = WorkflowSerializationFormat.PORTABLE


# -- sending and receiving -------------------------------------------------------------------------------------


def test_a_message_is_received(app: App, hand: Hand) -> None:
    begin = receiver(hand)
    app.launch()
    held = begin()
    hand.do("send", "to", {"any": (1, "value")})

    assert [{"any": (1, "value")}] == held.result()


def test_messages_come_in_the_order_of_sending(app: App, hand: Hand) -> None:
    """Also when all were sent in one millisecond, before anybody asked."""
    begin = receiver(hand)
    gate = Gate()
    app.launch()

    @hand.step()
    def wait() -> None:
        gate.pass_through()

    @hand.workflow()
    async def late(do: Inside) -> list[int]:
        await do(wait())
        return [await do.recv() for _ in range(50)]

    with SetWorkflowID("late"):
        held = hand.start(late)
    held_too = begin("numbers", 20)
    for number in range(50):
        hand.do("send", "late", number)
    hand.do("send_bulk", [SendMessage("to", number, "numbers") for number in range(20)])
    gate.open()

    assert list(range(50)) == held.result()
    assert list(range(20)) == held_too.result()


def test_topics_do_not_mix(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def receive(do: Inside) -> list[Any]:
        return [await do.recv("b"), await do.recv(), await do.recv("a"), await do.recv("a::b"), await do.recv("c", 0)]

    app.launch()
    with SetWorkflowID("to::x"):
        held = hand.start(receive)
    for topic in ("a", "a::b", None, "b"):
        hand.do("send", "to::x", f"for {topic}", topic)

    assert ["for b", "for None", "for a", "for a::b", None] == held.result()


def test_a_message_waits_for_its_receiver(app: App, hand: Hand, rows: Rows) -> None:
    """A workflow on a queue that nobody serves yet has its messages when it runs."""
    receiver(hand)
    rows.add("to", "receiver-to", queue_name="later", inputs='{"positionalArgs":[null,2]}')
    app.launch()
    hand.do("send", "to", 1)
    hand.do("send", "to", 2)
    hand.do("resume_workflow", "to")

    assert [1, 2] == hand.do("get_result", "to")


def test_nothing_in_time_is_none(app: App, hand: Hand, clock: FakeClock) -> None:
    begin = receiver(hand, timeout_seconds=30)
    app.launch()
    held = begin()
    clock.wait_for_sleeper(clock.now_ms() + 30_000)
    clock.advance(30)

    assert [None] == held.result()
    assert [(1, "DBOS.recv"), (2, "DBOS.sleep")] == list(zip(step_ids("to"), step_names("to"), strict=True))


def test_no_time_is_one_look(app: App, hand: Hand, clock: FakeClock) -> None:
    begin = receiver(hand, timeout_seconds=0)
    app.launch()

    assert [None, None] == begin(None, 2).result()
    assert ([1, 3], ["DBOS.recv", "DBOS.recv"]) == (step_ids("to"), step_names("to"))


def test_a_message_wakes_its_receiver(app: App, hand: Hand, clock: FakeClock) -> None:
    """At once: the clock stands still."""
    begin = receiver(hand)
    app.launch()
    held = begin()
    clock.wait_for_sleeper(clock.now_ms() + 60_000)
    hand.do("send", "to", "wake up")

    assert ["wake up"] == beside(held.result).result(5)


def test_async_receivers_hold_no_threads(app: App) -> None:
    @DBOS.workflow()
    async def receive() -> Any:
        return await DBOS.recv_async()

    async def main() -> tuple[int, list[Any]]:
        handles = []
        for number in range(200):
            with SetWorkflowID(f"to-{number}"):
                handles.append(await DBOS.start_workflow_async(receive))
        await asyncio.to_thread(eventually, lambda: all(each._run.is_waiting for each in handles))
        threads = threading.active_count()
        await DBOS.send_bulk_async([SendMessage(each.workflow_id, n) for n, each in enumerate(handles)])
        return threads, [await each.get_result() for each in handles]

    app.launch()
    threads, received = asyncio.run(main())

    assert list(range(200)) == received
    assert threads < 100


# -- exactly once ----------------------------------------------------------------------------------------------


def test_a_workflow_sends_once(app: App, hand: Hand, rows: Rows) -> None:
    """Its replay sends nothing."""
    begin = receiver(hand)

    @hand.workflow()
    async def sender(do: Inside) -> None:
        await do.send("to", 1)
        await do.send_bulk([SendMessage("to", 2), SendMessage("to", 3)])

    app.launch()
    held = begin(None, 3)
    with SetWorkflowID("from"):
        hand.call(sender)
    assert [1, 2, 3] == held.result()
    again(rows, "from").get_result()

    assert 3 == len(messages(rows))
    assert ["DBOS.send", "DBOS.send_bulk"] == step_names("from")
    assert [None, None] == [each.output for each in rows.steps("from")]


def test_a_receiver_takes_what_it_took_before(app: App, hand: Hand, rows: Rows) -> None:
    begin = receiver(hand)
    app.launch()
    held = begin(None, 2)
    hand.do("send", "to", 1)
    hand.do("send", "to", 2)
    assert [1, 2] == held.result()
    hand.do("send", "to", 3)

    assert [1, 2] == again(rows, "to").get_result()
    assert [True, True, False] == [bool(each.consumed) for each in messages(rows)]


def test_a_key_sends_once_to_each_destination(app: App, hand: Hand, rows: Rows) -> None:
    begin, begin_other = receiver(hand), receiver(hand, "other")
    app.launch()
    held, other = begin(), begin_other()
    for _ in range(3):
        hand.do("send", "to", 1, idempotency_key="key")
        hand.do("send", "other", 1, idempotency_key="key")
        hand.do("send_bulk", [SendMessage("to", 1, None, "key"), SendMessage("other", 1, idempotency_key="key")])

    assert ([1], [1]) == (held.result(), other.result())
    assert {"key::to", "key::other"} == {each.message_uuid for each in messages(rows)}


def test_a_step_sends_in_each_of_its_attempts(app: App, hand: Hand) -> None:
    begin = receiver(hand)
    tries: list[int] = []

    @DBOS.step(name="send twice", retries_allowed=True, interval_seconds=0, max_attempts=2)
    def send_twice() -> None:
        tries.append(1)
        DBOS.send("to", len(tries))
        if len(tries) == 1:
            raise ValueError("again")

    @DBOS.workflow(name="sender")
    def sender() -> None:
        send_twice()

    app.launch()
    held = begin(None, 2)
    with SetWorkflowID("from"):
        sender()

    assert [1, 2] == held.result()
    assert ["send twice"] == step_names("from")


def test_a_bulk_is_sent_wholly_or_not_at_all(app: App, hand: Hand, rows: Rows) -> None:
    begin = receiver(hand)

    @hand.workflow()
    async def sender(do: Inside) -> str:
        try:
            await do.send_bulk([SendMessage("to", 1), SendMessage("nobody", 2)])
        except DBOSNonExistentWorkflowError as error:
            return str(error)
        return "sent"

    app.launch()
    begin()
    bulk = [SendMessage("to", 1), SendMessage("nobody", 2), SendMessage("no one", 3)]
    with pytest.raises(DBOSNonExistentWorkflowError, match="workflow ID: nobody, no one"):
        hand.do("send_bulk", bulk)
    with SetWorkflowID("from"):
        assert "nobody" in hand.call(sender)

    assert [] == messages(rows)
    assert "nobody" in again(rows, "from").get_result()
    assert ["DBOS.send_bulk"] == step_names("from")
    hand.do("send_bulk", [])
    hand.do("send", "to", 1)


def test_forks_get_a_copy(app: App, hand: Hand, rows: Rows) -> None:
    """Forks of forks too, each once for one key."""
    for workflow_id, origin in (("o", None), ("f1", "o"), ("f2", "f1"), ("other", None)):
        rows.add(workflow_id, "any", queue_name="nobody", forked_from=origin)
    app.launch()
    for _ in range(2):
        hand.do("send", "o", 1, idempotency_key="key", send_to_forks=True)
    hand.do("send_bulk", [SendMessage("f1", 2)], send_to_forks=True)

    assert ["f1", "f1", "f2", "f2", "o"] == sorted(each.destination_uuid for each in messages(rows))
    assert {"key::o", "key::f1", "key::f2"} < {each.message_uuid for each in messages(rows)}
