"""Making the tables, and judging those that are there.

A new database gets the classic layout, whole, in one transaction and under a lock: eight processes that start
at once all find it finished, and one that dies on the way leaves nothing. A database that another DBOS program
made is opened as it is; only tables of our own are added to it. What is newer than we understand is refused
before anything is written.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.schema import CreateIndex, CreateSchema, CreateTable

from dbos._kernel.forks import file_of
from dbos._kernel.functions import definitions
from dbos._kernel.job import Tx
from dbos._kernel.layout import columns_of
from dbos._kernel.plan import perform
from dbos._kernel.schema import CLASSIC_VERSION, OWN_VERSION
from dbos.error import DBOSException, DBOSSchemaError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import URL, Engine, Table

    from dbos._kernel.statement import Conn
    from dbos._kernel.store import Store

logger = logging.getLogger("dbos")

# The key under which every DBOS program takes turns at migrating.
ADVISORY_LOCK = 1234567890
# What every file of SQLite begins with.
SQLITE_MAGIC = b"SQLite format 3\0"


def migrate(store: Store) -> None:
    """Bring the database to where this package can use it."""
    if not store.read(is_complete):
        perform(Tx(store.lane, _make, patience_seconds=120))
    store.refresh_layout()


def verify(store: Store) -> None:
    """The same for a process that may change no tables: everything must be there."""
    if not store.read(is_complete):
        raise _incomplete(store.engine.url)
    store.refresh_layout()


def verify_database(engine: Engine) -> None:
    """Refuse a SQLite file that is not there: a connection would make it."""
    file = file_of(engine.url)
    if file is not None and not file.exists():
        raise _incomplete(engine.url)


def _incomplete(url: URL) -> DBOSSchemaError:
    return DBOSSchemaError(
        f"The database {url.database!r} lacks tables of DBOS, and run_migrations is False. Run `dbos migrate` or call "
        "run_dbos_database_migrations() once."
    )


def is_complete(conn: Conn) -> bool:
    """Whether nothing is left to do. Raises DBOSSchemaError for a database that cannot be used."""
    tables = conn.tables
    found = columns_of(conn, "workflow_status")
    if not found or not columns_of(conn, "dbos_migrations"):
        if found:
            raise DBOSSchemaError(
                "The database has a table workflow_status but no dbos_migrations: its migration was not finished, or "
                "it belongs to something else. Use another database or schema."
            )
        return False
    missing = {column.name for column in tables.status.columns} - found - {"completed_at"}
    if missing:
        raise DBOSSchemaError(
            f"The table workflow_status lacks {', '.join(sorted(missing))}: an older release made it. Run `dbos migrate` "
            "of DBOS 2.18 or later on this database once."
        )
    if not columns_of(conn, "notebook_migrations"):
        return False
    own = max((row.version for row in conn.run_once(select(tables.own_migrations))), default=0)
    if own > OWN_VERSION:
        raise DBOSSchemaError(
            f"The database was made by a newer release (tables version {own}, this one knows {OWN_VERSION}). "
            "Upgrade dbos-notebook in this environment, or use another database."
        )
    return bool(own == OWN_VERSION)


def _make(conn: Conn) -> None:
    """Create what is missing; inside the lock, so look again first."""
    tables = conn.tables
    if tables.schema is not None:
        conn.say(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
    if is_complete(conn):
        return
    if not columns_of(conn, "workflow_status"):
        if tables.schema is not None:
            _ddl(conn, CreateSchema(tables.schema, if_not_exists=True))
        # One may be there, and tell of nothing: another program's first migration failed after it had made this table.
        _create(conn, _missing(conn, tables.shared))
        for definition in definitions(tables):
            conn.say(definition)
        conn.run_once(delete(tables.migrations))
        conn.run_once(insert(tables.migrations).values(version=CLASSIC_VERSION[tables.dialect.name]))
    if not columns_of(conn, "notebook_migrations"):
        _create(conn, tables.own)
        conn.run_once(insert(tables.own_migrations).values(version=OWN_VERSION))
    else:  # an earlier version made them: every later one has only added tables
        _create(conn, _missing(conn, tables.own))
        conn.run_once(update(tables.own_migrations).values(version=OWN_VERSION))


def _missing(conn: Conn, tables: Iterable[Table]) -> list[Table]:
    return [table for table in tables if not columns_of(conn, table.name)]


def _create(conn: Conn, wanted: Iterable[Table]) -> None:
    for table in wanted:
        _ddl(conn, CreateTable(table))
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            _ddl(conn, CreateIndex(index))


def _ddl(conn: Conn, element: CreateTable | CreateIndex | CreateSchema) -> None:
    conn.say(str(element.compile(dialect=conn.tables.dialect.named)))


def ensure_database(engine: Engine) -> None:
    """Create the engine's Postgres database if it is missing; SQLite makes its file by itself."""
    if engine.url.get_backend_name() != "postgresql":
        return
    try:
        engine.connect().close()  # stays in the pool, so that looking costs nothing when all is well
    except OperationalError:
        # Before there is a connection the server tells its reason only in words, and in its own language.
        try:
            _create_database(engine.url)
        except DBAPIError:
            logger.debug("The database could not be created either", exc_info=True)
        else:
            return
        raise


def _create_database(url: URL) -> None:
    probe = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    try:
        with probe.connect() as conn:
            name = probe.dialect.identifier_preparer.quote_identifier(url.database or "")
            try:
                conn.execute(text(f"CREATE DATABASE {name}"))
            except DBAPIError as error:
                # Another process created it between our look and our statement.
                if getattr(error.orig, "sqlstate", None) not in ("42P04", "23505"):
                    raise
    finally:
        probe.dispose()


def empty(store: Store) -> None:
    """Delete all rows but those that say what the tables are."""
    store.refresh_layout()
    perform(Tx(store.lane, _empty, patience_seconds=120))


def _empty(conn: Conn) -> None:
    tables = conn.tables
    apart = (tables.queues, tables.side_input, tables.side_output)
    for table in (*reversed(tables.metadata.sorted_tables), *apart):
        if table not in (tables.migrations, tables.own_migrations) and columns_of(conn, table.name):
            conn.run_once(delete(table))


def drop_database(url: URL) -> None:
    """Remove the system database: the file, or the database on the server."""
    if url.get_backend_name() == "sqlite":
        _refuse_other_file(Path(url.database or ""))
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{url.database}{suffix}").unlink(missing_ok=True)
        return
    probe = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    try:
        with probe.connect() as conn:
            name = probe.dialect.identifier_preparer.quote_identifier(url.database or "")
            conn.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    finally:
        probe.dispose()


def _refuse_other_file(file: Path) -> None:
    """Refuse a file that is none of SQLite's: a misspelt address must not cost somebody his program."""
    if not file.exists():
        return
    with file.open("rb") as opened:
        beginning = opened.read(len(SQLITE_MAGIC))
    if beginning and beginning != SQLITE_MAGIC:
        raise DBOSException(f"{file} is no SQLite database; nothing was deleted")
