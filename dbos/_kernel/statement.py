"""What is said to the database: statements that are built and compiled once, and rows that travel together.

A `Statement` is written in SQLAlchemy Core against `Tables`, so it is one text for both databases and both
layouts; it is compiled on first use and then runs on the driver's own cursor, where a call costs a tenth of
what it costs through an engine.

A `Kind` is a sort of row that the hot path writes: a workflow's start, a step's record, an outcome. Its one
definition serves a single row (parameters) and many (one JSON text), so that a commit that carries forty rows
of forty workflows is still one statement. The statement returns the key of each row it accepted: a row that is
missing there was refused, and only then is it worth asking why.
"""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import ColumnElement, Text, and_, literal_column
from sqlalchemy.sql.expression import Executable

from dbos._kernel.dialect import MANY

if TYPE_CHECKING:
    from sqlalchemy import FromClause
    from sqlalchemy.types import TypeEngine

    from dbos._kernel.schema import Tables

Row = Any  # a named tuple, made from the statement's own columns

# Rows that are longer than this together go one by one, as parameters: packing megabytes into JSON and out again
# costs more than the statements it saves.
LONGEST_TEXT = 500_000
# SQLite cuts a text off at a NUL that comes to it inside JSON; as a parameter the text stays whole.
NUL = r"\u0000"


class Statement:
    """One statement, built for each database that it meets."""

    def __init__(
        self, build: Callable[[Tables], Executable], make: Callable[[Iterable[Any]], Row] | None = None
    ) -> None:
        #: What makes its rows, where they are no tuples named by its own columns.
        self.build, self.make = build, make
        self.__doc__ = build.__doc__
        self.__name__ = build.__name__


def statement(build: Callable[[Tables], Executable]) -> Statement:
    """Make a constant statement of a function of the tables."""
    return Statement(build)


def statement_of(
    make: Callable[[Iterable[Any]], Row],
) -> Callable[[Callable[[Tables], Executable]], Statement]:
    """The same, of one whose rows are made by `make`: where there are so many that making them twice is felt."""
    return lambda build: Statement(build, make)


class Kind:
    """A sort of row: its columns, how many of them are its key, and the statement that writes it."""

    def __init__(
        self,
        columns: Mapping[str, TypeEngine[Any]],
        keys: int,
        rank: int,
        build: Callable[[Tables, FromClause], Executable],
    ) -> None:
        self.columns, self.keys, self.build = columns, keys, build
        #: Lower ranks are written first within one commit: a workflow's last step before its outcome.
        self.rank = rank
        #: Below 0 are those that only ask: two rows with one key may stand in one statement.
        self.reads = rank < 0
        self.names = tuple(columns)

    def __repr__(self) -> str:
        return f"<Kind {self.build.__name__}>"


def kind(
    keys: int, *, rank: int = 1, **columns: TypeEngine[Any]
) -> Callable[[Callable[[Tables, FromClause], Executable]], Kind]:
    """Make a kind of row from the function that builds its statement; the first `keys` columns are its key."""
    return lambda build: Kind(columns, keys, rank, build)


def one_of(column: ColumnElement[Any], words: Iterable[str]) -> ColumnElement[bool]:
    """The column is one of these words of ours."""
    return column.in_([constant(word) for word in sorted(words)])


def constant(word: str) -> ColumnElement[str]:
    """A word of ours inside a statement of a kind, where every parameter belongs to the row."""
    return literal_column(f"'{word}'", Text())


# The statuses that the partial indexes of what is in flight and of what failed hold, as their conditions name them.
IN_FLIGHT = ("ENQUEUED", "PENDING")
FAILED = ("CANCELLED", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


def has_status(t: Tables, status: str) -> ColumnElement[bool]:
    """The workflow has this status: said with words of ours, and as the partial index says it.

    A parameter could be anything to a planner, and SQLite takes a partial index only where its condition is repeated.
    """
    told = t.status.c.status == constant(status)
    return and_(told, one_of(t.status.c.status, IN_FLIGHT)) if status in IN_FLIGHT else told


class Entry(NamedTuple):
    """One row on its way, in the order of its kind's columns."""

    kind: Kind
    row: tuple[Any, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        return self.row[: self.kind.keys]


class _Compiled:
    """A statement's text, and the factory of its rows (made when the first result names its columns)."""

    __slots__ = ("fixed", "make", "text")

    def __init__(self, text: str, fixed: dict[str, Any]) -> None:
        self.text = text
        self.fixed = fixed
        self.make: Callable[[Any], Row] | None = None


class Compiler:
    """The compiled statements of one database; a new one when its layout is found changed."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._known: dict[Any, _Compiled] = {}

    def statement(self, wanted: Statement) -> _Compiled:
        known = self._known.get(wanted)
        if known is None:
            known = self._known[wanted] = self.once(wanted.build(self.tables))
            known.make = wanted.make
        return known

    def once(self, built: Executable) -> _Compiled:
        """Compile a statement that varies with each call, such as a listing with its filters."""
        dialect = self.tables.dialect.named
        compiled: Any = built.compile(dialect=dialect)  # type: ignore[attr-defined]  # every Core statement has it
        if "__[POSTCOMPILE" in str(compiled):  # lists whose length shows in the text
            compiled = built.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})  # type: ignore[attr-defined]
        asked = {name for name, bind in compiled.binds.items() if bind.required}
        fixed = {name: value for name, value in compiled.params.items() if name not in asked}
        return _Compiled(str(compiled), fixed)

    def kind(self, wanted: Kind, *, many: bool) -> _Compiled:
        known = self._known.get((wanted, many))
        if known is None:
            rows = self.tables.dialect.rows(wanted.columns, many=many)
            built = wanted.build(self.tables, rows)
            compiled = built.compile(dialect=self.tables.dialect.positional)  # type: ignore[attr-defined]  # as above
            expected = [MANY] if many else [f"given_{name}" for name in wanted.names]
            if list(compiled.positiontup) != expected:
                raise AssertionError(f"{wanted!r} must mention its rows once and no parameter: {compiled.positiontup}")
            known = self._known[wanted, many] = _Compiled(str(compiled), {})
        return known

    def kind_in_work(self, wanted: Kind) -> _Compiled:
        known = self._known.get((wanted, "in a work"))
        if known is None:
            rows = self.tables.dialect.rows(wanted.columns, many=False)
            known = self._known[wanted, "in a work"] = self.once(wanted.build(self.tables, rows))
        return known


class Conn:
    """A driver connection that speaks our statements."""

    def __init__(self, raw: Any, compiler: Compiler) -> None:
        self.raw, self.compiler = raw, compiler
        #: Where the dialect keeps what it knows of this connection.
        self.wire: Any = None
        self.dialect = compiler.tables.dialect

    @cached_property
    def cursor(self) -> Any:
        return self.raw.cursor()

    @property
    def tables(self) -> Tables:
        return self.compiler.tables

    def run(self, wanted: Statement, **parameters: Any) -> list[Row]:
        """Run it and return its rows, if it has any."""
        return self._run(self.compiler.statement(wanted), parameters)

    def run_once(self, built: Executable, **parameters: Any) -> list[Row]:
        """Run a statement that was built for this call."""
        return self._run(self.compiler.once(built), parameters)

    def first(self, wanted: Statement, **parameters: Any) -> Row | None:
        rows = self.run(wanted, **parameters)
        return rows[0] if rows else None

    def count(self, wanted: Statement, **parameters: Any) -> int:
        """Run it and say how many rows it changed."""
        self.run(wanted, **parameters)
        return int(self.cursor.rowcount)

    def add(self, entry: Entry) -> bool:
        """Write one row, in the transaction of a work; say whether it was accepted."""
        given = {f"given_{name}": value for name, value in zip(entry.kind.names, entry.row, strict=True)}
        return bool(self._run(self.compiler.kind_in_work(entry.kind), given))

    def say(self, sql: str) -> None:
        """A bare word to the database, such as BEGIN."""
        self.cursor.execute(sql)

    def write(self, groups: Sequence[Sequence[Entry]], *, begun: bool = False) -> list[list[bool]]:
        """Write rows, grouped by kind, in one transaction (that has begun); says of each whether it was accepted."""
        statements: list[tuple[str, Any]] = []
        covered: list[Sequence[Entry]] = []
        for entries in groups:
            kind = entries[0].kind
            # Rows with one key, as two executions of a workflow write them, go one by one: the answer names the key.
            if len(entries) > 1 and (kind.reads or len({entry.key for entry in entries}) == len(entries)):
                # Not as ASCII: half a surrogate pair would pass as an escape, and be stored as what nobody can read.
                text = json.dumps([entry.row for entry in entries], ensure_ascii=False)
                if len(text) <= LONGEST_TEXT and NUL not in text:
                    statements.append((self.compiler.kind(kind, many=True).text, (text,)))
                    covered.append(entries)
                    continue
            single = self.compiler.kind(kind, many=False).text
            statements.extend((single, entry.row) for entry in entries)
            covered.extend([entry] for entry in entries)
        returned = self.dialect.transact(self, statements, begun=begun)
        verdicts = iter([verdict for pair in zip(covered, returned, strict=True) for verdict in _verdicts(*pair)])
        return [[next(verdicts) for _ in entries] for entries in groups]

    def _run(self, compiled: _Compiled, parameters: dict[str, Any]) -> list[Row]:
        cursor = self.cursor
        if compiled.fixed:
            parameters = {**compiled.fixed, **parameters}
        self.dialect.execute(cursor, compiled.text, self.dialect.adapt(parameters))
        make = compiled.make
        if make is None:  # a description is made anew whenever it is asked for: only once, then
            if cursor.description is None:
                return []
            names = [column[0] for column in cursor.description]
            row_type: Any = namedtuple("Row", names, rename=True)  # type: ignore[misc]  # noqa: PYI024 - known only now
            make = compiled.make = row_type._make
        return [make(row) for row in cursor.fetchall()]


def _verdicts(entries: Sequence[Entry], returned: Sized) -> list[bool]:
    """Whose key was returned; no two of the entries have the same, or they are one question."""
    if len(returned) == len(entries):
        return [True] * len(entries)
    accepted = set(map(tuple, cast(Iterable[Any], returned)))
    return [entry.key in accepted for entry in entries]
