"""What differs between databases: each member named for the need. `sqlite.py` and `postgres.py` say why they part.

Nothing outside these files asks which database it is talking to. Connections are the driver's own, in autocommit;
transactions are opened and closed in words, so a single statement costs one round trip and one commit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import BindParameter, ColumnElement, Select, Text, bindparam, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from sqlalchemy import FromClause, Table
    from sqlalchemy.types import TypeEngine

    from dbos._kernel.statement import Conn

# The bind parameter that carries many rows as one JSON text.
MANY = "rows"


class JsonRows(FunctionElement[Any]):
    """A JSON array of arrays, read as rows of the given columns."""

    inherit_cache = False

    def __init__(self, columns: Mapping[str, TypeEngine[Any]]) -> None:
        super().__init__(bindparam(MANY, type_=Text()))
        self.fields = columns


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
    def prepare_reader(self, raw: Any, seconds: float | None) -> None:
        """Make a fresh driver connection ours for reading alone, without a trace in the database.

        It refuses whatever writes, and every statement that takes longer than `seconds`.
        """

    def allow(self, raw: Any, seconds: float) -> None:  # noqa: B027 - a server counts the seconds by itself
        """The statements that follow on this reader may take so long together."""

    def join(self, raw: Any) -> None:  # noqa: B027 - a server's driver begins by itself
        """Begin a transaction on a connection of others, unless it is in one."""

    @abstractmethod
    def hand_back(self, raw: Any) -> None:
        """Undo `prepare` before the connection returns to a pool that others use."""

    @abstractmethod
    def hand_back_reader(self, raw: Any) -> None:
        """Undo `prepare_reader`, as above."""

    @abstractmethod
    def in_transaction(self, raw: Any) -> bool:
        """Whether an interrupted writer left a transaction open."""

    def version(self, conn: Conn) -> int | None:
        """A number that changes when another connection commits; None where the database does not tell."""
        return None

    @abstractmethod
    def execute(self, cursor: Any, sql: str, parameters: Any) -> Any:
        """Run a statement that is run again and again."""

    @abstractmethod
    def transact(self, conn: Conn, statements: Sequence[tuple[str, Any]], *, begun: bool) -> Sequence[Sized]:
        """Run statements with positional parameters in one transaction (that has begun); what each of them returned."""

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
    def claim(self, table: Table, values: Mapping[str, Any], next_ones: Select[Any], columns: Sequence[Any]) -> Any:
        """The UPDATE of the rows whose keys `next_ones` selects, passing over those that somebody else is claiming.

        It returns the columns, and as `arrival` what tells rows apart that were inserted in one millisecond.
        """

    @abstractmethod
    def contains(self, text: ColumnElement[Any], wanted: str) -> ColumnElement[bool]:
        """The JSON of a text contains that of another, as Postgres understands the word."""

    @abstractmethod
    def json(self, text: ColumnElement[Any]) -> ColumnElement[Any]:
        """A JSON text, as a column of JSON takes it."""

    @abstractmethod
    def arrival(self, table: Table) -> ColumnElement[Any]:
        """What grows from row to row as they are inserted: it decides between rows of one millisecond."""

    def off_index(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """A column to sort by where few rows are left: an index on it must not tempt a planner that cannot count."""
        return column

    @abstractmethod
    def take_turns(self, conn: Conn, what: str) -> None:
        """Let only one transaction at a time go on from here, among all that name the same thing."""

    @abstractmethod
    def is_transient(self, error: BaseException) -> bool:
        """Whether doing the same again may succeed."""

    @abstractmethod
    def is_locked(self, error: BaseException) -> bool:
        """Whether another program holds the database itself, and will let go."""

    @abstractmethod
    def is_full(self, error: BaseException) -> bool:
        """Whether there is no room on the disk: perhaps for none of these rows, perhaps only for the longest."""

    @abstractmethod
    def is_too_slow(self, error: BaseException) -> bool:
        """Whether the time was over that a reader's statement may take."""

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


def original(error: BaseException) -> BaseException:
    """The driver's own error, also where SQLAlchemy connected for us."""
    return getattr(error, "orig", None) or error
