"""Acting on workflows: cancel, resume, delete, and the delay of those that wait for their moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, bindparam, select, update

from dbos._engine.handle import Reference
from dbos._engine.many import cancel, freed, remove_rows, with_descendants
from dbos._engine.transaction import Forget, databases_apart
from dbos._engine.transitions import RESUME
from dbos._kernel.bell import DELAYS, queued, stop
from dbos._kernel.journal import as_step, step_op
from dbos._kernel.model import DELAYED, INTERNAL_QUEUE
from dbos._kernel.naming import checked_id, sought
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.statement import statement
from dbos.error import DBOSException, DBOSNonExistentWorkflowError

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.bell import Channel
    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn


@statement
def EXISTING(t: Tables) -> Executable:
    """Which of these ids are of workflows."""
    return select(t.status.c.workflow_uuid).where(t.dialect.among(t.status.c.workflow_uuid, "workflow_ids"))


@statement
def SET_DELAY(t: Tables) -> Executable:
    """Move the moment of a workflow that waits for it."""
    c = t.status.c
    return (
        update(t.status)
        .values(
            delay_until_epoch_ms=bindparam("until", type_=BigInteger()), updated_at=bindparam("now", type_=BigInteger())
        )
        .where(c.workflow_uuid == bindparam("workflow_id"), c.status == DELAYED)
        .returning(c.workflow_uuid)
    )


# -- cancel ----------------------------------------------------------------------------------------------------


@step_op("DBOS.cancelWorkflow")
async def cancel_workflow(here: Here, workflow_id: str, *, cancel_children: bool = False) -> None:
    """Cancel a workflow: it leaves its queue, stops at its next operation, and wakes at once if it waits.

    A workflow that has ended stays as it ended, and an unknown id is passed over. `cancel_children` cancels what it
    started too, and so on.
    """
    await cancel(here, [sought(workflow_id)], cancel_children=cancel_children)


@step_op("DBOS.cancelWorkflow")
async def cancel_workflows(here: Here, workflow_ids: list[str], *, cancel_children: bool = False) -> None:
    """Cancel several workflows in one transaction; see `cancel_workflow`."""
    await cancel(here, [sought(each) for each in workflow_ids], cancel_children=cancel_children)


# -- resume ----------------------------------------------------------------------------------------------------


async def resume(here: Here, workflow_ids: list[str], queue_name: str | None) -> list[Reference]:
    """Put workflows that have not finished on a queue, to go on after their last step."""
    queue = INTERNAL_QUEUE if queue_name is None else checked_id(queue_name, "A queue name")

    rings: list[Channel] = []  # what the work finds to ring; it may be done twice

    def work(conn: Conn) -> None:
        known = {row.workflow_uuid for row in conn.run(EXISTING, workflow_ids=workflow_ids)}
        for workflow_id in workflow_ids:
            if workflow_id not in known:
                raise DBOSNonExistentWorkflowError("resume", workflow_id)
        queues = freed(conn, workflow_ids)
        resumed = conn.run(RESUME, workflow_ids=workflow_ids, queue=queue, now=here.ground.clock.now_ms())
        rings[:] = [*(stop(row.workflow_uuid) for row in resumed), queued(queue), *queues]

    async def make(place: Here) -> None:
        await place.tx(work, rings=rings)

    await as_step(here, "DBOS.resumeWorkflow", make)
    return [Reference(here.ground, workflow_id) for workflow_id in workflow_ids]


@op("DBOS.resumeWorkflow")
async def resume_workflow(here: Here, workflow_id: str, *, queue_name: str | None = None) -> Reference:
    """Make a workflow go on after its last recorded step, at once or on a queue; return its handle.

    For workflows that are cancelled or dead-lettered, and for those on a queue that should not wait any longer. One
    that has finished stays finished. Raises DBOSNonExistentWorkflowError for an unknown id.
    """
    (reference,) = await resume(here, [sought(workflow_id)], queue_name)
    return reference


@op("DBOS.resumeWorkflow")
async def resume_workflows(here: Here, workflow_ids: list[str], *, queue_name: str | None = None) -> list[Reference]:
    """Resume several workflows, all or (if one is unknown) none; return their handles. See `resume_workflow`."""
    return await resume(here, [sought(each) for each in workflow_ids], queue_name)


# -- delete ----------------------------------------------------------------------------------------------------


async def remove(here: Here, workflow_ids: list[str], *, delete_children: bool) -> None:
    """Forget workflows with everything they own."""
    rings: list[Channel] = []  # what the work finds to ring; it may be done twice

    def work(conn: Conn) -> None:
        wanted = with_descendants(conn, workflow_ids) if delete_children else workflow_ids
        rings[:] = remove_rows(conn, wanted)

    await _forget_transactions(here, workflow_ids, delete_children=delete_children)
    await here.tx(work, rings=rings)


async def _forget_transactions(here: Here, workflow_ids: list[str], *, delete_children: bool) -> None:
    """Delete what another database recorded of these workflows: first, for later nobody would know what to delete."""
    databases = databases_apart(here.ground)
    if not databases:
        return
    wanted = workflow_ids
    if delete_children:
        wanted = await here.read(lambda conn: with_descendants(conn, workflow_ids))
    for each in databases:
        await Forget(here, each, wanted)


@step_op("DBOS.deleteWorkflow")
async def delete_workflow(here: Here, workflow_id: str, *, delete_children: bool = False) -> None:
    """Delete a workflow with its steps, messages, events and streams. This cannot be undone.

    `delete_children` deletes what it started too, and so on; not what it merely waited for. An unknown id is passed
    over. A workflow that is running stops at its next operation.
    """
    await remove(here, [sought(workflow_id)], delete_children=delete_children)


@step_op("DBOS.deleteWorkflow")
async def delete_workflows(here: Here, workflow_ids: list[str], *, delete_children: bool = False) -> None:
    """Delete several workflows in one transaction; see `delete_workflow`."""
    await remove(here, [sought(each) for each in workflow_ids], delete_children=delete_children)


# -- delay -----------------------------------------------------------------------------------------------------


@step_op("DBOS.setWorkflowDelay")
async def set_workflow_delay(
    here: Here, workflow_id: str, *, delay_seconds: float | None = None, delay_until_epoch_ms: int | None = None
) -> None:
    """Set the moment before which a delayed workflow does not start: from now, or absolute; exactly one of them.

    A workflow that is not DELAYED stays as it is.
    """
    sought(workflow_id)
    now = here.ground.clock.now_ms()
    if (delay_seconds is None) == (delay_until_epoch_ms is None):
        raise DBOSException("Give exactly one of delay_seconds and delay_until_epoch_ms")
    if delay_seconds is not None:
        if not delay_seconds >= 0:
            raise DBOSException(f"delay_seconds must be >= 0, but is {delay_seconds}")
        until = now + int(delay_seconds * 1000)
    else:
        until = int(delay_until_epoch_ms or 0)
        if until < 0:
            raise DBOSException(f"delay_until_epoch_ms must be >= 0, but is {until}")
    await here.tx(lambda conn: conn.run(SET_DELAY, workflow_id=workflow_id, until=until, now=now), rings=[DELAYS])
