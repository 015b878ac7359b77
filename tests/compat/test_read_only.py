"""A client that only reads: what writes is refused before it reaches the database, what takes too long is ended."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from dbos import DBOSClient, SetWorkflowID
from dbos.error import DBOSInitializationError, DBOSQueryTimeoutError, DBOSReadOnlyError
from tests.compat.clients import Caller, to
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside


@pytest.fixture
def rows(database: str) -> Rows:
    return Rows(database)


@pytest.fixture
def begun(app: App, hand: Hand) -> None:
    @hand.step(name="double")
    def double(x: int) -> int:
        return 2 * x

    @hand.workflow(name="work")
    async def work(do: Inside, x: int) -> int:
        return await do(double(x))

    app.launch()
    with SetWorkflowID("w"):
        assert 2 == hand.call(work, 1)


@pytest.fixture
def reads(database: str, hand: Hand) -> Iterator[Caller]:
    with DBOSClient(system_database_url=database, read_only=True, statement_timeout_seconds=10) as client:
        yield Caller(hand, client)


def test_it_reads_what_there_is_while_the_application_writes(begun: None, reads: Caller, hand: Hand) -> None:
    assert [2] == [each.output for each in reads("list_workflows")]
    assert ["double"] == [each.name for each in reads("list_steps", ["w"])]
    assert ["double"] == [each.name for each in reads("list_steps", ["w"], step_id=1)]
    assert [] == reads("list_steps", ["w"], step_id=2)
    assert 2 == reads("retrieve_workflow", "w").result()
    assert [] == reads("list_queues") + reads("list_schedules") + reads("list_failures")
    assert reads.client.is_read_only


WRITES: list[tuple[str, tuple[Any, ...]]] = [
    ("enqueue", (to("work"), 1)),
    ("cancel_workflow", ("w",)),
    ("resume_workflow", ("w",)),
    ("fork_workflow", ("w", 1)),
    ("delete_workflow", ("w",)),
    ("send", ("w", 1)),
    ("update_workflow_attributes", ("w", {"a": 1})),
    ("create_schedule", ()),
    ("register_queue", ("q",)),
    ("set_latest_application_version", ("v1",)),
]


@pytest.mark.parametrize(("operation", "given"), WRITES, ids=[name for name, _ in WRITES])
def test_what_writes_is_refused_and_says_how_it_is_allowed(
    begun: None, reads: Caller, rows: Rows, operation: str, given: tuple[Any, ...]
) -> None:
    options = {"schedule_name": "s", "workflow_name": "work", "schedule": "* * * * *"} if not given else {}
    before = rows.run("SELECT * FROM {}workflow_status")

    with pytest.raises(DBOSReadOnlyError, match="read_only=False"):
        reads(operation, *given, **options)

    assert before == rows.run("SELECT * FROM {}workflow_status")


def test_a_result_that_is_not_there_yet_is_waited_for(begun: None, reads: Caller, database: str) -> None:
    """Waiting hears of commits as any client does."""
    with DBOSClient(system_database_url=database) as client:
        handle = client.enqueue(to("work"), 21)

        assert 42 == reads("retrieve_workflow", handle.workflow_id).result()


def test_the_database_itself_refuses_too(begun: None, reads: Caller) -> None:
    store = reads.client._ground.store

    with pytest.raises(Exception, match="read-?only"):
        store.read(lambda conn: conn.say(f"DELETE FROM {store.tables.status}"))

    assert 1 == len(reads("list_workflows"))


def test_a_statement_that_takes_too_long_is_ended(begun: None, database: str, rows: Rows) -> None:
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000) SELECT count(*) FROM n"
    )
    with DBOSClient(system_database_url=database, read_only=True, statement_timeout_seconds=0.2) as client:
        with pytest.raises(DBOSQueryTimeoutError, match=r"0\.2 seconds"):
            client._ground.store.read(lambda conn: conn.say(endless))

        assert 1 == len(client.list_workflows())


@pytest.mark.parametrize("wrong", [{"read_only": False}, {"read_only": True, "seconds": 0}])
def test_a_timeout_is_for_clients_that_read(database: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(DBOSInitializationError, match="read_only=True"):
        DBOSClient(
            system_database_url=database,
            read_only=wrong["read_only"],
            statement_timeout_seconds=wrong.get("seconds", 5),
        )


def test_an_engine_of_others_is_handed_back_as_it_was(begun: None, database: str) -> None:
    from dbos._faces.config import engine_for

    engine = engine_for(make_url(database).set(drivername="sqlite" if "sqlite" in database else "postgresql+psycopg"))
    with DBOSClient(system_database_engine=engine, read_only=True) as client:
        assert 1 == len(client.list_workflows())

    rows = Rows(database)
    with engine.begin() as conn:
        conn.exec_driver_sql(f"UPDATE {rows.prefix}workflow_status SET name = 'third'")
    assert [("third",)] == [tuple(each) for each in rows.run("SELECT name FROM {}workflow_status")]
    engine.dispose()


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_a_role_that_may_only_select_suffices(begun: None, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("CREATE ROLE looker LOGIN")
        conn.execute("GRANT USAGE ON SCHEMA dbos TO looker")
        conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA dbos TO looker")
        try:
            url = make_url(database).set(username="looker").render_as_string(hide_password=False)
            with DBOSClient(system_database_url=url, read_only=True) as client:
                assert ["w"] == [each.workflow_id for each in client.list_workflows()]
        finally:
            conn.execute("DROP OWNED BY looker")
            conn.execute("DROP ROLE looker")


def test_a_file_that_cannot_be_opened_says_what_to_do(sqlite_template: Path, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    file = folder / "app.sqlite"
    shutil.copy(sqlite_template, file)
    url = f"sqlite:///{file}"
    if os.geteuid() == 0:
        # Root may write anywhere: a neighbour that is no file is in the way of everybody.
        (folder / "app.sqlite-shm").mkdir()
        (folder / "app.sqlite-wal").mkdir()
    else:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(DBOSInitializationError, match=r"immutable=1"):
            DBOSClient(system_database_url=url, read_only=True)

        with DBOSClient(system_database_url=f"{url}?immutable=1", read_only=True) as client:
            assert [] == client.list_workflows()
    finally:
        folder.chmod(stat.S_IRWXU)
