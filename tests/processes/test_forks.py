"""`os.fork()` after launch: the child gets a clear error and does the parent no harm."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOSClient

ROOT = Path(__file__).parents[2]


@pytest.fixture
def told(database: str, tmp_path: Path) -> dict[str, Any]:
    """What the children of a program met, which forked in every way."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.processes.ending", "forks", database, f"sqlite:///{tmp_path}/elsewhere.sqlite"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert 0 == ended.returncode, ended.stderr
    assert "" == ended.stderr
    return json.loads(ended.stdout)


def test_a_child_is_told_what_to_do(told: dict[str, Any], database: str) -> None:
    on_file = database.startswith("sqlite")
    for use in ("list", "workflow", "start", "handle", "launch", "parents_client"):
        assert told[use].startswith("DBOSException: "), use
        assert "before this process was forked" in told[use], use
        assert "DBOS.launch() in the child" in told[use], use
    # In a workflow it is control flow, which nothing swallows.
    assert told["inside"].startswith("DBOSRuntimeEndedError: ")
    # What is not the parent's business works: to end nothing, to call a function, to begin anew.
    assert ("None", "2", "[1, 4, 9]", "6") == tuple(told[use] for use in ("destroy", "step", "pool", "anew_elsewhere"))
    if on_file:
        assert "spawn" in told["anew"]
        assert told["client"].startswith("DBOSInitializationError: ")
    else:
        assert "(6, 'SUCCESS')" == told["anew"]
        assert "2" == told["client"]


def test_the_parent_goes_on(told: dict[str, Any], database: str) -> None:
    """Also where a child went on in its workflow: no step began there."""
    assert 7 == told["goes_on"]
    assert ["fork_inside", "leaf"] == told["steps"]
    assert 10 == told["after"]
    with DBOSClient(system_database_url=database) as client:
        assert {"SUCCESS"} == {each.status for each in client.list_workflows()}
    if database.startswith("sqlite"):
        conn = sqlite3.connect(database.removeprefix("sqlite:///"))
        assert ("ok",) == conn.execute("PRAGMA integrity_check").fetchone()
        conn.close()
