"""Listing workflows and steps: one filter, one statement, one builder of records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from sqlalchemy import select

from dbos._engine.selection import checked, describes_none, paged, select_matching
from dbos._engine.status import status_columns, status_of, step_columns, step_info
from dbos._kernel.journal import step_op
from dbos._kernel.model import StepInfo, WorkflowFilter, WorkflowStatus
from dbos._kernel.naming import sought
from dbos._kernel.scope import Here

if TYPE_CHECKING:
    from sqlalchemy import Select

    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn, Row


def listing(t: Tables, wanted: WorkflowFilter) -> Select[Any]:
    """The statement that finds what a filter describes."""
    load_input, load_output = wanted.get("load_input", True), wanted.get("load_output", True)
    return select_matching(t, wanted, *status_columns(t, load_input=load_input, load_output=load_output))


async def find(here: Here, wanted: WorkflowFilter) -> list[WorkflowStatus]:
    """The workflows that a filter describes."""
    if describes_none(wanted):
        return []

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


@step_op("DBOS.listWorkflowSteps")
async def list_workflow_steps(
    here: Here, workflow_id: str, *, limit: int | None = None, offset: int | None = None, load_output: bool = True
) -> list[StepInfo]:
    """Return the recorded steps of a workflow in their order; none for an unknown id.

    Without `load_output` the outputs and errors are None, and not read.
    """
    sought(workflow_id)

    def read(conn: Conn) -> list[Row]:
        c = conn.tables.steps.c
        columns = step_columns(conn.tables, load_output=load_output)
        query = select(*columns).where(c.workflow_uuid == workflow_id).order_by(c.function_id)
        return conn.run_once(paged(query, limit, offset))

    return [step_info(here.ground.codec, workflow_id, row) for row in await here.read(read)]
