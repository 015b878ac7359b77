"""A program that is killed: twelve workflows of steps, transactions and children, under fixed ids.

Each execution of a step is one line in a ledger that survives the process. Started again, it goes on.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import sqlalchemy as sa

from dbos import DBOS, SetWorkflowID

WORKFLOWS, STEPS = 12, 40


def total() -> int:
    """What every workflow comes to."""
    return sum(range(STEPS)) + STEPS + 1


def live(url: str, ledger: str) -> None:
    """Launch, start what is not started, and wait until all is done."""

    def note() -> None:
        line = f"{DBOS.workflow_id} {DBOS.step_id}\n".encode()
        file = os.open(ledger, os.O_APPEND | os.O_WRONLY | os.O_CREAT)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    @DBOS.step(name="step")
    def step(x: int) -> int:
        note()
        time.sleep(random.random() * 0.03)  # noqa: TID251 - work that takes its time
        return x

    @DBOS.transaction(name="insert")
    def insert(x: int) -> int:
        DBOS.sql_session.execute(
            sa.text("INSERT INTO effects VALUES (:id, :x)"), {"id": f"{DBOS.workflow_id}-{DBOS.step_id}", "x": x}
        )
        return 1

    @DBOS.workflow(name="child")
    def child(x: int) -> int:
        return step(x)

    @DBOS.workflow(name="victim", max_recovery_attempts=None)
    def victim() -> int:
        result = 0
        for x in range(STEPS):
            result += step(x) + insert(x)
        return result + child(1)

    DBOS(
        config={
            "name": "victim",
            "system_database_url": url,
            "application_version": "v1",
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    handles = []
    for number in range(WORKFLOWS):
        with SetWorkflowID(f"victim-{number}"):
            handles.append(DBOS.start_workflow(victim))
    assert [total()] * WORKFLOWS == [handle.get_result() for handle in handles]
    DBOS.destroy()
    Path(f"{ledger}.done").touch()
