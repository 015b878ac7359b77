"""The explorer over a hundred thousand runs: it never counts them, so it is as quick as over a page."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbos import DBOS, DBOSClient
from dbos_notebook.explore.live import Explorer
from dbos_notebook.explore.reading import Reader
from dbos_notebook.explore.state import Look, Wanted
from dbos_notebook.source import Source
from tests.conftest import App

RUNS = 100_000
# The promise is a second for the first look and 0.2 s for what follows, and it takes a tenth of that. These bounds are
# for busy machines: a look that goes through all runs takes longer still.
FIRST_SECONDS, NEXT_SECONDS = 10.0, 2.0

COPY = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {number})
INSERT INTO workflow_status ({columns}) SELECT {values} FROM workflow_status, numbers
"""
CHANGED = {
    "workflow_uuid": "'run-' || n",
    "created_at": "created_at - 500 * n",
    "status": "CASE n % 50 WHEN 0 THEN 'ERROR' ELSE 'SUCCESS' END",
    "name": "'workflow-' || (n % 7)",
}


@pytest.fixture
def database(tmp_path: Path, sqlite_template: Path) -> str:
    """SQLite: it has no planner that would save a bad question."""
    file = tmp_path / "test.sqlite"
    file.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{file}"


@pytest.fixture
def source(app: App, database: str) -> Iterator[Source]:
    app.launch()

    @DBOS.workflow()
    def first() -> None: ...

    first()
    with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(workflow_status)")]
        values = [CHANGED.get(column, column) for column in columns]
        connection.execute(COPY.format(number=RUNS, columns=", ".join(columns), values=", ".join(values)))
    connection.close()
    with DBOSClient(system_database_url=database) as client:
        yield Source(client)


def test_a_hundred_thousand_runs_are_as_quick_as_a_page(source: Source) -> None:
    Explorer(source, {}).close()  # loads what it needs
    began = time.perf_counter()
    Explorer(source, {}).close()
    assert time.perf_counter() - began < FIRST_SECONDS

    reader = Reader(source, lambda _: None)
    for look in (
        Look(page=3),
        Look(order="oldest"),
        Look(wanted=Wanted(status="ERROR")),
        Look(wanted=Wanted(name="workflow-3", since="1h")),
        Look(wanted=Wanted(prefix="run-77")),
        Look(wanted=Wanted(text="no such text")),
        Look(chosen="run-4242"),
    ):
        times = []
        for _ in range(5):
            began = time.perf_counter()
            reader.read(look, began)
            times.append(time.perf_counter() - began)
        assert statistics.median(times) < NEXT_SECONDS, look
