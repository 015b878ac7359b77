"""Copies of values that are signed: a copy that was made inside the database is signed anew, in the same transaction.

A signature binds a text to its slot. What is wrong in its slot stays wrong in the copy, so a copy makes nothing valid;
and whoever lacks the keys copies nothing. Texts that are not signed stay as they are.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Integer, Text, and_, bindparam, select, update

from dbos._kernel.slot import Slot, slots_in
from dbos._kernel.statement import Statement, statement

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Table
    from sqlalchemy.sql.expression import Executable
    from sqlalchemy.types import TypeEngine

    from dbos._kernel.codec import Codec
    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn, Row

# So many rows are signed at a time.
PAGE = 250
WORKFLOW: Any = bindparam("workflow_id", type_=Text())


@statement
def INPUTS(t: Tables) -> Executable:
    return select(t.status.c.inputs, t.status.c.serialization).where(t.status.c.workflow_uuid == WORKFLOW)


@statement
def SET_INPUTS(t: Tables) -> Executable:
    inputs = bindparam("inputs", type_=Text())
    return update(t.status).values(inputs=inputs).where(t.status.c.workflow_uuid == WORKFLOW)


class Copied:
    """The rows of a table that a workflow owns, as they are read and signed again."""

    def __init__(self, table: Callable[[Tables], Table], *texts: str) -> None:
        self.table, self.texts = table, texts
        self.read, self.write = Statement(self._reading), Statement(self._writing)

    def _reading(self, t: Tables) -> Executable:
        table = self.table(t)
        page = select(table).where(table.c.workflow_uuid == WORKFLOW).order_by(*table.primary_key)
        return page.limit(PAGE).offset(bindparam("first", type_=Integer()))

    def _writing(self, t: Tables) -> Executable:
        table = self.table(t)
        names = [*(each.name for each in table.primary_key), *self.texts]
        given = t.dialect.rows({f"its_{name}": _plain(table, name) for name in names}, many=True)
        same = (each == given.c[f"its_{each.name}"] for each in table.primary_key)
        values = {name: given.c[f"its_{name}"] for name in self.texts}
        return update(table).values(values).where(and_(*same))

    def sign(self, conn: Conn, codec: Codec, original_id: str, copy_id: str) -> None:
        """Sign the copied rows of one workflow."""
        table, first = self.table(conn.tables), 0
        names = [*(each.name for each in table.primary_key), *self.texts]
        while rows := conn.run(self.read, workflow_id=copy_id, first=first):
            signed = [_signed(codec, table.name, row, original_id) for row in rows]
            conn.run(self.write, rows=json.dumps([[each[name] for name in names] for each in signed]))
            first += PAGE


def _plain(table: Table, name: str) -> TypeEngine[Any]:
    type_ = table.c[name].type
    return type_ if isinstance(type_, Integer | BigInteger) else Text()


def _signed(codec: Codec, table: str, row: Row, original_id: str) -> dict[str, Any]:
    values: dict[str, Any] = row._asdict()
    there = slots_in(table, {**values, "workflow_uuid": original_id})
    for name, slot in slots_in(table, values).items():
        values[name] = codec.copied(values[name], values["serialization"], there[name], slot)
    return values


COPIED = (
    Copied(lambda t: t.steps, "output", "error"),
    Copied(lambda t: t.event_history, "value"),
    Copied(lambda t: t.events, "value"),
    Copied(lambda t: t.streams, "value"),
)


def sign_copies(conn: Conn, codec: Codec, original_id: str, copy_id: str) -> None:
    """Sign what a new workflow has of another one. Raises DBOSSerializationError where the keys are not known here."""
    for row in conn.run(INPUTS, workflow_id=copy_id):
        sign_inputs(conn, codec, row.inputs, row.serialization, original_id, copy_id)
    for copied in COPIED:
        copied.sign(conn, codec, original_id, copy_id)


def sign_inputs(
    conn: Conn, codec: Codec, inputs: str | None, serialization: str | None, original_id: str, copy_id: str
) -> None:
    """Sign the inputs of one workflow that another one has got, if they are signed."""
    if codec.is_bound(serialization):
        slots = Slot.inputs(original_id), Slot.inputs(copy_id)
        conn.run(SET_INPUTS, workflow_id=copy_id, inputs=codec.copied(inputs, serialization, *slots))
