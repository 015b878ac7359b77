"""Programs that put work on queues and are killed at every moment."""

from __future__ import annotations

from dbos import DBOS, Queue, SetEnqueueOptions, SetWorkflowID
from dbos import error as dboserror
from dbos.testing import Ledger
from tests.crash.scenarios import Act


def queues(ledger: Ledger) -> Act:
    """Children by priority, in partitions, under a deduplication id and with a rate; and work enqueued from outside."""
    one = Queue("one", concurrency=1, priority_enabled=True)
    parts = Queue("parts", partition_queue=True, concurrency=1)
    rated = Queue("rated", worker_concurrency=2, limiter={"limit": 50, "period": 0.05})

    @DBOS.step(name="note")
    def note(x: int) -> int:
        ledger.note()
        return x

    @DBOS.workflow(name="task")
    def task(x: int) -> int:
        return note(x)

    @DBOS.workflow(name="family")
    def family() -> list[object]:
        handles = []
        for number in (3, 1):
            with SetEnqueueOptions(priority=number):
                handles.append(one.enqueue(task, number))
        with SetEnqueueOptions(queue_partition_key="a"):
            handles.append(parts.enqueue(task, 10))
        with SetEnqueueOptions(deduplication_id="other", delay_seconds=0.01):
            handles.append(rated.enqueue(task, 20))
        results: list[object] = [handle.get_result() for handle in handles]
        with SetEnqueueOptions(deduplication_id="family"):
            try:
                results.append(rated.enqueue(task, 40).workflow_id)
            except dboserror.DBOSQueueDeduplicatedError as error:
                results.append(error.workflow_id)
        with SetEnqueueOptions(priority=1):
            results.append(one.enqueue(note, 30).get_result())
        return results

    def act() -> object:
        results: list[object] = []
        with SetWorkflowID("family"), SetEnqueueOptions(deduplication_id="family"):
            handle = rated.enqueue(family)
        with SetWorkflowID("outer"), SetEnqueueOptions(queue_partition_key="a"):
            results.append(parts.enqueue(task, 50).get_result())
        return [*results, handle.get_result()]

    return act


QUEUED = {"queues": queues}
