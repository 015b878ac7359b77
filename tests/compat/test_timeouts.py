"""Timeouts: the deadline they set, who inherits it, and what it does."""

from __future__ import annotations

import pytest

from dbos import DBOS, SetWorkflowID, SetWorkflowTimeout
from dbos.error import DBOSAwaitedWorkflowCancelledError
from dbos.testing import FakeClock
from tests.compat.acts import Stages, again, beside, status_of, step_names
from tests.compat.rows import INTERNAL_QUEUE, Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import eventually


def times(workflow_id: str) -> tuple[int | None, int | None]:
    status = DBOS.get_workflow_status(workflow_id)
    return status.workflow_timeout_ms, status.workflow_deadline_epoch_ms


def test_a_timeout_is_stored_with_its_deadline(app: App, hand: Hand, clock: FakeClock) -> None:
    """When it is called and when it is started."""

    @hand.workflow()
    async def work(do: Inside) -> str:
        return DBOS.workflow_id

    app.launch()
    with SetWorkflowTimeout(10):
        called, started = hand.call(work), hand.start(work).result()

    assert [(10_000, clock.now_ms() + 10_000)] * 2 == [times(called), times(started)]


@pytest.mark.parametrize("timeout", [None, 0])
def test_no_timeout_is_no_deadline(app: App, hand: Hand, timeout: float | None) -> None:
    @hand.workflow()
    async def work(do: Inside) -> str:
        return DBOS.workflow_id

    app.launch()
    with SetWorkflowTimeout(timeout):
        assert (None, None) == times(hand.call(work))
    assert (None, None) == times(hand.call(work))


def test_a_negative_timeout_is_refused() -> None:
    with pytest.raises(Exception, match="Invalid workflow timeout"):
        SetWorkflowTimeout(-1)


def test_the_inner_timeout_counts_and_the_outer_comes_back(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def work(do: Inside) -> str:
        return DBOS.workflow_id

    app.launch()
    found = []
    with SetWorkflowTimeout(10):
        with SetWorkflowTimeout(20):
            found.append(hand.call(work))
        with SetWorkflowTimeout(None):
            found.append(hand.call(work))
        found.append(hand.call(work))
    found.append(hand.call(work))

    assert [20_000, None, 10_000, None] == [times(each)[0] for each in found]


@pytest.mark.parametrize("way", ["start", "call"])
def test_a_workflow_is_cancelled_at_its_deadline(app: App, hand: Hand, clock: FakeClock, way: str) -> None:
    """The step under way finishes, the next one never begins."""
    stages = Stages(hand)

    def run() -> None:
        with SetWorkflowTimeout(10), SetWorkflowID("w"):
            hand.call(stages.workflow) if way == "call" else hand.start(stages.workflow).result()

    app.launch()
    running = beside(run)
    stages.gate.wait_reached()
    clock.advance(9.9)
    assert "PENDING" == status_of("w")
    clock.advance(0.1)
    eventually(lambda: "CANCELLED" == status_of("w"))
    stages.gate.open()

    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        running.result(20)
    assert [1, 2] == stages.ran


def test_a_sleeping_workflow_is_cancelled_at_its_deadline(app: App, hand: Hand, clock: FakeClock) -> None:
    """It does not sleep on."""

    @hand.workflow()
    async def nap(do: Inside) -> None:
        await do.sleep(1000)

    app.launch()
    with SetWorkflowTimeout(10):
        held = hand.start(nap)
    clock.wait_for_sleeper(clock.now_ms() + 1_000_000)
    clock.advance(10)

    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        held.result()


def test_a_workflow_in_time_is_not_cancelled(app: App, hand: Hand, clock: FakeClock) -> None:
    """Also when its deadline passes afterwards."""
    stages = Stages(hand)
    app.launch()
    with SetWorkflowTimeout(10):
        held = hand.start(stages.workflow)
    stages.gate.wait_reached()
    clock.advance(9)
    stages.gate.open()
    assert [1, 2, 3] == held.result()
    clock.advance(100)

    assert "SUCCESS" == held.status().status


def test_children_inherit_the_deadline(app: App, hand: Hand, clock: FakeClock) -> None:
    """Not the timeout: a child that starts later has less time."""

    @hand.workflow()
    async def child(do: Inside) -> None:
        return None

    @hand.workflow()
    async def parent(do: Inside) -> None:
        clock.advance(3)
        await do(child())
        await do((await do.start(child)).get_result())

    app.launch()
    ends_ms = clock.now_ms() + 10_000
    with SetWorkflowTimeout(10), SetWorkflowID("p"):
        hand.call(parent)

    assert [(10_000, ends_ms), (None, ends_ms), (None, ends_ms)] == [times(each) for each in ("p", "p-1", "p-3")]


def test_a_parent_and_its_child_end_at_the_deadline(app: App, hand: Hand, clock: FakeClock) -> None:
    stages = Stages(hand)

    @hand.workflow()
    async def parent(do: Inside) -> None:
        await do((await do.start(stages.workflow)).get_result())

    app.launch()
    with SetWorkflowTimeout(10), SetWorkflowID("p"):
        held = hand.start(parent)
    stages.gate.wait_reached()
    clock.advance(10)
    eventually(lambda: ("CANCELLED", "CANCELLED") == (status_of("p"), status_of("p-1")))
    stages.gate.open()

    with pytest.raises(DBOSAwaitedWorkflowCancelledError) as caught:
        held.result()
    assert "p" == caught.value.workflow_id


def test_a_child_may_be_detached_or_have_a_timeout_of_its_own(app: App, hand: Hand, clock: FakeClock) -> None:
    """Called and started."""

    @hand.workflow()
    async def child(do: Inside) -> None:
        return None

    @hand.workflow()
    async def parent(do: Inside) -> None:
        for timeout in (None, 50):
            with SetWorkflowTimeout(timeout):
                await do(child())
                await do((await do.start(child)).get_result())

    app.launch()
    with SetWorkflowTimeout(10), SetWorkflowID("p"):
        hand.call(parent)

    own = (50_000, clock.now_ms() + 50_000)
    assert [(None, None), (None, None), own, own] == [times(f"p-{number}") for number in (1, 3, 5, 7)]


def test_a_detached_child_outlives_its_parent(app: App, hand: Hand, clock: FakeClock) -> None:
    stages = Stages(hand)

    @hand.workflow()
    async def parent(do: Inside) -> None:
        with SetWorkflowTimeout(None):
            handle = await do.start(stages.workflow)
        await do(handle.get_result())

    app.launch()
    with SetWorkflowTimeout(10), SetWorkflowID("p"):
        hand.start(parent)
    stages.gate.wait_reached()
    clock.advance(10)
    eventually(lambda: "CANCELLED" == status_of("p"))
    stages.gate.open()

    assert [1, 2, 3] == hand.do("get_result", "p-1")


def test_a_timeout_does_not_reach_into_the_body(app: App, hand: Hand) -> None:
    """A block around the call sets no timeout for what a detached child starts."""

    @hand.workflow()
    async def leaf(do: Inside) -> None:
        return None

    @hand.workflow()
    async def child(do: Inside) -> None:
        await do(leaf())

    @hand.workflow()
    async def parent(do: Inside) -> None:
        with SetWorkflowTimeout(None):
            await do(child())

    app.launch()
    with SetWorkflowTimeout(10), SetWorkflowID("p"):
        hand.call(parent)

    assert [(None, None)] * 2 == [times(each) for each in ("p-1", "p-1-1")]


def test_the_deadline_stays_over_a_crash(app: App, hand: Hand, clock: FakeClock) -> None:
    stages = Stages(hand)
    app.launch()
    ends_ms = clock.now_ms() + 10_000
    with SetWorkflowTimeout(10), SetWorkflowID("w"):
        hand.start(stages.workflow)
    stages.gate.wait_reached()
    app.crash()
    clock.advance(4)
    app.launch()
    stages.gate.wait_reached(2)
    assert (10_000, ends_ms) == times("w")
    clock.advance(6)
    eventually(lambda: "CANCELLED" == status_of("w"))
    stages.gate.open()

    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        hand.do("get_result", "w")


def test_a_deadline_that_passed_during_a_crash_cancels_at_once(app: App, hand: Hand, clock: FakeClock) -> None:
    stages = Stages(hand)
    app.launch()
    with SetWorkflowTimeout(10), SetWorkflowID("w"):
        hand.start(stages.workflow)
    stages.gate.wait_reached()
    app.crash()
    clock.advance(60)
    app.launch()
    eventually(lambda: "CANCELLED" == status_of("w"))
    stages.gate.open()

    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        hand.do("get_result", "w")
    assert [1, 2] == stages.ran


def test_time_on_a_queue_does_not_count(app: App, hand: Hand, clock: FakeClock, rows: Rows) -> None:
    """The deadline of an enqueued workflow is set when it is taken from its queue."""

    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    rows.add("w", "work", queue_name=INTERNAL_QUEUE, workflow_timeout_ms=10_000)
    app.launch()
    hand.do("get_result", "w")

    assert (10_000, clock.now_ms() + 10_000) == times("w")


def test_a_deadline_set_at_the_enqueue_is_kept(app: App, hand: Hand, clock: FakeClock, rows: Rows) -> None:
    """As it is for an enqueued child, whose deadline is its parent's."""

    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    ends_ms = clock.now_ms() + 5_000
    rows.add("w", "work", queue_name=INTERNAL_QUEUE, workflow_deadline_epoch_ms=ends_ms)
    app.launch()
    hand.do("get_result", "w")

    assert (None, ends_ms) == times("w")


def test_a_resumed_workflow_has_its_whole_time_again(app: App, hand: Hand, clock: FakeClock) -> None:
    stages = Stages(hand)
    app.launch()
    with SetWorkflowTimeout(10), SetWorkflowID("w"):
        hand.start(stages.workflow)
    stages.gate.wait_reached()
    clock.advance(10)
    eventually(lambda: "CANCELLED" == status_of("w"))
    hand.do("resume_workflow", "w", queue_name="served-by-nobody")
    assert (10_000, None) == times("w")
    clock.advance(100)
    stages.gate.open()
    hand.do("resume_workflow", "w").result()

    assert (10_000, clock.now_ms() + 10_000) == times("w")


def test_a_fork_has_no_timeout(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    app.launch()
    with SetWorkflowTimeout(10), SetWorkflowID("w"):
        hand.call(work)
    fork = hand.do("fork_workflow", "w", 1)
    fork.result()

    assert (None, None) == times(fork.workflow_id)


def test_a_fork_may_be_given_a_timeout(app: App, hand: Hand, clock: FakeClock) -> None:
    """It counts from when the fork is taken from its queue."""

    @hand.workflow()
    async def waits(do: Inside) -> object:
        return await do.recv("never", 1000)

    app.launch()
    with SetWorkflowID("w"):
        hand.start(waits)
    hand.do("cancel_workflow", "w")
    enqueued = hand.do("fork_workflow", "w", 1, queue_name="served-by-nobody", timeout_seconds=10)
    assert (10_000, None) == times(enqueued.workflow_id)

    with SetWorkflowID("f"):
        fork = hand.do("fork_workflow", "w", 1, timeout_seconds=2.5)
    eventually(lambda: "PENDING" == status_of("f"))
    assert (2_500, clock.now_ms() + 2_500) == times("f")
    clock.advance(2.5)

    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        fork.result()


@pytest.mark.parametrize("timeout", [-1, float("inf"), float("nan")])
def test_a_fork_has_no_senseless_timeout(app: App, hand: Hand, timeout: float) -> None:
    app.launch()
    with pytest.raises(ValueError, match="Invalid workflow timeout"):
        hand.do("fork_workflow", "w", 1, timeout_seconds=timeout)


def test_a_replayed_parent_waits_for_the_child_it_started(app: App, hand: Hand, clock: FakeClock, rows: Rows) -> None:
    """The child's deadline is not set anew by the replay of its start."""

    @hand.workflow()
    async def child(do: Inside) -> None:
        return None

    @hand.workflow()
    async def parent(do: Inside) -> None:
        with SetWorkflowTimeout(50):
            await do((await do.start(child)).get_result())

    app.launch()
    with SetWorkflowID("p"):
        hand.call(parent)
    before = times("p-1")
    clock.advance(5)
    again(rows, "p").get_result()

    assert before == times("p-1")
    assert ["child", "DBOS.getResult"] == step_names("p")
