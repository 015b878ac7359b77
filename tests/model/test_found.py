"""What the machine found, each as small as it gets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dbos import DBOS, Queue, SetWorkflowID, SetWorkflowTimeout
from dbos._engine.dispatch import Dispatcher
from dbos._kernel.model import TERMINAL
from dbos.error import DBOSNonExistentWorkflowError
from dbos.testing import FakeClock, use_clock
from tests.compat.acts import beside, status_of
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import LIMIT_SECONDS, Gate, eventually


def test_what_is_refused_leaves_later_writes_alone(app: App) -> None:
    """It rolls back; on Postgres the driver then drops the statements that were prepared on the connection."""

    @DBOS.workflow()
    def work() -> int:
        return 7

    app.launch()
    assert 7 == DBOS.start_workflow(work).get_result()
    with pytest.raises(DBOSNonExistentWorkflowError):
        DBOS.resume_workflow("nobody")
    DBOS.cancel_workflow("nobody")

    assert 7 == DBOS.start_workflow(work).get_result()


class Parent:
    """A workflow that starts a child after a step which waits at a gate."""

    def __init__(self, hand: Hand) -> None:
        self.gate = Gate()

        @hand.workflow()
        async def child(do: Inside) -> int:
            return 7

        @hand.step()
        def wait() -> None:
            self.gate.pass_through()

        @hand.workflow()
        async def parent(do: Inside) -> int:
            await do(wait())
            return await do((await do.start(child)).get_result())

        self.workflow = parent


def test_a_recovered_workflow_starts_children_before_the_launch_is_over(
    app: App, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dispatcher is the last to be started, and may be faster than who launches."""
    parent, rows, start = Parent(hand), Rows(app.database), Dispatcher.start

    def start_and_see_it_end(dispatcher: Dispatcher) -> None:
        start(dispatcher)
        eventually(lambda: rows.workflow("w").status in TERMINAL)

    app.launch()
    with SetWorkflowID("w"):
        hand.start(parent.workflow)
    parent.gate.wait_reached()
    app.crash()
    parent.gate.open()
    monkeypatch.setattr(Dispatcher, "start", start_and_see_it_end)
    app.launch()

    assert 7 == hand.do("get_result", "w")


def test_a_workflow_starts_children_while_the_runtime_ends(app: App, hand: Hand) -> None:
    """An end that lets workflows finish lets them do all that workflows do."""
    parent = Parent(hand)
    app.launch()
    with SetWorkflowID("w"):
        hand.start(parent.workflow)
    parent.gate.wait_reached()
    ended = beside(DBOS.destroy, workflow_completion_timeout_sec=10)
    eventually(lambda: DBOS.executor_id == "")
    parent.gate.open()
    ended.result(LIMIT_SECONDS)
    app.launch()

    assert "SUCCESS" == status_of("w")


@pytest.mark.parametrize(
    "take_away",
    [
        lambda clock: DBOS.resume_workflow("first", queue_name="elsewhere"),
        lambda clock: DBOS.delete_workflow("first"),
        lambda clock: DBOS.cancel_workflow("first"),
        lambda clock: clock.advance(1),
    ],
    ids=["resumed", "deleted", "cancelled", "expired"],
)
def test_a_place_on_a_queue_is_free_once_its_workflow_is_taken_away(
    app: App, take_away: Callable[[FakeClock], object]
) -> None:
    """Its step still runs; where it is not time that takes it away, none passes in which the queue is looked at."""
    gate, clock, queue = Gate(), FakeClock(), Queue("serial", concurrency=1)

    @DBOS.step()
    def wait() -> None:
        gate.pass_through()

    @DBOS.workflow()
    def work() -> None:
        wait()

    use_clock(clock)
    app.launch()
    with SetWorkflowTimeout(1):
        for each in ("first", "second"):
            with SetWorkflowID(each):
                queue.enqueue(work)
    gate.wait_reached()
    take_away(clock)
    gate.wait_reached(2)
    gate.open()

    assert DBOS.retrieve_workflow("second").get_result() is None


def test_who_waits_for_an_event_of_a_fork_is_told_of_those_that_it_keeps(app: App) -> None:
    """They are set by the fork itself, and no time passes in which they would be looked for anyway."""

    @DBOS.workflow()
    def work() -> None:
        DBOS.set_event("stage", "done")

    clock = FakeClock()
    use_clock(clock)
    app.launch()
    with SetWorkflowID("first"):
        work()
    waiter = beside(DBOS.get_event, "fork", "stage", 1000)
    clock.wait_for_sleeper(clock.now_ms() + 1_000_000)
    with SetWorkflowID("fork"):
        DBOS.fork_workflow("first", 2)

    assert "done" == waiter.result(LIMIT_SECONDS)
