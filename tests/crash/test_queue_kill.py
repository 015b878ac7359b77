"""A long queue, served by processes that are killed: nothing is lost, and what is repeated is what was under way."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import sqlalchemy as sa

from dbos._faces.config import parsed
from tests.coroner import most_at_once, repeated
from tests.crash import worker
from tests.crash.test_kill import rows
from tests.waiting import eventually

# Fewer on SQLite, where transactions of different processes wait for each other one by one.
TASKS, WORKERS = {"sqlite": 3_000, "postgresql": 10_000}, 4
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.crash.worker", "sqlalchemy.orm", "psycopg"])


class Workers:
    """Four processes, each replaced when it dies."""

    def __init__(self, database: str, ledger: str) -> None:
        self.database, self.ledger, self.kills = database, ledger, 0
        self.alive = {f"worker-{number}": self._start(f"worker-{number}") for number in range(WORKERS)}

    def _start(self, name: str) -> multiprocessing.process.BaseProcess:
        process = processes.Process(target=worker.serve, args=(self.database, name, self.ledger), daemon=True)
        process.start()
        return process

    def kill(self, name: str) -> None:
        process = self.alive[name]
        assert process.is_alive(), f"{name} ended by itself: {process.exitcode}"
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(20)
        self.kills += 1

    def replace(self, name: str) -> None:
        self.kill(name)
        self.alive[name] = self._start(name)


@pytest.mark.timeout(400)
def test_a_long_queue_outlives_its_workers(database: str, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    rng, tasks = random.Random(seed), TASKS[parsed(database).get_backend_name()]
    ledger = str(tmp_path / "ledger")
    engine = sa.create_engine(parsed(database))
    with engine.begin() as conn:
        conn.execute(sa.text("CREATE TABLE effects (id TEXT, x INTEGER)"))
    engine.dispose()
    filler = processes.Process(target=worker.fill, args=(database, ledger, tasks))
    filler.start()
    filler.join(200)
    assert filler.exitcode == 0

    tables = "dbos." if database.startswith("postgres") else ""
    workers = Workers(database, ledger)

    def left() -> int:
        query = f"SELECT count(*) FROM {tables}workflow_status WHERE status <> 'SUCCESS'"  # noqa: S608 - names of ours
        return int(str(rows(database, query)[0][0]))

    moment = processes.Event()
    try:
        while left():
            moment.wait(rng.uniform(0.5, 1.5))
            workers.replace(rng.choice(list(workers.alive)))
    finally:
        for name in workers.alive:
            workers.kill(name)

    kills = workers.kills - WORKERS
    effects = Counter(row[0] for row in rows(database, "SELECT id FROM effects"))
    assert len(effects) == tasks, f"seed {seed}"
    assert set(effects.values()) == {1}, f"seed {seed}"
    executions = Path(ledger).read_text().splitlines()
    assert len(set(executions)) == 2 * tasks
    assert [] == repeated(executions, kills, worker.WORKER_CONCURRENCY)
    assert eventually(lambda: kills) >= 3, "the queue was empty before anybody could be killed"
    _check_limits(database, tables)


def _check_limits(database: str, tables: str) -> None:
    """Of the last executions, which alone the rows remember, never more than allowed ran at one moment."""
    query = f"SELECT started_at_epoch_ms, updated_at, executor_id FROM {tables}workflow_status"  # noqa: S608 - as above
    found = rows(database, query)
    spans: dict[object, list[tuple[int, int]]] = defaultdict(list)
    for began, ended, executor in found:
        spans[executor].append((int(str(began)), int(str(ended))))
    assert most_at_once(span for each in spans.values() for span in each) <= worker.CONCURRENCY
    for each in spans.values():
        assert most_at_once(each) <= worker.WORKER_CONCURRENCY
