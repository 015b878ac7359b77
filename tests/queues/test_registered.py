"""Queues that are registered in the database: made, changed and taken away while processes run."""

from __future__ import annotations

import pytest

from dbos import DBOS, Queue, SetEnqueueOptions
from dbos import error as dboserror
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.queues.acts import put
from tests.waiting import Gate, eventually


def test_a_registered_queue_is_served(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def work(do: Inside, x: int) -> int:
        return x

    app.launch()
    queue = hand.do("register_queue", "stored", global_concurrency=2, limiter={"limit": 50, "period": 1.5})
    assert isinstance(queue, Queue)
    assert put(hand, queue, work, 3).result() == 3
    assert hand.do("enqueue_workflow", "stored", work, 4).result() == 4
    with SetEnqueueOptions(priority=3):
        assert put(hand, queue, work, 5).result() == 5
    found = hand.do("retrieve_queue", "stored")
    assert (found.name, found.global_concurrency, found.concurrency, found.worker_concurrency) == ("stored", 2, 2, None)
    assert (found.limiter, found.partition_queue) == ({"limit": 50, "period": 1.5}, False)
    assert [each.name for each in hand.do("list_queues")] == ["stored"]
    assert hand.do("retrieve_queue", "nothing") is None


def test_it_is_known_to_the_next_process(app: App) -> None:
    @DBOS.workflow()
    def work(x: int) -> int:
        return x

    app.launch()
    DBOS.register_queue("stored")
    app.relaunch()
    assert DBOS.enqueue_workflow("stored", work, 4).get_result() == 4


def test_a_change_is_heard_at_once(app: App, hand: Hand) -> None:
    gate = Gate()

    @hand.step()
    def waits() -> None:
        gate.pass_through()

    @hand.workflow()
    async def work(do: Inside) -> None:
        await do(waits())

    app.launch()
    queue = hand.do("register_queue", "stored", global_concurrency=1)
    handles = [put(hand, queue, work) for _ in range(4)]
    gate.wait_reached(1)
    hand.call(queue.set_global_concurrency_async if hand.is_async else queue.set_global_concurrency, 3)
    gate.wait_reached(3)
    assert gate.reached == 3
    assert queue.concurrency == 3
    gate.open()
    for handle in handles:
        handle.result()


def test_a_deleted_queue_is_not_served(app: App) -> None:
    @DBOS.workflow()
    def work(x: int) -> int:
        return x

    app.launch()
    queue = DBOS.register_queue("stored")
    assert queue.enqueue(work, 1).get_result() == 1
    DBOS.delete_queue("stored")
    DBOS.delete_queue("stored")
    assert DBOS.list_queues() == []
    with pytest.raises(dboserror.DBOSException, match="not registered"):
        queue.set_worker_concurrency(3)
    with pytest.raises(dboserror.DBOSException):
        _ = queue.limiter
    DBOS.register_queue("stored")
    assert DBOS.enqueue_workflow("stored", work, 2).get_result() == 2


def test_what_happens_to_an_existing_queue_is_chosen(app: App) -> None:
    app.launch(application_version="v1")
    DBOS.register_queue("stored", worker_concurrency=1)
    assert DBOS.register_queue("stored", worker_concurrency=2, on_conflict="never_update").worker_concurrency == 1
    assert DBOS.register_queue("stored", worker_concurrency=3).worker_concurrency == 3
    app.relaunch(application_version="v2")
    assert DBOS.register_queue("stored", worker_concurrency=4).worker_concurrency == 4
    DBOS.set_latest_application_version("v1")
    assert DBOS.register_queue("stored", worker_concurrency=5).worker_concurrency == 4
    assert DBOS.register_queue("stored", worker_concurrency=6, on_conflict="always_update").worker_concurrency == 6


def test_limits_that_contradict_each_other_are_refused(app: App) -> None:
    app.launch()
    for arguments, message in (
        ({"worker_concurrency": 3, "global_concurrency": 2}, "worker_concurrency must be less than or equal to"),
        ({"partition_concurrency": 3, "global_concurrency": 2}, "partition_concurrency must be less than or equal to"),
        ({"partition_worker_concurrency": 3, "partition_concurrency": 2}, "must be less than or equal to"),
        ({"partition_worker_concurrency": 3, "worker_concurrency": 2}, "must be less than or equal to"),
        ({"partition_concurrency": 0}, "at least 1"),
        ({"global_concurrency": 1, "concurrency": 1}, "only one of"),
        ({"limiter": {"limit": 3}}, "period"),
        ({"polling_interval_sec": 0}, "must be positive"),
        ({"on_conflict": "maybe"}, "on_conflict"),
    ):
        with pytest.raises(ValueError, match=message):
            DBOS.register_queue("stored", **arguments)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ValueError, match="is reserved"):
        DBOS.register_queue("_dbos_mine")
    assert DBOS.list_queues() == []
    queue = DBOS.register_queue("stored", global_concurrency=2)
    with pytest.raises(ValueError, match="less than or equal to"):
        queue.set_worker_concurrency(5)
    assert queue.worker_concurrency is None


def test_partition_limits_make_partitions(app: App) -> None:
    @DBOS.workflow()
    def work(x: int) -> int:
        return x

    app.launch()
    queue = DBOS.register_queue("stored", partition_concurrency=1, global_concurrency=2)
    eventually(lambda: queue.partition_queue)
    with pytest.raises(Exception, match="is a partitioned queue"):
        queue.enqueue(work, 1)
    with SetEnqueueOptions(queue_partition_key="a"):
        assert queue.enqueue(work, 1).get_result() == 1
    queue.set_partition_concurrency(None)
    eventually(lambda: not queue.partition_queue)
