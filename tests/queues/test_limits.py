"""Limits: they hold at every moment, in every stretch of time, over partitions and processes."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, EnqueueOptions, Queue, SetEnqueueOptions
from dbos.testing import FakeClock, use_clock
from tests.compat.conftest import Log
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.queues.acts import history, most_at_once, put
from tests.waiting import Gate, eventually


class Crowd:
    """Counts who is inside at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    @contextmanager
    def inside(self, where: str = "") -> Iterator[None]:
        with self._lock:
            self.now[where] += 1
            self.most[where] = max(self.most[where], self.now[where])
        try:
            yield
        finally:
            with self._lock:
                self.now[where] -= 1


@pytest.mark.parametrize("limit", [{"concurrency": 3}, {"worker_concurrency": 3}])
def test_so_many_at_once_and_no_more(app: App, hand: Hand, limit: dict[str, int]) -> None:
    queue, crowd, gate = Queue("narrow", **limit), Crowd(), Gate()

    @hand.step()
    def inside() -> None:
        with crowd.inside():
            gate.pass_through()

    @hand.workflow()
    async def work(do: Inside) -> None:
        await do(inside())

    app.launch()
    handles = [put(hand, queue, work) for _ in range(10)]
    gate.wait_reached(3)
    gate.open()
    for handle in handles:
        handle.result()
    assert crowd.most[""] == 3
    assert most_at_once(history(handle.workflow_id for handle in handles)) <= 3


def test_nothing_starts_where_none_may(app: App) -> None:
    paused, free = Queue("paused", worker_concurrency=0), Queue("free")

    @DBOS.workflow()
    def work(x: int) -> int:
        return x

    app.launch()
    waiting = paused.enqueue(work, 1)
    assert free.enqueue(work, 2).get_result() == 2
    assert waiting.get_status().status == "ENQUEUED"


def test_a_rate_holds_in_every_stretch_of_time(app: App) -> None:
    limit, period = 4, 0.3
    queue = Queue("rate", limiter={"limit": limit, "period": period})

    @DBOS.workflow()
    def work(x: int) -> int:
        return x

    app.launch()
    handles = [queue.enqueue(work, x) for x in range(3 * limit + 1)]
    assert [handle.get_result() for handle in handles] == list(range(3 * limit + 1))
    found = history(handle.workflow_id for handle in handles)
    starts = [each.dequeued_at or 0 for each in found]
    assert all(later - earlier >= period * 1000 for earlier, later in zip(starts, starts[limit:], strict=False))
    assert all(
        (earlier.created_at or 0) <= (later.created_at or 0)
        for earlier, later in itertools.pairwise(found)
        if earlier.dequeued_at != later.dequeued_at
    )


def test_a_rate_remembers_starts_that_their_rows_forgot(app: App) -> None:
    """A crash puts what was running back: its start still counts, and its second start counts again."""
    clock = FakeClock()
    use_clock(clock)
    queue, starts = Queue("rate", limiter={"limit": 2, "period": 100}), []

    @DBOS.workflow()
    def work(x: int) -> None:
        starts.append((clock.now_ms(), x))
        DBOS.sleep(10_000)

    app.launch()
    for x in range(4):
        queue.enqueue(work, x)
        clock.advance(0.001)
    eventually(lambda: len(starts) == 2)
    app.crash()
    app.launch()
    clock.advance(50)
    # Nothing may start yet: what is asked of another queue has been through the dispatcher meanwhile.
    other = Queue("other")

    @DBOS.workflow()
    def marker() -> str:
        return "done"

    assert other.enqueue(marker).get_result() == "done"
    assert len(starts) == 2
    clock.advance(60)
    eventually(lambda: len(starts) == 4)
    moments = [moment for moment, _ in starts]
    assert moments[2] - moments[0] >= 100_000
    assert sorted(x for _, x in starts[2:]) == [0, 1]


def test_a_rate_and_a_concurrency_hold_together(app: App) -> None:
    queue, crowd = Queue("both", concurrency=2, limiter={"limit": 3, "period": 0.2}), Crowd()

    @DBOS.workflow()
    def work(x: int) -> int:
        with crowd.inside():
            return x

    app.launch()
    handles = [queue.enqueue(work, x) for x in range(8)]
    for handle in handles:
        handle.get_result()
    starts = [each.dequeued_at or 0 for each in history(handle.workflow_id for handle in handles)]
    assert all(later - earlier >= 200 for earlier, later in zip(starts, starts[3:], strict=False))
    assert crowd.most[""] <= 2


def test_each_partition_is_a_queue_by_itself(app: App, hand: Hand) -> None:
    queue, crowd, gate = Queue("parts", partition_queue=True, concurrency=1), Crowd(), Gate()
    order: dict[str, list[int]] = {"a": [], "b": [], "c": []}

    @hand.step()
    def inside(key: str, number: int) -> None:
        with crowd.inside(key), crowd.inside("all"):
            order[key].append(number)
            gate.pass_through()

    @hand.workflow()
    async def work(do: Inside, key: str, number: int) -> None:
        await do(inside(key, number))

    app.launch()
    handles = []
    for number in range(4):
        for key in order:
            with SetEnqueueOptions(queue_partition_key=key):
                handles.append(put(hand, queue, work, key, number))
    gate.wait_reached(3)
    gate.open()
    for handle in handles:
        handle.result()
    assert order == {key: list(range(4)) for key in order}
    assert {key: crowd.most[key] for key in order} == {"a": 1, "b": 1, "c": 1}
    assert crowd.most["all"] == 3


def test_no_partition_waits_behind_a_longer_one(app: App) -> None:
    """One place for all, a long partition and short ones: each has its turn before the long one is done."""
    gate, order = Gate(), []

    @DBOS.workflow()
    def work(key: str) -> None:
        gate.pass_through()
        order.append(key)

    app.launch()
    queue = DBOS.register_queue("fair", global_concurrency=1, partition_concurrency=1)
    handles = []
    for key in ["long"] * 20 + ["b", "c", "d"]:
        with SetEnqueueOptions(queue_partition_key=key):
            handles.append(queue.enqueue(work, key))
    gate.wait_reached()
    gate.open()
    for handle in handles:
        handle.get_result()
    assert set(order[:5]) == {"long", "b", "c", "d"}


def test_a_rate_of_each_partition(app: App) -> None:
    queue = Queue("parts", partition_queue=True, limiter={"limit": 1, "period": 0.2})

    @DBOS.workflow()
    def work(key: str) -> str:
        return key

    app.launch()
    handles = []
    for key in "aabb":
        with SetEnqueueOptions(queue_partition_key=key):
            handles.append(queue.enqueue(work, key))
    for handle in handles:
        handle.get_result()
    for key in "ab":
        first, second = (
            each.dequeued_at or 0
            for each in history(handle.workflow_id for handle in handles)
            if each.queue_partition_key == key
        )
        assert second - first >= 200


def test_more_partitions_than_fit_into_one_look(app: App) -> None:
    queue = Queue("many", partition_queue=True, concurrency=1)

    @DBOS.workflow()
    def work(x: int) -> int:
        return x

    app.launch()
    handles = []
    for x in range(250):
        with SetEnqueueOptions(queue_partition_key=f"key {x}"):
            handles.append(queue.enqueue(work, x))
    assert [handle.get_result() for handle in handles] == list(range(250))


@pytest.mark.parametrize("key", [None, ""])
def test_what_another_program_put_there_without_a_key(app: App, key: str | None, rows: Rows) -> None:
    """It is a partition of its own, whose limit holds, and waits for ever behind nothing."""
    crowd = Crowd()

    @DBOS.workflow(name="work")
    def work(x: int) -> int:
        with crowd.inside():
            return x

    app.launch()
    DBOS.register_queue("parts", partition_concurrency=1)
    client = DBOSClient(system_database_url=app.database)
    handles: list[Any] = []
    options: EnqueueOptions = {"workflow_name": "work", "queue_name": "parts", "delay_seconds": 600}
    for x in range(5):
        handles.append(client.enqueue({**options, "workflow_id": f"w{x}"}, x))
    if key is not None:
        rows.run(f"UPDATE {{}}workflow_status SET queue_partition_key = '{key}'")
    for handle in handles:
        DBOS.set_workflow_delay(handle.workflow_id, delay_seconds=0)

    assert list(range(5)) == [handle.get_result() for handle in handles]
    assert 1 == crowd.most[""]
    client.destroy()


def test_several_queues_do_not_wait_for_each_other(app: App) -> None:
    blocked, free, gate = Queue("blocked", concurrency=1), Queue("free", concurrency=1), Gate()

    @DBOS.workflow()
    def blocks() -> None:
        gate.pass_through()

    @DBOS.workflow()
    def work(x: int) -> int:
        return x

    app.launch()
    waiting = [blocked.enqueue(blocks) for _ in range(3)]
    gate.wait_reached()
    assert [free.enqueue(work, x).get_result() for x in range(5)] == list(range(5))
    gate.open()
    for handle in waiting:
        handle.get_result()


def test_a_parent_that_takes_its_childs_place_is_warned_of(app: App, log: Log) -> None:
    queue = Queue("family", concurrency=1)

    @DBOS.workflow(name="child")
    def child() -> int:
        return 1

    @DBOS.workflow()
    def parent() -> int:
        return queue.enqueue(child).get_result()

    app.launch(log_level="WARNING")
    handle = queue.enqueue(parent)
    eventually(lambda: log.says("they wait for ever"))
    DBOS.cancel_workflow(handle.workflow_id)
    eventually(lambda: [each.status for each in DBOS.list_workflows(name="child")] == ["SUCCESS"])
