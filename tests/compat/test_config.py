"""The configuration: what is refused, what is meant when a key is left out, and what the environment adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, event, make_url, text

from dbos import DBOS, SetWorkflowID, run_dbos_database_migrations
from dbos.error import DBOSException, DBOSInitializationError
from tests.compat.conftest import Log
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside


def configure(**config: Any) -> None:
    DBOS(config={"name": "some-app", "run_admin_server": False, "log_level": "ERROR", **config})


def run_one(workflow_id: str = "w") -> list:
    """A workflow with a transaction that makes a table if it can, run."""

    @DBOS.transaction(name="txn")
    def txn() -> int:
        DBOS.sql_session.execute(text("CREATE TABLE IF NOT EXISTS mine (x INTEGER)"))
        return 1

    @DBOS.workflow(name="work")
    def work() -> int:
        return txn()

    with SetWorkflowID(workflow_id):
        return work()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("DBOS__VMID", "DBOS__APPVERSION", "DBOS__APPID", "DBOS_SYSTEM_DATABASE_URL", "DBOS_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


# -- what is refused -------------------------------------------------------------------------------------------


def test_a_configuration_is_required() -> None:
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'config'"):
        DBOS()


@pytest.mark.parametrize("config", [{}, {"name": None}, {"name": ""}])
def test_a_name_is_required(config: dict) -> None:
    with pytest.raises(DBOSInitializationError, match="must specify an application name") as caught:
        DBOS(config=config)
    assert 3 == caught.value.dbos_error_code


@pytest.mark.parametrize("name", ["ab", "a" * 31, "Capital", "with space", "dot.ted", "umläut", "new\nline"])
def test_a_name_that_fits_nowhere_is_refused(name: str) -> None:
    with pytest.raises(DBOSInitializationError, match="Invalid app name"):
        DBOS(config={"name": name})


@pytest.mark.parametrize("name", ["abc", "a" * 30, "my-app_2", "123"])
def test_a_name_that_fits_is_taken(here: Path, name: str) -> None:
    DBOS(config={"name": name})


@pytest.mark.parametrize("key", ["system_database_url", "application_database_url", "database_url"])
@pytest.mark.parametrize(
    "url", ["postgresql://me@localhost", "postgresql://me@localhost/", "postgresql+psycopg://h:5432"]
)
def test_a_postgres_url_needs_a_database(key: str, url: str) -> None:
    with pytest.raises(DBOSInitializationError, match="Database name must be specified in the connection URL"):
        configure(**{key: url})


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://me:canary@host:port/db", "cannot be read"),
        ("postgresql://me:canary", "cannot be read"),
        ("postgresql://me:a@canary@host/db", "two @"),
        ("mysql://me:canary@host/db", "not supported"),
        ("sqlite://canary@host/file", "names no host"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_without_being_quoted(url: str, says: str) -> None:
    with pytest.raises(DBOSInitializationError, match=says) as caught:
        configure(system_database_url=url)
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "key",
    [
        *("dbos_system_schema", "application_version", "executor_id", "db_engine_kwargs", "system_database_engine"),
        *("otlp_traces_endpoints", "otlp_logs_endpoints", "notification_listener_polling_interval_sec"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_key(key: str) -> None:
    with pytest.raises(DBOSInitializationError, match=key):
        configure(**{key: object()})


@pytest.mark.parametrize("interval", [0, -1, 0.0009, float("nan"), "1"])
def test_a_polling_interval_has_a_minimum(interval: float) -> None:
    with pytest.raises(DBOSInitializationError):
        configure(notification_listener_polling_interval_sec=interval)


def test_unknown_keys_are_ignored(here: Path) -> None:
    configure(something_else=1, another={"deep": True})
    DBOS.launch()

    assert 1 == run_one()


def test_settings_of_an_outside_service_are_accepted(here: Path) -> None:
    """They are not needed, and do no harm."""
    configure(conductor_key="k", conductor_url="wss://nowhere", conductor_executor_metadata={"zone": "a"})
    DBOS.launch()

    assert 1 == run_one()


def test_metadata_of_the_executor_must_be_json() -> None:
    with pytest.raises(Exception, match="JSON-serializable"):
        configure(conductor_executor_metadata={"zone": object()})


# -- which database --------------------------------------------------------------------------------------------


def test_without_a_url_there_is_a_file_named_after_the_application(here: Path) -> None:
    """It holds the tables of transactions too."""
    configure(name="my-first-app")
    DBOS.launch()
    run_one()

    assert ["my_first_app.sqlite"] == [each.name for each in here.iterdir() if "-" not in each.name]
    assert [] == Rows(f"sqlite:///{here / 'my_first_app.sqlite'}").run("SELECT * FROM mine")


def test_a_system_database_alone_holds_transactions_too(app: App, rows: Rows) -> None:
    app.launch()

    assert 1 == run_one()
    assert [] == rows.run("SELECT * FROM mine")


def test_a_sqlite_application_database_alone_is_the_system_database_too(here: Path) -> None:
    url = f"sqlite:///{here / 'only.sqlite'}"
    configure(application_database_url=url)
    DBOS.launch()
    run_one()

    assert ["w"] == [row.workflow_uuid for row in Rows(url).run("SELECT workflow_uuid FROM workflow_status")]
    assert [] == Rows(url).run("SELECT * FROM mine")


def test_a_postgres_application_database_alone_has_a_system_database_beside_it(here: Path, missing_database) -> None:
    """Both are made; the second is named after the first."""
    url = missing_database()
    configure(application_database_url=url)
    DBOS.launch()
    run_one()

    beside = make_url(url).set(database=f"{make_url(url).database}_dbos_sys").render_as_string(hide_password=False)
    assert ["w"] == [row.workflow_uuid for row in Rows(beside).run("SELECT workflow_uuid FROM {}workflow_status")]
    assert [] == Rows(url).run("SELECT * FROM mine")
    assert 1 == len(Rows(url).run("SELECT * FROM {}transaction_outputs"))


def test_the_older_key_of_the_application_database_wins(here: Path) -> None:
    urls = {name: f"sqlite:///{here / name}.sqlite" for name in ("system", "new", "old")}
    configure(system_database_url=urls["system"], application_database_url=urls["new"], database_url=urls["old"])
    DBOS.launch()
    run_one()

    assert [] == Rows(urls["old"]).run("SELECT * FROM mine")
    assert not (here / "new.sqlite").exists()
    assert ["w"] == [row.workflow_uuid for row in Rows(urls["system"]).run("SELECT workflow_uuid FROM workflow_status")]


def test_a_missing_postgres_database_is_made(missing_database, here: Path) -> None:
    url = missing_database()
    configure(system_database_url=url)
    DBOS.launch()

    assert 1 == run_one()
    assert ["w"] == [row.workflow_uuid for row in Rows(url).run("SELECT workflow_uuid FROM {}workflow_status")]


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg", "postgresql+psycopg2", "postgresql+asyncpg"])
def test_postgres_is_always_spoken_to_by_one_driver(missing_database, here: Path, driver: str) -> None:
    url = make_url(missing_database()).set(drivername=driver)
    configure(system_database_url=url.render_as_string(hide_password=False))
    DBOS.launch()

    assert 1 == run_one()


def test_a_password_is_never_logged(missing_database, here: Path, log: Log) -> None:
    """Nor told by an error."""
    url = make_url(missing_database()).set(username="postgres", password="s3cret").render_as_string(hide_password=False)
    configure(system_database_url=url, application_database_url=url, log_level="DEBUG")
    DBOS.launch()
    run_one()
    DBOS.destroy()
    wrong = "postgresql://me:s3cret@localhost:1/nowhere?connect_timeout=1"
    configure(system_database_url=wrong, log_level="DEBUG")
    with pytest.raises(Exception) as caught:
        DBOS.launch()

    said = [record.getMessage() + str(record.exc_info) for record in log.records]
    assert said
    assert [] == [each for each in [*said, str(caught.value)] if "s3cret" in each]


# -- engines ---------------------------------------------------------------------------------------------------


def test_an_engine_of_the_user_is_used_and_left_open(app: App) -> None:
    url = make_url(app.database)
    engine = create_engine(url.set(drivername="postgresql+psycopg") if "postgres" in app.database else url)
    disposed: list[object] = []
    event.listen(engine, "engine_disposed", disposed.append)
    app.launch(system_database_engine=engine, system_database_url=None)
    assert 1 == run_one()
    DBOS.destroy()

    assert [] == disposed
    with engine.connect() as conn:
        assert 1 == conn.execute(text("SELECT 1")).scalar()
    engine.dispose()


@pytest.mark.parametrize(
    "kwargs", [{"poolclass": NullPool}, {"pool_size": 2, "max_overflow": 3}, {"pool_recycle": 60}], ids=str
)
def test_engines_are_made_as_the_user_says(app: App, kwargs: dict) -> None:
    app.launch(db_engine_kwargs=kwargs)

    assert 1 == run_one()
    assert [1, 1, 1] == [DBOS.fork_workflow("w", 1).get_result() for _ in range(3)]


def test_connections_say_whose_they_are(app: App, rows: Rows) -> None:
    """And no more of them are open than the pool is large."""

    @DBOS.workflow()
    def work() -> int:
        return 1

    app.launch(sys_db_pool_size=5)
    with SetWorkflowID("w"):
        work()
    for handle in [DBOS.fork_workflow("w", 1) for _ in range(20)]:
        handle.get_result()

    if rows.is_postgres:
        mine = "datname = current_database() AND application_name = 'dbos_transact'"
        (row,) = rows.run(f"SELECT count(*) AS many FROM pg_stat_activity WHERE {mine}")
        assert 1 <= row.many <= 5


@pytest.mark.parametrize("size", [2, 3, 20])
def test_a_small_pool_is_enough(app: App, size: int) -> None:
    app.launch(sys_db_pool_size=size)
    run_one()
    handles = [DBOS.fork_workflow("w", 1) for _ in range(30)]

    assert [1] * 30 == [handle.get_result() for handle in handles]


@pytest.mark.parametrize("schema", ["other", "My Schema", "with-dash", 'quote"d', "select"])
def test_the_schema_may_have_any_name(missing_database, here: Path, schema: str) -> None:
    url = missing_database()
    configure(system_database_url=url, dbos_system_schema=schema)
    DBOS.launch()
    run_one()

    quoted = '"' + schema.replace('"', '""') + '"'
    assert ["w"] == [row.workflow_uuid for row in Rows(url).run(f"SELECT workflow_uuid FROM {quoted}.workflow_status")]
    assert [] == Rows(url).run("SELECT 1 FROM pg_namespace WHERE nspname = 'dbos'")


def test_the_schema_means_nothing_to_sqlite(here: Path) -> None:
    configure(dbos_system_schema="other")
    DBOS.launch()

    assert 1 == run_one()


def test_without_notifications_everything_still_goes_on(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    app.launch(use_listen_notify=False, notification_listener_polling_interval_sec=0.01)

    assert 7 == hand.start(work).result()
    assert 7 == hand.do("fork_workflow", DBOS.list_workflows()[0].workflow_id, 1).result()


def test_the_tables_can_be_made_before(missing_database, here: Path) -> None:
    """By themselves, and more than once."""
    url, application = missing_database(), missing_database()
    for _ in range(2):
        run_dbos_database_migrations(url, app_database_url=application, schema="mine")
    configure(system_database_url=url, application_database_url=application, dbos_system_schema="mine")
    DBOS.launch()

    assert 1 == run_one()


def test_the_tables_are_made_by_migrate_too(missing_database, here: Path) -> None:
    url = missing_database()
    DBOS.migrate(url, schema="mine")
    with pytest.raises(DBOSException, match="no shards"):
        DBOS.migrate(url, sharding=True)
    configure(system_database_url=url, dbos_system_schema="mine")
    DBOS.launch()

    assert 1 == run_one()


# -- the environment -------------------------------------------------------------------------------------------


def test_the_executor_is_named_by_configuration_or_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it is "local"."""
    found = []
    for environment, config in ((None, {}), ("vm-1", {}), ("vm-1", {"executor_id": "mine"})):
        if environment is not None:
            monkeypatch.setenv("DBOS__VMID", environment)
        configure(**config)
        DBOS.launch()
        found.append(DBOS.executor_id)
        DBOS.destroy()

    assert ["local", "vm-1", "mine"] == found


def test_the_application_id_comes_from_the_environment(app: App, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBOS__APPID", "app-7")
    app.launch()
    run_one()

    assert "app-7" == rows.workflow("w").application_id == DBOS.get_workflow_status("w").app_id


def test_the_configured_identity_shows_before_the_launch(here: Path) -> None:
    configure(application_version="v7", executor_id="me")

    assert ("v7", "me") == (DBOS.application_version, DBOS.executor_id)


def test_the_environments_identity_shows_without_an_instance(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBOS__VMID", "vm-1")
    monkeypatch.setenv("DBOS__APPVERSION", "v8")
    configure(application_version="v7", executor_id="me")
    DBOS.launch()
    DBOS.destroy()

    assert ("v8", "vm-1") == (DBOS.application_version, DBOS.executor_id)


@pytest.mark.parametrize(
    ("config", "level"), [({"log_level": "WARNING"}, 30), ({"console_log_level": "DEBUG"}, 10), ({}, 20)]
)
def test_the_log_has_its_level(here: Path, config: dict, level: int) -> None:
    DBOS(config={"name": "some-app", **config})

    assert level == DBOS.logger.level
