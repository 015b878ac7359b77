"""Transactions on a database of their own, beside the system database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from dbos import DBOS, SetWorkflowID
from tests.compat.acts import again
from tests.compat.rows import Rows
from tests.conftest import App


@pytest.fixture(params=["sqlite", "postgres"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an application database, which does not exist yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'application.sqlite'}"
    name_one: Callable[[], str] = request.getfixturevalue("missing_database")
    return name_one()


@pytest.fixture
def application(app: App, own: str) -> Rows:
    """A launched application with a table `mine` in its own database, and a workflow `write` that fills it."""

    @DBOS.transaction(name="txn")
    def txn(x: int) -> int:
        DBOS.sql_session.execute(text("INSERT INTO mine VALUES (:x)"), {"x": x})
        if x < 0:
            raise ValueError("negative")
        return x

    @DBOS.workflow(name="write")
    def write(*numbers: int) -> list[int]:
        return [txn(number) for number in numbers]

    app.launch(application_database_url=own)
    made = Rows(own)
    made.run("CREATE TABLE mine (x INTEGER)")
    made.write = write
    return made


def stored(application: Rows) -> list[int]:
    return [row.x for row in application.run("SELECT x FROM mine ORDER BY x")]


def outputs(application: Rows) -> list[tuple]:
    found = application.run("SELECT * FROM {}transaction_outputs ORDER BY workflow_uuid, function_id")
    return [(row.workflow_uuid, row.function_id, row.function_name) for row in found]


def test_a_record_is_committed_with_the_users_rows(application: Rows) -> None:
    with SetWorkflowID("w"):
        assert [1, 2] == application.write(1, 2)

    assert [1, 2] == stored(application)
    assert [("w", 1, "txn"), ("w", 2, "txn")] == outputs(application)
    assert [1, 2] == [step["output"] for step in DBOS.list_workflow_steps("w")]


def test_a_crash_between_the_two_databases_repeats_nothing(application: Rows, rows: Rows) -> None:
    """The user's rows are committed, the step's record in the system database is not."""
    with SetWorkflowID("w"):
        application.write(1, 2)
    rows.run("DELETE FROM {}operation_outputs WHERE workflow_uuid = 'w' AND function_id = 2")

    assert [1, 2] == again(rows, "w").get_result()
    assert [1, 2] == stored(application)
    assert [1, 2] == [step["output"] for step in DBOS.list_workflow_steps("w")]


def test_an_error_rolls_back_and_is_replayed(application: Rows, rows: Rows) -> None:
    with SetWorkflowID("w"), pytest.raises(ValueError, match="negative"):
        application.write(1, -1)

    assert [1] == stored(application)
    with pytest.raises(ValueError, match="negative"):
        again(rows, "w").get_result()
    assert [1] == stored(application)


def test_a_deleted_workflow_leaves_no_records_of_transactions(application: Rows) -> None:
    with SetWorkflowID("w"):
        application.write(1)
    DBOS.delete_workflow("w")

    assert [] == outputs(application)


def test_the_id_of_a_deleted_workflow_starts_afresh(application: Rows) -> None:
    """Its transactions are done anew."""
    with SetWorkflowID("w"):
        application.write(1)
    DBOS.delete_workflow("w")

    with SetWorkflowID("w"):
        assert [5] == application.write(5)
    assert [1, 5] == stored(application)


def test_a_fork_does_its_transactions_from_the_cut_on(application: Rows) -> None:
    with SetWorkflowID("w"):
        application.write(1, 2)
    fork = DBOS.fork_workflow("w", 2)

    assert [1, 2] == fork.get_result()
    assert [1, 2, 2] == stored(application)
