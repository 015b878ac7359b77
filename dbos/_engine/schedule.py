"""Schedules as they are stored, and the transaction in which what is due of one becomes workflows.

The id of a workflow is made from its moment, so of all processes that see a moment come one makes the workflow. Its
row, and the note of when the schedule fired last, are one commit, made only while the schedule still is what it was
when the moment was computed: after `pause_schedule` or `delete_schedule` has returned nothing more is placed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam as bind
from sqlalchemy import case, desc, func, null, or_, select, update

from dbos._engine.row import Order, row_of
from dbos._kernel.cron import Cron, zone_of
from dbos._kernel.model import INTERNAL_QUEUE
from dbos._kernel.slot import Slot
from dbos._kernel.statement import statement

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._engine.row import NewRow
    from dbos._kernel.schema import Tables
    from dbos._kernel.scope import Ground
    from dbos._kernel.statement import Conn, Row

ACTIVE, PAUSED = "ACTIVE", "PAUSED"
# Rung when a schedule is made, changed, paused, resumed or deleted.
CHANGED = ("schedule", "")


@statement
def SCHEDULES(t: Tables) -> Executable:
    """All schedules, by name."""
    c, origin = t.schedules.c, t.schedule_origins.c
    if not t.layout.own:  # nobody has noted there when a schedule was made
        columns = [column for column in c if column.name != "application_name"]
        return select(*columns, null().label("counts_from")).order_by(c.schedule_name)
    joined = t.schedules.outerjoin(t.schedule_origins, origin.schedule_id == c.schedule_id)
    columns = [column for column in c if column.name != "application_name"]
    return select(*columns, origin.counts_from).select_from(joined).order_by(c.schedule_name)


@statement
def MARK_FIRED(t: Tables) -> Executable:
    """Note the moment that a schedule fires for, if it is as it was; the moment only ever grows."""
    c = t.schedules.c
    fired: Any = bind("fired")
    is_later = or_(c.last_fired_at.is_(None), c.last_fired_at < fired)
    same = (
        c.status == ACTIVE,
        c.schedule == bind("text"),
        c.workflow_name == bind("workflow_name"),
        func.coalesce(c.workflow_class_name, "") == bind("class_name"),
        func.coalesce(c.cron_timezone, "") == bind("zone"),
        func.coalesce(c.queue_name, "") == bind("queue"),
    )
    return (
        update(t.schedules)
        .values(last_fired_at=case((is_later, fired), else_=c.last_fired_at))
        .where(c.schedule_id == bind("schedule_id"), *same)
        .returning(c.schedule_id)
    )


@statement
def LATEST_VERSION(t: Tables) -> Executable:
    """The version that scheduled workflows are for."""
    c = t.versions.c
    return select(c.version_name).order_by(desc(c.version_timestamp), desc(c.created_at), c.version_name).limit(1)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A row of the table of schedules."""

    schedule_id: str
    schedule_name: str
    workflow_name: str
    workflow_class_name: str | None
    schedule: str
    status: str
    context: str
    last_fired_at: str | None
    automatic_backfill: bool
    cron_timezone: str | None
    queue_name: str | None
    #: Since when it is as it is now, in milliseconds; unknown where another program made it.
    counts_from: int | None

    @classmethod
    def of(cls, row: Row) -> Schedule:
        fields = row._asdict()
        return cls(**{**fields, "automatic_backfill": bool(fields["automatic_backfill"])})

    @property
    def queue(self) -> str:
        return self.queue_name or INTERNAL_QUEUE

    @property
    def timing(self) -> tuple[str, str | None, int | None]:
        """What decides when it fires."""
        return self.schedule, self.cron_timezone, self.counts_from

    @property
    def fired(self) -> datetime | None:
        """The moment that it fired for last."""
        try:
            fired = datetime.fromisoformat(self.last_fired_at or "")
        except ValueError:
            return None
        return fired if fired.tzinfo is not None else fired.replace(tzinfo=UTC)

    def cron(self) -> Cron:
        return Cron(self.schedule, zone_of(self.cron_timezone), self.schedule_name)

    def workflow_id(self, moment: datetime) -> str:
        """The one workflow for that moment."""
        return f"sched-{self.schedule_name}-{moment.isoformat()}"

    def orders(self, ground: Ground, moments: Iterable[datetime]) -> list[Order]:
        """The workflows for these moments."""
        context = self.opened(ground)
        return [self.order(self.workflow_id(moment), moment, context) for moment in moments]

    def opened(self, ground: Ground) -> Any:
        """The value of its context."""
        return ground.codec.decode(self.context, None, Slot.context(self.schedule_name))

    def order(self, workflow_id: str, moment: datetime, context: Any) -> Order:
        return Order(
            name=self.workflow_name,
            class_name=self.workflow_class_name,
            queue=self.queue,
            args=(moment, context),
            workflow_id=workflow_id,
        )


def read_schedules(conn: Conn) -> list[Schedule]:
    return [Schedule.of(row) for row in conn.run(SCHEDULES)]


def fingerprint(schedules: Iterable[Schedule]) -> str:
    """A short text that is another one when any schedule was changed; when it fired does not count."""
    facts = [replace(each, last_fired_at=None) for each in schedules]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def look_for_changes(conn: Conn, keys: list[str]) -> list[str]:
    """A scheduler waits under the fingerprint of what it has seen."""
    current = fingerprint(read_schedules(conn))
    return [key for key in keys if key not in (CHANGED[1], current)]


def placing(ground: Ground, orders: Sequence[Order]) -> Callable[[Conn], None]:
    """The transaction that makes these workflows, for the latest version; those that are there stay as they are."""
    rows: list[NewRow] = [row_of(ground, order, order.workflow_id or "") for order in orders]

    def work(conn: Conn) -> None:
        latest = conn.first(LATEST_VERSION)
        for row in rows:
            conn.add(row._replace(application_version=None if latest is None else latest.version_name).entry)

    return work


def firing(ground: Ground, schedule: Schedule, moments: Sequence[datetime]) -> Callable[[Conn], bool]:
    """The transaction in which a schedule fires for these moments; False: it is not what it was."""
    place = placing(ground, schedule.orders(ground, moments))
    # In one zone, so that texts compare like moments.
    fired = moments[-1].astimezone(UTC).isoformat()

    def work(conn: Conn) -> bool:
        marked = conn.run(
            MARK_FIRED,
            schedule_id=schedule.schedule_id,
            fired=fired,
            text=schedule.schedule,
            workflow_name=schedule.workflow_name,
            class_name=schedule.workflow_class_name or "",
            zone=schedule.cron_timezone or "",
            queue=schedule.queue_name or "",
        )
        if marked:
            place(conn)
        return bool(marked)

    return work
