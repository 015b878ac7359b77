"""The coroner is no use if it finds nothing: each law is broken by hand."""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path

import psycopg
import pytest

from dbos import DBOS, SetWorkflowID
from tests import coroner as laws
from tests.compat.conftest import Log
from tests.compat.rows import Rows
from tests.conftest import App
from tests.coroner import Coroner
from tests.databases import CANARY, postgres_database

FAULTY = ("tests/crash/", "tests/faults/", "tests/processes/")

# What is done to the rows of a workflow `w` with two steps and a stream of two values, and what is found then.
DAMAGES = {
    "a child that is lost": (
        "UPDATE {}operation_outputs SET child_workflow_id = 'never' WHERE function_id = 1",
        "C1 w: its step 1 started never, which is lost",
    ),
    "a step that is lost": (
        "DELETE FROM {}operation_outputs WHERE function_id = 1",
        r"C2 w: steps \[1\] are missing",
    ),
    "a value that is lost": ("""DELETE FROM {}streams WHERE "offset" = 0""", "C2 w: stream key has 1 values"),
    "an owner that is gone": (
        "UPDATE {}workflow_status SET status = 'PENDING', owner_xid = '01234567890123456789:1'",
        "C4 w: PENDING, and its owner 01234567890123456789:1 is gone",
    ),
    "a place on no queue": (
        "UPDATE {}workflow_status SET status = 'ENQUEUED', queue_name = NULL",
        "C4 w: ENQUEUED on no queue",
    ),
    "an ending that is changed": (
        "CREATE TRIGGER t AFTER DELETE ON {}notebook_leases BEGIN UPDATE workflow_status SET output = 'other'; END",
        "C5 w: had ended, and was changed",
    ),
    "rows of nobody": ("DELETE FROM {}workflow_status", "C7 w: gone, and still in operation_outputs"),
}


@pytest.fixture
def database(tmp_path: Path, sqlite_template: Path) -> str:
    file = tmp_path / "examined.sqlite"
    file.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{file}"


@pytest.fixture
def lived(app: App, rows: Rows) -> Rows:
    """A workflow has lived here, and nothing is wrong."""

    @DBOS.step(name="part")
    def part() -> None:
        pass

    @DBOS.workflow(name="whole")
    def whole() -> None:
        part()
        part()
        DBOS.write_stream("key", 1)
        DBOS.write_stream("key", 2)

    app.launch()
    with SetWorkflowID("w"):
        whole()
    DBOS.destroy(destroy_registry=True)
    return rows


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(name: str, lived: Rows, database: str, coroner: Coroner) -> None:
    damage, finding = DAMAGES[name]
    assert [] == coroner.examine(database, [])
    lived.run(damage)

    found = coroner.examine(database, [])
    coroner.excuse("C[1-7]")

    assert any(re.match(finding, each) for each in found), found


def test_a_file_that_cannot_be_read_is_found(database: str, tmp_path: Path, coroner: Coroner) -> None:
    (tmp_path / "examined.sqlite").write_bytes(b"no database" * 1000)

    (found,) = coroner.examine(database, [])
    coroner.excuse("C7")

    assert found.startswith("C7 the database cannot be read")


def test_what_is_left_open_is_found(postgres: str, tmp_path: Path, coroner: Coroner) -> None:
    """A thread, a file, a connection that holds a lock."""
    file, is_over = tmp_path / "held.sqlite", threading.Event()
    thread = threading.Thread(target=is_over.wait, name="dbos-forgotten")
    thread.start()
    with (
        postgres_database(postgres) as url,
        file.open("w"),
        psycopg.connect(url, application_name="dbos_transact", autocommit=True) as conn,
    ):
        conn.execute("SELECT pg_advisory_lock(1)")
        found = "\n".join(coroner.examine(None, [file]) + laws.autopsy(url, [laws.left_open]))
        is_over.set()

    assert "C8 thread dbos-forgotten is left" in found
    assert f"C8 {file} is still open" in found
    assert "holds an advisory lock" in found
    assert re.search("C8 connection .* is still there, idle", found)


def test_what_nobody_should_see_is_found(coroner: Coroner, log: Log) -> None:
    DBOS.logger.error("an error of ours")
    logging.getLogger("asyncio").error("Task was destroyed but it is pending!")
    DBOS.logger.error("no answer from postgresql://me:%s@host", CANARY)

    found = coroner.examine(None, [])
    coroner.excuse("C9", "C10")

    assert {"C9 an error of ours", "C9 Task was destroyed but it is pending!"} <= set(found)
    assert f"C10 no answer from postgresql://me:{CANARY}@host" in found
    assert ["C9 A coroutine was never awaited"] == laws.unseen_trouble("fine\nA coroutine was never awaited")


def test_what_programs_noted_is_counted() -> None:
    assert ["C1 b: 'lost', not 2", "C1 c: 4, not 3"] == laws.lost({"a": 1, "b": 2, "c": 3}, {"a": 1, "c": 4})
    assert [] == laws.repeated(["a", "a", "b"], deaths=1, at_once=1)
    assert ["C3 3 steps were run again for 1 deaths", "C3 a: ran 3 times"] == laws.repeated(
        ["a", "a", "a", "b", "b"], deaths=1, at_once=2
    )
    assert 2 == laws.most_at_once([(0, 2), (1, 3), (3, 4)])


def test_every_fault_is_followed_by_the_coroner(request: pytest.FixtureRequest) -> None:
    """Of all tests that inject faults and are collected here, this one at the least."""
    faulty = [each for each in request.session.items if each.nodeid.startswith(FAULTY)]

    assert faulty
    assert [] == [each.nodeid for each in faulty if "coroner" not in each.fixturenames]  # type: ignore[attr-defined]  # a test function's


def test_what_is_printed_is_read(coroner: Coroner) -> None:
    """By this process and its children; the hook that reads it is in tests/conftest.py."""
    said = ["fine", f"at {CANARY}", "Exception ignored in: <a thread>"]

    assert [f"C10 at {CANARY}", "C9 Exception ignored in: <a thread>"] == coroner.read(said)
    coroner.excuse("C9")
    assert [f"C10 at {CANARY}"] == coroner.read(said)
