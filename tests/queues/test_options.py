"""How work is put on a queue: deduplication, priority, partitions, delay."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import DBOS, Queue, SetEnqueueOptions, SetWorkflowID
from dbos import error as dboserror
from dbos.testing import FakeClock, use_clock
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.queues.acts import put, put_inside
from tests.waiting import Gate, eventually

# -- deduplication ---------------------------------------------------------------------------------------------


def test_a_deduplication_id_is_held_until_the_end(app: App, hand: Hand) -> None:
    queue, gate = Queue("work"), Gate()

    @hand.step()
    def waits(x: int) -> int:
        gate.pass_through()
        return x

    @hand.workflow()
    async def work(do: Inside, x: int) -> int:
        return int(await do(waits(x)))

    app.launch()
    with SetEnqueueOptions(deduplication_id="only"):
        first = put(hand, queue, work, 1)
        with pytest.raises(dboserror.DBOSQueueDeduplicatedError) as refused, SetWorkflowID("second"):
            put(hand, queue, work, 2)
    assert refused.value.workflow_id == "second"
    assert (refused.value.queue_name, refused.value.deduplication_id) == ("work", "only")
    assert DBOS.get_workflow_status("second") is None
    with SetEnqueueOptions(deduplication_id="other"):
        other = put(hand, queue, work, 3)
    free = put(hand, queue, work, 4)
    gate.open()
    assert [handle.result() for handle in (first, other, free)] == [1, 3, 4]
    assert first.status().deduplication_id is None
    with SetEnqueueOptions(deduplication_id="only"):
        assert put(hand, queue, work, 5).result() == 5


def test_the_holder_itself_may_be_enqueued_again(app: App) -> None:
    queue, gate = Queue("work"), Gate()

    @DBOS.workflow()
    def work(x: int) -> int:
        gate.pass_through()
        return x

    app.launch()
    handles = []
    for x in (1, 2):
        with SetWorkflowID("same"), SetEnqueueOptions(deduplication_id="only"):
            handles.append(queue.enqueue(work, x))
    gate.open()
    assert [handle.get_result() for handle in handles] == [1, 1]


@pytest.mark.parametrize("release", ["cancel", "resume"])
def test_cancelling_and_resuming_release_the_id(app: App, release: str) -> None:
    queue, gate = Queue("serial", concurrency=1), Gate()

    @DBOS.workflow()
    def work(x: int) -> int:
        gate.pass_through()
        return x

    app.launch()
    queue.enqueue(work, 0)
    gate.wait_reached()
    with SetEnqueueOptions(deduplication_id="only"):
        holder = queue.enqueue(work, 1)
    if release == "cancel":
        DBOS.cancel_workflow(holder.workflow_id)
    else:
        DBOS.resume_workflow(holder.workflow_id)
    with SetEnqueueOptions(deduplication_id="only"):
        second = queue.enqueue(work, 2)
    gate.open()
    assert second.get_result() == 2


def test_a_refused_child_is_the_recorded_error_of_its_parent(app: App, hand: Hand) -> None:
    queue, gate, attempts = Queue("work"), Gate(), []

    @hand.step()
    def waits() -> None:
        gate.pass_through()

    @hand.workflow()
    async def child(do: Inside) -> None:
        await do(waits())

    @hand.workflow()
    async def parent(do: Inside) -> str:
        attempts.append(1)
        with SetEnqueueOptions(deduplication_id="only"):
            try:
                await put_inside(do, queue, child)
            except dboserror.DBOSQueueDeduplicatedError as error:
                return error.workflow_id
        return "enqueued"

    app.launch()
    with SetEnqueueOptions(deduplication_id="only"):
        holder = put(hand, queue, child)
    with SetWorkflowID("parent"):
        assert hand.call(parent) == "parent-1"
    (step,) = DBOS.list_workflow_steps("parent")
    assert isinstance(step["error"], dboserror.DBOSQueueDeduplicatedError)
    gate.open()
    holder.result()
    fork = DBOS.fork_workflow("parent", 2)
    assert fork.get_result() == "parent-1"  # from the record, although the id is free now
    assert len(attempts) == 2


def test_the_existing_one_is_returned_where_that_is_wanted(app: App, hand: Hand) -> None:
    queue, gate = Queue("work"), Gate()

    @hand.step()
    def waits(x: int) -> int:
        gate.pass_through()
        return x

    @hand.workflow()
    async def work(do: Inside, x: int) -> int:
        return int(await do(waits(x)))

    @hand.workflow()
    async def parent(do: Inside) -> str:
        with SetEnqueueOptions(deduplication_id="only", duplication_policy="return-existing"):
            return str((await put_inside(do, queue, work, 3)).workflow_id)

    app.launch()
    with SetEnqueueOptions(deduplication_id="only", duplication_policy="return-existing"):
        first, second = put(hand, queue, work, 1), put(hand, queue, work, 2)
    assert second.workflow_id == first.workflow_id
    with SetWorkflowID("parent"):
        assert hand.call(parent) == first.workflow_id
    (step,) = DBOS.list_workflow_steps("parent")
    assert step["child_workflow_id"] == first.workflow_id
    gate.open()
    assert second.result() == 1
    with SetEnqueueOptions(deduplication_id="only", duplication_policy="return-existing"), SetWorkflowID("fresh"):
        fresh = put(hand, queue, work, 4)
    assert (fresh.workflow_id, fresh.result()) == ("fresh", 4)


def test_the_existing_one_of_another_function_is_none(app: App) -> None:
    queue, gate = Queue("work"), Gate()

    @DBOS.workflow()
    def work() -> None:
        gate.pass_through()

    @DBOS.workflow()
    def other() -> None:
        return None

    app.launch()
    with SetEnqueueOptions(deduplication_id="only", duplication_policy="return-existing"):
        holder = queue.enqueue(work)
        with pytest.raises(dboserror.DBOSQueueDeduplicatedError):
            queue.enqueue(other)
    gate.open()
    holder.get_result()


# -- priority --------------------------------------------------------------------------------------------------


def test_the_more_urgent_go_first(app: App, hand: Hand) -> None:
    queue, gate, order = Queue("urgent", concurrency=1, priority_enabled=True), Gate(), []

    @hand.step()
    def note(number: int) -> None:
        order.append(number)
        gate.pass_through()

    @hand.workflow()
    async def work(do: Inside, number: int) -> None:
        await do(note(number))

    app.launch()
    handles = [put(hand, queue, work, 0)]
    gate.wait_reached()
    for number in (3, 1, 2, 3, 1):
        with SetEnqueueOptions(priority=number):
            handles.append(put(hand, queue, work, number * 10))
    handles += [put(hand, queue, work, 7), put(hand, queue, work, 8)]
    gate.open()
    for handle in handles:
        handle.result()
    assert order == [0, 7, 8, 10, 10, 20, 30, 30]
    assert handles[1].status().priority == 3


@pytest.mark.parametrize("priority", [0, -1, 2**31, 1.5, True, "1"])
def test_a_priority_out_of_range_is_refused(priority: Any) -> None:
    with pytest.raises(Exception, match="Invalid priority"):
        SetEnqueueOptions(priority=priority)


# -- partitions, and what does not go together -----------------------------------------------------------------


def test_options_that_the_queue_does_not_know_are_refused(app: App, hand: Hand) -> None:
    plain, parts = Queue("plain"), Queue("parts", partition_queue=True)

    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    app.launch()
    for queue, options, message in (
        (plain, {"priority": 1}, "[Pp]riority"),
        (plain, {"queue_partition_key": "a"}, "partition"),
        (parts, {}, "is a partitioned queue"),
        (parts, {"queue_partition_key": "a", "deduplication_id": "b"}, "not supported for partitioned queues"),
    ):
        with SetEnqueueOptions(**options), pytest.raises(Exception, match=message):  # type: ignore[arg-type]  # of several types
            put(hand, queue, work)
    assert DBOS.list_workflows() == []


@pytest.mark.parametrize(
    "options",
    [
        {"deduplication_id": ""},
        {"deduplication_id": "a\0"},
        {"queue_partition_key": "\ud800"},
        {"app_version": " "},
        {"delay_seconds": -1},
        {"delay_seconds": float("nan")},
        {"duplication_policy": "never"},
        {"duplication_policy": "return-existing"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(dboserror.DBOSException):
        SetEnqueueOptions(**options)


def test_options_of_a_workflow_that_is_not_enqueued_are_refused(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    app.launch()
    for options in ({"deduplication_id": "a"}, {"priority": 1}, {"queue_partition_key": "a"}, {"delay_seconds": 1}):
        with (
            SetEnqueueOptions(**options),
            pytest.raises(dboserror.DBOSException, match="not being enqueued") as refused,
        ):  # type: ignore[arg-type]  # of several types
            hand.call(work)
        assert next(iter(options)) in str(refused.value)
        with SetEnqueueOptions(**options), pytest.raises(dboserror.DBOSException, match="not being enqueued"):  # type: ignore[arg-type]  # as above
            hand.start(work)
    assert DBOS.list_workflows() == []
    with SetEnqueueOptions(app_version="v1"):
        hand.call(work)


def test_options_do_not_leak(app: App) -> None:
    """Neither into what the work enqueues, nor out of the block, nor from an outer block into an inner one."""
    queue = Queue("work", priority_enabled=True)

    @DBOS.workflow()
    def leaf() -> None:
        return None

    @DBOS.workflow()
    def work() -> str:
        return queue.enqueue(leaf).workflow_id

    app.launch()
    with SetEnqueueOptions(priority=5):
        child = DBOS.get_workflow_status(queue.enqueue(work).get_result())
        with SetEnqueueOptions(deduplication_id="x"):
            inner = queue.enqueue(leaf).get_status()
    outside = queue.enqueue(leaf).get_status()
    assert child is not None
    assert [each.priority for each in (child, inner, outside)] == [0, 0, 0]


# -- delay -----------------------------------------------------------------------------------------------------


def test_a_delayed_one_starts_at_its_moment(app: App, hand: Hand) -> None:
    clock = FakeClock()
    use_clock(clock)
    queue, started = Queue("work"), []

    @hand.workflow()
    async def work(do: Inside) -> None:
        started.append(clock.now_ms())

    app.launch()
    with SetEnqueueOptions(delay_seconds=30):
        handle = put(hand, queue, work)
    status = handle.status()
    assert (status.status, status.delay_until_epoch_ms) == ("DELAYED", clock.now_ms() + 30_000)
    assert [each.workflow_id for each in DBOS.list_workflows(status="DELAYED")] == [handle.workflow_id]
    put(hand, queue, work).result()
    assert len(started) == 1
    clock.advance(29)
    put(hand, queue, work).result()
    assert len(started) == 2
    clock.advance(2)
    handle.result()
    assert started[2] >= status.delay_until_epoch_ms


@pytest.mark.parametrize(("delay", "advance"), [(100, 101), (5, 6)])
def test_a_delay_is_set_anew(app: App, delay: float, advance: float) -> None:
    clock = FakeClock()
    use_clock(clock)
    queue = Queue("work")

    @DBOS.workflow()
    def work() -> int:
        return clock.now_ms()

    app.launch()
    with SetEnqueueOptions(delay_seconds=30):
        handle = queue.enqueue(work)
    DBOS.set_workflow_delay(handle.workflow_id, delay_seconds=delay)
    until = handle.get_status().delay_until_epoch_ms
    assert until == clock.now_ms() + delay * 1000
    clock.advance(advance)
    assert handle.get_result() >= until


def test_delayed_ones_are_cancelled_and_resumed(app: App) -> None:
    queue = Queue("work")

    @DBOS.workflow()
    def work(x: int) -> int:
        return x

    app.launch()
    with SetEnqueueOptions(delay_seconds=3600):
        cancelled, resumed = queue.enqueue(work, 1), queue.enqueue(work, 2)
    DBOS.cancel_workflow(cancelled.workflow_id)
    DBOS.resume_workflow(resumed.workflow_id)
    assert resumed.get_result() == 2
    assert cancelled.get_status().status == "CANCELLED"


def test_a_delay_outlives_a_crash(app: App) -> None:
    clock = FakeClock()
    use_clock(clock)
    queue = Queue("work")

    @DBOS.workflow()
    def work() -> str:
        return "done"

    app.launch()
    with SetEnqueueOptions(delay_seconds=30):
        handle = queue.enqueue(work)
    app.crash()
    clock.advance(60)
    app.launch()
    assert eventually(lambda: DBOS.get_result(handle.workflow_id)) == "done"


def test_a_delayed_holder_blocks_its_deduplication_id(app: App) -> None:
    queue = Queue("work")

    @DBOS.workflow()
    def work() -> None:
        return None

    app.launch()
    with SetEnqueueOptions(deduplication_id="only", delay_seconds=3600):
        queue.enqueue(work)
        with pytest.raises(dboserror.DBOSQueueDeduplicatedError):
            queue.enqueue(work)
