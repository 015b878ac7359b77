"""The client itself: how it is made, what it does not make, when it connects and listens, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from dbos import DBOS, DBOSClient, SetWorkflowID, run_dbos_database_migrations
from dbos._faces.config import parsed
from dbos._kernel.plan import set_probe
from dbos.error import DBOSException, DBOSInitializationError, DBOSSchemaError
from tests.compat.acts import beside, step_names
from tests.compat.clients import Caller, to
from tests.compat.rows import Rows
from tests.conftest import App
from tests.databases import admin
from tests.hand import Hand, Inside
from tests.waiting import eventually


@pytest.fixture
def client(database: str) -> Iterator[DBOSClient]:
    with DBOSClient(system_database_url=database) as made:
        yield made


def listeners() -> int:
    return sum(thread.name == "dbos-listener" for thread in threading.enumerate())


# -- making one ------------------------------------------------------------------------------------------------


def test_every_way_to_name_the_database(database: str, tmp_path: Path) -> None:
    engine = create_engine(parsed(database))
    other = f"sqlite:///{tmp_path}/app.sqlite"
    made: list[Callable[[], DBOSClient]] = [
        lambda: DBOSClient(system_database_url=database),
        lambda: DBOSClient(system_database_engine=engine),
        lambda: DBOSClient(system_database_url=database, system_database_engine=engine, application_database_url=other),
        lambda: DBOSClient(system_database_url=database, application_database_url=other, dbos_system_schema=None),
        lambda: DBOSClient(system_database_url=database, system_database_pool_size=2, use_listen_notify=True),
    ]

    for make in made:
        with make() as client:
            assert [] == client.list_workflows()
    assert not (tmp_path / "app.sqlite").exists()
    engine.dispose()


def test_an_engine_of_the_user_stays_open(database: str) -> None:
    engine = create_engine(parsed(database))
    DBOSClient(system_database_engine=engine).destroy()

    with DBOSClient(system_database_engine=engine) as client:
        assert [] == client.list_workflows()
    assert 0 == engine.pool.checkedout()
    engine.dispose()


def test_the_older_form_names_the_application_database(database: str) -> None:
    """On SQLite that is the system database too; on Postgres its name says which one is."""
    with pytest.warns(DeprecationWarning, match="system_database_url"):
        made = DBOSClient(database, lazy=True)

    expected = parsed(database).database or ""
    assert (expected if database.startswith("sqlite") else f"{expected}_dbos_sys") in repr(made)
    made.destroy()


def test_without_an_address_there_is_no_client() -> None:
    with pytest.raises(DBOSInitializationError, match="system_database_url"):
        DBOSClient()


def test_a_password_is_not_shown(database: str) -> None:
    url = parsed("postgresql://somebody:secret@nowhere.invalid/db")
    shown = repr(DBOSClient(system_database_url=url.render_as_string(hide_password=False), lazy=True))

    assert "nowhere.invalid/db" in shown
    assert "secret" not in shown


# -- making nothing --------------------------------------------------------------------------------------------


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(DBOSInitializationError, match="no system database"):
        DBOSClient(system_database_url=f"sqlite:///{tmp_path}/missing one.sqlite")

    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"x INTEGER"])
def test_a_file_of_something_else_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "other one.sqlite"
    file.touch()
    if content:
        engine = create_engine(f"sqlite:///{file}")
        with engine.begin() as conn:
            conn.exec_driver_sql("CREATE TABLE something (x INTEGER)")
        engine.dispose()
    before = file.read_bytes()

    with pytest.raises(DBOSSchemaError, match="no tables of DBOS"):
        DBOSClient(system_database_url=f"sqlite:///{file}")
    assert before == file.read_bytes()


def test_a_missing_database_is_not_made(missing_database: Callable[[], str]) -> None:
    url = missing_database()
    for _ in range(2):
        with pytest.raises(OperationalError, match=r'database "missing_.*" does not exist'):
            DBOSClient(system_database_url=url)


def test_an_empty_database_stays_empty(missing_database: Callable[[], str], postgres: str) -> None:
    url = missing_database()
    admin(postgres, f"CREATE DATABASE {parsed(url).database}")

    with pytest.raises(DBOSSchemaError, match="no tables of DBOS in schema 'dbos'"):
        DBOSClient(system_database_url=url)
    assert [] == Rows(url).run("SELECT 1 FROM information_schema.schemata WHERE schema_name = 'dbos'")


def test_a_lazy_client_connects_when_it_is_asked(tmp_path: Path, hand: Hand) -> None:
    url = f"sqlite:///{tmp_path}/later.sqlite"
    client = DBOSClient(system_database_url=url, lazy=True)
    ask = Caller(hand, client)
    with pytest.raises(DBOSInitializationError):
        ask("list_workflows")
    run_dbos_database_migrations(url)

    assert [] == ask("list_workflows")
    client.check_connection()
    client.destroy()


def test_a_later_layout_is_seen_by_a_client_that_is_there(client: DBOSClient, rows: Rows, clock: Any) -> None:
    """Another program migrates the database, and stores outputs in a table of their own."""
    rows.add("w", "any", status="SUCCESS", output='"old"')
    with DBOSClient(system_database_url=client._url.render_as_string(hide_password=False)) as later:
        assert "old" == later.get_result("w")
        rows.run("ALTER TABLE {}workflow_status ADD COLUMN completed_at BIGINT")
        rows.run("CREATE TABLE {}workflow_input (workflow_uuid TEXT, inputs TEXT)")
        rows.run("CREATE TABLE {}workflow_output (workflow_uuid TEXT, output TEXT, error TEXT)")
        rows.add("v", "any", status="SUCCESS", completed_at=5)
        rows.run("INSERT INTO {}workflow_output VALUES ('v', '\"new\"', NULL)")
        clock.advance(11)

        assert "new" == later.get_result("v")
        assert {"w": None, "v": 5} == {each.workflow_id: each.completed_at for each in later.list_workflows()}


# -- what it costs ---------------------------------------------------------------------------------------------


def test_a_client_that_only_lists_has_one_connection_and_no_thread(database: str) -> None:
    engine = create_engine(parsed(database))
    before = set(threading.enumerate())
    with DBOSClient(system_database_engine=engine) as client:
        for _ in range(3):
            client.list_workflows()
            client.list_workflow_steps("w")

        assert 1 == engine.pool.checkedout()
        assert set() == set(threading.enumerate()) - before
    engine.dispose()


def test_an_operation_is_one_round_trip(app: App, client: DBOSClient) -> None:
    @DBOS.workflow(name="work")
    def work() -> int:
        return 1

    app.launch()
    client.enqueue(to("work", workflow_id="w")).get_result()
    DBOS.destroy()

    def effects(act: Callable[[], object]) -> int:
        seen: list[str] = []
        set_probe(lambda effect, moment: seen.append(type(effect).__name__) if moment == "before" else None)
        try:
            act()
        finally:
            set_probe(None)
        return len(seen)

    assert 1 == effects(lambda: client.enqueue(to("work")))
    assert 1 == effects(lambda: client.retrieve_workflow("w"))
    assert 1 == effects(lambda: client.get_result("w"))
    assert 1 == effects(lambda: client.list_workflows())
    assert 1 == effects(lambda: client.cancel_workflow("w"))


def test_it_listens_from_when_it_waits(app: App, client: DBOSClient, hand: Hand) -> None:
    go = threading.Event()

    @DBOS.workflow(name="waits")
    def waits() -> int:
        go.wait(20)
        return 1

    app.launch()
    before = listeners()
    handle = Caller(hand, client).enqueue("waits")
    handle.status()
    assert before == listeners()
    result = beside(handle.result)

    eventually(lambda: listeners() == before + 1)
    go.set()
    assert 1 == result.result(20)


# -- being outside ---------------------------------------------------------------------------------------------


def test_inside_a_workflow_it_is_outside(app: App, client: DBOSClient, hand: Hand) -> None:
    """Nothing that a workflow does by a client is recorded."""
    ask = {name: getattr(client, f"{name}_async" if hand.is_async else name) for name in ("enqueue", "list_workflows")}

    @hand.workflow(name="inner")
    async def inner(do: Inside) -> int:
        return 7

    @hand.workflow(name="outer")
    async def outer(do: Inside) -> int:
        handle = await do(ask["enqueue"](to("inner", workflow_id="inner")))
        assert 2 == len(await do(ask["list_workflows"]()))
        return await do(handle.get_result())

    app.launch()
    with SetWorkflowID("outer"):
        assert 7 == hand.call(outer)

    assert [] == step_names("outer")
    assert DBOS.get_workflow_status("inner").parent_workflow_id is None


def test_sync_methods_work_in_an_event_loop(app: App, client: DBOSClient) -> None:
    @DBOS.workflow(name="work")
    def work(x: int) -> int:
        return x

    async def act() -> int:
        handle = client.enqueue(to("work"), 5)
        assert handle.workflow_id in [each.workflow_id for each in client.list_workflows()]
        return handle.get_result()

    app.launch()
    assert 5 == asyncio.run(act())


def test_schemas_do_not_meet(missing_database: Callable[[], str]) -> None:
    """An application and two clients, each in another schema of one database, in one process."""
    url = missing_database()
    ran: list[str] = []

    @DBOS.workflow(name="work")
    def work(text: str) -> str:
        ran.append(text)
        return text

    for schema in ("dbos", "one", "Two Words"):
        run_dbos_database_migrations(url, schema=schema)
    DBOS(
        config={
            "name": "schemas",
            "system_database_url": url,
            "dbos_system_schema": "one",
            "application_version": "v1",
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    with (
        DBOSClient(system_database_url=url, dbos_system_schema="one") as first,
        DBOSClient(system_database_url=url, dbos_system_schema="Two Words") as second,
    ):
        second.enqueue(to("work", workflow_id="b"), "b")
        assert "a" == first.enqueue(to("work", workflow_id="a"), "a").get_result()

        assert ["a"] == [each.workflow_id for each in first.list_workflows()] == ran
        assert ["b"] == [each.workflow_id for each in second.list_workflows()]


# -- the end ---------------------------------------------------------------------------------------------------


def test_a_destroyed_client_says_so(database: str, hand: Hand) -> None:
    client = DBOSClient(system_database_url=database)
    handle = client.enqueue(to("work"))
    client.destroy()
    client.destroy()
    ask = Caller(hand, client)

    for act in (
        lambda: ask("list_workflows"),
        lambda: ask.enqueue("work"),
        lambda: ask("cancel_workflow", "w"),
        handle.get_result,
    ):
        with pytest.raises(DBOSException, match="DBOSClient was destroyed"):
            act()


def test_a_client_that_was_never_used_can_be_destroyed(tmp_path: Path) -> None:
    client = DBOSClient(system_database_url=f"sqlite:///{tmp_path}/none.sqlite", lazy=True)
    client.destroy()

    with pytest.raises(DBOSException, match="DBOSClient was destroyed"):
        client.list_workflows()


def test_who_waits_is_told_of_the_end(database: str, hand: Hand) -> None:
    client = DBOSClient(system_database_url=database)
    handle = Caller(hand, client).enqueue("never")
    before = listeners()
    waiting = beside(handle.result)
    eventually(lambda: listeners() > before)
    client.destroy()

    with pytest.raises(DBOSException, match="DBOSClient was destroyed"):
        waiting.result(20)
    assert before == listeners()


def test_a_block_ends_it(database: str) -> None:
    async def act() -> DBOSClient:
        async with DBOSClient(system_database_url=database) as client:
            assert [] == await client.list_workflows_async()
        return client

    with DBOSClient(system_database_url=database) as client:
        assert [] == client.list_workflows()
    for ended in (client, asyncio.run(act())):
        with pytest.raises(DBOSException, match="destroyed"):
            ended.list_workflows()


def test_it_leaves_nothing_open(database: str, rows: Rows) -> None:
    """Neither connections nor threads, although it wrote, read and waited."""
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    before = threading.active_count()
    client = DBOSClient(system_database_url=database)
    client.cancel_workflow(client.enqueue(to("work", workflow_id="w")).workflow_id)
    with pytest.raises(Exception, match="cancelled"):
        client.get_result("w")
    client.destroy()

    eventually(lambda: threading.active_count() <= before)
    if rows.is_postgres:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        eventually(lambda: rows.run(others)[0][0] == 0)
