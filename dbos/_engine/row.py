"""The row of a new workflow, and how work is put on a queue by whoever knows only its name.

`NewRow` names the columns once, with their defaults. Code of the application starts functions (`start`); a client,
a schedule or a debouncer knows a name, and gives an `Order`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import BigInteger, Integer, Text, bindparam, exists, literal_column, or_, select

from dbos._engine.attributes import set_attributes
from dbos._kernel.bell import DELAYS, queued
from dbos._kernel.journal import is_mine
from dbos._kernel.model import DELAYED, ENQUEUED
from dbos._kernel.naming import checked_id, new_id
from dbos._kernel.slot import Slot
from dbos._kernel.statement import Entry, kind, statement
from dbos.error import DBOSConflictingWorkflowError, DBOSQueueDeduplicatedError, DBOSWorkflowIDInUseError

if TYPE_CHECKING:
    from sqlalchemy import FromClause
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.bell import Channel
    from dbos._kernel.codec import WorkflowSerializationFormat
    from dbos._kernel.schema import Tables
    from dbos._kernel.scope import Ground, Here
    from dbos._kernel.statement import Conn, Row


@kind(
    1,
    rank=0,
    workflow_uuid=Text(),
    guard_id=Text(),
    guard_owner=Text(),
    status=Text(),
    name=Text(),
    class_name=Text(),
    config_name=Text(),
    inputs=Text(),
    serialization=Text(),
    executor_id=Text(),
    application_version=Text(),
    application_id=Text(),
    queue_name=Text(),
    deduplication_id=Text(),
    priority=Integer(),
    queue_partition_key=Text(),
    workflow_timeout_ms=BigInteger(),
    workflow_deadline_epoch_ms=BigInteger(),
    delay_until_epoch_ms=BigInteger(),
    parent_workflow_id=Text(),
    authenticated_user=Text(),
    assumed_role=Text(),
    authenticated_roles=Text(),
    owner_xid=Text(),
    recovery_attempts=BigInteger(),
    created_at=BigInteger(),
)
def BEGIN(t: Tables, given: FromClause) -> Executable:
    """A new workflow, unless its id or deduplication id is taken; a child only while its parent may start it."""
    columns = [name for name in BEGIN.names if not name.startswith("guard_")]
    allowed = or_(
        given.c.guard_id.is_(None),
        exists(
            select(literal_column("1")).select_from(t.status).where(is_mine(t, given.c.guard_id, given.c.guard_owner))
        ),
    )
    values = [given.c[name] for name in columns]
    return (  # type: ignore[no-any-return]  # the two dialects' inserts have no common type
        t.dialect.insert(t.status)
        .from_select([*columns, "updated_at"], select(*values, given.c.created_at).where(allowed))
        .on_conflict_do_nothing()
        .returning(t.status.c.workflow_uuid)
    )


class NewRow(NamedTuple):
    """A new workflow, column by column in the order of BEGIN."""

    workflow_uuid: str
    #: The parent and the owner by whose right it starts a child: without it no row is inserted.
    guard_id: str | None
    guard_owner: str | None
    status: str
    name: str
    class_name: str | None
    config_name: str | None
    inputs: str
    serialization: str | None
    executor_id: str | None
    application_version: str | None
    application_id: str | None
    queue_name: str | None
    deduplication_id: str | None
    priority: int
    queue_partition_key: str | None
    workflow_timeout_ms: int | None
    workflow_deadline_epoch_ms: int | None
    delay_until_epoch_ms: int | None
    parent_workflow_id: str | None
    authenticated_user: str | None
    assumed_role: str | None
    authenticated_roles: str | None
    owner_xid: str | None
    recovery_attempts: int
    created_at: int

    @property
    def entry(self) -> Entry:
        return Entry(BEGIN, self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A workflow to be put on a queue, by the name of its function."""

    name: str
    queue: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    class_name: str | None = None
    config_name: str | None = None
    #: None: a new id.
    workflow_id: str | None = None
    #: No workflow may have that id already.
    is_new: bool = False
    #: None: any version may run it.
    app_version: str | None = None
    timeout_ms: int | None = None
    delay_until_ms: int | None = None
    deduplication_id: str | None = None
    #: Return the workflow that holds the deduplication id, instead of raising.
    returns_existing: bool = False
    priority: int = 0
    partition_key: str | None = None
    user: str | None = None
    roles: tuple[str, ...] | None = None
    format: WorkflowSerializationFormat | None = None
    #: What is noted of it, as JSON.
    attributes: str | None = None


def row_of(ground: Ground, order: Order, workflow_id: str) -> NewRow:
    """The row that an order makes."""
    serializer = ground.codec.chosen(order.format)
    slot, what = Slot.inputs(workflow_id), f"the arguments of workflow {order.name!r}"
    inputs = ground.codec.encode_args(order.args, order.kwargs, serializer, slot, what)
    return NewRow(
        workflow_uuid=workflow_id,
        guard_id=None,
        guard_owner=None,
        status=ENQUEUED if order.delay_until_ms is None else DELAYED,
        name=checked_id(order.name, "A workflow name"),
        class_name=order.class_name,
        config_name=order.config_name,
        inputs=inputs,
        serialization=serializer.name(),
        executor_id=None,
        application_version=order.app_version,
        application_id=None,
        queue_name=checked_id(order.queue, "A queue name"),
        deduplication_id=order.deduplication_id,
        priority=order.priority,
        queue_partition_key=order.partition_key,
        workflow_timeout_ms=order.timeout_ms,
        workflow_deadline_epoch_ms=None,
        delay_until_epoch_ms=order.delay_until_ms,
        parent_workflow_id=None,
        authenticated_user=order.user,
        assumed_role=None,
        authenticated_roles=None if order.roles is None else json.dumps(list(order.roles)),
        owner_xid=None,
        recovery_attempts=0,
        created_at=ground.clock.now_ms(),
    )


@statement
def TAKEN(t: Tables) -> Executable:
    """The workflow that has an id already."""
    c = t.status.c
    columns = (c.status, c.name, c.class_name, c.config_name, c.queue_name, c.owner_xid, c.created_at)
    return select(*columns).where(c.workflow_uuid == bindparam("workflow_id"))


@statement
def HOLDER(t: Tables) -> Executable:
    """The workflow that holds a deduplication id."""
    c = t.status.c
    held = (c.queue_name == bindparam("queue"), c.deduplication_id == bindparam("deduplication_id"))
    return select(c.workflow_uuid, c.name).where(*held)


async def place(here: Here, order: Order) -> str:
    """Put a workflow on a queue, from outside of any workflow; the id of the one that is there then.

    The same id again is the same workflow, unless the order wants a new one. Raises DBOSConflictingWorkflowError where it
    is of another function, and DBOSQueueDeduplicatedError where another workflow holds the deduplication id (unless the
    order wants that one).
    """
    workflow_id = new_id() if order.workflow_id is None else checked_id(order.workflow_id, "A workflow ID")
    row = row_of(here.ground, order, workflow_id)
    while True:
        rings = rings_of(order.queue, order.delay_until_ms)
        (created,) = await insert(here, row.entry, attributes=order.attributes, rings=rings, is_new=order.is_new)
        if created:
            return workflow_id
        taken = await here.read(lambda conn: conn.first(TAKEN, workflow_id=workflow_id))
        if taken is not None:
            if order.is_new:
                raise in_use(workflow_id, taken)
            refuse_conflict(workflow_id, taken, order.name, order.class_name, order.config_name)
            return workflow_id
        if order.deduplication_id is not None:
            holder = await find_holder(here, order.queue, order.deduplication_id)
            if holder is not None:
                if order.returns_existing and holder.name == order.name:
                    return str(holder.workflow_uuid)
                raise DBOSQueueDeduplicatedError(workflow_id, order.queue, order.deduplication_id)
        # Whoever was in the way is gone: deleted, or ended, between our looks.


async def insert(
    here: Here,
    row: Entry,
    *with_it: Entry,
    attributes: str | None,
    rings: tuple[Channel, ...] = (),
    is_new: bool = False,
) -> tuple[bool, ...]:
    """Insert the row of a new workflow with its attributes, and what belongs to it; says of each whether it was accepted.

    What belongs to it comes first in the answer. Where the workflow `is_new`, nothing belongs to one that was there.
    """
    if attributes is None and not is_new:
        return await here.put(*with_it, row, rings=rings)
    tries = 0

    def work(conn: Conn) -> tuple[bool, ...]:
        nonlocal tries
        tries += 1
        created = conn.add(row)
        if not created and is_new:
            # A second try means that the first one's answer was lost: it may have been committed.
            found = conn.first(TAKEN, workflow_id=row.key[0]) if tries > 1 else None
            if found is None or found.created_at != row.row[BEGIN.names.index("created_at")]:
                return (*(False for _ in with_it), False)
            return (*(True for _ in with_it), True)
        if created and attributes is not None:
            set_attributes(conn, row.key[0], attributes)
        return (*(conn.add(each) for each in with_it), created)

    accepted: tuple[bool, ...] = await here.tx(work, rings=rings)
    return accepted


def rings_of(queue: str | None, delay_until_ms: int | None) -> tuple[Channel, ...]:
    """Who is to hear of a workflow that was put on a queue: its dispatchers, now or when its moment comes."""
    if queue is None:
        return ()
    return (queued(queue),) if delay_until_ms is None else (DELAYS,)


async def find_holder(here: Here, queue: str, deduplication_id: str) -> Row | None:
    """The workflow that holds a deduplication id on a queue."""
    held = {"queue": queue, "deduplication_id": deduplication_id}
    return await here.read(lambda conn: conn.first(HOLDER, **held))


def in_use(workflow_id: str, taken: Row) -> DBOSWorkflowIDInUseError:
    """Why a workflow that is to be new cannot have this id."""
    return DBOSWorkflowIDInUseError(workflow_id, taken.status, taken.name)


def conflict(
    workflow_id: str, taken: Row, name: str, class_name: str | None, config_name: str | None
) -> DBOSConflictingWorkflowError | None:
    """Why a workflow that has this id cannot be the one that is meant."""
    for what, stored, wanted in (
        ("function", taken.name, name),
        ("class", taken.class_name or None, class_name or None),
        ("config", taken.config_name or None, config_name or None),
    ):
        if stored != wanted:
            return DBOSConflictingWorkflowError(
                workflow_id,
                f"Workflow already exists with a different {what} name: {stored}, but is now called as {wanted}",
            )
    return None


def refuse_conflict(workflow_id: str, taken: Row, name: str, class_name: str | None, config_name: str | None) -> None:
    found = conflict(workflow_id, taken, name, class_name, config_name)
    if found is not None:
        raise found
