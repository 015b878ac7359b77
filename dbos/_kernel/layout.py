"""What the shared tables of a database look like, which differs with the release that made them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sqlalchemy import text

if TYPE_CHECKING:
    from dbos._kernel.statement import Conn


@dataclass(frozen=True, slots=True)
class Layout:
    """What the shared tables of a database look like."""

    #: Inputs and outputs live in `workflow_input` and `workflow_output`.
    split: bool = False
    #: `completed_at`, `application_name` and the other columns of later releases exist.
    extended: bool = False
    #: Where the attributes of workflows are: in a table of ours, in a column of later releases, or nowhere (a client
    #: looks at a database that no program of ours has opened yet).
    attributes: Literal["table", "column", "nowhere"] = "table"
    #: The tables that only we have are there: a program of ours has opened the database once.
    own: bool = True


CLASSIC = Layout()


def layout_of(conn: Conn) -> Layout:
    """What the shared tables of a database look like: by their columns, never by a number."""
    status, own = columns_of(conn, "workflow_status"), bool(columns_of(conn, "notebook_attributes"))
    return Layout(
        split=bool(columns_of(conn, "workflow_input")),
        extended="completed_at" in status,
        attributes="column" if "attributes" in status else "table" if own else "nowhere",
        own=own,
    )


def columns_of(conn: Conn, table: str) -> set[str]:
    """The columns of a table; none where it is missing."""
    tables = conn.tables
    return {row.name for row in conn.run_once(text(tables.dialect.columns_of), schema=tables.schema, table=table)}
