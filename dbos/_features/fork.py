"""Forking: a new workflow that has the first steps of another, and goes on by itself from there.

Everything is copied inside the database, in one transaction: the inputs, the records of the steps below the cut
with the events and stream values that they wrote. What is signed is then signed for the fork. Messages, timeouts and
places in queues are not inherited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import BigInteger, Integer, Text, bindparam, case, delete, func, insert, literal, null, select, update

from dbos._engine.attributes import add_attributes, copy_attributes
from dbos._engine.copies import sign_copies
from dbos._engine.handle import Reference, retrieve_workflow
from dbos._kernel.bell import event_of, queued
from dbos._kernel.clock import timeout_ms_of
from dbos._kernel.journal import as_step
from dbos._kernel.model import ENQUEUED, INTERNAL_QUEUE
from dbos._kernel.naming import checked_id, checked_if_given, new_id, sought
from dbos._kernel.plan import op
from dbos._kernel.scope import OPTIONS, Here
from dbos._kernel.slot import Slot
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
        "workflow_timeout_ms": bindparam("timeout_ms", type_=BigInteger()),
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
        .returning(c.serialization)
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


@statement
def CUTS(t: Tables) -> Executable:
    """The last step of a workflow, the last that failed, and the last of a name."""
    c = t.steps.c
    failed, named = c.error.isnot(None), c.function_name == bindparam("name", type_=Text())
    return select(
        func.max(c.function_id).label("last"),
        func.max(case((failed, c.function_id))).label("failed"),
        func.max(case((named, c.function_id))).label("named"),
    ).where(c.workflow_uuid == bindparam("workflow_id"))


class Wanted(NamedTuple):
    """What a fork shall have besides the steps that it keeps."""

    version: str | None
    queue_name: str | None
    partition_key: str | None
    children: dict[str, str] | None = None
    outputs: dict[int, Any] | None = None
    timeout_ms: int | None = None


def _replace_output(conn: Conn, fork_id: str, step_id: int, text: str, serialization: str) -> None:
    if not conn.run(REPLACE_OUTPUT, new_id=fork_id, step_id=step_id, text=text, format=serialization):
        raise DBOSException(f"Step {step_id} cannot get another output, because the fork does not keep such a step")
    if conn.tables.layout.own:
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
    timeout_seconds: float | None = None,
) -> Reference:
    """Start a new workflow that keeps the recorded steps of another below `start_step` and runs the rest anew.

    Its id is that of an enclosing `SetWorkflowID`, else a new one; the same fork under the same id is made once. What is
    noted of the original is noted of it too, with what an enclosing `SetWorkflowAttributes` adds.
    `application_version` names the version that may run it; None: any. `replacement_children` maps children of the
    original to workflows whose results the fork takes instead, `replacement_outputs` kept steps to what they shall have
    returned. `timeout_seconds` is how long it may run, as in `SetWorkflowTimeout`; the original's is not inherited.
    Raises DBOSException for a step that is not kept, ValueError for a timeout below 0, and DBOSNonExistentWorkflowError
    if there is no such workflow.
    """
    wanted = Wanted(
        application_version,
        queue_name,
        queue_partition_key,
        replacement_children,
        replacement_outputs,
        timeout_ms_of(timeout_seconds),
    )
    return await _fork(here, workflow_id, lambda _: start_step, wanted)


async def _fork(here: Here, workflow_id: str, cut_of: Callable[[Conn], int], wanted: Wanted) -> Reference:
    """Fork from the step that `cut_of` finds: in the same transaction, so that it is the fork that is recorded."""
    sought(workflow_id)
    assigned, noted = OPTIONS.get().assigned, OPTIONS.get().attributes
    fork_id = new_id() if assigned is None or assigned.taken else assigned.workflow_id
    if assigned is not None:
        assigned.taken = True
    queue = INTERNAL_QUEUE if wanted.queue_name is None else checked_id(wanted.queue_name, "A queue name")
    version = checked_if_given(wanted.version, "An application version")
    key = checked_if_given(wanted.partition_key, "A queue partition key")
    rings: list[Channel] = [queued(queue)]
    codec, serializer = here.ground.codec, here.ground.codec.default
    replaced = {
        step_id: codec.encode(
            value, serializer, Slot.step_output(fork_id, step_id), f"the new output of step {step_id}"
        )
        for step_id, value in (wanted.outputs or {}).items()
    }

    def work(conn: Conn) -> None:
        ids = {"original_id": workflow_id, "new_id": fork_id}
        now = here.ground.clock.now_ms()
        if not conn.run(MARK_ORIGINAL, original_id=workflow_id):
            raise DBOSNonExistentWorkflowError("fork", workflow_id)
        start_step = cut_of(conn)
        place = {"queue": queue, "partition_key": key, "version": version}
        made = conn.run(FORK, **ids, **place, timeout_ms=wanted.timeout_ms, now=now)
        if not made:
            (taken,) = conn.run(FORKED_FROM, new_id=fork_id)
            if taken.forked_from == workflow_id:
                return  # the same fork asked for again, or the first answer was lost
            raise DBOSConflictingWorkflowError(fork_id, "A workflow of this ID exists already; a fork needs a new one")
        copy_attributes(conn, workflow_id, fork_id)
        if noted is not None:
            add_attributes(conn, fork_id, noted)
        if start_step > 1:
            notes = (COPY_NOTES,) if conn.tables.layout.own else ()
            for copy in (COPY_STEPS, *notes, COPY_EVENT_HISTORY, COPY_EVENTS, COPY_STREAMS):
                conn.run(copy, **ids, start_step=start_step)
            # Somebody may wait already for an event of the fork, by its id.
            rings[1:] = [event_of(fork_id, row.key) for row in conn.run(COPIED_EVENTS, new_id=fork_id)]
        if codec.is_bound(None) or codec.is_bound(made[0].serialization):
            sign_copies(conn, codec, workflow_id, fork_id)
        for old, new in (wanted.children or {}).items():
            conn.run(REPLACE_CHILD, new_id=fork_id, old_child=old, new_child=new)
        for step_id, text in replaced.items():
            _replace_output(conn, fork_id, step_id, text, serializer.name())

    async def make(place: Here) -> str:
        await place.tx(work, rings=rings)
        return fork_id

    return await retrieve_workflow.plan(here, await as_step(here, "DBOS.forkWorkflow", make))


@op("DBOS.forkFromFailure")
async def fork_from_failure(
    here: Here,
    workflow_id: str,
    *,
    from_last_failure: bool = False,
    from_last_step: bool = False,
    from_step_name: str | None = None,
    application_version: str | None = None,
    queue_name: str | None = None,
    queue_partition_key: str | None = None,
) -> Reference:
    """Start a new workflow that repeats another from where it failed, and keeps what it had done before that.

    Exactly one says from where: `from_last_failure`, the last step that failed (where none did, after all recorded
    steps: the workflow failed in its own code); `from_last_step`, the last recorded step; or `from_step_name`, the last
    step of that name. Raises ValueError for none or several of them, DBOSException where the workflow has no such step,
    and DBOSNonExistentWorkflowError if there is no such workflow. For the rest see `fork_workflow`.
    """
    modes = (from_last_failure, from_last_step, from_step_name is not None)
    if sum(map(bool, modes)) != 1:
        raise ValueError("Exactly one of from_last_failure, from_last_step and from_step_name must be given")

    def cut_of(conn: Conn) -> int:
        (found,) = conn.run(CUTS, workflow_id=workflow_id, name=from_step_name)
        if from_last_failure:
            return int(found.failed or (found.last or 0) + 1)
        cut = found.last if from_last_step else found.named
        if cut is None:
            what = "recorded step" if from_last_step else f"step named {from_step_name!r}"
            raise DBOSException(f"Workflow {workflow_id} has no {what}")
        return int(cut)

    return await _fork(here, workflow_id, cut_of, Wanted(application_version, queue_name, queue_partition_key))
