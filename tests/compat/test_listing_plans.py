"""What a listing reads: for the filters that an index serves, no more than that index gives."""

from __future__ import annotations

from typing import Any

import pytest

from dbos._engine.selection import select_matching
from dbos._engine.status import status_columns
from dbos._faces.ambient import runtime
from dbos._features.failures import FAILURES
from tests.compat.rows import Rows
from tests.conftest import App
from tests.plans import plan_of

ROWS = 4000
CREATED = "workflow_status_created_at_index"
IN_FLIGHT, DELAYED = "idx_workflow_status_in_flight", "idx_workflow_status_delayed"
FAILED = "idx_workflow_status_failed"
NAMED, USER = "idx_workflow_status_name", "idx_workflow_status_user"
# Any of the names: the key's own index has another one on each database.
KEY = ("sqlite_autoindex_workflow_status_1", "workflow_status_pkey")


@pytest.fixture
def many(app: App, rows: Rows) -> App:
    """Mostly finished workflows, so that an index on the rest is worth using."""
    few = {"PENDING": 7, "ENQUEUED": 11, "DELAYED": 13, "ERROR": 17}
    added: list[str] = []
    for number in range(ROWS):
        status = next((each for each, prime in few.items() if number % (prime * 50) == 0), "SUCCESS")
        queue = f"'q-{number % 3}'" if status in ("ENQUEUED", "DELAYED") else "NULL"
        other = f"'w-{number // 10}'" if number % 500 == 1 else "NULL"
        added.append(f"('w-{number:05}', '{status}', {queue}, {other}, {other}, {number}, 'n', 1, 9000000000000, 'v')")
    with rows.engine.begin() as conn:
        conn.exec_driver_sql(
            f"INSERT INTO {rows.prefix}workflow_status (workflow_uuid, status, queue_name, parent_workflow_id, forked_from,"
            " created_at, name, updated_at, delay_until_epoch_ms, application_version) VALUES " + ", ".join(added)
        )
    rows.run("UPDATE {}workflow_status SET name = 'rare', authenticated_user = 'ann' WHERE workflow_uuid LIKE '%99'")
    rows.run("ANALYZE {}workflow_status" if rows.is_postgres else "SELECT 1")
    app.launch(application_version="other")
    return app


@pytest.mark.parametrize(
    ("wanted", "indexes"),
    [
        ({}, (CREATED,)),
        ({"sort_desc": True}, (CREATED,)),
        ({"workflow_ids": ["w-00001", "w-00002"]}, KEY),
        ({"start_time": "1970-01-01T00:00:01+00:00", "end_time": "1970-01-01T00:00:01.1+00:00"}, (CREATED,)),
        ({"status": "PENDING"}, (IN_FLIGHT,)),
        ({"status": "ENQUEUED", "sort_desc": True}, (IN_FLIGHT,)),
        ({"status": ["PENDING", "ENQUEUED"]}, (IN_FLIGHT,)),
        ({"status": "PENDING", "queue_name": "q-1"}, (IN_FLIGHT,)),
        ({"status": "DELAYED"}, (DELAYED,)),
        ({"status": "ERROR", "sort_desc": True}, (FAILED,)),
        ({"status": "CANCELLED"}, (FAILED,)),
        ({"status": ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]}, (FAILED,)),
        ({"status": "ERROR", "start_time": "1970-01-01T00:00:01+00:00"}, (FAILED,)),
        ({"queues_only": True}, (IN_FLIGHT, DELAYED)),
        ({"queues_only": True, "queue_name": "q-1"}, (IN_FLIGHT, DELAYED)),
        ({"forked_from": "w-12"}, ("idx_workflow_status_forked_from",)),
        ({"parent_workflow_id": ["w-12", "w-13"]}, ("idx_workflow_status_parent_workflow_id",)),
        ({"name": "rare", "sort_desc": True}, (NAMED,)),
        ({"name": "nobody", "status": "SUCCESS"}, (NAMED,)),
        ({"user": "ann"}, (USER,)),
        # Few as they are, they need no index of all that ever had this name.
        ({"name": "n", "status": "PENDING"}, (IN_FLIGHT,)),
        ({"name": "n", "status": "ERROR"}, (FAILED,)),
        ({"user": "ann", "queues_only": True}, (IN_FLIGHT, DELAYED)),
    ],
    ids=str,
)
def test_a_listing_follows_an_index(many: App, rows: Rows, wanted: dict[str, Any], indexes: tuple[str, ...]) -> None:
    follows_an_index(rows, wanted, indexes)


def test_a_prefix_is_a_range_of_an_index(many: App, rows: Rows) -> None:
    """In most collations of Postgres not of the key's own."""
    own = ("idx_workflow_status_prefix",) if rows.is_postgres else KEY
    follows_an_index(rows, {"workflow_id_prefix": "w-0000"}, own)


def test_of_a_failed_workflow_only_the_steps_that_failed_are_read(many: App, rows: Rows) -> None:
    numbers = "SELECT i FROM generate_series(1, 30) AS n(i)"
    if not rows.is_postgres:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30) SELECT i FROM n"
    rows.run(
        "INSERT INTO {}operation_outputs (workflow_uuid, function_id, function_name, error) "
        "SELECT workflow_uuid, i, 's', CASE WHEN i = 30 AND status = 'ERROR' THEN 'e' END "
        f"FROM {{}}workflow_status, ({numbers}) AS n"
    )
    rows.run("ANALYZE {}operation_outputs" if rows.is_postgres else "SELECT 1")

    found = runtime().store.read(lambda conn: plan_of(conn, FAILURES, since=0, longest=800))

    assert "idx_operation_outputs_failed" in found, found


def follows_an_index(rows: Rows, wanted: dict[str, Any], indexes: tuple[str, ...]) -> None:
    def plan(conn: Any) -> str:
        columns = status_columns(conn.tables, load_input=False, load_output=False)
        return plan_of(conn, select_matching(conn.tables, {**wanted, "limit": 100}, *columns))

    found = runtime().store.read(plan)

    assert any(each in found for each in indexes), found
    assert "Seq Scan on workflow_status" not in found
    assert not any(line.startswith("SCAN workflow_status") and "INDEX" not in line for line in found.splitlines()), (
        found
    )
