"""Retries of steps: how often, after which waits, and what is left when all attempts failed."""

from __future__ import annotations

import logging

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSMaxStepRetriesExceeded
from dbos.testing import FakeClock
from tests.compat.acts import again, step_names
from tests.compat.conftest import Log
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside


class Failing:
    """A step that always fails, and a workflow of it alone."""

    def __init__(self, hand: Hand, **options) -> None:
        self.tries = 0

        @hand.step(retries_allowed=True, **options)
        def fail() -> None:
            self.tries += 1
            raise ValueError(f"try {self.tries}")

        @hand.workflow()
        async def body(do: Inside) -> None:
            await do(fail())

        self.workflow = body


def test_max_attempts_counts_all_tries(app: App, hand: Hand) -> None:
    """3 by default."""
    failing = Failing(hand, interval_seconds=0)
    app.launch()

    with pytest.raises(DBOSMaxStepRetriesExceeded):
        hand.call(failing.workflow)
    assert 3 == failing.tries


def test_the_last_error_tells_of_all_tries(app: App, hand: Hand) -> None:
    failing = Failing(hand, interval_seconds=0, max_attempts=4)
    app.launch()

    with pytest.raises(DBOSMaxStepRetriesExceeded) as caught:
        hand.call(failing.workflow)
    error = caught.value
    assert (7, "fail", 4) == (error.dbos_error_code, error.step_name, error.max_retries)
    assert ["try 1", "try 2", "try 3", "try 4"] == [str(each) for each in error.errors]
    assert "Step fail has exceeded its maximum of 4 retries" in str(error)


def test_the_last_error_is_what_is_recorded(app: App, hand: Hand, rows: Rows) -> None:
    """Of the step and of the workflow; a replay does not try again."""
    failing = Failing(hand, interval_seconds=0)
    app.launch()
    with SetWorkflowID("w"), pytest.raises(DBOSMaxStepRetriesExceeded):
        hand.call(failing.workflow)

    (step,) = DBOS.list_workflow_steps("w")
    assert ["try 1", "try 2", "try 3"] == [str(each) for each in step["error"].errors]
    with pytest.raises(DBOSMaxStepRetriesExceeded) as caught:
        again(rows, "w").get_result()
    assert ("fail", 3, 3) == (caught.value.step_name, caught.value.max_retries, len(caught.value.errors))
    assert 3 == failing.tries


def test_the_workflow_may_catch_the_last_error(app: App, hand: Hand) -> None:
    @hand.step(retries_allowed=True, interval_seconds=0, max_attempts=2)
    def fail() -> None:
        raise ValueError("no")

    @hand.workflow()
    async def body(do: Inside) -> str:
        try:
            await do(fail())
        except DBOSMaxStepRetriesExceeded as error:
            return error.step_name
        return ""

    app.launch()

    assert "fail" == hand.call(body)


def test_one_attempt_is_one_run(app: App, hand: Hand) -> None:
    """Its failure is wrapped all the same."""
    failing = Failing(hand, max_attempts=1)
    app.launch()

    with pytest.raises(DBOSMaxStepRetriesExceeded):
        hand.call(failing.workflow)
    assert 1 == failing.tries


def test_without_retries_the_error_itself_is_raised(app: App, hand: Hand) -> None:
    tries: list[int] = []

    @hand.step(max_attempts=5)
    def fail() -> None:
        tries.append(1)
        raise ValueError("no")

    @hand.workflow()
    async def body(do: Inside) -> None:
        await do(fail())

    app.launch()

    with pytest.raises(ValueError, match="no"):
        hand.call(body)
    assert [1] == tries


def test_the_wait_grows_with_every_try(app: App, hand: Hand, clock: FakeClock) -> None:
    """interval * backoff ** n, and none after the last failure."""
    failing = Failing(hand, interval_seconds=2, backoff_rate=3, max_attempts=4)
    app.launch()
    held = hand.start(failing.workflow)

    for tries, wait in ((1, 2), (2, 6), (3, 18)):
        clock.wait_for_sleeper(clock.now_ms() + wait * 1000)
        assert tries == failing.tries
        clock.advance(wait)
    with pytest.raises(DBOSMaxStepRetriesExceeded):
        held.result()
    assert 4 == failing.tries


def test_the_wait_is_one_second_and_doubles_by_default(app: App, hand: Hand, clock: FakeClock) -> None:
    failing = Failing(hand)
    app.launch()
    clock.wait_for_sleeper(clock.now_ms() + 1000)  # the keeper's, which looks every second
    clock.advance(0.3)  # so that the runtime itself waits for other moments
    held = hand.start(failing.workflow)

    for wait in (1, 2):
        clock.wait_for_sleeper(clock.now_ms() + wait * 1000)
        clock.advance(wait)
    with pytest.raises(DBOSMaxStepRetriesExceeded):
        held.result()


def test_no_wait_is_longer_than_an_hour(app: App, hand: Hand, clock: FakeClock) -> None:
    failing = Failing(hand, interval_seconds=3000, backoff_rate=1000)
    app.launch()
    held = hand.start(failing.workflow)

    for wait in (3000, 3600):
        clock.wait_for_sleeper(clock.now_ms() + wait * 1000)
        clock.advance(wait)
    with pytest.raises(DBOSMaxStepRetriesExceeded):
        held.result()


def test_every_failed_try_is_in_the_log(app: App, hand: Hand, log: Log) -> None:
    failing = Failing(hand, interval_seconds=0)
    app.launch(log_level="WARNING")
    with pytest.raises(DBOSMaxStepRetriesExceeded):
        hand.call(failing.workflow)

    assert [True] * 3 == [log.says(f"try {number}", logging.WARNING) for number in (1, 2, 3)]


def test_a_step_that_succeeds_at_last_is_one_record(app: App, hand: Hand) -> None:
    tries: list[int] = []

    @hand.step(retries_allowed=True, interval_seconds=0)
    def fail_twice() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("not yet")
        return 7

    @hand.workflow()
    async def body(do: Inside) -> int:
        return await do(fail_twice())

    app.launch()
    with SetWorkflowID("w"):
        assert 7 == hand.call(body)

    assert ["fail_twice"] == step_names("w")


def test_what_is_no_exception_is_not_retried(app: App, hand: Hand) -> None:
    """Nor recorded."""

    class Interrupt(BaseException):
        pass

    tries: list[int] = []

    @hand.step(retries_allowed=True, interval_seconds=0)
    def interrupt() -> None:
        tries.append(1)
        raise Interrupt

    @hand.workflow()
    async def body(do: Inside) -> None:
        await do(interrupt())

    app.launch()
    with SetWorkflowID("w"), pytest.raises(Interrupt):
        hand.call(body)

    assert [1] == tries
    assert [] == step_names("w")
    assert "PENDING" == DBOS.get_workflow_status("w").status
