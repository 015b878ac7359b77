"""What an archive consists of: its lines, the rows they stand for, and the statements that read and write those.

    {"header": {"format": "dbos-archive", "version": 1}}
    {"source": {...}}                    before the first workflow of that version, where the code is known
    {"workflow": {...}}                  then, until the next one, everything that it owns, each row a line:
    {"step": {...}}  {"message": ...}  {"event": ...}  {"event_history": ...}  {"stream": ...}  {"note": ...}
    {"footer": {"workflow": 1, "step": 3, ...}}

A column that is empty is left out. Who owned a running workflow is not said: that means nothing elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Boolean, Integer, Text, bindparam, func, select, union_all

from dbos._engine.attributes import attributes_of, set_attributes
from dbos._kernel.statement import Statement, statement

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn

FORMAT, VERSION = "dbos-archive", 1

Values = dict[str, Any]
# Where an archive lies: a path, or a file that is open.
Place = str | os.PathLike[str] | IO[str] | IO[bytes]
# Called with the number of workflows written or read so far.
Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Sort:
    """A sort of row: its table, which of its columns names the workflow, and which columns name other workflows."""

    table: Callable[[Tables], Table]
    owner: str
    refers: tuple[str, ...] = ()
    #: The runtime's own tables, which a database of other programs may lack.
    is_own: bool = False


WORKFLOW = Sort(lambda t: t.status, "workflow_uuid", ("parent_workflow_id", "forked_from"))
# What a workflow owns, in the order in which it is written.
OWNED: dict[str, Sort] = {
    "step": Sort(lambda t: t.steps, "workflow_uuid", ("child_workflow_id",)),
    "message": Sort(lambda t: t.messages, "destination_uuid"),
    "event": Sort(lambda t: t.events, "workflow_uuid"),
    "event_history": Sort(lambda t: t.event_history, "workflow_uuid"),
    "stream": Sort(lambda t: t.streams, "workflow_uuid"),
    "note": Sort(lambda t: t.notes, "workflow_uuid", is_own=True),
}
SOURCE = Sort(lambda t: t.sources, "version", is_own=True)
SORTS: dict[str, Sort] = {"source": SOURCE, "workflow": WORKFLOW, **OWNED}

# What is not taken along: whose the workflow was, and what no program uses.
LEFT_OUT = ("owner_xid", "request")
# What a workflow has besides the columns of its classic row.
BESIDES = ("completed_at", "attributes")


@dataclass(slots=True)
class Group:
    """A workflow with all it owns, and the number of its first line in an archive."""

    workflow: Values
    rows: dict[str, list[Values]] = field(default_factory=dict)
    line: int = 0

    @property
    def id(self) -> str:
        return str(self.workflow["workflow_uuid"])


def line_of(sort: str, values: Mapping[str, Any]) -> str:
    return json.dumps({sort: values}, separators=(",", ":")) + "\n"


# -- columns ---------------------------------------------------------------------------------------------------


def columns(t: Tables, sort: str) -> list[ColumnElement[Any]]:
    """The columns of a sort as they are read, in both layouts alike."""
    table = SORTS[sort].table(t)
    if sort != "workflow":
        return list(table.c)
    expressions: dict[str, ColumnElement[Any]] = {"inputs": t.inputs, "output": t.output, "error": t.error}
    kept = [expressions.get(each.name, each) for each in table.c if each.name not in (*LEFT_OUT, *BESIDES)]
    return [*kept, t.completed_at, t.attributes]


def types_of(t: Tables, sort: str) -> dict[str, type]:
    """The Python type of each column."""
    found: dict[str, type] = {each.name: _type(each) for each in SORTS[sort].table(t).c if each.name not in LEFT_OUT}
    return found | ({"completed_at": int, "attributes": str} if sort == "workflow" else {})


def required(t: Tables, sort: str) -> set[str]:
    """The columns without which there is no such row."""
    if sort == "workflow":
        return {"workflow_uuid", "status", "name", "created_at", "updated_at"}
    table = SORTS[sort].table(t)
    return {each.name for each in table.c if not each.nullable and each.server_default is None} | {SORTS[sort].owner}


def defaults(t: Tables, sort: str) -> Values:
    """What the columns hold that are never empty, where an archive says nothing of them."""
    never_empty = (each for each in SORTS[sort].table(t).c if not each.nullable or each.server_default is not None)
    return {each.name: {bool: False, int: 0, str: ""}[_type(each)] for each in never_empty}


def _type(column: ColumnElement[Any]) -> type:
    if isinstance(column.type, Boolean):
        return bool
    return int if isinstance(column.type, Integer) else str


def values_of(row: Any, types: Mapping[str, type]) -> Values:
    """The row as it stands in an archive; SQLite knows no booleans."""
    return {
        name: bool(value) if types[name] is bool else value
        for name, value in row._asdict().items()
        if value is not None
    }


# -- statements ------------------------------------------------------------------------------------------------

IDS = "workflow_ids"


def _reading(sort: str) -> Statement:
    def read(t: Tables) -> Executable:
        table = SORTS[sort].table(t)
        mine = t.dialect.among(table.c[SORTS[sort].owner], IDS)
        return select(*columns(t, sort)).where(mine).order_by(*table.primary_key)

    return Statement(read)


def _writing(sort: str) -> Statement:
    def write(t: Tables) -> Executable:
        table = SORTS[sort].table(t)
        names = [each.name for each in table.c if each.name not in LEFT_OUT and each.name != "attributes"]
        values: dict[str, Any] = {name: bindparam(f"of_{name}", type_=_parameter(table.c[name])) for name in names}
        insert = t.dialect.insert(table).values(values)
        return insert.on_conflict_do_nothing().returning(*table.primary_key)  # type: ignore[no-any-return]  # the two dialects' inserts have no common type

    return Statement(write)


def _parameter(column: ColumnElement[Any]) -> Any:
    return column.type if isinstance(column.type, BigInteger | Integer | Boolean) else Text()


READ = {sort: _reading(sort) for sort in SORTS}
WRITE = {sort: _writing(sort) for sort in SORTS}


@statement
def SIZES(t: Tables) -> Executable:
    """How many characters the values of each workflow have."""

    def of(sort: str, *texts: ColumnElement[Any]) -> Any:
        owner = SORTS[sort].table(t).c[SORTS[sort].owner]
        length = sum(
            (func.coalesce(func.length(text), 0) for text in texts[1:]), func.coalesce(func.length(texts[0]), 0)
        )
        return (
            select(owner.label("id"), func.sum(length).label("size")).where(t.dialect.among(owner, IDS)).group_by(owner)
        )

    return union_all(
        of("workflow", t.status.c.inputs, t.status.c.output, t.status.c.error),
        of("step", t.steps.c.output, t.steps.c.error),
        of("message", t.messages.c.message),
        of("event_history", t.event_history.c.value),
        of("stream", t.streams.c.value),
    )


def sorts_in(conn: Conn) -> list[str]:
    """The sorts that this database has tables for."""
    return [name for name, sort in SORTS.items() if conn.tables.layout.own or not sort.is_own]


def read_groups(conn: Conn, workflow_ids: Iterable[str], sorts: Iterable[str]) -> dict[str, Group]:
    """These workflows, as far as there are such, with all they own."""
    ids, t = list(workflow_ids), conn.tables
    found: dict[str, Group] = {}
    types = types_of(t, "workflow")
    for row in conn.run(READ["workflow"], workflow_ids=ids):
        values = values_of(row, types)
        if attributes_of(values.get("attributes")) is None:
            values.pop("attributes", None)  # later releases write the null of JSON where there are none
        found[row.workflow_uuid] = Group(values)
    for sort in sorts:
        if sort not in OWNED:
            continue
        types, owner = types_of(t, sort), OWNED[sort].owner
        for row in conn.run(READ[sort], workflow_ids=ids):
            group = found.get(getattr(row, owner))
            if group is not None:
                group.rows.setdefault(sort, []).append(values_of(row, types))
    return found


def write_row(conn: Conn, sort: str, values: Mapping[str, Any]) -> bool:
    """Insert a row; False: there is one of its key."""
    table = SORTS[sort].table(conn.tables)
    names = [each.name for each in table.c if each.name not in LEFT_OUT and each.name != "attributes"]
    given = {f"of_{name}": values.get(name) for name in names}
    created = bool(conn.run(WRITE[sort], **given))
    if created and sort == "workflow" and values.get("attributes") is not None:
        set_attributes(conn, values["workflow_uuid"], values["attributes"])
    return created
