"""A workflow's row, and a step's, as people see them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, null, select

from dbos._engine.attributes import attributes_of
from dbos._kernel.journal import step_op
from dbos._kernel.model import StepInfo, WorkflowInputs, WorkflowStatus
from dbos._kernel.naming import sought
from dbos._kernel.slot import Slot
from dbos._kernel.statement import statement

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.codec import Codec
    from dbos._kernel.schema import Tables
    from dbos._kernel.scope import Here
    from dbos._kernel.statement import Row


def status_columns(t: Tables, *, load_input: bool = True, load_output: bool = True) -> list[ColumnElement[Any]]:
    """What `status_of` reads."""
    c = t.status.c
    return [
        c.workflow_uuid,
        c.status,
        c.name,
        c.class_name,
        c.config_name,
        c.authenticated_user,
        c.assumed_role,
        c.authenticated_roles,
        t.inputs if load_input else null().label("inputs"),
        t.output if load_output else null().label("output"),
        t.error if load_output else null().label("error"),
        c.serialization,
        c.created_at,
        c.updated_at,
        c.queue_name,
        c.executor_id,
        c.application_version,
        c.application_id,
        c.recovery_attempts,
        c.workflow_timeout_ms,
        c.workflow_deadline_epoch_ms,
        c.deduplication_id,
        c.priority,
        c.queue_partition_key,
        c.forked_from,
        c.was_forked_from,
        c.parent_workflow_id,
        c.started_at_epoch_ms,
        c.delay_until_epoch_ms,
        t.completed_at,
        t.attributes,
    ]


def step_columns(t: Tables, *, load_output: bool = True) -> list[ColumnElement[Any]]:
    """What `step_info` reads."""
    c = t.steps.c
    return [
        c.function_id,
        c.function_name,
        c.output if load_output else null().label("output"),
        c.error if load_output else null().label("error"),
        c.child_workflow_id,
        c.started_at_epoch_ms,
        c.completed_at_epoch_ms,
        c.serialization,
    ]


def step_info(codec: Codec, workflow_id: str, row: Row) -> StepInfo:
    """A step's row with its values read; see `status_of`."""
    return StepInfo(
        function_id=row.function_id,
        function_name=row.function_name,
        output=codec.shown(row.output, row.serialization, Slot.step_output(workflow_id, row.function_id)),
        error=codec.shown_error(row.error, row.serialization, Slot.step_error(workflow_id, row.function_id)),
        child_workflow_id=row.child_workflow_id,
        started_at_epoch_ms=row.started_at_epoch_ms,
        completed_at_epoch_ms=row.completed_at_epoch_ms,
    )


def status_of(codec: Codec, row: Row) -> WorkflowStatus:
    """The row with its values read; a value that cannot be read is shown as it is stored."""
    return WorkflowStatus(
        workflow_id=row.workflow_uuid,
        status=row.status,
        name=row.name,
        class_name=row.class_name or None,
        config_name=row.config_name or None,
        authenticated_user=row.authenticated_user or None,
        assumed_role=row.assumed_role or None,
        authenticated_roles=_roles(row.authenticated_roles),
        input=_inputs(codec, row.inputs, row.serialization, Slot.inputs(row.workflow_uuid)),
        output=codec.shown(row.output, row.serialization, Slot.output(row.workflow_uuid)),
        error=codec.shown_error(row.error, row.serialization, Slot.error(row.workflow_uuid)),
        created_at=row.created_at,
        updated_at=row.updated_at,
        queue_name=row.queue_name,
        executor_id=row.executor_id,
        app_version=row.application_version,
        app_id=row.application_id,
        recovery_attempts=row.recovery_attempts,
        workflow_timeout_ms=row.workflow_timeout_ms,
        workflow_deadline_epoch_ms=row.workflow_deadline_epoch_ms,
        deduplication_id=row.deduplication_id,
        priority=row.priority,
        queue_partition_key=row.queue_partition_key,
        forked_from=row.forked_from,
        was_forked_from=bool(row.was_forked_from),
        parent_workflow_id=row.parent_workflow_id,
        dequeued_at=row.started_at_epoch_ms,
        delay_until_epoch_ms=row.delay_until_epoch_ms,
        completed_at=row.completed_at,
        attributes=attributes_of(row.attributes),
    )


def _roles(text: str | None) -> list[str] | None:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def _inputs(codec: Codec, text: str | None, serialization: str | None, slot: Slot) -> Any:
    if text is None:
        return None
    try:
        args, kwargs = codec.decode_args(text, serialization, slot)
    except Exception:  # noqa: BLE001 - shown as it is stored; `shown` says why in the log
        return codec.shown(text, serialization, slot)
    return WorkflowInputs(args=args, kwargs=kwargs)


@statement
def STATUS(t: Tables) -> Executable:
    """One workflow."""
    return select(*status_columns(t)).where(t.status.c.workflow_uuid == bindparam("workflow_id"))


async def find_status(here: Here, workflow_id: str) -> WorkflowStatus | None:
    """The status of a workflow, if there is one of that id."""
    row = await here.read(lambda conn: conn.first(STATUS, workflow_id=workflow_id))
    return None if row is None else status_of(here.ground.codec, row)


@step_op("DBOS.getStatus")
async def get_workflow_status(here: Here, workflow_id: str) -> WorkflowStatus | None:
    """Return the status of the workflow with this id, or None if there is none."""
    return await find_status(here, sought(workflow_id))
