"""Databases as others left them: every layout is opened as it is, what is newer or half made is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from dbos import DBOS, SetWorkflowID, run_dbos_database_migrations
from dbos._faces.config import parsed
from dbos._kernel.functions import definitions
from dbos._kernel.layout import Layout
from dbos._kernel.schema import Tables
from dbos._kernel.store import dialect_of
from dbos.error import DBOSSchemaError
from tests.conftest import App
from tests.databases import admin, url_of

Sql = Callable[..., list[tuple[object, ...]]]
# Where programs of the split layout keep values.
SIDE_TABLES = {"workflow_input": "inputs TEXT", "workflow_output": "output TEXT, error TEXT"}
LAYOUTS = [Layout(), Layout(extended=True), Layout(split=True, extended=True)]


@pytest.fixture(params=["sqlite", "postgres"])
def blank(request: pytest.FixtureRequest, tmp_path: Path):
    """The URL of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/blank.sqlite"
        return
    server = request.getfixturevalue("postgres")
    admin(server, "CREATE DATABASE blank_for_layouts")
    yield url_of(server, "blank_for_layouts")
    DBOS.destroy(destroy_registry=True)
    admin(server, "DROP DATABASE blank_for_layouts WITH (FORCE)")


@pytest.fixture
def sql(blank: str):
    engine = sa.create_engine(parsed(blank))

    def execute(*statements: str) -> list[tuple[object, ...]]:
        with engine.begin() as conn:
            results = [conn.exec_driver_sql(statement) for statement in statements]
            return [tuple(row) for row in results[-1]] if results[-1].returns_rows else []

    yield execute
    engine.dispose()


def schema_of(url: str) -> str:
    return "dbos." if url.startswith("postgres") else ""


def make_tables(url: str, layout: Layout, number: int) -> None:
    """The shared tables as another program makes them; nothing of our own."""
    engine = sa.create_engine(parsed(url))
    tables = Tables(dialect_of(engine), "dbos", layout)
    with engine.begin() as conn:
        if tables.schema is not None:
            conn.exec_driver_sql(f"CREATE SCHEMA {tables.schema}")
        tables.metadata.create_all(conn, tables=tables.shared)
        for definition in definitions(tables):
            conn.connection.cursor().execute(definition)
        for table, values in SIDE_TABLES.items() if layout.split else ():
            where = schema_of(url)
            key = f"REFERENCES {where}workflow_status (workflow_uuid) ON DELETE CASCADE"
            conn.exec_driver_sql(f"CREATE TABLE {where}{table} (workflow_uuid TEXT PRIMARY KEY {key}, {values})")
        conn.execute(tables.migrations.insert().values(version=number))
    engine.dispose()


def work_a_little() -> list[object]:
    """A run with a child, cancelled, resumed, forked, deleted: everything that knows where values are stored."""

    @DBOS.step(name="double")
    def double(x: int) -> int:
        if x > 100:
            raise ValueError(f"{x} is too much")
        return 2 * x

    @DBOS.workflow(name="child")
    def child(x: int) -> int:
        return double(x)

    @DBOS.workflow(name="work")
    def work(x: int) -> int:
        return double(x) + child(x)

    with SetWorkflowID("w"):
        seen: list[object] = [work(3)]
    with SetWorkflowID("failing"), pytest.raises(ValueError, match="too much"):
        work(1000)
    seen.append(DBOS.fork_workflow("w", 2).get_result())
    seen.append(DBOS.get_workflow_status("w").input)
    seen.append(DBOS.get_workflow_status("w").output)
    seen.append(str(DBOS.get_workflow_status("failing").error))
    seen.append([step["output"] for step in DBOS.list_workflow_steps("w")])
    seen.append(DBOS.retrieve_workflow("w-2").get_result())
    DBOS.delete_workflow("w", delete_children=True)
    seen.append(DBOS.get_workflow_status("w-2"))
    return seen


@pytest.mark.parametrize("layout", LAYOUTS, ids=["classic", "extended", "split"])
def test_every_layout_is_opened_as_it_is(blank: str, sql: Sql, layout: Layout) -> None:
    make_tables(blank, layout, 60)
    before = tables_in(blank)
    app = App(blank)
    app.launch()

    assert [12, 12, {"args": (3,), "kwargs": {}}, 12, "1000 is too much", [6, None, 6], 6, None] == work_a_little()
    DBOS.destroy(destroy_registry=True)
    assert [(60,)] == sql(f"SELECT version FROM {schema_of(blank)}dbos_migrations")
    after = tables_in(blank)
    assert before == {name: columns for name, columns in after.items() if name in before}
    assert all(name.startswith("notebook_") for name in set(after) - set(before))


def tables_in(url: str) -> dict[str, list[str]]:
    engine = sa.create_engine(parsed(url))
    schema = schema_of(url).rstrip(".") or None
    look = sa.inspect(engine)
    found = {
        name: [column["name"] for column in look.get_columns(name, schema)] for name in look.get_table_names(schema)
    }
    engine.dispose()
    return found


@pytest.mark.parametrize("layout", LAYOUTS[2:], ids=["split"])
def test_what_the_side_tables_hold_is_read(blank: str, sql: Sql, layout: Layout) -> None:
    """Programs of that layout write inputs and outputs there, and leave the old columns empty."""
    make_tables(blank, layout, 125)
    where = schema_of(blank)
    sql(
        f"INSERT INTO {where}workflow_status (workflow_uuid, status, name, serialization, created_at, updated_at) "
        "VALUES ('theirs', 'SUCCESS', 'work', 'portable_json', 1, 1)",
        f"INSERT INTO {where}workflow_input (workflow_uuid, inputs) VALUES ('theirs', '{{\"positionalArgs\":[5]}}')",
        f"INSERT INTO {where}workflow_output (workflow_uuid, output, error) VALUES ('theirs', '\"from there\"', NULL)",
    )
    App(blank).launch()

    assert "from there" == DBOS.get_result("theirs")
    assert {"args": (5,), "kwargs": {}} == DBOS.get_workflow_status("theirs").input


@pytest.mark.parametrize("layout", LAYOUTS[2:], ids=["split"])
def test_a_rewound_workflow_leaves_its_old_outcome(blank: str, sql: Sql, layout: Layout) -> None:
    """In the side tables and in the time of its end, as well as in its row."""
    make_tables(blank, layout, 125)
    where = schema_of(blank)
    sql(
        f"INSERT INTO {where}workflow_status (workflow_uuid, status, name, serialization, created_at, updated_at, "
        "completed_at) VALUES ('theirs', 'SUCCESS', 'double', 'portable_json', 1, 1, 1)",
        f"INSERT INTO {where}workflow_input (workflow_uuid, inputs) VALUES ('theirs', '{{\"positionalArgs\":[5]}}')",
        f"INSERT INTO {where}workflow_output (workflow_uuid, output, error) VALUES ('theirs', '\"old\"', NULL)",
    )

    @DBOS.workflow(name="double")
    def double(x: int) -> int:
        return 2 * x

    App(blank).launch()
    resting = DBOS.rewind_workflow("theirs", queue_name="served-by-nobody").get_status()
    assert ("ENQUEUED", None, None) == (resting.status, resting.output, resting.completed_at)
    DBOS.resume_workflow("theirs")

    assert 10 == DBOS.get_result("theirs")
    assert [] == sql(f"SELECT * FROM {where}workflow_output")


def test_a_database_that_is_migrated_under_us_is_understood(blank: str, sql: Sql) -> None:
    """Another program may migrate it while we run: nobody sees an error."""
    make_tables(blank, Layout(), 19)
    App(blank).launch()
    assert 12 == work_a_little()[0]
    where = schema_of(blank)
    sql(
        f"ALTER TABLE {where}workflow_status ADD COLUMN something_new TEXT",
        f"CREATE INDEX something_fast ON {where}operation_outputs (function_name)",
    )
    DBOS.delete_workflows(["failing"])

    assert 12 == work_a_little()[0]


def test_tables_of_a_newer_release_are_refused(blank: str, sql: Sql) -> None:
    App(blank).launch()
    DBOS.destroy(destroy_registry=True)
    sql(f"UPDATE {schema_of(blank)}notebook_migrations SET version = 9999")

    with pytest.raises(DBOSSchemaError, match="newer release"):
        App(blank).launch()
    DBOS.destroy()
    sql(f"UPDATE {schema_of(blank)}notebook_migrations SET version = 1")
    App(blank).launch()
    assert 12 == work_a_little()[0]


def test_a_migration_that_was_not_finished_is_refused(blank: str, sql: Sql) -> None:
    make_tables(blank, Layout(), 19)
    sql(f"DROP TABLE {schema_of(blank)}dbos_migrations")

    with pytest.raises(DBOSSchemaError, match="was not finished"):
        App(blank).launch()


def test_a_launch_that_may_make_nothing_wants_everything_there(blank: str, tmp_path: Path) -> None:
    """As where the tables are made by a deployment, with rights that the application has not."""
    app, own = App(blank), f"sqlite:///{tmp_path}/own.sqlite"
    with pytest.raises(DBOSSchemaError, match="run_migrations is False.*run_dbos_database_migrations"):
        app.launch(run_migrations=False)
    assert not (tmp_path / "blank.sqlite").exists()

    run_dbos_database_migrations(blank)
    with pytest.raises(DBOSSchemaError, match="transaction_outputs.*app_database_url"):
        app.relaunch(run_migrations=False, application_database_url=own)
    run_dbos_database_migrations(blank, app_database_url=own)
    app.relaunch(run_migrations=False, application_database_url=own)

    assert 12 == work_a_little()[0]


def test_a_migration_that_never_got_to_the_tables_is_begun_anew(blank: str, sql: Sql) -> None:
    """As where another program lacked the right to what its first migration needs."""
    if schema_of(blank):
        sql("CREATE SCHEMA dbos")
    sql(f"CREATE TABLE {schema_of(blank)}dbos_migrations (version BIGINT NOT NULL PRIMARY KEY)")

    App(blank).launch()

    assert 12 == work_a_little()[0]
    assert 1 == len(sql(f"SELECT version FROM {schema_of(blank)}dbos_migrations"))


def test_tables_of_a_release_that_is_too_old_are_refused(blank: str, sql: Sql) -> None:
    make_tables(blank, Layout(), 5)
    sql(f"ALTER TABLE {schema_of(blank)}workflow_status DROP COLUMN serialization")

    with pytest.raises(DBOSSchemaError, match="lacks serialization"):
        App(blank).launch()
