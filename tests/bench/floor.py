"""What the bare driver does, where a step is one row in one durable commit: `python -m tests.bench.floor URL COUNT`.

The row has the columns of a recorded step, and is as safe on disk as one. A program that commits each step by
itself cannot be faster; one that commits several at once can.
"""

from __future__ import annotations

import sqlite3
import sys
import uuid
from collections.abc import Callable

import psycopg

from tests.bench.scenarios import Measured, line_of, median_rate

CREATE = """
CREATE TABLE outputs (
    workflow_uuid TEXT NOT NULL,
    function_id INT NOT NULL,
    function_name TEXT NOT NULL,
    output TEXT,
    error TEXT,
    child_workflow_id TEXT,
    started_at_epoch_ms BIGINT,
    completed_at_epoch_ms BIGINT,
    serialization TEXT,
    PRIMARY KEY (workflow_uuid, function_id)
)
"""
INSERT = f"INSERT INTO outputs VALUES ({', '.join('?' * 9)})"


def sqlite_inserts(file: str) -> Callable[[int], None]:
    """In WAL and with a sync at each commit, which is what a step promises."""
    # No isolation level: each statement is a transaction, and the driver keeps it prepared.
    conn = sqlite3.connect(file, isolation_level=None)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = FULL")
    conn.execute(CREATE)

    def insert(count: int) -> None:
        for row in rows(count):
            conn.execute(INSERT, row)

    return insert


def postgres_inserts(url: str) -> Callable[[int], None]:
    conn = psycopg.connect(url, autocommit=True)
    conn.execute(CREATE)
    statement = INSERT.replace("?", "%s")

    def insert(count: int) -> None:
        for row in rows(count):
            conn.execute(statement, row, prepare=True)

    return insert


def rows(count: int) -> list[tuple[object, ...]]:
    """The recorded steps of one workflow."""
    workflow_id = str(uuid.uuid4())
    now_ms = 1_800_000_000_000
    return [(workflow_id, i, "step", "gAVLAS4=", None, None, now_ms, now_ms, "py_pickle") for i in range(1, count + 1)]


def main(url: str, count: int) -> None:
    file = url.removeprefix("sqlite:///")
    insert = postgres_inserts(url) if file == url else sqlite_inserts(file)
    print(line_of(Measured("floor", median_rate(count, lambda: insert(count)), "steps/s")))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
