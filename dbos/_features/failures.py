"""What failed: the rows of all workflows that did since a moment, each with the step that failed last.

Made for looking at very many at once: one statement, of each error only its beginning, and nothing decoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, bindparam, case, exists, func, null, or_, select, true

from dbos._kernel.journal import refuse_in_transaction
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.statement import FAILED, constant, one_of, statement_of

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.schema import Tables


class StoredFailure(NamedTuple):
    """A workflow that failed, was given up, or ran out of time. Errors are as they are stored, times epoch milliseconds."""

    workflow_id: str
    name: str | None
    status: str
    app_version: str | None
    parent_workflow_id: str | None
    ended_at: int
    was_forked_from: bool
    error: str | None
    serialization: str | None
    #: The last step that failed, if one did; and whether the workflow failed with the very error of that step.
    step_name: str | None
    #: Left out where it is the workflow's own.
    step_error: str | None
    step_serialization: str | None
    child_workflow_id: str | None
    is_error_of_step: bool
    #: Whether the workflow took no step after it, or failed with its error.
    is_last_step: bool


@statement_of(StoredFailure._make)
def FAILURES(t: Tables) -> Executable:
    """What failed since a moment."""
    c, failed, other = t.status.c, t.steps.alias("failed"), t.steps.alias("other")
    step = failed.c
    later = exists().where(other.c.workflow_uuid == c.workflow_uuid, other.c.function_id > step.function_id)
    fails_later = exists().where(
        other.c.workflow_uuid == c.workflow_uuid, other.c.function_id > step.function_id, other.c.error.isnot(None)
    )
    belongs = and_(step.workflow_uuid == c.workflow_uuid, step.error.isnot(None), ~fails_later)
    ended = func.coalesce(t.completed_at, c.updated_at) if t.layout.extended else c.updated_at
    # Who cancels a workflow wants it so; who lets it run out of its time does not.
    was_late = c.workflow_deadline_epoch_ms <= ended

    is_same = step.error == t.error

    def beginning(error: Any) -> Any:
        return func.substr(error, 1, bindparam("longest"))

    columns = (
        c.workflow_uuid,
        c.name,
        c.status,
        c.application_version,
        c.parent_workflow_id,
        ended.label("ended_at"),
        c.was_forked_from,
        beginning(t.error).label("error"),
        c.serialization,
        step.function_name,
        case((is_same, null()), else_=beginning(step.error)).label("step_error"),
        case((is_same, null()), else_=step.serialization).label("step_serialization"),
        step.child_workflow_id,
        is_same.label("is_error_of_step"),
        case((is_same, true()), else_=~later).label("is_last_step"),
    )
    return (
        select(*columns)
        .select_from(t.status.outerjoin(failed, belongs))
        .where(
            one_of(c.status, FAILED),  # as their index says it
            or_(c.status != constant("CANCELLED"), was_late),
            c.updated_at >= bindparam("since"),
        )
    )


@op("DBOS.listFailures")
async def list_failures(here: Here, *, since_epoch_ms: int = 0, longest: int = 800) -> list[StoredFailure]:
    """Return the workflows that failed since a moment, were given up or ran out of their time, in no particular order.

    Of each error at most `longest` characters are read. Nothing is decoded, and nothing is recorded in a workflow.
    """
    refuse_in_transaction(here, "DBOS.listFailures")
    found: list[StoredFailure] = await here.read(lambda conn: conn.run(FAILURES, since=since_epoch_ms, longest=longest))
    return found
