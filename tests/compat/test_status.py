"""The life cycle of a workflow, as its status shows it."""

from __future__ import annotations

import logging

import pytest

from dbos import DBOS, PortableWorkflowError, SetWorkflowID, WorkflowStatusString
from dbos.testing import FakeClock
from tests.compat.acts import Stages
from tests.compat.conftest import Log
from tests.compat.rows import INTERNAL_QUEUE, Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate

STATUSES = "PENDING SUCCESS ERROR MAX_RECOVERY_ATTEMPTS_EXCEEDED CANCELLED ENQUEUED DELAYED".split()
ATTRIBUTES = (
    "workflow_id status name class_name config_name authenticated_user assumed_role authenticated_roles input output error "
    "created_at updated_at queue_name executor_id app_version workflow_timeout_ms workflow_deadline_epoch_ms "
    "deduplication_id priority queue_partition_key forked_from was_forked_from parent_workflow_id dequeued_at "
    "delay_until_epoch_ms app_id recovery_attempts"
).split()


def test_there_are_seven_statuses() -> None:
    assert {each: each for each in STATUSES} == {each.name: each.value for each in WorkflowStatusString}


def test_a_status_has_all_its_attributes(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    app.launch()
    status = hand.start(work).status()

    assert [] == [each for each in ATTRIBUTES if not hasattr(status, each)]
    assert (str, "", 0) == (type(status.status), status.app_id, status.priority)
    assert not status.was_forked_from


def test_times_are_in_milliseconds(app: App, hand: Hand, clock: FakeClock) -> None:
    """Created when it is started, updated when it ends; never dequeued."""
    stages = Stages(hand)
    app.launch()
    held = hand.start(stages.workflow)
    stages.gate.wait_reached()
    began_ms = clock.now_ms()
    clock.advance(2)
    stages.gate.open()
    held.result()

    status = held.status()
    assert (began_ms, began_ms + 2000, None) == (status.created_at, status.updated_at, status.dequeued_at)


def test_a_workflow_is_pending_until_it_ends(app: App, hand: Hand) -> None:
    stages = Stages(hand)
    app.launch()
    held = hand.start(stages.workflow)
    stages.gate.wait_reached()
    seen = [held.status().status]
    stages.gate.open()
    held.result()
    seen.append(held.status().status)

    assert ["PENDING", "SUCCESS"] == seen


def test_an_enqueued_workflow_becomes_pending_when_it_is_taken(
    app: App, hand: Hand, clock: FakeClock, rows: Rows
) -> None:
    """It keeps its queue, knows when it was taken, and gives its deduplication id back at its end."""
    gate = Gate()

    @hand.step()
    def wait() -> None:
        gate.pass_through()

    @hand.workflow()
    async def work(do: Inside) -> None:
        await do(wait())

    rows.add("w", "work", queue_name=INTERNAL_QUEUE, deduplication_id="once")
    app.launch()
    gate.wait_reached()
    running = hand.do("get_workflow_status", "w")
    gate.open()
    hand.do("get_result", "w")
    ended = hand.do("get_workflow_status", "w")

    assert ("PENDING", "once") == (running.status, running.deduplication_id)
    assert ("local", "v1", clock.now_ms()) == (running.executor_id, running.app_version, running.dequeued_at)
    assert ("SUCCESS", INTERNAL_QUEUE, None) == (ended.status, ended.queue_name, ended.deduplication_id)


def test_a_failed_workflow_gives_its_deduplication_id_back(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def fail(do: Inside) -> None:
        raise ValueError("no")

    rows.add("w", "fail", queue_name=INTERNAL_QUEUE, deduplication_id="once")
    app.launch()
    with pytest.raises(PortableWorkflowError, match="no"):
        hand.do("get_result", "w")

    status = hand.do("get_workflow_status", "w")
    assert ("ERROR", INTERNAL_QUEUE, None) == (status.status, status.queue_name, status.deduplication_id)


def test_a_value_that_cannot_be_read_is_noted_in_the_log(app: App, hand: Hand, rows: Rows, log: Log) -> None:
    rows.add("w", "work", status="SUCCESS", output="no json")
    app.launch(log_level="WARNING")
    log.records.clear()

    assert "no json" == hand.do("get_workflow_status", "w").output
    assert log.says("", logging.WARNING)


def test_the_executor_is_the_last_one(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    app.launch(executor_id="first")
    with SetWorkflowID("w"):
        hand.call(work)
    assert "first" == hand.do("get_workflow_status", "w").executor_id
    rows.interrupt("w")
    app.relaunch(executor_id="second")
    DBOS._recover_pending_workflows(["first"])
    hand.do("get_result", "w")

    assert "second" == hand.do("get_workflow_status", "w").executor_id
