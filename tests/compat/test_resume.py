"""Resuming: a workflow that has not finished goes on after its last step."""

from __future__ import annotations

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSNonExistentWorkflowError
from tests.compat.acts import status_of
from tests.compat.rows import INTERNAL_QUEUE, Rows
from tests.conftest import App
from tests.hand import Hand, Inside


@pytest.mark.parametrize("status", ["CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "PENDING", "ENQUEUED", "DELAYED"])
def test_whatever_has_not_finished_is_resumed(app: App, hand: Hand, rows: Rows, status: str) -> None:
    """At once, past its own queue and delay, with its attempts counted from 0."""

    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    far = 9_000_000_000_000
    rows.add("w", "work", status=status, queue_name="mine", delay_until_epoch_ms=far, recovery_attempts=50)
    app.launch()
    held = hand.do("resume_workflow", "w")

    assert 7 == held.result()
    assert ("SUCCESS", 1, INTERNAL_QUEUE) == (
        held.status().status,
        held.status().recovery_attempts,
        held.status().queue_name,
    )


@pytest.mark.parametrize("status", ["SUCCESS", "ERROR"])
def test_what_has_finished_stays_finished(app: App, hand: Hand, rows: Rows, status: str) -> None:
    """Its handle has the old result or error, and nothing runs."""
    ran: list[int] = []

    @hand.workflow()
    async def work(do: Inside) -> int:
        ran.append(1)
        return 7

    rows.add("w", "work", status=status, output='"old"', error='{"name":"E","message":"old"}')
    app.launch()
    before = rows.workflow("w")
    held = hand.do("resume_workflow", "w")

    assert "old" == (held.result() if status == "SUCCESS" else str(pytest.raises(Exception, held.result).value))
    assert (before, []) == (rows.workflow("w"), ran)


def test_an_unknown_workflow_cannot_be_resumed(app: App, hand: Hand) -> None:
    app.launch()

    with pytest.raises(DBOSNonExistentWorkflowError, match="nobody") as caught:
        hand.do("resume_workflow", "nobody")
    assert 5 == caught.value.dbos_error_code


def test_a_workflow_is_resumed_on_a_queue_that_nobody_declared(app: App, hand: Hand, rows: Rows) -> None:
    """It waits there until somebody serves it."""
    place = {"deduplication_id": "once", "started_at_epoch_ms": 5, "workflow_deadline_epoch_ms": 5}
    rows.add("w", "work", status="CANCELLED", recovery_attempts=3, **place)
    app.launch()
    held = hand.do("resume_workflow", "w", queue_name="not-yet-served")

    assert "w" == held.workflow_id
    row = rows.workflow("w")
    assert ("ENQUEUED", "not-yet-served", 0) == (row.status, row.queue_name, row.recovery_attempts)
    assert (None, None, None) == (row.deduplication_id, row.started_at_epoch_ms, row.workflow_deadline_epoch_ms)


def test_many_are_resumed_like_one(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def tell(do: Inside) -> str:
        return DBOS.workflow_id

    for workflow_id in "abc":
        rows.add(workflow_id, "tell", status="CANCELLED")
    app.launch()
    handles = hand.do("resume_workflows", ["a", "b"])

    assert ["a", "b"] == [each.workflow_id for each in handles] == [each.result() for each in handles]
    assert "CANCELLED" == status_of("c")


def test_many_are_resumed_on_a_queue(app: App, hand: Hand, rows: Rows) -> None:
    for workflow_id in "ab":
        rows.add(workflow_id, "work", status="CANCELLED")
    app.launch()
    hand.do("resume_workflows", ["a", "b"], queue_name="not-yet-served")

    assert ["not-yet-served"] * 2 == [rows.workflow(each).queue_name for each in "ab"]


def test_a_resumed_workflow_does_not_repeat_its_steps(app: App, hand: Hand, rows: Rows) -> None:
    ran: list[int] = []

    @hand.step()
    def step(number: int) -> int:
        ran.append(number)
        return number

    @hand.workflow()
    async def work(do: Inside) -> int:
        return sum([await do(step(number)) for number in (1, 2, 3)])

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    rows.run("DELETE FROM {}operation_outputs WHERE workflow_uuid = 'w' AND function_id = 3")
    rows.change("w", status="CANCELLED", output=None)
    held = hand.do("resume_workflow", "w")

    assert 6 == held.result()
    assert [1, 2, 3, 3] == ran


def test_a_workflow_can_resume_another(app: App, hand: Hand, rows: Rows) -> None:
    """And wait for its result."""

    @hand.workflow()
    async def other(do: Inside) -> int:
        return 7

    @hand.workflow()
    async def work(do: Inside) -> int:
        return await do((await do.resume_workflow("other")).get_result())

    rows.add("other", "other", status="CANCELLED")
    app.launch()

    assert 7 == hand.call(work)
