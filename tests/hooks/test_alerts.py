"""Alerts: each condition is told by one of all processes, who sees it, and by another one if that dies before."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS, Queue, SetWorkflowID
from dbos.error import DBOSException, DBOSInitializationError
from dbos.testing import FakeClock
from tests.compat.conftest import Log, clock, log, rows
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate, eventually

__all__ = ["clock", "log", "rows"]

ROOT = Path(__file__).parents[2]
UNTOLD = "SELECT * FROM {}notebook_untold"
Told = list[tuple[str, str, dict[str, str]]]


@pytest.fixture
def told() -> Told:
    found: Told = []

    @DBOS.alert_handler
    def handler(rule: str, message: str, facts: dict[str, str]) -> None:
        found.append((rule, message, facts))

    return found


@pytest.fixture
def fails(hand: Hand) -> Callable[..., Any]:
    @hand.workflow(name="fails")
    async def fails(do: Inside) -> None:
        raise ValueError("a secret")

    return fails


def fail(hand: Hand, fails: Callable[..., Any], workflow_id: str) -> None:
    with SetWorkflowID(workflow_id), pytest.raises(ValueError):
        hand.call(fails)


def test_a_failure_is_told_once_a_minute(
    clock: FakeClock, app: App, hand: Hand, told: Told, fails: Callable[..., Any]
) -> None:
    """With names and ids, and without what the error says; also over a restart."""
    app.launch()
    fail(hand, fails, "w1")
    fail(hand, fails, "w2")
    eventually(lambda: told)
    app.relaunch()
    fail(hand, fails, "w3")
    clock.advance(61)
    fail(hand, fails, "w4")
    eventually(lambda: len(told) >= 2)

    assert [("WorkflowFailure", "w1"), ("WorkflowFailure", "w4")] == [
        (each[0], each[2]["workflow_id"]) for each in told
    ]
    assert {"workflow_name": "fails", "workflow_id": "w1", "error": "ValueError"} == told[0][2]
    assert "secret" not in str(told)


def test_so_many_failures_are_enough(app: App, hand: Hand, told: Told, fails: Callable[..., Any]) -> None:
    app.launch(alert_failures=3)
    for number in (1, 2, 3, 4):
        fail(hand, fails, f"w{number}")
    eventually(lambda: told)

    assert ["w3"] == [facts["workflow_id"] for _, _, facts in told]


def test_a_slow_queue_is_told_until_it_moves_on(clock: FakeClock, app: App, rows: Rows, told: Told) -> None:
    gate, queue = Gate(), Queue("line", concurrency=1)

    @DBOS.workflow(name="slow")
    def slow() -> None:
        gate.pass_through()

    app.launch(alert_queue_sec=60)
    handles = [queue.enqueue(slow) for _ in range(2)]
    gate.wait_reached()
    for _ in range(3):
        clock.advance(61)
        eventually(lambda: told)
    assert [("SlowQueue", "line")] == [(rule, facts["queue_name"]) for rule, _, facts in told]
    assert handles[1].workflow_id == told[0][2]["workflow_id"]
    gate.open()
    for each in handles:
        each.get_result()
    clock.advance(61)

    eventually(lambda: [] == rows.run("SELECT 1 FROM {}notebook_alerts"))


def test_a_process_that_is_gone_is_told(app: App, told: Told) -> None:
    """By who takes its work over; not one that ended in order."""
    app.launch(executor_id="victim")
    app.crash()
    app.launch(executor_id="survivor")
    eventually(lambda: told)
    app.relaunch(executor_id="third")

    assert [("UnresponsiveApplication", "victim")] == [(rule, facts["executor_id"]) for rule, _, facts in told]


def test_without_a_handler_the_log_is_told_if_asked(
    app: App, hand: Hand, log: Log, fails: Callable[..., Any], rows: Rows
) -> None:
    app.launch()
    fail(hand, fails, "w1")
    assert "dbos-alarm" not in {each.name for each in threading.enumerate()}
    app.relaunch(alert_failures=1, log_level="WARNING")
    fail(hand, fails, "w2")

    eventually(lambda: log.says("WorkflowFailure: Workflow fails failed: ValueError"))
    assert 1 == len(rows.run("SELECT 1 FROM {}notebook_alerts"))


def test_a_handler_that_fails_is_logged_and_asked_again(app: App, hand: Hand, log: Log) -> None:
    """It runs in a thread of its own, and may use DBOS."""
    asked: list[str] = []

    @DBOS.alert_handler
    def handler(rule: str, message: str, facts: dict[str, str]) -> None:
        asked.append(threading.current_thread().name)
        assert DBOS.get_workflow_status(facts["workflow_id"]).status == "ERROR"
        raise RuntimeError("of mine")

    app.launch()
    for name in ("one", "two"):

        @hand.workflow(name=name)
        async def failing(do: Inside) -> None:
            raise ValueError

        fail(hand, failing, name)
    eventually(lambda: len(asked) >= 2)

    assert {"dbos-alarm"} == set(asked)
    eventually(lambda: log.says("The alert handler failed on WorkflowFailure and is asked again"))


def test_a_handler_that_always_fails_is_given_up(
    clock: FakeClock, app: App, hand: Hand, log: Log, fails: Callable[..., Any], rows: Rows
) -> None:
    """It is asked three times, each time later than the one before."""
    asked: list[int] = []

    @DBOS.alert_handler
    def handler(rule: str, message: str, facts: dict[str, str]) -> None:
        asked.append(clock.now_ms())
        raise RuntimeError("of mine")

    app.launch()
    began = clock.now_ms()
    fail(hand, fails, "w1")
    for due_ms in (1000, 3000):
        eventually(lambda due_ms=due_ms: [due_ms] == [row.due_at - began for row in rows.run(UNTOLD)])
        clock.advance((began + due_ms - clock.now_ms()) / 1000)
    eventually(lambda: log.says("and is not asked again"))

    assert [0, 1000, 3000] == [each - began for each in asked]
    eventually(lambda: [] == rows.run(UNTOLD))


def test_what_a_killed_process_did_not_tell_is_told_by_the_next(app: App, told: Told, rows: Rows) -> None:
    """The process died in its handler, by SIGKILL."""
    victim = subprocess.run([sys.executable, "-m", "tests.hooks.alerting", app.database], cwd=ROOT, timeout=60)
    assert -signal.SIGKILL == victim.returncode
    assert 1 == len(rows.run(UNTOLD))

    app.launch(alert_unresponsive=False)
    eventually(lambda: told)

    assert [("WorkflowFailure", {"workflow_name": "fails", "workflow_id": "w", "error": "ValueError"})] == [
        (rule, facts) for rule, _, facts in told
    ]
    eventually(lambda: [] == rows.run(UNTOLD))


def test_what_nobody_survives_to_tell_is_given_up(
    app: App, hand: Hand, log: Log, fails: Callable[..., Any], rows: Rows
) -> None:
    """So an alert whose handler kills its process does not do so for ever."""
    asked: list[str] = []
    up, dead = threading.Event(), threading.Semaphore(0)

    @DBOS.alert_handler
    def handler(rule: str, message: str, facts: dict[str, str]) -> None:
        asked.append(rule)
        assert up.wait(30)
        app.crash()
        dead.release()

    app.launch(alert_unresponsive=False)
    up.set()
    fail(hand, fails, "w")
    for _ in range(3):
        assert dead.acquire(timeout=30)
        up.clear()
        app.launch(alert_unresponsive=False)
        up.set()
    eventually(lambda: log.says("No process survived to tell of WorkflowFailure"))

    assert 3 == len(asked)
    eventually(lambda: [] == rows.run(UNTOLD))


def test_handlers_that_are_refused(app: App, told: Told) -> None:
    with pytest.raises(DBOSException, match="already defined"):
        DBOS.alert_handler(print)
    app.launch()
    with pytest.raises(DBOSException, match="must be defined before DBOS is launched"):
        DBOS.alert_handler(print)


@pytest.mark.parametrize("wrong", [{"alert_failures": -1}, {"alert_queue_sec": "long"}])
def test_rules_that_make_no_sense(app: App, wrong: dict[str, Any]) -> None:
    with pytest.raises(DBOSInitializationError, match="must be a number of at least 0"):
        app.launch(**wrong)


def test_a_database_of_before_gets_the_table(app: App, rows: Rows) -> None:
    """Nothing else is touched."""
    app.launch()
    DBOS.destroy()
    rows.run("DROP TABLE {}notebook_alerts")
    rows.run("DROP TABLE {}notebook_untold")
    rows.run("UPDATE {}notebook_migrations SET version = 1")
    app.launch()

    assert [] == rows.run("SELECT rule, subject, raised_at FROM {}notebook_alerts")
    assert [] == rows.run(UNTOLD)
    assert [] == DBOS.list_workflows()
