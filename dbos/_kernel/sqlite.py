"""SQLite: one file, one writer, and no server to tell us anything."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, ColumnElement, Integer, Select, Text, bindparam, func, literal_column, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.compiler import compiles

from dbos._kernel.dialect import Dialect, JsonRows, original

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.sql.compiler import SQLCompiler

    from dbos._kernel.statement import Conn


# So many of SQLite's own steps, about a millisecond of work, go by between two looks at the clock.
STEPS_BETWEEN_LOOKS = 20_000


@compiles(JsonRows, "sqlite")
def _json_rows_sqlite(element: JsonRows, compiler: SQLCompiler, **kw: Any) -> str:
    fields = ", ".join(f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(element.fields))
    return f"(SELECT {fields} FROM json_each({compiler.process(element.clauses, **kw)}))"  # noqa: S608 - names of ours


def _code(error: BaseException) -> int:
    """The primary result code, without the detail in its higher bits."""
    return (getattr(original(error), "sqlite_errorcode", None) or 0) & 0xFF


def _contains(text: str | None, wanted: str) -> bool:
    try:
        return text is not None and _covers(json.loads(text), json.loads(wanted))
    except ValueError:  # not ours, and no JSON
        return False


def _covers(whole: Any, part: Any) -> bool:
    """Every key and element of the part is in the whole, at the same depth and in any order."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and _covers(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and all(any(_covers(each, one) for each in whole) for one in part)
    # True is 1 to Python and not to JSON.
    return isinstance(whole, bool) == isinstance(part, bool) and bool(whole == part)


class SQLite(Dialect):
    """A file beside the program."""

    name = "sqlite"
    has_schemas = False
    single_writer = True
    notifies = False
    # IMMEDIATE: a transaction that reads first and writes later would fail when another writer came between.
    begin = "BEGIN IMMEDIATE"
    begin_snapshot = "BEGIN"
    now_default = "(CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))"
    random_id_default = "(lower(hex(randomblob(16))))"
    columns_of = "SELECT name FROM pragma_table_info(:table) WHERE :schema IS NULL OR TRUE"
    now = ""
    named = sqlite.dialect(paramstyle="named")
    positional = sqlite.dialect(paramstyle="qmark")
    driver_error = sqlite3.Error

    def prepare(self, raw: Any) -> None:
        raw.isolation_level = None
        raw.execute("PRAGMA busy_timeout = 5000")
        raw.execute("PRAGMA journal_mode = WAL")
        # FULL: what was acknowledged is on the disk. NORMAL would lose the last commits with the power.
        raw.execute("PRAGMA synchronous = FULL")
        raw.execute("PRAGMA foreign_keys = ON")
        raw.execute("PRAGMA cache_size = -16000")
        raw.create_function("dbos_contains", 2, _contains, deterministic=True)

    def prepare_reader(self, raw: Any, seconds: float | None) -> None:
        raw.isolation_level = None
        raw.execute("PRAGMA busy_timeout = 5000")
        # The file is opened for reading already where we make the connection; an engine of others opens it as it likes.
        raw.execute("PRAGMA query_only = ON")
        raw.execute("PRAGMA cache_size = -16000")
        raw.create_function("dbos_contains", 2, _contains, deterministic=True)

    def allow(self, raw: Any, seconds: float) -> None:
        until = time.monotonic() + seconds
        raw.set_progress_handler(lambda: time.monotonic() > until, STEPS_BETWEEN_LOOKS)

    def join(self, raw: Any) -> None:
        if not raw.in_transaction:  # the driver does so before some statements only
            raw.execute(self.begin)

    def hand_back(self, raw: Any) -> None:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raw.isolation_level = ""

    def hand_back_reader(self, raw: Any) -> None:
        raw.set_progress_handler(None, 0)
        self.hand_back(raw)
        raw.execute("PRAGMA query_only = OFF")

    def in_transaction(self, raw: Any) -> bool:
        return bool(raw.in_transaction)

    def version(self, conn: Conn) -> int | None:
        return int(conn.raw.execute("PRAGMA data_version").fetchone()[0])

    def execute(self, cursor: Any, sql: str, parameters: Any) -> Any:
        return cursor.execute(sql, parameters)

    def transact(self, conn: Conn, statements: Sequence[tuple[str, Any]], *, begun: bool) -> list[list[Any]]:
        if begun or len(statements) == 1:  # a statement alone is a transaction
            return [conn.cursor.execute(*each).fetchall() for each in statements]
        conn.say(self.begin)
        returned = [conn.cursor.execute(*each).fetchall() for each in statements]
        conn.say("COMMIT")
        return returned

    def among(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """A list is one JSON parameter: SQLite has no arrays, and an IN of varying length is no constant."""
        values = func.json_each(bindparam(name, type_=Text())).table_valued("value")
        return column.in_(select(values.c.value))

    def insert(self, table: Table) -> Any:
        return sqlite.insert(table)

    def adapt(self, parameters: dict[str, Any]) -> dict[str, Any]:
        for name, value in parameters.items():
            if isinstance(value, list):
                parameters[name] = json.dumps(value)
        return parameters

    def claim(self, table: Table, values: Mapping[str, Any], next_ones: Select[Any], columns: Sequence[Any]) -> Any:
        """Nothing to pass over: BEGIN IMMEDIATE already made us the only writer."""
        (key,) = table.primary_key.columns
        chosen = key.in_(next_ones.scalar_subquery())
        return update(table).values(values).where(chosen).returning(*columns, self.arrival(table).label("arrival"))

    def contains(self, text: ColumnElement[Any], wanted: str) -> ColumnElement[bool]:
        """SQLite has no such operator: every connection of ours has a function for it."""
        return func.dbos_contains(text, wanted, type_=Boolean())

    def json(self, text: ColumnElement[Any]) -> ColumnElement[Any]:
        return text

    def arrival(self, table: Table) -> ColumnElement[Any]:
        return literal_column("rowid", Integer())

    def off_index(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """SQLite rather reads all rows in their order than sort the few that a partial index has."""
        return column + literal_column("0")

    def take_turns(self, conn: Conn, what: str) -> None:
        """Whoever writes is alone already."""

    def is_transient(self, error: BaseException) -> bool:
        # A disk that is full or fails is like a server that is away: what is done again finds out what became of it.
        return self.is_locked(error) or self.is_full(error) or _code(error) == sqlite3.SQLITE_IOERR

    def is_locked(self, error: BaseException) -> bool:
        return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

    def is_full(self, error: BaseException) -> bool:
        return _code(error) == sqlite3.SQLITE_FULL

    def is_too_slow(self, error: BaseException) -> bool:
        return _code(error) == sqlite3.SQLITE_INTERRUPT

    def is_disconnect(self, error: BaseException, raw: Any) -> bool:
        # After an I/O error the connection's view of the file is not to be trusted.
        return _code(error) in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT)
