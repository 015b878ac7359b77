"""What a stream is to its writer and to its readers: where it is, where it is rung, and how its end is marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Text, bindparam, desc, select

from dbos._kernel.model import STREAM_CLOSED, STREAM_MARKS
from dbos._kernel.statement import statement

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.bell import Channel
    from dbos._kernel.schema import Tables

CLOSED, MARKS = STREAM_CLOSED, STREAM_MARKS

WORKFLOW: Any = bindparam("workflow_id", type_=Text())
KEY: Any = bindparam("key", type_=Text())
POSITION: Any = bindparam("position", type_=BigInteger())


def stream_of(workflow_id: str, key: str) -> Channel:
    """Rung when a value is written to that stream."""
    return ("stream", f"{workflow_id}::{key}")


@statement
def LAST(t: Tables) -> Executable:
    """The last value of a stream."""
    c = t.streams.c
    return (
        select(c.offset, c.value, c.function_id)
        .where(c.workflow_uuid == WORKFLOW, c.key == KEY)
        .order_by(desc(c.offset))
        .limit(1)
    )
