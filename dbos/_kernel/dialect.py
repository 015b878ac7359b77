"""SQLite and Postgres: all that differs between them, each member named for the need and saying why they part.

Nothing outside this file asks which database it is talking to. Connections are the driver's own, in autocommit;
transactions are opened and closed in words, so a single statement costs one round trip and one commit.
"""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import ARRAY, BindParameter, ColumnElement, Select, Text, any_, bindparam, cast, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from sqlalchemy import FromClause, Table
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.types import TypeEngine

    from dbos._kernel.statement import Conn
    from dbos._kernel.wire import Returned

# The bind parameter that carries many rows as one JSON text.
MANY = "rows"


class JsonRows(FunctionElement[Any]):
    """A JSON array of arrays, read as rows of the given columns."""

    inherit_cache = False

    def __init__(self, columns: Mapping[str, TypeEngine[Any]]) -> None:
        super().__init__(bindparam(MANY, type_=Text()))
        self.fields = columns


@compiles(JsonRows, "sqlite")
def _json_rows_sqlite(element: JsonRows, compiler: SQLCompiler, **kw: Any) -> str:
    fields = ", ".join(f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(element.fields))
    return f"(SELECT {fields} FROM json_each({compiler.process(element.clauses, **kw)}))"  # noqa: S608 - names of ours


@compiles(JsonRows, "postgresql")
def _json_rows_postgresql(element: JsonRows, compiler: SQLCompiler, **kw: Any) -> str:
    types = compiler.dialect.type_compiler_instance
    fields = ", ".join(
        f"CAST(given ->> {place} AS {types.process(type_)}) AS {name}"
        for place, (name, type_) in enumerate(element.fields.items())
    )
    return f"(SELECT {fields} FROM jsonb_array_elements(CAST({compiler.process(element.clauses, **kw)} AS JSONB)) AS given)"  # noqa: S608 - as above


class Dialect(ABC):
    """What the store needs to know about its database."""

    name: ClassVar[str]
    #: Tables live in a named schema.
    has_schemas: ClassVar[bool]
    #: One writer at a time for the whole database, so all writers of a process take turns here.
    single_writer: ClassVar[bool]
    #: The database tells us of commits; otherwise we look.
    notifies: ClassVar[bool]
    #: What opens a read-write transaction, and one that reads a single snapshot.
    begin: ClassVar[str]
    begin_snapshot: ClassVar[str]
    now_default: ClassVar[str]
    random_id_default: ClassVar[str]
    #: The columns of `:table` in `:schema`, as `name`; none where the table is missing.
    columns_of: ClassVar[str]
    #: The database's time in milliseconds as `now`; empty where it is the same clock as ours.
    now: ClassVar[str]
    #: Compiles statements whose parameters are given by name, and by position.
    named: ClassVar[Any]
    positional: ClassVar[Any]

    @abstractmethod
    def prepare(self, raw: Any) -> None:
        """Make a fresh driver connection ours: autocommit, durable."""

    def prepare_writer(self, raw: Any) -> None:  # noqa: B027 - most need nothing
        """What else the connection needs that writes rows by their keys."""

    @abstractmethod
    def hand_back(self, raw: Any) -> None:
        """Undo `prepare` before the connection returns to a pool that others use."""

    @abstractmethod
    def in_transaction(self, raw: Any) -> bool:
        """Whether an interrupted writer left a transaction open."""

    @abstractmethod
    def execute(self, cursor: Any, sql: str, parameters: Any) -> Any:
        """Run a statement that is run again and again."""

    @abstractmethod
    def transact(self, conn: Conn, statements: Sequence[tuple[str, Any]]) -> Sequence[Sized]:
        """Run statements with positional parameters in one transaction; what each of them returned."""

    @abstractmethod
    def among(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """`column` is one of the values of the list given as `name`."""

    @abstractmethod
    def insert(self, table: Table) -> Any:
        """An INSERT that can pass over rows that exist: standard SQL has no such thing."""

    @abstractmethod
    def adapt(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters as this driver takes them."""

    @abstractmethod
    def skip_locked(self, query: Select[Any]) -> Select[Any]:
        """Lock the rows that nobody else is about to claim."""

    @abstractmethod
    def is_transient(self, error: BaseException) -> bool:
        """Whether doing the same again may succeed."""

    @abstractmethod
    def is_locked(self, error: BaseException) -> bool:
        """Whether another program holds the database itself, and will let go."""

    @abstractmethod
    def is_disconnect(self, error: BaseException, raw: Any) -> bool:
        """Whether the connection is of no more use."""

    def rows(self, columns: Mapping[str, TypeEngine[Any]], *, many: bool) -> FromClause:
        """The rows given to a statement: one by parameters, in the columns' order, or many by one JSON text."""
        if many:
            return JsonRows(columns).table_valued(*columns, name="given")
        fields = (self._typed(bindparam(f"given_{name}", type_=type_)).label(name) for name, type_ in columns.items())
        return select(*fields).subquery("given")

    def _typed(self, parameter: BindParameter[Any]) -> ColumnElement[Any]:
        return parameter

    @property
    @abstractmethod
    def driver_error(self) -> type[Exception]:
        """The base of all errors that the driver raises."""

    def described(self, error: BaseException) -> BaseException:
        """The driver's error as SQLAlchemy's, without the values of parameters: they may be secrets."""
        if isinstance(error, self.driver_error):
            return DBAPIError.instance(None, None, error, self.driver_error, hide_parameters=True)
        return error


def _original(error: BaseException) -> BaseException:
    """The driver's own error, also where SQLAlchemy connected for us."""
    return getattr(error, "orig", None) or error


def _sqlite_code(error: BaseException) -> int:
    """The primary result code, without the detail in its higher bits."""
    return (getattr(_original(error), "sqlite_errorcode", None) or 0) & 0xFF


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

    def hand_back(self, raw: Any) -> None:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raw.isolation_level = ""

    def in_transaction(self, raw: Any) -> bool:
        return bool(raw.in_transaction)

    def execute(self, cursor: Any, sql: str, parameters: Any) -> Any:
        return cursor.execute(sql, parameters)

    def transact(self, conn: Conn, statements: Sequence[tuple[str, Any]]) -> list[list[Any]]:
        if len(statements) == 1:  # a statement alone is a transaction
            return [conn.cursor.execute(*statements[0]).fetchall()]
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

    def skip_locked(self, query: Select[Any]) -> Select[Any]:
        """Nothing to lock: BEGIN IMMEDIATE already made us the only writer."""
        return query

    def is_transient(self, error: BaseException) -> bool:
        return self.is_locked(error)

    def is_locked(self, error: BaseException) -> bool:
        return _sqlite_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

    def is_disconnect(self, error: BaseException, raw: Any) -> bool:
        # After an I/O error the connection's view of the file is not to be trusted.
        return _sqlite_code(error) in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT)


class Postgres(Dialect):
    """A server, possibly far away, possibly restarting."""

    name = "postgresql"
    has_schemas = True
    single_writer = False
    notifies = True
    begin = "BEGIN"
    begin_snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    now_default = "(EXTRACT(epoch FROM now()) * 1000.0)::bigint"
    random_id_default = "gen_random_uuid()"
    columns_of = "SELECT column_name AS name FROM information_schema.columns WHERE table_schema = :schema AND table_name = :table"
    now = "SELECT (EXTRACT(epoch FROM clock_timestamp()) * 1000)::bigint AS now"
    named = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own
    positional = postgresql.psycopg.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # as above

    # Connection trouble, server start and stop, too many connections, serialization, deadlock, lock timeout.
    _TRANSIENT = ("08", "57P", "53300", "40001", "40P01", "55P03")

    @property
    def driver_error(self) -> type[Exception]:
        from psycopg import Error  # a program that uses SQLite does not wait for this import

        return Error

    _WRITER_SETTINGS: ClassVar[dict[str, str]] = {
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "jit": "off",
        "plan_cache_mode": "force_generic_plan",
    }

    def prepare(self, raw: Any) -> None:
        raw.rollback()
        raw.autocommit = True

    def prepare_writer(self, raw: Any) -> None:
        # Every row is found by its key, so there is one right plan and it need not be made again each time. Left to
        # itself the planner takes a JSON array for a hundred rows and reads the whole table to find them.
        for setting, value in self._WRITER_SETTINGS.items():
            raw.execute(f"SET {setting} = {value}")

    def hand_back(self, raw: Any) -> None:
        raw.rollback()
        for setting in self._WRITER_SETTINGS:
            raw.execute(f"RESET {setting}")
        raw.autocommit = False

    def in_transaction(self, raw: Any) -> bool:
        return int(raw.info.transaction_status) != 0

    def execute(self, cursor: Any, sql: str, parameters: Any) -> Any:
        return cursor.execute(sql, parameters, prepare=True)

    def transact(self, conn: Conn, statements: Sequence[tuple[str, Any]]) -> list[Returned]:
        if conn.wire is None:
            from dbos._kernel.wire import Wire  # a program that uses SQLite does not wait for this import

            conn.wire = Wire(conn.raw)
        return conn.wire.transact(statements)  # type: ignore[no-any-return]  # a connection knows no dialect's parts

    def among(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        return column == any_(cast(bindparam(name, type_=ARRAY(Text())), ARRAY(Text())))

    def insert(self, table: Table) -> Any:
        return postgresql.insert(table)

    def adapt(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return parameters

    def skip_locked(self, query: Select[Any]) -> Select[Any]:
        return query.with_for_update(skip_locked=True)

    def is_transient(self, error: BaseException) -> bool:
        error = _original(error)
        code = getattr(error, "sqlstate", None)
        if code is None:  # the connection broke before the server could say anything
            return type(error).__name__ in ("OperationalError", "InterfaceError", "PipelineAborted")
        return code.startswith(self._TRANSIENT) or (code == "0A000" and "cached plan" in str(error))

    def is_locked(self, error: BaseException) -> bool:
        return False

    def is_disconnect(self, error: BaseException, raw: Any) -> bool:
        return bool(raw.closed) or getattr(error, "sqlstate", None) == "0A000"

    def _typed(self, parameter: BindParameter[Any]) -> ColumnElement[Any]:
        """Said aloud: the server cannot infer the type of a parameter that is only selected."""
        return cast(parameter, parameter.type)
