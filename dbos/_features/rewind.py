"""Rewinding: a workflow that has ended goes on, under its own id, from an earlier step.

Everything happens in one transaction, and from a workflow it is recorded in that. The records from the cut on are
dropped, and what these steps left behind is undone as far as it is the workflow's own:

- Events get the values that they had at the cut, from their history.
- A message that was received by a kept step stays as it is: the step has its text on record, and of several that are
  alike the oldest stay. Whatever else was received goes. What nobody received goes if it came after the cut, which is
  when the first dropped step began; if no step is kept, whenever it came, and if none is dropped, it stays.
- Streams keep their values, because others have read them; a closing mark beyond the cut goes, so that they are open.
- What other databases recorded of the dropped steps goes before, while the workflow is still at rest. They are those
  that this program knows: a client has no datasources, but these keep nothing of a workflow that has finished.

Children are workflows by themselves. The same step starts the same child again and so finds it as it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Integer, Text, bindparam, delete, func, or_, select

from dbos._engine.handle import Reference
from dbos._engine.transaction import Forget, databases_apart
from dbos._engine.transitions import REWIND
from dbos._kernel.bell import queued, stop
from dbos._kernel.journal import (
    RECORD_WITH,
    STANDING,
    answer,
    ensure_running,
    explain_refusal,
    record,
    record_error,
    refuse_in_transaction,
    replay,
)
from dbos._kernel.model import INTERNAL_QUEUE, STREAM_MARKS, TERMINAL
from dbos._kernel.naming import checked_id, checked_if_given, sought
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.slot import NOWHERE, Slot
from dbos._kernel.statement import Entry, one_of, statement
from dbos.error import DBOSException, DBOSNonExistentWorkflowError

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.schema import Tables
    from dbos._kernel.scope import Run
    from dbos._kernel.statement import Conn

NAME = "DBOS.rewindWorkflow"
# As the step is recorded that receives a message.
RECV = "DBOS.recv"

WORKFLOW: Any = bindparam("workflow_id", type_=Text())
CUT: Any = bindparam("cut", type_=Integer())


# -- statements ------------------------------------------------------------------------------------------------


@statement
def AT_REST(t: Tables) -> Executable:
    """How a workflow stands, and so it stays until the commit."""
    c = t.status.c
    return select(c.status, c.updated_at).where(c.workflow_uuid == WORKFLOW).with_for_update()


@statement
def CUT_MOMENT(t: Tables) -> Executable:
    """When the first of the dropped steps began; nothing if there is none."""
    c = t.steps.c
    began = func.min(func.coalesce(c.started_at_epoch_ms, c.completed_at_epoch_ms)).label("began")
    return select(began, func.count().label("number")).where(c.workflow_uuid == WORKFLOW, c.function_id >= CUT)


@statement
def RECEIVED(t: Tables) -> Executable:
    """What the kept steps received."""
    c = t.steps.c
    mine = (c.workflow_uuid == WORKFLOW, c.function_id < CUT, c.function_name == RECV, c.output.isnot(None))
    return select(c.function_id, c.output, c.serialization).where(*mine)


@statement
def CONSUMED(t: Tables) -> Executable:
    """The messages that were received, the oldest first."""
    c = t.messages.c
    return (
        select(c.message_uuid, c.topic, c.message, c.serialization)
        .where(c.destination_uuid == WORKFLOW, c.consumed)
        .order_by(c.created_at_epoch_ms, c.message_uuid)
    )


@statement
def DROP_MESSAGES(t: Tables) -> Executable:
    return delete(t.messages).where(t.dialect.among(t.messages.c.message_uuid, "message_ids"))


@statement
def DROP_UNREAD(t: Tables) -> Executable:
    c = t.messages.c
    late = c.created_at_epoch_ms >= bindparam("since", type_=BigInteger())
    return delete(t.messages).where(c.destination_uuid == WORKFLOW, ~c.consumed, late)


@statement
def DROP_EVENTS(t: Tables) -> Executable:
    """Forget the present values of the events that a dropped step set."""
    c = t.event_history.c
    touched = select(c.key).where(c.workflow_uuid == WORKFLOW, c.function_id >= CUT)
    return delete(t.events).where(t.events.c.workflow_uuid == WORKFLOW, t.events.c.key.in_(touched))


@statement
def DROP_EVENT_HISTORY(t: Tables) -> Executable:
    c = t.event_history.c
    return delete(t.event_history).where(c.workflow_uuid == WORKFLOW, c.function_id >= CUT)


@statement
def RESTORE_EVENTS(t: Tables) -> Executable:
    """Give the events that have no value now the last one of their history."""
    c = t.event_history.c
    latest = (
        select(c.key, func.max(c.function_id).label("function_id"))
        .where(c.workflow_uuid == WORKFLOW)
        .group_by(c.key)
        .subquery("latest")
    )
    source = select(c.workflow_uuid, c.key, c.value, c.serialization).where(
        c.workflow_uuid == WORKFLOW, c.key == latest.c.key, c.function_id == latest.c.function_id
    )
    insert = t.dialect.insert(t.events).from_select(["workflow_uuid", "key", "value", "serialization"], source)
    return insert.on_conflict_do_nothing()  # type: ignore[no-any-return]  # the two dialects' inserts have no common type


@statement
def OPEN_STREAMS(t: Tables) -> Executable:
    """Take back the closing marks that dropped steps wrote."""
    c = t.streams.c
    return delete(t.streams).where(c.workflow_uuid == WORKFLOW, c.function_id >= CUT, one_of(c.value, STREAM_MARKS))


@statement
def DROP_STEPS(t: Tables) -> Executable:
    return delete(t.steps).where(t.steps.c.workflow_uuid == WORKFLOW, t.steps.c.function_id >= CUT)


@statement
def DROP_NOTES(t: Tables) -> Executable:
    """Forget what an extension kept of the dropped steps, and of the workflow, whose body is run anew."""
    c = t.notes.c
    return delete(t.notes).where(c.workflow_uuid == WORKFLOW, or_(c.function_id >= CUT, c.function_id == 0))


@statement
def DROP_OUTPUT(t: Tables) -> Executable:
    return delete(t.side_output).where(t.side_output.c.workflow_uuid == WORKFLOW)


# -- the transaction -------------------------------------------------------------------------------------------


@dataclass
class Rewinding:
    """The work that rewinds one workflow; it may be done again when the answer of its commit was lost."""

    here: Here
    workflow_id: str
    cut: int
    version: str | None
    queue: str
    partition_key: str | None
    #: When the row had changed last before the first try: a later try sees by it whether that was committed.
    seen_ms: int | None = None

    async def prepare(self) -> None:
        """Drop what other databases recorded, if the workflow is at rest."""
        databases = databases_apart(self.here.ground)
        if databases:
            await self.here.read(self._ensure_at_rest)
        for each in databases:
            await Forget(self.here, each, [self.workflow_id], self.cut)

    def __call__(self, conn: Conn) -> None:
        updated_ms = self._ensure_at_rest(conn)
        if updated_ms is None:
            return
        self.seen_ms = updated_ms
        mine = {"workflow_id": self.workflow_id, "cut": self.cut}
        self._drop_messages(conn)
        for each in (DROP_EVENTS, DROP_EVENT_HISTORY, OPEN_STREAMS, DROP_STEPS):
            conn.run(each, **mine)
        if conn.tables.layout.own:
            conn.run(DROP_NOTES, **mine)
        conn.run(RESTORE_EVENTS, workflow_id=self.workflow_id)
        if conn.tables.layout.split:
            conn.run(DROP_OUTPUT, workflow_id=self.workflow_id)
        conn.run(
            REWIND,
            workflow_id=self.workflow_id,
            queue=self.queue,
            partition_key=self.partition_key,
            version=self.version,
            now=max(self.here.ground.clock.now_ms(), updated_ms + 1),
        )

    def _ensure_at_rest(self, conn: Conn) -> int | None:
        """When it ended. None: an earlier try was committed."""
        row = conn.first(AT_REST, workflow_id=self.workflow_id)
        if row is None:
            raise DBOSNonExistentWorkflowError("target", self.workflow_id)
        if self.seen_ms not in (None, row.updated_at):
            return None
        if row.status not in TERMINAL:
            raise DBOSException(
                f"Workflow {self.workflow_id} is {row.status}, and only a workflow in a terminal state can be rewound. "
                "Cancel it first."
            )
        return int(row.updated_at)

    def _drop_messages(self, conn: Conn) -> None:
        mine = {"workflow_id": self.workflow_id, "cut": self.cut}
        kept: Counter[Any] = Counter()
        for row in conn.run(RECEIVED, **mine):
            slot = Slot.step_output(self.workflow_id, row.function_id)
            kept[self._comparable(row.output, row.serialization, slot)] += 1
        dropped: list[str] = []
        for row in conn.run(CONSUMED, workflow_id=self.workflow_id):
            text = self._comparable(row.message, row.serialization, Slot.message(self.workflow_id, row.topic))
            if kept[text]:
                kept[text] -= 1
            else:
                dropped.append(row.message_uuid)
        if dropped:
            conn.run(DROP_MESSAGES, message_ids=dropped)
        moment = conn.run(CUT_MOMENT, **mine)[0]
        if self.cut <= 1:
            conn.run(DROP_UNREAD, workflow_id=self.workflow_id, since=0)
        elif moment.number:
            conn.run(DROP_UNREAD, workflow_id=self.workflow_id, since=moment.began or 0)

    def _comparable(self, text: str, serialization: str | None, slot: Slot) -> tuple[str | None, str | None]:
        """What a message and the record of having received it have in common."""
        return self.here.ground.codec.copied(text, serialization, slot, NOWHERE), serialization


# -- the operation ---------------------------------------------------------------------------------------------


@op(NAME)
async def rewind_workflow(
    here: Here,
    workflow_id: str,
    *,
    start_step: int | None = None,
    application_version: str | None = None,
    queue_name: str | None = None,
    queue_partition_key: str | None = None,
) -> Reference:
    """Run a workflow that has ended once more, under its id, from `start_step` on; return its handle.

    The steps below `start_step` keep their records, and none is kept by default. Its inputs stay; its events are as they
    were at that step, what it received or was sent since is gone, and its streams go on. Its children are not run again.
    `application_version` names the version that may run it; None: any. Raises DBOSException for a workflow that has not
    ended, and DBOSNonExistentWorkflowError if there is none.
    """
    refuse_in_transaction(here, NAME)
    cut = 1 if start_step is None else start_step
    if cut < 1:
        raise ValueError(f"start_step must be >= 1, but is {cut}")
    queue = INTERNAL_QUEUE if queue_name is None else checked_id(queue_name, "A queue name")
    version = checked_if_given(application_version, "An application version")
    key = checked_if_given(queue_partition_key, "A queue partition key")
    work = Rewinding(here, sought(workflow_id), cut, version, queue, key)
    if here.in_body:
        await _rewind_as_step(here, work)
    else:
        await work.prepare()
        await here.tx(work, rings=[stop(workflow_id), queued(queue)])
    return Reference(here.ground, workflow_id)


async def _rewind_as_step(here: Here, rewind: Rewinding) -> None:
    """The same from a workflow: done in the commit that records so, because it must not be done twice."""
    run, codec = here.run, here.ground.codec
    assert run is not None
    step_id = run.next_step()
    found = replay(run, step_id, NAME)
    if found is not None:
        answer(run, found)
        return
    await ensure_running(run)
    started_ms = here.ground.clock.now_ms()
    slot, format_name = Slot.step_output(run.workflow_id, step_id), codec.default.name()
    output = codec.encode(None, codec.default, slot, "nothing")
    row = record(run, step_id, NAME, output=output, serialization=format_name, started_ms=started_ms).row
    step = Entry(RECORD_WITH, row)

    def work(conn: Conn) -> bool:
        if _is_done(conn, run, step):
            return True  # the first answer was lost
        rewind(conn)
        if not conn.add(step):
            raise _RefusedError  # takes back what was done to the other workflow
        return True

    try:
        await rewind.prepare()
        await here.tx(work, rings=[stop(rewind.workflow_id), queued(rewind.queue)])
    except _RefusedError:
        await explain_refusal(run, step)
        raise AssertionError("a record was refused that is there") from None
    except Exception as error:
        await record_error(here, step_id, NAME, error, started_ms)
        raise
    run.confirm()


def _is_done(conn: Conn, run: Run, step: Entry) -> bool:
    _, step_id, _, name, _, _, _, _, completed_ms, _ = step.row
    standing = conn.first(STANDING, workflow_id=run.workflow_id, step_id=step_id)
    return standing is not None and (standing.function_name, standing.completed_at_epoch_ms) == (name, completed_ms)


class _RefusedError(Exception):
    """The workflow that rewinds is not ours any more."""
