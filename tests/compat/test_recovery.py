"""Recovery: what is taken up again, by whom, and how often."""

from __future__ import annotations

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import (
    DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded,
    DBOSRecoveryError,
    DBOSWorkflowFunctionNotFoundError,
    MaxRecoveryAttemptsExceededError,
)
from tests.compat.acts import Stages, again, status_of
from tests.compat.rows import INTERNAL_QUEUE, Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import eventually

DEAD_LETTER = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"


def test_a_launch_takes_up_what_a_crash_left(app: App, hand: Hand) -> None:
    """Recorded steps are not run again, the interrupted one is."""
    stages = Stages(hand)
    app.launch()
    with SetWorkflowID("w"):
        hand.start(stages.workflow)
    stages.gate.wait_reached()
    app.restart()
    stages.gate.wait_reached(2)
    stages.gate.open()

    assert [1, 2, 3] == hand.do("get_result", "w")
    assert [1, 2, 2, 3] == stages.ran
    assert 2 == hand.do("get_workflow_status", "w").recovery_attempts


def test_an_orderly_end_hands_unfinished_work_over(app: App, hand: Hand) -> None:
    stages = Stages(hand)
    app.launch()
    with SetWorkflowID("w"):
        hand.start(stages.workflow)
    stages.gate.wait_reached()
    app.relaunch()
    stages.gate.wait_reached(2)
    stages.gate.open()

    assert [1, 2, 3] == hand.do("get_result", "w")


def test_recovery_on_request_returns_handles(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def echo(do: Inside, x: int) -> int:
        return x

    app.launch()
    for number in range(3):
        with SetWorkflowID(f"w-{number}"):
            hand.call(echo, number)
        rows.interrupt(f"w-{number}")
    handles = DBOS._recover_pending_workflows()

    assert {"w-0": 0, "w-1": 1, "w-2": 2} == {each.workflow_id: each.get_result() for each in handles}
    assert [] == DBOS._recover_pending_workflows()


def test_every_recovery_counts(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    assert 1 == hand.do("get_workflow_status", "w").recovery_attempts

    for attempts in (2, 3, 4):
        again(rows, "w").get_result()
        assert attempts == hand.do("get_workflow_status", "w").recovery_attempts


def test_what_is_recovered_too_often_is_given_up(app: App, hand: Hand, rows: Rows) -> None:
    """max_recovery_attempts=2 allows three executions; the fourth start ends it."""
    ran: list[int] = []

    @hand.workflow(max_recovery_attempts=2)
    async def work(do: Inside) -> int:
        ran.append(1)
        return 7

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    for _ in range(2):
        assert 7 == again(rows, "w").get_result()
    with pytest.raises(DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded) as caught:
        again(rows, "w").get_result()

    assert ("w", 14) == (caught.value.workflow_id, caught.value.dbos_error_code)
    assert DEAD_LETTER == status_of("w")
    assert 3 == len(ran)


def test_a_call_of_what_was_given_up_raises(app: App, hand: Hand, rows: Rows) -> None:
    """And counts no attempt."""

    @hand.workflow(max_recovery_attempts=0)
    async def work(do: Inside) -> int:
        return 7

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    with pytest.raises(DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded):
        again(rows, "w").get_result()
    attempts = rows.workflow("w").recovery_attempts

    with SetWorkflowID("w"), pytest.raises(MaxRecoveryAttemptsExceededError) as caught:
        hand.call(work)
    assert 6 == caught.value.dbos_error_code
    assert attempts == rows.workflow("w").recovery_attempts


def test_what_was_given_up_can_be_resumed(app: App, hand: Hand, rows: Rows) -> None:
    """Its attempts count from 0 again."""

    @hand.workflow(max_recovery_attempts=0)
    async def work(do: Inside) -> int:
        return 7

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    with pytest.raises(DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded):
        again(rows, "w").get_result()
    held = hand.do("resume_workflow", "w")

    assert 7 == held.result()
    assert ("SUCCESS", 1) == (held.status().status, held.status().recovery_attempts)


def test_what_has_finished_is_never_given_up(app: App, hand: Hand) -> None:
    @hand.workflow(max_recovery_attempts=1)
    async def work(do: Inside) -> int:
        return 7

    app.launch()
    for _ in range(5):
        with SetWorkflowID("w"):
            assert 7 == hand.call(work)
        DBOS._recover_pending_workflows()

    assert ("SUCCESS", 1) == (status_of("w"), hand.do("get_workflow_status", "w").recovery_attempts)


def test_without_a_limit_nothing_is_given_up(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow(max_recovery_attempts=None)
    async def work(do: Inside) -> int:
        return 7

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    rows.change("w", recovery_attempts=1000)

    assert 7 == again(rows, "w").get_result()


def test_what_is_given_up_leaves_its_queue(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow(max_recovery_attempts=2)
    async def work(do: Inside) -> int:
        return 7

    rows.add("w", "work", queue_name=INTERNAL_QUEUE, deduplication_id="once", recovery_attempts=9)
    app.launch()
    eventually(lambda: DEAD_LETTER == status_of("w"))

    row = rows.workflow("w")
    assert (None, None) == (row.queue_name, row.deduplication_id)


def test_a_queued_workflow_counts_from_its_first_dequeue(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    rows.add("waits", "work", queue_name="served-by-nobody")
    rows.add("runs", "work", queue_name=INTERNAL_QUEUE)
    app.launch()
    hand.do("get_result", "runs")

    assert (0, 1) == tuple(rows.workflow(each).recovery_attempts for each in ("waits", "runs"))


def test_work_of_another_executor_is_left_alone_until_asked_for(app: App, hand: Hand, rows: Rows) -> None:
    """Afterwards it has the executor id of who ran it."""

    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    rows.add("w", "work", status="PENDING", executor_id="other", application_version="v1")
    app.launch()
    assert [] == DBOS._recover_pending_workflows()
    assert "PENDING" == status_of("w")
    (handle,) = DBOS._recover_pending_workflows(["other"])

    assert 7 == handle.get_result()
    assert "local" == handle.get_status().executor_id


def test_work_of_another_version_is_left_alone(app: App, hand: Hand, rows: Rows) -> None:
    """Also by a launch; a launch of that version takes it up."""

    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    rows.add("w", "work", status="PENDING", executor_id="local", application_version="v2")
    app.launch(application_version="v1")
    assert [] == DBOS._recover_pending_workflows()
    assert "PENDING" == status_of("w")
    app.relaunch(application_version="v2")

    assert 7 == hand.do("get_result", "w")


def test_what_runs_here_is_not_recovered(app: App, hand: Hand) -> None:
    """Recovery on request does not run it a second time."""
    stages = Stages(hand)
    app.launch()
    held = hand.start(stages.workflow)
    stages.gate.wait_reached()
    for _ in range(3):
        DBOS._recover_pending_workflows()
    stages.gate.open()

    assert [1, 2, 3] == held.result()
    assert [1, 2, 3] == stages.ran
    assert 1 == held.status().recovery_attempts


def test_recovering_a_queued_workflow_puts_it_back_on_its_queue(app: App, hand: Hand, rows: Rows) -> None:
    """With its priority, deduplication id and partition; its start time is forgotten."""

    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    place = {"queue_name": "mine", "priority": 5, "deduplication_id": "once", "queue_partition_key": "red"}
    whose = {"executor_id": "dead", "application_version": "v1", "started_at_epoch_ms": 5}
    rows.add("w", "work", status="PENDING", **place, **whose)
    app.launch()
    DBOS._recover_pending_workflows(["dead"])

    row = rows.workflow("w")
    assert ("ENQUEUED", None) == (row.status, row.started_at_epoch_ms)
    assert place == {name: getattr(row, name) for name in place}


def test_inputs_that_cannot_be_read_end_the_workflow(app: App, hand: Hand, rows: Rows) -> None:
    """It is an ERROR and not tried again and again."""

    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    rows.add("w", "work", queue_name=INTERNAL_QUEUE, inputs="no json", serialization="portable_json")
    rows.add("v", "work", queue_name=INTERNAL_QUEUE, inputs="no pickle", serialization="py_pickle")
    app.launch()

    for workflow_id in ("w", "v"):
        eventually(lambda workflow_id=workflow_id: "ERROR" == status_of(workflow_id))
        assert 1 == rows.workflow(workflow_id).recovery_attempts
        with pytest.raises(Exception, match=r"."):
            hand.do("get_result", workflow_id)


def test_a_stored_workflow_can_be_run_at_once(app: App, hand: Hand, rows: Rows) -> None:
    """By its id, whatever its version; what has finished is not run again."""
    ran: list[int] = []

    @hand.workflow()
    async def work(do: Inside) -> int:
        ran.append(1)
        return 7

    rows.add("w", "work", status="PENDING", executor_id="other", application_version="old")
    app.launch()
    for _ in range(2):
        assert 7 == DBOS._execute_workflow_id("w").get_result()

    assert [1] == ran


def test_running_an_unknown_workflow_is_a_recovery_error(app: App) -> None:
    app.launch()

    with pytest.raises(DBOSRecoveryError, match="Workflow status not found") as caught:
        DBOS._execute_workflow_id("nobody")
    assert 2 == caught.value.dbos_error_code


def test_a_workflow_whose_function_is_not_registered_is_left_as_it_is(app: App, hand: Hand, rows: Rows) -> None:
    rows.add("w", "unheard_of", status="PENDING", executor_id="dead", application_version="v1")
    app.launch()
    before = rows.workflow("w")

    with pytest.raises(DBOSWorkflowFunctionNotFoundError) as caught:
        DBOS._execute_workflow_id("w")
    assert 4 == caught.value.dbos_error_code
    assert before == rows.workflow("w")


def test_a_workflow_waits_for_its_function_to_be_registered(app: App, hand: Hand, rows: Rows) -> None:
    """The definition may come after launch."""
    rows.add("w", "late", status="PENDING", executor_id="local", application_version="v1")
    app.launch()
    assert status_of("w") in ("PENDING", "ENQUEUED")

    @hand.workflow()
    async def late(do: Inside) -> int:
        return 7

    assert 7 == hand.do("get_result", "w")
