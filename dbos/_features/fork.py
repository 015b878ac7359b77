"""Forking: a new workflow that has the first steps of another, and goes on by itself from there.

Everything is copied inside the database, in one transaction: the inputs, the records of the steps below the cut
with the events and stream values that they wrote. Messages, timeouts and places in queues are not inherited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Integer, Text, bindparam, delete, func, insert, literal, null, select, update

from dbos._engine.attributes import copy_attributes
from dbos._engine.handle import Reference, retrieve_workflow
from dbos._kernel.bell import event_of, queued
from dbos._kernel.journal import as_step
from dbos._kernel.model import ENQUEUED, INTERNAL_QUEUE
from dbos._kernel.naming import checked_id, new_id
from dbos._kernel.plan import op
from dbos._kernel.scope import OPTIONS, Here
from dbos._kernel.statement import statement
from dbos.error import DBOSConflictingWorkflowError, DBOSException, DBOSNonExistentWorkflowError

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.bell import Channel
    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn

# What a fork takes over from the workflow it is made of, besides its inputs.
INHERITED = (
    "name",
    "class_name",
    "config_name",
    "authenticated_user",
    "assumed_role",
    "authenticated_roles",
    "serialization",
    "application_id",
)

ORIGINAL: Any = bindparam("original_id", type_=Text())
NEW: Any = bindparam("new_id", type_=Text())
CUT: Any = bindparam("start_step", type_=Integer())
NOW: Any = bindparam("now", type_=BigInteger())


@statement
def FORK(t: Tables) -> Executable:
    """The new workflow, enqueued."""
    c = t.status.c
    values = {
        "workflow_uuid": NEW,
        "status": literal(ENQUEUED),
        "inputs": t.inputs,
        "queue_name": bindparam("queue", type_=Text()),
        "queue_partition_key": bindparam("partition_key", type_=Text()),
        "application_version": bindparam("version", type_=Text()),
        "forked_from": ORIGINAL,
        "recovery_attempts": literal(0),
        "priority": literal(0),
        "created_at": NOW,
        "updated_at": NOW,
        **{name: c[name] for name in INHERITED},
        **({"attributes": c.attributes} if t.layout.attributes == "column" else {}),
    }
    return (  # type: ignore[no-any-return]  # the two dialects' inserts have no common type
        t.dialect.insert(t.status)
        .from_select(list(values), select(*values.values()).where(c.workflow_uuid == ORIGINAL))
        .on_conflict_do_nothing()
        .returning(c.workflow_uuid)
    )


@statement
def FORKED_FROM(t: Tables) -> Executable:
    return select(t.status.c.forked_from).where(t.status.c.workflow_uuid == NEW)


@statement
def MARK_ORIGINAL(t: Tables) -> Executable:
    c = t.status.c
    return update(t.status).values(was_forked_from=True).where(c.workflow_uuid == ORIGINAL).returning(c.workflow_uuid)


def _copied(table: Table, **replaced: Any) -> Executable:
    """Copy the rows of the original below the cut to the new workflow."""
    columns = [column.name for column in table.columns]
    values = [NEW if name == "workflow_uuid" else replaced.get(name, table.c[name]) for name in columns]
    source = select(*values).where(table.c.workflow_uuid == ORIGINAL, table.c.function_id < CUT)
    return insert(table).from_select(columns, source)


@statement
def COPY_STEPS(t: Tables) -> Executable:
    return _copied(t.steps)


@statement
def COPY_EVENT_HISTORY(t: Tables) -> Executable:
    return _copied(t.event_history)


@statement
def COPY_STREAMS(t: Tables) -> Executable:
    return _copied(t.streams)


@statement
def COPY_EVENTS(t: Tables) -> Executable:
    """The latest value of each event, as it was at the cut."""
    c = t.event_history.c
    latest = (
        select(c.key, func.max(c.function_id).label("function_id"))
        .where(c.workflow_uuid == ORIGINAL, c.function_id < CUT)
        .group_by(c.key)
        .subquery("latest")
    )
    source = select(NEW, c.key, c.value, c.serialization).where(
        c.workflow_uuid == ORIGINAL, c.key == latest.c.key, c.function_id == latest.c.function_id
    )
    return insert(t.events).from_select(["workflow_uuid", "key", "value", "serialization"], source)


@statement
def COPIED_EVENTS(t: Tables) -> Executable:
    return select(t.events.c.key).where(t.events.c.workflow_uuid == NEW)


@statement
def REPLACE_CHILD(t: Tables) -> Executable:
    c = t.steps.c
    return (
        update(t.steps)
        .values(child_workflow_id=bindparam("new_child"))
        .where(c.workflow_uuid == NEW, c.child_workflow_id == bindparam("old_child"))
    )


@statement
def COPY_NOTES(t: Tables) -> Executable:
    """What an extension keeps of the steps that are kept."""
    c = t.notes.c
    source = select(NEW, c.function_id, c.kind, c.text).where(
        c.workflow_uuid == ORIGINAL, c.function_id >= 1, c.function_id < CUT
    )
    return insert(t.notes).from_select(["workflow_uuid", "function_id", "kind", "text"], source)


@statement
def REPLACE_OUTPUT(t: Tables) -> Executable:
    """Let a step of the fork have come to something else."""
    c = t.steps.c
    text = bindparam("text", type_=Text())
    return (
        update(t.steps)
        .values(output=text, error=null(), child_workflow_id=null(), serialization=bindparam("format", type_=Text()))
        .where(c.workflow_uuid == NEW, c.function_id == bindparam("step_id"))
        .returning(c.function_id)
    )


@statement
def DROP_NOTES(t: Tables) -> Executable:
    c = t.notes.c
    return delete(t.notes).where(c.workflow_uuid == NEW, c.function_id == bindparam("step_id"))


def _replace_output(conn: Conn, fork_id: str, step_id: int, text: str, serialization: str) -> None:
    if not conn.run(REPLACE_OUTPUT, new_id=fork_id, step_id=step_id, text=text, format=serialization):
        raise DBOSException(f"Step {step_id} cannot get another output, because the fork does not keep such a step")
    conn.run(DROP_NOTES, new_id=fork_id, step_id=step_id)


@op("DBOS.forkWorkflow")
async def fork_workflow(
    here: Here,
    workflow_id: str,
    start_step: int,
    *,
    application_version: str | None = None,
    queue_name: str | None = None,
    queue_partition_key: str | None = None,
    replacement_children: dict[str, str] | None = None,
    replacement_outputs: dict[int, Any] | None = None,
) -> Reference:
    """Start a new workflow that keeps the recorded steps of another below `start_step` and runs the rest anew.

    Its id is that of an enclosing `SetWorkflowID`, else a new one; the same fork under the same id is made once.
    `application_version` names the version that may run it; None: any. `replacement_children` maps children of the
    original to workflows whose results the fork takes instead, `replacement_outputs` kept steps to what they shall have
    returned. Raises DBOSException for a step that is not kept, and DBOSNonExistentWorkflowError if there is no
    such workflow.
    """
    assigned = OPTIONS.get().assigned
    fork_id = new_id() if assigned is None or assigned.taken else assigned.workflow_id
    if assigned is not None:
        assigned.taken = True
    queue = INTERNAL_QUEUE if queue_name is None else checked_id(queue_name, "A queue name")
    rings: list[Channel] = [queued(queue)]
    serializer = here.ground.codec.default
    replaced = {
        step_id: here.ground.codec.encode(value, serializer, f"the new output of step {step_id}")
        for step_id, value in (replacement_outputs or {}).items()
    }

    def work(conn: Conn) -> None:
        ids = {"original_id": workflow_id, "new_id": fork_id}
        now = here.ground.clock.now_ms()
        if not conn.run(MARK_ORIGINAL, original_id=workflow_id):
            raise DBOSNonExistentWorkflowError("fork", workflow_id)
        made = conn.run(
            FORK, **ids, queue=queue, partition_key=queue_partition_key, version=application_version, now=now
        )
        if not made:
            (taken,) = conn.run(FORKED_FROM, new_id=fork_id)
            if taken.forked_from == workflow_id:
                return  # the same fork asked for again, or the first answer was lost
            raise DBOSConflictingWorkflowError(fork_id, "A workflow of this ID exists already; a fork needs a new one")
        copy_attributes(conn, workflow_id, fork_id)
        if start_step > 1:
            for copy in (COPY_STEPS, COPY_NOTES, COPY_EVENT_HISTORY, COPY_EVENTS, COPY_STREAMS):
                conn.run(copy, **ids, start_step=start_step)
            # Somebody may wait already for an event of the fork, by its id.
            rings[1:] = [event_of(fork_id, row.key) for row in conn.run(COPIED_EVENTS, new_id=fork_id)]
        for old, new in (replacement_children or {}).items():
            conn.run(REPLACE_CHILD, new_id=fork_id, old_child=old, new_child=new)
        for step_id, text in replaced.items():
            _replace_output(conn, fork_id, step_id, text, serializer.name())

    async def make(place: Here) -> str:
        await place.tx(work, rings=rings)
        return fork_id

    return await retrieve_workflow.plan(here, await as_step(here, "DBOS.forkWorkflow", make))
