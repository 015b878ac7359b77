"""Attributes: what users note of a workflow, a JSON object that is stored beside it and that listings can ask for.

They are written in the transaction that inserts the workflow. A database of a later DBOS release has a column for
them; elsewhere they stand in a table of ours, which only workflows with attributes have a row of.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, bindparam, delete, insert, null, select, update

from dbos._kernel.statement import statement
from dbos.error import DBOSException, DBOSSchemaError

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn

WORKFLOW: Any = bindparam("workflow_id", type_=Text())
ATTRIBUTES: Any = bindparam("attributes", type_=Text())

# Half of a surrogate pair and the character NUL are JSON, but not to Postgres.
UNSTORABLE = re.compile(r"(?<!\\)(?:\\\\)*\\u0000|[\ud800-\udfff]")


# -- statements ------------------------------------------------------------------------------------------------


@statement
def SET_COLUMN(t: Tables) -> Executable:
    given = t.dialect.json(ATTRIBUTES)
    return update(t.status).values(attributes=given).where(t.status.c.workflow_uuid == WORKFLOW)


@statement
def CLEAR_COLUMN(t: Tables) -> Executable:
    return update(t.status).values(attributes=null()).where(t.status.c.workflow_uuid == WORKFLOW)


@statement
def SET_ROW(t: Tables) -> Executable:
    set_row = t.dialect.insert(t.attribute_rows).values(workflow_uuid=WORKFLOW, attributes=ATTRIBUTES)
    return set_row.on_conflict_do_update(index_elements=["workflow_uuid"], set_={"attributes": ATTRIBUTES})  # type: ignore[no-any-return]  # the two dialects' inserts have no common type


@statement
def CLEAR_ROW(t: Tables) -> Executable:
    return delete(t.attribute_rows).where(t.attribute_rows.c.workflow_uuid == WORKFLOW)


@statement
def COPY_ROW(t: Tables) -> Executable:
    """Give a workflow the attributes of another."""
    c = t.attribute_rows.c
    source = select(bindparam("new_id", type_=Text()), c.attributes).where(c.workflow_uuid == WORKFLOW)
    return insert(t.attribute_rows).from_select(["workflow_uuid", "attributes"], source)


@statement
def ATTRIBUTES_OF(t: Tables) -> Executable:
    c = t.status.c
    return select(c.workflow_uuid, t.attributes).where(t.dialect.among(c.workflow_uuid, "workflow_ids"))


# -- transactions ----------------------------------------------------------------------------------------------


def set_attributes(conn: Conn, workflow_id: str, text: str | None) -> None:
    """Note this of a workflow that is there; None: nothing any more."""
    place = conn.tables.layout.attributes
    if place == "nowhere":
        raise DBOSSchemaError("The database has no place for attributes yet: launch the application once")
    if text is None:
        conn.run(CLEAR_COLUMN if place == "column" else CLEAR_ROW, workflow_id=workflow_id)
    else:
        conn.run(SET_COLUMN if place == "column" else SET_ROW, workflow_id=workflow_id, attributes=text)


def copy_attributes(conn: Conn, workflow_id: str, new_id: str) -> None:
    """Give a new workflow the attributes of another; a column of theirs was copied with its row."""
    if conn.tables.layout.attributes == "table":
        conn.run(COPY_ROW, workflow_id=workflow_id, new_id=new_id)


def add_attributes(conn: Conn, workflow_id: str, text: str) -> None:
    """Note more of a workflow that is there; what is noted under other keys stays."""
    noted = noted_attributes(conn, [workflow_id]).get(workflow_id, {})
    set_attributes(conn, workflow_id, attributes_text({**noted, **json.loads(text)}))


def noted_attributes(conn: Conn, workflow_ids: list[str]) -> dict[str, dict[str, Any]]:
    """What is noted of these workflows."""
    found = conn.run(ATTRIBUTES_OF, workflow_ids=workflow_ids)
    return {row.workflow_uuid: attributes_of(row.attributes) or {} for row in found}


# -- values ----------------------------------------------------------------------------------------------------


def attributes_text(attributes: Any) -> str:
    """The attributes as they are stored. Raises DBOSException for what is no JSON object."""
    if not isinstance(attributes, dict):
        raise DBOSException(f"Attributes must be a dict, and not {attributes!r}")
    try:
        text = json.dumps(attributes, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DBOSException(f"Attributes must be JSON-serializable: {error}") from None
    if UNSTORABLE.search(text):
        raise DBOSException("Attributes must be JSON-serializable: a text in them has a character that none can store")
    return text


def attributes_of(text: str | None) -> dict[str, Any] | None:
    """The attributes that are stored so; what is no JSON object is none."""
    try:
        found = json.loads(text) if text else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
