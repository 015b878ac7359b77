"""The bounds of steps: which errors are worth another attempt, how long one may take, and when it is interrupted."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSException,
    DBOSMaxStepRetriesExceeded,
    DBOSStepTimeoutError,
)
from dbos.testing import FakeClock
from tests.compat.acts import again, beside, status_of, step_names
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import LIMIT_SECONDS, eventually

# -- should_retry ----------------------------------------------------------------------------------------------

# How long steps may take here: nothing else of a runtime waits for just so long.
ALLOWED = 4.25


class Choosy:
    """A step whose errors are worth another attempt until the given try."""

    def __init__(self, hand: Hand, worth: int, *, asks_async: bool = False) -> None:
        self.tries = 0
        self.asked: list[str] = []

        def should_retry(error: Exception) -> bool:
            self.asked.append(str(error))
            return self.tries < worth

        async def should_retry_async(error: Exception) -> bool:
            await asyncio.sleep(0)
            return should_retry(error)

        chooses = should_retry_async if asks_async else should_retry

        @hand.step(retries_allowed=True, max_attempts=3, interval_seconds=0, should_retry=chooses)
        def fail() -> None:
            self.tries += 1
            raise ValueError(f"try {self.tries}")

        @hand.workflow()
        async def body(do: Inside) -> None:
            await do(fail())

        self.workflow = body


@pytest.mark.parametrize("worth", [1, 2, 3])
def test_what_is_not_worth_another_try_is_raised_as_it_is(app: App, hand: Hand, rows: Rows, worth: int) -> None:
    """Also at the last attempt; and so it is recorded."""
    choosy = Choosy(hand, worth, asks_async=hand.is_async)
    app.launch()

    with pytest.raises(ValueError, match=f"try {worth}"), SetWorkflowID("w"):
        hand.call(choosy.workflow)
    assert (worth, [f"try {number}" for number in range(1, worth + 1)]) == (choosy.tries, choosy.asked)
    with pytest.raises(ValueError, match=f"try {worth}"):
        again(rows, "w").get_result()
    assert worth == choosy.tries


def test_what_is_always_worth_it_uses_up_the_attempts(app: App, hand: Hand) -> None:
    choosy = Choosy(hand, 9)
    app.launch()

    with pytest.raises(DBOSMaxStepRetriesExceeded):
        hand.call(choosy.workflow)
    assert 3 == choosy.tries


def test_an_answer_that_fails_is_what_the_step_came_to(app: App, hand: Hand) -> None:
    def should_retry(error: Exception) -> bool:
        raise KeyError("what?")

    @hand.step(retries_allowed=True, should_retry=should_retry)
    def fail() -> None:
        raise ValueError("no")

    @hand.workflow()
    async def body(do: Inside) -> None:
        await do(fail())

    app.launch()
    with pytest.raises(KeyError):
        hand.call(body)


# -- what is refused -------------------------------------------------------------------------------------------


def plain() -> None:
    return None


async def patient() -> None:
    return None


async def ask(error: Exception) -> bool:
    return True


@pytest.mark.parametrize(
    ("fn", "options", "text"),
    [
        (plain, {"timeout_seconds": 1.0}, "only supported for async steps"),
        (plain, {"preemptible": True}, "only supported for async steps"),
        (plain, {"retries_allowed": True, "should_retry": ask}, "sync but should_retry is async"),
        (patient, {"timeout_seconds": 0}, "positive and finite"),
        (patient, {"timeout_seconds": -1.0}, "positive and finite"),
        (patient, {"timeout_seconds": math.inf}, "positive and finite"),
        (patient, {"timeout_seconds": math.nan}, "positive and finite"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(app: App, fn: Any, options: Any, text: str) -> None:
    """Where the step is declared, or where it is run."""
    with pytest.raises(DBOSException, match=text):
        DBOS.step(**options)(fn)

    @DBOS.workflow()
    async def body() -> None:
        await DBOS.run_step_async(options, fn)

    app.launch()
    with pytest.raises(DBOSException, match=text):
        asyncio.run(body())


# -- timeouts --------------------------------------------------------------------------------------------------


class Slow:
    """An async step that waits until it is released; `seen` says how its attempts ended."""

    def __init__(self, **options: Any) -> None:
        self.seen: list[str] = []
        self.is_released = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self.begun = 0

        @DBOS.step(name="slow", **options)
        async def slow() -> str:
            self.begun += 1
            try:
                await self._release()
            except asyncio.CancelledError:
                self.seen.append("interrupted")
                raise
            self.seen.append("finished")
            return "done"

        @DBOS.workflow(name="body")
        async def body() -> str:
            return await slow()

        self.step, self.workflow = slow, body

    async def _release(self) -> None:
        event = asyncio.Event()
        self._waiting.append((asyncio.get_running_loop(), event))
        if not self.is_released:
            await event.wait()

    def release(self) -> None:
        self.is_released = True
        for loop, event in self._waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)


def test_an_attempt_that_takes_too_long_is_interrupted(app: App, rows: Rows, clock: FakeClock) -> None:
    """Its error is recorded, and raised again by a replay."""
    slow = Slow(timeout_seconds=ALLOWED)
    app.launch()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(slow.workflow)
    clock.wait_for_sleeper(clock.now_ms() + int(ALLOWED * 1000))
    clock.advance(ALLOWED)

    with pytest.raises(DBOSStepTimeoutError, match="slow") as caught:
        handle.get_result()
    assert (18, "slow", ALLOWED) == (caught.value.dbos_error_code, caught.value.step_name, caught.value.timeout_seconds)
    assert ["interrupted"] == slow.seen
    with pytest.raises(DBOSStepTimeoutError, match="slow"):
        again(rows, "w").get_result()
    assert (["interrupted"], ["slow"]) == (slow.seen, step_names("w"))


def test_one_that_is_done_in_time_has_its_result(app: App) -> None:
    slow = Slow(timeout_seconds=60.0, preemptible=True)
    slow.release()
    app.launch()

    assert "done" == asyncio.run(slow.workflow())
    assert ["finished"] == slow.seen


def test_an_error_of_its_own_is_its_error(app: App) -> None:
    @DBOS.step(timeout_seconds=60.0, preemptible=True)
    async def fail() -> None:
        raise KeyError("mine")

    @DBOS.workflow()
    async def body() -> None:
        await fail()

    app.launch()
    with pytest.raises(KeyError, match="mine"):
        asyncio.run(body())


def test_every_attempt_has_its_own_time(app: App, clock: FakeClock) -> None:
    """The waits between them are not counted."""
    slow = Slow(timeout_seconds=ALLOWED, retries_allowed=True, max_attempts=3, interval_seconds=100.0, backoff_rate=1.0)
    app.launch()
    handle = DBOS.start_workflow(slow.workflow)
    for seconds in (ALLOWED, 100, ALLOWED, 100):
        clock.wait_for_sleeper(clock.now_ms() + int(seconds * 1000))
        clock.advance(seconds)
    eventually(lambda: slow.begun == 3)
    slow.release()

    assert "done" == handle.get_result()
    assert ["interrupted", "interrupted", "finished"] == slow.seen


def test_attempts_that_all_took_too_long_are_used_up(app: App, clock: FakeClock) -> None:
    slow = Slow(timeout_seconds=ALLOWED, retries_allowed=True, max_attempts=2, interval_seconds=0)
    app.launch()
    handle = DBOS.start_workflow(slow.workflow)
    for number in (1, 2):
        eventually(lambda: slow.begun == number)  # noqa: B023 - called before the next turn
        clock.wait_for_sleeper(clock.now_ms() + int(ALLOWED * 1000))
        clock.advance(ALLOWED)

    with pytest.raises(DBOSMaxStepRetriesExceeded) as caught:
        handle.get_result()
    assert [DBOSStepTimeoutError] * 2 == [type(each) for each in caught.value.errors]


def test_a_result_that_comes_all_the_same_counts(app: App, clock: FakeClock) -> None:
    """A step that finishes its work when it is interrupted has finished."""

    @DBOS.step(timeout_seconds=ALLOWED)
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "all the same"
        return "never"

    @DBOS.workflow()
    async def body() -> str:
        return await stubborn()

    app.launch()
    handle = DBOS.start_workflow(body)
    clock.wait_for_sleeper(clock.now_ms() + int(ALLOWED * 1000))
    clock.advance(ALLOWED)

    assert "all the same" == handle.get_result()


def test_a_function_that_is_run_as_a_step_has_bounds_too(app: App, clock: FakeClock) -> None:
    """In both colours of the workflow."""

    async def forever() -> None:
        await asyncio.Event().wait()

    options = {"name": "forever", "timeout_seconds": ALLOWED}

    @DBOS.workflow()
    async def by_async() -> None:
        await DBOS.run_step_async(options, forever)

    @DBOS.workflow()
    def by_sync() -> None:
        DBOS.run_step(options, forever)

    app.launch()
    for workflow in (by_async, by_sync):
        handle = DBOS.start_workflow(workflow)
        clock.wait_for_sleeper(clock.now_ms() + int(ALLOWED * 1000))
        clock.advance(ALLOWED)
        with pytest.raises(DBOSStepTimeoutError, match="forever"):
            handle.get_result()


def test_outside_of_a_workflow_a_step_has_no_bounds(app: App, clock: FakeClock) -> None:
    slow = Slow(timeout_seconds=ALLOWED, preemptible=True)
    app.launch()
    called = beside(lambda: asyncio.run(slow.step()))
    eventually(lambda: slow.begun)
    clock.advance(60)
    slow.release()

    assert "done" == called.result(LIMIT_SECONDS)


# -- preemption ------------------------------------------------------------------------------------------------


def test_a_cancelled_workflow_interrupts_a_preemptible_step(app: App, hand: Hand) -> None:
    """At once; nothing is recorded, and a resumed workflow runs it again."""
    slow = Slow(preemptible=True)
    app.launch()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(slow.workflow)
    eventually(lambda: slow.begun)
    hand.do("cancel_workflow", "w")
    eventually(lambda: slow.seen == ["interrupted"])

    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    assert ([], "CANCELLED") == (step_names("w"), status_of("w"))
    slow.release()
    assert "done" == hand.do("resume_workflow", "w").result()
    assert (2, ["interrupted", "finished"]) == (slow.begun, slow.seen)


def test_any_other_step_is_left_in_peace(app: App, hand: Hand) -> None:
    """Its result is not recorded either, when it comes."""
    slow = Slow(timeout_seconds=60.0)
    app.launch()
    with SetWorkflowID("w"):
        DBOS.start_workflow(slow.workflow)
    eventually(lambda: slow.begun)
    hand.do("cancel_workflow", "w")
    slow.release()
    eventually(lambda: slow.seen)

    assert (["finished"], []) == (slow.seen, step_names("w"))


def test_a_cancelled_workflow_outranks_a_timeout(app: App, hand: Hand, clock: FakeClock) -> None:
    slow = Slow(timeout_seconds=ALLOWED, preemptible=True, retries_allowed=True, max_attempts=9)
    app.launch()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(slow.workflow)
    clock.wait_for_sleeper(clock.now_ms() + int(ALLOWED * 1000))
    hand.do("cancel_workflow", "w")
    clock.advance(ALLOWED)

    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()
    assert (1, []) == (slow.begun, step_names("w"))
