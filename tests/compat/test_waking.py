"""Waking: who waits in this process is woken by what happens in it, and does not poll.

The clock stands still, so a ring that is lost is never made up for by a look at the database a few seconds later.
"""

from __future__ import annotations

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded,
    DBOSNonExistentWorkflowError,
)
from dbos.testing import FakeClock
from tests.compat.acts import Stages, again, beside
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside

AT_ONCE = 5.0


def test_a_handle_is_woken_by_the_end_of_its_workflow(app: App, hand: Hand, clock: FakeClock) -> None:
    stages = Stages(hand)
    app.launch()
    held = hand.start(stages.workflow)
    retrieved = hand.do("retrieve_workflow", held.workflow_id)
    waiting = [beside(each.result) for each in (held, retrieved)]
    waiting.append(beside(hand.do, "get_result", held.workflow_id))
    stages.gate.wait_reached()
    stages.gate.open()

    assert [[1, 2, 3]] * 3 == [each.result(AT_ONCE) for each in waiting]


def test_a_handle_is_woken_by_a_cancel(app: App, hand: Hand, clock: FakeClock, rows: Rows) -> None:
    rows.add("w", "work", queue_name="served-by-nobody")
    app.launch()
    waiting = beside(hand.do, "get_result", "w")
    hand.do("cancel_workflow", "w")

    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        waiting.result(AT_ONCE)


def test_a_handle_is_woken_when_its_workflow_is_deleted(app: App, hand: Hand, clock: FakeClock, rows: Rows) -> None:
    rows.add("w", "work", queue_name="served-by-nobody")
    app.launch()
    waiting = beside(hand.do, "get_result", "w")
    hand.do("delete_workflow", "w")

    with pytest.raises(DBOSNonExistentWorkflowError):
        waiting.result(AT_ONCE)


def test_a_handle_is_woken_when_its_workflow_is_given_up(app: App, hand: Hand, clock: FakeClock, rows: Rows) -> None:
    @hand.workflow(max_recovery_attempts=0)
    async def work(do: Inside) -> int:
        return 7

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    for _ in range(5):
        waiting = beside(again(rows, "w").get_result)
        with pytest.raises(DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded):
            waiting.result(AT_ONCE)
        rows.change("w", recovery_attempts=1)


def test_a_handle_is_woken_when_its_workflow_is_found_expired(
    app: App, hand: Hand, clock: FakeClock, rows: Rows
) -> None:
    """Its deadline passed before somebody took it from the queue."""

    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    for _ in range(5):
        rows.change("w", workflow_deadline_epoch_ms=clock.now_ms() - 1)
        waiting = beside(again(rows, "w").get_result)
        with pytest.raises(DBOSAwaitedWorkflowCancelledError):
            waiting.result(AT_ONCE)


def test_a_handle_is_woken_by_the_end_of_a_recovered_workflow(
    app: App, hand: Hand, clock: FakeClock, rows: Rows
) -> None:
    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)

    for _ in range(5):
        assert 7 == beside(again(rows, "w").get_result).result(AT_ONCE)


def test_many_starts_of_one_id_all_end(app: App, hand: Hand, clock: FakeClock) -> None:
    """They make one workflow, and each of them gets its result."""
    ran: list[str] = []

    @hand.workflow()
    async def work(do: Inside) -> str:
        ran.append(DBOS.workflow_id)
        return DBOS.workflow_id

    def start(workflow_id: str) -> str:
        with SetWorkflowID(workflow_id):
            return hand.start(work).result()

    app.launch()
    for each in (f"w-{number}" for number in range(10)):
        assert [each] * 8 == [started.result(AT_ONCE) for started in [beside(start, each) for _ in range(8)]]

    assert 10 == len(ran)


def test_a_delayed_workflow_starts_at_its_moment(app: App, hand: Hand, clock: FakeClock, rows: Rows) -> None:
    """Not earlier, and without a poll."""

    @hand.workflow()
    async def work(do: Inside) -> int:
        return clock.now_ms()

    due_ms = clock.now_ms() + 60_000
    rows.add("w", "work", status="DELAYED", queue_name="_dbos_internal_queue", delay_until_epoch_ms=due_ms)
    app.launch()
    waiting = beside(hand.do, "get_result", "w")
    clock.wait_for_sleeper(due_ms)
    clock.advance(60)

    assert due_ms == waiting.result(AT_ONCE)


def test_waiting_for_the_first_is_woken_by_the_first(app: App, hand: Hand, clock: FakeClock) -> None:
    slow, fast = Stages(hand, "slows"), Stages(hand, "fasts")
    app.launch()
    handles = [hand.start(each.workflow).handle for each in (slow, fast)]
    waiting = beside(hand.do, "wait_first", handles)
    fast.gate.open()

    assert handles[1].workflow_id == waiting.result(AT_ONCE).workflow_id
    slow.gate.open()
