"""A worker that is killed: it serves a queue, and every task is a step, a transaction and another step."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from dbos import DBOS, Queue, SetWorkflowID

CONCURRENCY, WORKER_CONCURRENCY = 60, 25
QUEUE = "crowd"


def launch(url: str, executor_id: str, ledger: str, *, serves: bool) -> Callable[[int], None]:
    """Define the tasks and launch; what enqueues one."""

    def note() -> None:
        file = os.open(ledger, os.O_APPEND | os.O_WRONLY | os.O_CREAT)
        try:
            os.write(file, f"{DBOS.workflow_id} {DBOS.step_id}\n".encode())
        finally:
            os.close(file)

    @DBOS.step(name="step")
    def step(x: int) -> int:
        note()
        return x

    @DBOS.transaction(name="insert")
    def insert(x: int) -> None:
        DBOS.sql_session.execute(sa.text("INSERT INTO effects VALUES (:id, :x)"), {"id": DBOS.workflow_id, "x": x})

    @DBOS.workflow(name="task", max_recovery_attempts=None)
    def task(x: int) -> int:
        value = step(x)
        insert(value)
        return step(value)

    if not serves:
        DBOS.listen_queues([])
    queue = Queue(QUEUE, concurrency=CONCURRENCY, worker_concurrency=WORKER_CONCURRENCY)
    DBOS(
        config={
            "name": "worker",
            "system_database_url": url,
            "application_version": "v1",
            "executor_id": executor_id,
            "log_level": "ERROR",
        }
    )
    DBOS.launch()

    def enqueue(number: int) -> None:
        with SetWorkflowID(f"task-{number}"):
            queue.enqueue(task, number)

    return enqueue


def fill(url: str, ledger: str, count: int) -> None:
    """Enqueue the tasks, many at a time."""
    enqueue = launch(url, "filler", ledger, serves=False)
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(enqueue, range(count)):
            pass
    DBOS.destroy()


def serve(url: str, executor_id: str, ledger: str) -> None:
    """Serve the queue until killed."""
    launch(url, executor_id, ledger, serves=True)
    threading.Event().wait()
