"""Postgres: a server, which tells us of commits, and whose connections come and go.

Only imported by those who use it: a program on SQLite does not wait for the driver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
from sqlalchemy import (
    ARRAY,
    BigInteger,
    BindParameter,
    ColumnElement,
    Select,
    Text,
    any_,
    bindparam,
    cast,
    func,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles

from dbos._kernel.dialect import Dialect, JsonRows, original
from dbos._kernel.statement import statement
from dbos._kernel.wire import Returned, Wire

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.sql.compiler import SQLCompiler

    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn


@compiles(JsonRows, "postgresql")
def _json_rows_postgresql(element: JsonRows, compiler: SQLCompiler, **kw: Any) -> str:
    types = compiler.dialect.type_compiler_instance
    fields = ", ".join(
        f"CAST(given ->> {place} AS {types.process(type_)}) AS {name}"
        for place, (name, type_) in enumerate(element.fields.items())
    )
    return f"(SELECT {fields} FROM jsonb_array_elements(CAST({compiler.process(element.clauses, **kw)} AS JSONB)) AS given)"  # noqa: S608 - names of ours


@statement
def TURN(_: Tables) -> Select[Any]:
    """Wait for the turn; it ends with the transaction."""
    return select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("what", type_=Text()), 0)))


# As Postgres calls a statement that was cancelled, by a person or by a limit of time.
_CANCELLED = "57014"


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
    # As information_schema has it, of what this role may read, in a tenth of the time.
    columns_of = (
        "SELECT attname AS name FROM pg_catalog.pg_attribute a"
        " JOIN pg_catalog.pg_class t ON t.oid = attrelid JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname = :schema AND relname = :table AND attnum > 0 AND NOT attisdropped"
        " AND has_any_column_privilege(t.oid, 'SELECT')"
    )
    now = "SELECT (EXTRACT(epoch FROM clock_timestamp()) * 1000)::bigint AS now"
    named = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own
    positional = postgresql.psycopg.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # as above

    _DISK_FULL = "53100"
    # Connection trouble, server start and stop, too many connections, serialization, deadlock, lock timeout.
    _TRANSIENT = ("08", "57P", "53300", "40001", "40P01", "55P03", _DISK_FULL)

    driver_error = psycopg.Error

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

    def prepare_reader(self, raw: Any, seconds: float | None) -> None:
        self.prepare(raw)
        raw.execute("SET default_transaction_read_only = on")
        if seconds is not None:
            raw.execute(f"SET statement_timeout = {max(int(seconds * 1000), 1)}")

    def hand_back_reader(self, raw: Any) -> None:
        raw.rollback()
        raw.execute("RESET default_transaction_read_only")
        raw.execute("RESET statement_timeout")
        self.hand_back(raw)

    def hand_back(self, raw: Any) -> None:
        raw.rollback()
        for setting in self._WRITER_SETTINGS:
            raw.execute(f"RESET {setting}")
        raw.autocommit = False

    def in_transaction(self, raw: Any) -> bool:
        return int(raw.info.transaction_status) != 0

    def execute(self, cursor: Any, sql: str, parameters: Any) -> Any:
        return cursor.execute(sql, parameters, prepare=True)

    def transact(self, conn: Conn, statements: Sequence[tuple[str, Any]], *, begun: bool) -> list[Returned]:
        if conn.wire is None:
            conn.wire = Wire(conn.raw)
        return conn.wire.transact(statements)  # type: ignore[no-any-return]  # a connection knows no dialect's parts

    def among(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        return column == any_(cast(bindparam(name, type_=ARRAY(Text())), ARRAY(Text())))

    def insert(self, table: Table) -> Any:
        return postgresql.insert(table)

    def adapt(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return parameters

    def claim(self, table: Table, values: Mapping[str, Any], next_ones: Select[Any], columns: Sequence[Any]) -> Any:
        (key,) = table.primary_key.columns
        arrival = self.arrival(table).label("arrival")
        locked = next_ones.add_columns(arrival).with_for_update(skip_locked=True).cte("next")
        return update(table).values(values).where(key == locked.c[key.name]).returning(*columns, locked.c.arrival)

    def contains(self, text: ColumnElement[Any], wanted: str) -> ColumnElement[bool]:
        return self.json(text).op("@>", is_comparison=True)(self.json(literal(wanted, Text())))

    def json(self, text: ColumnElement[Any]) -> ColumnElement[Any]:
        return cast(text, postgresql.JSONB)

    def arrival(self, table: Table) -> ColumnElement[Any]:
        """The transaction that inserted the row: until it is claimed nobody updates it."""
        return cast(cast(literal_column(f"{table.name}.xmin"), Text()), BigInteger())

    def take_turns(self, conn: Conn, what: str) -> None:
        conn.run(TURN, what=what)

    def is_transient(self, error: BaseException) -> bool:
        error = original(error)
        code = getattr(error, "sqlstate", None)
        if code is None:  # the connection broke before the server could say anything
            return type(error).__name__ in ("OperationalError", "InterfaceError", "PipelineAborted")
        # Somebody has cancelled the statement by hand; one that takes too long would do so again.
        is_cancelled = code == _CANCELLED and "timeout" not in str(error)
        return code.startswith(self._TRANSIENT) or is_cancelled or (code == "0A000" and "cached plan" in str(error))

    def is_locked(self, error: BaseException) -> bool:
        return False

    def is_full(self, error: BaseException) -> bool:
        return getattr(original(error), "sqlstate", None) == self._DISK_FULL

    def is_too_slow(self, error: BaseException) -> bool:
        return getattr(original(error), "sqlstate", None) == _CANCELLED

    def is_disconnect(self, error: BaseException, raw: Any) -> bool:
        return bool(raw.closed) or getattr(error, "sqlstate", None) == "0A000"

    def _typed(self, parameter: BindParameter[Any]) -> ColumnElement[Any]:
        """Said aloud: the server cannot infer the type of a parameter that is only selected."""
        return cast(parameter, parameter.type)
