"""Schedules over several processes: each moment fires once, and a change is heard by all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dbos import DBOSClient
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture
def serve(database: str, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Start a process that serves the database, and wait until it does."""
    started: list[subprocess.Popen[str]] = []

    def make(executor_id: str) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.processes.clockwork", database, executor_id],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()

    yield make
    for process in started:
        process.communicate("", timeout=30)
        assert 0 == process.returncode


def test_two_processes_fire_for_each_moment_once(database: str, tmp_path: Path, serve: Callable[[str], None]) -> None:
    """A client makes the schedule, which both hear; what it pauses fires in neither of them any more."""
    for executor_id in ("one", "two"):
        serve(executor_id)

    def lines(name: str) -> list[str]:
        return (tmp_path / name).read_text().split() if (tmp_path / name).exists() else []

    with DBOSClient(system_database_url=database) as client:
        client.create_schedule(schedule_name="s", workflow_name="noted", schedule="* * * * * *", context="stored.txt")
        eventually(lambda: len(lines("stored.txt")) >= 3)
        client.pause_schedule("s")
        placed = client.list_workflows(workflow_id_prefix="sched-s-")
        coded = len(lines("coded.txt"))
        eventually(lambda: len(lines("coded.txt")) >= coded + 2)  # so that two more seconds have passed

        assert len(placed) == len(client.list_workflows(workflow_id_prefix="sched-s-"))
    for name in ("stored.txt", "coded.txt"):
        assert sorted(set(lines(name))) == sorted(lines(name))
