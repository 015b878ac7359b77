"""What lies in the database, for programs that look on: the rows of many workflows in one statement.

No value is decoded here, because decoding a value may run code: a row carries the stored text and the name of its
format. Whoever wants one value asks for its step. Nothing is recorded either: these reads are no steps, so a
workflow's body must not decide by them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, case, func, null, select, union_all

from dbos._engine.schedule import ACTIVE, read_schedules
from dbos._engine.status import step_columns, step_info
from dbos._kernel.journal import refuse_in_transaction
from dbos._kernel.model import DELAYED, StepInfo
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.statement import IN_FLIGHT, has_status, one_of, statement, statement_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn, Row, Statement


class StoredValues(NamedTuple):
    """What went into a workflow and what came of it, as it is stored."""

    workflow_id: str
    input: str | None
    output: str | None
    error: str | None
    serialization: str | None


class StoredStep(NamedTuple):
    """One recorded step of a workflow, its values as they are stored. Times are epoch milliseconds."""

    workflow_id: str
    step_id: int
    name: str
    output: str | None
    error: str | None
    #: Whether it raised, also where the text of its error was left out.
    failed: bool
    child_workflow_id: str | None
    started_at: int | None
    completed_at: int | None
    serialization: str | None


class StoredMessage(NamedTuple):
    """One message to a workflow; `consumed`: the workflow has received it."""

    workflow_id: str
    topic: str | None
    message: str | None
    sent_at: int
    consumed: bool
    serialization: str | None


class StoredEvent(NamedTuple):
    """One event of a workflow with its present value, and the step that set it."""

    workflow_id: str
    key: str
    value: str | None
    step_id: int | None
    serialization: str | None


class StoredStreamEntry(NamedTuple):
    """One value of a stream; the last one of a closed stream is the closing mark."""

    workflow_id: str
    key: str
    offset: int
    value: str | None
    step_id: int
    serialization: str | None


class QueueBacklog(NamedTuple):
    """How much of a queue waits for its turn, is put off to a later moment, and runs.

    `oldest_at` is the moment, in epoch milliseconds, at which the first of those that wait was enqueued.
    """

    queue_name: str
    waiting: int
    delayed: int
    running: int
    oldest_at: int | None


# -- statements ------------------------------------------------------------------------------------------------

IDS = "workflow_ids"


def _text(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The text, unless it is longer than wanted."""
    return case((func.length(column) <= bindparam("longest"), column), else_=null()).label(column.name)


@statement
def VALUES(t: Tables) -> Executable:
    """The values of workflows."""
    c = t.status.c
    columns = (c.workflow_uuid, _text(t.inputs), _text(t.output), _text(t.error), c.serialization)
    return select(*columns).where(t.dialect.among(c.workflow_uuid, IDS))


def _stored_step(row: Iterable[Any]) -> StoredStep:
    workflow_id, step_id, name, output, error, failed, *rest = row
    return StoredStep(workflow_id, step_id, name, output, error, bool(failed), *rest)  # SQLite says 0 or 1


@statement_of(_stored_step)
def STEPS(t: Tables) -> Executable:
    """The steps of workflows, in order."""
    c = t.steps.c
    columns = (
        c.workflow_uuid,
        c.function_id,
        c.function_name,
        _text(c.output),
        _text(c.error),
        c.error.isnot(None).label("failed"),
        c.child_workflow_id,
        c.started_at_epoch_ms,
        c.completed_at_epoch_ms,
        c.serialization,
    )
    return select(*columns).where(t.dialect.among(c.workflow_uuid, IDS)).order_by(c.workflow_uuid, c.function_id)


@statement_of(_stored_step)
def STORED_STEP(t: Tables) -> Executable:
    """One step, as it is stored."""
    return STEPS.build(t).where(t.steps.c.function_id == bindparam("step_id"))  # type: ignore[attr-defined,no-any-return]  # it is a Select


@statement
def STEP(t: Tables) -> Executable:
    """One step, with its values."""
    c = t.steps.c
    return select(*step_columns(t)).where(
        c.workflow_uuid == bindparam("workflow_id"), c.function_id == bindparam("step_id")
    )


@statement
def MESSAGES(t: Tables) -> Executable:
    """The messages to workflows, the oldest first."""
    c = t.messages.c
    columns = (
        c.destination_uuid,
        c.topic,
        _text(c.message),
        c.created_at_epoch_ms,
        c.consumed,
        c.serialization,
    )
    mine = t.dialect.among(c.destination_uuid, IDS)
    return select(*columns).where(mine).order_by(c.destination_uuid, c.created_at_epoch_ms, c.message_uuid)


@statement
def EVENTS(t: Tables) -> Executable:
    """The events of workflows."""
    c, history = t.events.c, t.event_history.c
    setter = (
        select(func.max(history.function_id))
        .where(history.workflow_uuid == c.workflow_uuid, history.key == c.key)
        .scalar_subquery()
    )
    columns = (c.workflow_uuid, c.key, _text(c.value), setter.label("function_id"), c.serialization)
    return select(*columns).where(t.dialect.among(c.workflow_uuid, IDS)).order_by(c.workflow_uuid, c.key)


@statement
def STREAMS(t: Tables) -> Executable:
    """The values of the streams of workflows, in order."""
    c = t.streams.c
    columns = (c.workflow_uuid, c.key, c.offset, _text(c.value), c.function_id, c.serialization)
    return select(*columns).where(t.dialect.among(c.workflow_uuid, IDS)).order_by(c.workflow_uuid, c.key, c.offset)


@statement
def BACKLOGS(t: Tables) -> Executable:
    """How many workflows of each queue are in each of the states before the end, and since when."""
    c = t.status.c

    def of(*conditions: ColumnElement[bool]) -> Any:
        counted = (c.queue_name, c.status, func.count().label("number"), func.min(c.created_at).label("oldest"))
        return select(*counted).where(c.queue_name.isnot(None), *conditions).group_by(c.queue_name, c.status)

    # Apart, because each has a partial index of its own.
    return union_all(of(one_of(c.status, IN_FLIGHT)), of(has_status(t, DELAYED)))


@statement
def VERSION_COUNTS(t: Tables) -> Executable:
    """How many workflows there are of each version."""
    c = t.status.c
    return select(c.application_version, func.count().label("number")).group_by(c.application_version)


# -- the operations --------------------------------------------------------------------------------------------

# Longer than any text.
UNBOUNDED = 2**31 - 1


async def _rows(
    here: Here, title: str, wanted: Statement, workflow_ids: Sequence[str], longest: int | None, **more: Any
) -> list[Row]:
    refuse_in_transaction(here, title)
    if isinstance(workflow_ids, str):
        raise TypeError(f"{title} takes a list of ids, not one: [{workflow_ids!r}]")
    if not workflow_ids:
        return []
    given = {IDS: list(workflow_ids), "longest": UNBOUNDED if longest is None else longest, **more}

    def read(conn: Conn) -> list[Row]:
        return conn.run(wanted, **given)

    rows: list[Row] = await here.read(read)
    return rows


@op("DBOS.listValues")
async def list_values(here: Here, workflow_ids: list[str], *, longest: int | None = None) -> list[StoredValues]:
    """Return the inputs and outcomes of workflows as they are stored, in no particular order.

    Texts longer than `longest` are left out. Nothing is decoded, and nothing is recorded in a workflow.
    """
    return [StoredValues(*row) for row in await _rows(here, "DBOS.listValues", VALUES, workflow_ids, longest)]


@op("DBOS.listSteps")
async def list_steps(
    here: Here, workflow_ids: list[str], *, longest: int | None = None, step_id: int | None = None
) -> list[StoredStep]:
    """Return the recorded steps of many workflows, by workflow and in their order, with their values as stored.

    Texts longer than `longest` are left out; with `step_id` all steps but those of this number are. Nothing is decoded, and nothing is recorded in a workflow.
    """
    chosen = {} if step_id is None else {"step_id": step_id}
    return await _rows(here, "DBOS.listSteps", STORED_STEP if chosen else STEPS, workflow_ids, longest, **chosen)


@op("DBOS.getStep")
async def get_step(here: Here, workflow_id: str, step_id: int) -> StepInfo | None:
    """Return one recorded step with its values decoded, or None. Nothing is recorded in a workflow."""
    refuse_in_transaction(here, "DBOS.getStep")
    row = await here.read(lambda conn: conn.first(STEP, workflow_id=workflow_id, step_id=step_id))
    return None if row is None else step_info(here.ground.codec, workflow_id, row)


@op("DBOS.listMessages")
async def list_messages(here: Here, workflow_ids: list[str], *, longest: int | None = None) -> list[StoredMessage]:
    """Return the messages that were sent to workflows, the oldest of each first, received or not.

    Texts longer than `longest` are left out. Nothing is decoded, and nothing is recorded in a workflow.
    """
    found = await _rows(here, "DBOS.listMessages", MESSAGES, workflow_ids, longest)
    return [StoredMessage._make(row)._replace(consumed=bool(row.consumed)) for row in found]


@op("DBOS.listEvents")
async def list_events(here: Here, workflow_ids: list[str], *, longest: int | None = None) -> list[StoredEvent]:
    """Return the events of workflows, by key, with their present values as stored.

    Texts longer than `longest` are left out. Nothing is decoded, and nothing is recorded in a workflow.
    """
    return [StoredEvent(*row) for row in await _rows(here, "DBOS.listEvents", EVENTS, workflow_ids, longest)]


@op("DBOS.listStreamEntries")
async def list_stream_entries(
    here: Here, workflow_ids: list[str], *, longest: int | None = None
) -> list[StoredStreamEntry]:
    """Return what the streams of workflows hold, in order, closing marks included, as stored.

    Texts longer than `longest` are left out. Nothing is decoded, and nothing is recorded in a workflow.
    """
    found = await _rows(here, "DBOS.listStreamEntries", STREAMS, workflow_ids, longest)
    return [StoredStreamEntry(*row) for row in found]


@op("DBOS.listBacklogs")
async def list_backlogs(here: Here) -> list[QueueBacklog]:
    """Return what waits and runs on each queue that is not empty, by the queue's name.

    A workflow that was started directly and is recovered waits on a queue of the runtime. Nothing is recorded in a
    workflow.
    """
    refuse_in_transaction(here, "DBOS.listBacklogs")
    counts: dict[str, dict[str, Row]] = {}
    for row in await here.read(lambda conn: conn.run(BACKLOGS)):
        counts.setdefault(row.queue_name, {})[row.status] = row
    return [
        QueueBacklog(
            queue_name=name,
            waiting=_number(of.get("ENQUEUED")),
            delayed=_number(of.get(DELAYED)),
            running=_number(of.get("PENDING")),
            oldest_at=of["ENQUEUED"].oldest if "ENQUEUED" in of else None,
        )
        for name, of in sorted(counts.items())
    ]


def _number(row: Row | None) -> int:
    return 0 if row is None else int(row.number)


@op("DBOS.countByVersion")
async def count_by_version(here: Here) -> dict[str | None, int]:
    """Return how many workflows there are of each application version; None: of any. Nothing is recorded in a workflow."""
    refuse_in_transaction(here, "DBOS.countByVersion")
    return {row.application_version: int(row.number) for row in await here.read(lambda conn: conn.run(VERSION_COUNTS))}


@op("DBOS.listFireTimes")
async def list_fire_times(here: Here, *, number: int = 10, after: datetime | None = None) -> dict[str, list[datetime]]:
    """Return of each schedule the next moments at which it fires, in its time zone; none for a paused one.

    They are counted from `after`, by default from now. A moment without a time zone is in UTC. Nothing is recorded in
    a workflow.
    """
    refuse_in_transaction(here, "DBOS.listFireTimes")
    start = datetime.fromtimestamp(here.ground.clock.now_ms() / 1000, UTC) if after is None else after
    start = start if start.tzinfo is not None else start.replace(tzinfo=UTC)
    far = datetime.max.replace(tzinfo=UTC)
    return {
        each.schedule_name: list(islice(each.cron().between(start, far), number)) if each.status == ACTIVE else []
        for each in await here.read(read_schedules)
    }
