"""Listing workflows and steps: one filter, one statement, one builder of records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from sqlalchemy import ColumnElement, and_, bindparam, or_, select

from dbos._engine.attributes import attributes_text
from dbos._engine.status import status_columns, status_of, step_columns, step_info
from dbos._kernel.clock import epoch_ms_of
from dbos._kernel.journal import step_op
from dbos._kernel.model import (
    DELAYED,
    ENQUEUED,
    PENDING,
    StepInfo,
    Words,
    WorkflowFilter,
    WorkflowStatus,
    WorkflowStatusString,
)
from dbos._kernel.scope import Here
from dbos._kernel.statement import statement

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn, Row

QUEUED = (ENQUEUED, PENDING, DELAYED)
STATUSES = frozenset(each.value for each in WorkflowStatusString)

# The conditions that compare a column with words.
WORD_COLUMNS = {
    "workflow_ids": "workflow_uuid",
    "status": "status",
    "name": "name",
    "app_version": "application_version",
    "forked_from": "forked_from",
    "parent_workflow_id": "parent_workflow_id",
    "user": "authenticated_user",
    "queue_name": "queue_name",
    "executor_id": "executor_id",
}


def listing(t: Tables, wanted: WorkflowFilter) -> Select[Any]:
    """The statement that finds what a filter describes."""
    c = t.status.c
    load_input, load_output = wanted.get("load_input", True), wanted.get("load_output", True)
    query = select(*status_columns(t, load_input=load_input, load_output=load_output)).where(*_conditions(t, wanted))
    # The id decides between workflows of one millisecond, so that pages neither overlap nor leave a gap.
    order = (c.created_at, c.workflow_uuid)
    query = query.order_by(*(each.desc() if wanted.get("sort_desc") else each.asc() for each in order))
    return paged(query, wanted.get("limit"), wanted.get("offset"))


def _conditions(t: Tables, wanted: WorkflowFilter) -> list[ColumnElement[bool]]:
    c = t.status.c
    conditions: list[ColumnElement[bool]] = []
    for key, column in WORD_COLUMNS.items():
        words = _words(wanted.get(key))  # type: ignore[arg-type]  # these keys all hold words
        if words is not None:
            conditions.append(c[column] == words[0] if len(words) == 1 else c[column].in_(words))
    prefixes = _words(wanted.get("workflow_id_prefix"))
    if prefixes is not None:
        conditions.append(or_(*(_begins(t, each) for each in prefixes)))
    if (start := wanted.get("start_time")) is not None:
        conditions.append(c.created_at >= epoch_ms_of(start))
    if (end := wanted.get("end_time")) is not None:
        conditions.append(c.created_at <= epoch_ms_of(end))
    if wanted.get("queues_only"):
        conditions.append(c.queue_name.isnot(None))
        if wanted.get("status") is None:
            conditions.append(c.status.in_(QUEUED))
    if (was_forked_from := wanted.get("was_forked_from")) is not None:
        conditions.append(c.was_forked_from.is_(was_forked_from))
    if (has_parent := wanted.get("has_parent")) is not None:
        conditions.append(c.parent_workflow_id.isnot(None) if has_parent else c.parent_workflow_id.is_(None))
    if (attributes := wanted.get("attributes")) is not None:
        conditions.append(t.dialect.contains(t.attributes, attributes_text(attributes)))
    return conditions


def _begins(t: Tables, prefix: str) -> ColumnElement[bool]:
    c = t.status.c
    begins = c.workflow_uuid.startswith(prefix, autoescape=True)
    if t.dialect.has_schemas:
        return begins
    # SQLite takes no index for LIKE, which there means small and capital letters alike.
    return and_(c.workflow_uuid >= prefix, c.workflow_uuid < f"{prefix}\U0010ffff", begins)


def _words(words: Words) -> list[str] | None:
    return [words] if isinstance(words, str) else words


def paged(query: Select[Any], limit: int | None, offset: int | None) -> Select[Any]:
    """At most `limit` rows after the first `offset`; 0 and None are no bounds, as such programs expect."""
    for what, number in (("limit", limit), ("offset", offset)):
        if number is not None and number < 0:
            raise ValueError(f"{what} must not be negative, but is {number}")
    return query.limit(limit or None).offset(offset or None)


def checked(wanted: WorkflowFilter) -> WorkflowFilter:
    """The filter, if all its words mean something. A misspelt one would list everything, or nothing."""
    unknown = sorted(set(wanted) - set(WorkflowFilter.__annotations__))
    if unknown:
        raise TypeError(f"a listing has no such condition: {', '.join(unknown)}")
    strange = sorted(set(_words(wanted.get("status")) or ()) - STATUSES)
    if strange:
        raise ValueError(f"there is no status {', '.join(strange)}; there are {', '.join(sorted(STATUSES))}")
    return wanted


async def find(here: Here, wanted: WorkflowFilter) -> list[WorkflowStatus]:
    """The workflows that a filter describes."""
    if [] in (_words(wanted.get(key)) for key in (*WORD_COLUMNS, "workflow_id_prefix")):  # type: ignore[arg-type]  # as above
        return []  # one of none

    def read(conn: Conn) -> list[Row]:
        return conn.run_once(listing(conn.tables, wanted))

    return [status_of(here.ground.codec, row) for row in await here.read(read)]


@step_op("DBOS.listWorkflows")
async def list_workflows(here: Here, **wanted: Unpack[WorkflowFilter]) -> list[WorkflowStatus]:
    """Return the workflows that match every given condition, oldest first.

    The conditions are those of `WorkflowFilter`. Give `load_input=False` and `load_output=False` where values are
    not needed: they are most of the work.
    """
    return await find(here, checked(wanted))


@step_op("DBOS.listQueuedWorkflows")
async def list_queued_workflows(here: Here, **wanted: Unpack[WorkflowFilter]) -> list[WorkflowStatus]:
    """Return the workflows that wait or run on a queue and match every given condition, oldest first.

    The conditions are those of `WorkflowFilter`. Outputs are not loaded: what is on a queue has none.
    """
    return await find(here, {**checked(wanted), "queues_only": True, "load_output": False})


@statement
def STEPS(t: Tables) -> Executable:
    """The recorded steps of a workflow, in order."""
    c = t.steps.c
    return select(*step_columns(t)).where(c.workflow_uuid == bindparam("workflow_id")).order_by(c.function_id)


@step_op("DBOS.listWorkflowSteps")
async def list_workflow_steps(
    here: Here, workflow_id: str, *, limit: int | None = None, offset: int | None = None
) -> list[StepInfo]:
    """Return the recorded steps of a workflow in their order; none for an unknown id."""

    def read(conn: Conn) -> list[Row]:
        query: Any = STEPS.build(conn.tables)
        return conn.run_once(paged(query, limit, offset), workflow_id=workflow_id)

    return [step_info(here.ground.codec, row) for row in await here.read(read)]
