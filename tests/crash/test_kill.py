"""Real deaths: processes killed by SIGKILL at random moments, and a Postgres server that is."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from dbos import DBOS, SetWorkflowID, run_dbos_database_migrations
from dbos._faces.config import parsed
from tests.coroner import AT_REST, autopsy, left_open, repeated, stranded
from tests.crash import victim
from tests.faults.server import own_server

KILLS = 30
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.crash.victim", "sqlalchemy.orm", "psycopg"])


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    engine = sa.create_engine(parsed(url))
    with engine.connect() as conn:
        found = [tuple(row) for row in conn.execute(sa.text(query))]
    engine.dispose()
    return found


@pytest.mark.timeout(300)
def test_processes_killed_at_random_lose_and_repeat_nothing(database: str, tmp_path: Path) -> None:
    """Two executors under one name are killed again and again: every workflow ends, no transaction is done twice."""
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    ledger = tmp_path / "ledger"
    engine = sa.create_engine(parsed(database))
    with engine.begin() as conn:
        conn.execute(sa.text("CREATE TABLE effects (id TEXT, x INTEGER)"))
    engine.dispose()

    kills = 0
    alive: list[multiprocessing.process.BaseProcess] = []
    while not Path(f"{ledger}.done").exists():
        while len(alive) < 2:
            process = processes.Process(target=victim.live, args=(database, str(ledger)), daemon=True)
            process.start()
            alive.append(process)
        doomed = rng.choice(alive)
        if kills < KILLS:
            doomed.join(rng.random() * 0.12 + 0.02)
            if doomed.is_alive():
                os.kill(doomed.pid or 0, signal.SIGKILL)
                kills += 1
        doomed.join(20)
        assert doomed.exitcode in (0, -signal.SIGKILL), f"seed {seed}: {doomed.exitcode}"
        alive.remove(doomed)
    for process in alive:
        process.join(20)
        assert process.exitcode == 0, f"seed {seed}"

    tables = "dbos." if database.startswith("postgres") else ""
    statuses = Counter(row[0] for row in rows(database, f"SELECT status FROM {tables}workflow_status"))
    assert {"SUCCESS": 2 * victim.WORKFLOWS} == statuses, f"seed {seed}"
    steps = rows(
        database, f"SELECT workflow_uuid, function_id FROM {tables}operation_outputs WHERE function_name = 'step'"
    )
    assert victim.WORKFLOWS * (victim.STEPS + 1) == len(steps)
    effects = Counter(row[0] for row in rows(database, "SELECT id FROM effects"))
    assert {1} == set(effects.values()), f"seed {seed}"
    assert victim.WORKFLOWS * victim.STEPS == len(effects)
    executions = ledger.read_text().splitlines()
    assert {f"{workflow} {step}" for workflow, step in steps} == set(executions)
    assert [] == repeated(executions, kills, victim.WORKFLOWS)
    assert kills >= KILLS // 2, "the workflows were done before they could be killed"


@pytest.mark.timeout(240)
def test_a_killed_server_is_waited_for() -> None:
    """Postgres is killed under running workflows and started again: they go on, and nobody sees an error."""
    with own_server() as server:
        run_dbos_database_migrations(server.url)
        progress = threading.Semaphore(0)

        @DBOS.step(name="note")
        def note(x: int) -> int:
            progress.release()
            return x

        @DBOS.workflow(name="long")
        def long(n: int) -> int:
            return sum(note(x) for x in range(n))

        DBOS(config={"name": "server-dies", "system_database_url": server.url, "log_level": "CRITICAL"})
        DBOS.launch()
        handles = []
        for number in range(4):
            with SetWorkflowID(f"long-{number}"):
                handles.append(DBOS.start_workflow(long, 1500))
        for _ in range(3):
            for _ in range(100):
                assert progress.acquire(timeout=60)
            server.strike(signal.SIGKILL)

        assert [sum(range(1500))] * 4 == [handle.get_result() for handle in handles]
        assert [1500] * 4 == [len(DBOS.list_workflow_steps(f"long-{number}")) for number in range(4)]
        assert {1} == {DBOS.get_workflow_status(f"long-{number}").recovery_attempts for number in range(4)}
        DBOS.destroy()
        assert [] == autopsy(server.url, [*AT_REST, stranded, left_open])
