"""Schedules: workflows that are started by the clock. Here they are made, changed, read, caught up and triggered.

A schedule is a row that names a workflow. What is due of it is placed by the scheduler of every process; whatever is
changed here is heard there at once. Names and not functions, because a client has no functions.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from sqlalchemy import BigInteger, Boolean, Text, bindparam, delete, select, update

from dbos._engine.handle import Reference
from dbos._engine.row import rings_of
from dbos._engine.schedule import ACTIVE, CHANGED, PAUSED, Schedule, placing, read_schedules
from dbos._kernel.cron import Cron, zone_of
from dbos._kernel.journal import as_step, refuse_in_transaction
from dbos._kernel.naming import MOST_BYTES, checked_id, new_id
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.slot import Slot
from dbos._kernel.statement import statement
from dbos.error import DBOSException

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.codec import Codec
    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn

# What the ids of its workflows need besides the name of a schedule.
LONGEST_MOMENT = len("sched--trigger-2026-01-01T00:00:00.000000+00:00")
# So many workflows are made in one transaction.
BATCH = 100


class WorkflowSchedule(TypedDict):
    """A schedule, as it is stored."""

    schedule_id: str
    schedule_name: str
    workflow_name: str
    #: The class whose method the workflow is.
    workflow_class_name: str | None
    #: The cron expression.
    schedule: str
    #: "ACTIVE" or "PAUSED".
    status: str
    #: What each of its workflows is given as second argument.
    context: Any
    #: The moment that it fired for last, in ISO 8601.
    last_fired_at: str | None
    automatic_backfill: bool
    #: The time zone of the expression; None: UTC.
    cron_timezone: str | None
    #: The queue on which its workflows are put; None: that of the runtime.
    queue_name: str | None


class ClientScheduleInput(TypedDict):
    """A schedule for `DBOSClient.apply_schedules`; see `create_schedule` for what its keys mean."""

    schedule_name: str
    workflow_name: str
    schedule: str
    context: NotRequired[Any]
    workflow_class_name: NotRequired[str | None]
    automatic_backfill: NotRequired[bool]
    cron_timezone: NotRequired[str | None]
    queue_name: NotRequired[str | None]


# -- statements ------------------------------------------------------------------------------------------------


@statement
def ADD(t: Tables) -> Executable:
    """A new schedule, unless there is one of that name."""
    return (  # type: ignore[no-any-return]  # the two dialects' inserts have no common type
        t.dialect.insert(t.schedules)
        .values(schedule_id=bindparam("schedule_id"), schedule_name=bindparam("name"), status=ACTIVE, **_given())
        .on_conflict_do_nothing()
        .returning(t.schedules.c.schedule_id)
    )


@statement
def CHANGE(t: Tables) -> Executable:
    """Give the schedule of that name this definition; whether it is paused, and what it fired for, stay."""
    c = t.schedules.c
    return update(t.schedules).values(**_given()).where(c.schedule_name == bindparam("name")).returning(c.schedule_id)


def _given() -> dict[str, Any]:
    texts = ("workflow_name", "workflow_class_name", "schedule", "context", "cron_timezone", "queue_name")
    return {
        "automatic_backfill": bindparam("automatic_backfill", type_=Boolean()),
        **{name: bindparam(name, type_=Text()) for name in texts},
    }


@statement
def NAMED(t: Tables) -> Executable:
    """The schedule of that name."""
    c = t.schedules.c
    return select(c.schedule_id, c.status, c.schedule, c.cron_timezone).where(c.schedule_name == bindparam("name"))


@statement
def SET_STATUS(t: Tables) -> Executable:
    """Pause or resume, where that changes anything."""
    c = t.schedules.c
    status: Any = bindparam("new_status")
    return (
        update(t.schedules)
        .values(status=status)
        .where(c.schedule_name == bindparam("name"), c.status != status)
        .returning(c.schedule_id)
    )


@statement
def REMOVE(t: Tables) -> Executable:
    c = t.schedules.c
    return delete(t.schedules).where(c.schedule_name == bindparam("name")).returning(c.schedule_id)


@statement
def FORGET_ORIGIN(t: Tables) -> Executable:
    return delete(t.schedule_origins).where(t.schedule_origins.c.schedule_id == bindparam("schedule_id"))


@statement
def SET_ORIGIN(t: Tables) -> Executable:
    """What was due before this moment is none of the schedule's affair."""
    now = bindparam("now", type_=BigInteger())
    return (  # type: ignore[no-any-return]  # the two dialects' inserts have no common type
        t.dialect.insert(t.schedule_origins)
        .values(schedule_id=bindparam("schedule_id"), counts_from=now)
        .on_conflict_do_update(index_elements=["schedule_id"], set_={"counts_from": now})
    )


def _count_from(conn: Conn, schedule_id: str, now_ms: int) -> None:
    # A client may look at a database that no program of ours has opened: whoever fires there keeps no such moment.
    if conn.tables.layout.own:
        conn.run(SET_ORIGIN, schedule_id=schedule_id, now=now_ms)


# -- create, apply ---------------------------------------------------------------------------------------------


@op("DBOS.createSchedule", blocks=True)
async def create_schedule(
    here: Here,
    *,
    schedule_name: str,
    workflow_name: str,
    schedule: str,
    context: Any = None,
    workflow_class_name: str | None = None,
    automatic_backfill: bool = False,
    cron_timezone: str | None = None,
    queue_name: str | None = None,
) -> None:
    """Start a workflow regularly: with the scheduled moment and `context` as its two arguments.

    `schedule` is a cron expression of 5 fields, or 6 with the seconds in front, or 7 with the year at the end, in the
    time zone `cron_timezone` (default: UTC). Where clocks are set forward or back, an expression for every hour goes
    on with the clock; any other fires once for each of its times, after the gap where the time does not exist.
    What is missed while no process runs is skipped, or with `automatic_backfill` made up for at the next launch.
    Raises DBOSException for an expression that never fires, an unknown time zone, and a name that is taken.
    """
    definition = _definition(
        {
            "schedule_name": schedule_name,
            "workflow_name": workflow_name,
            "schedule": schedule,
            "context": context,
            "workflow_class_name": workflow_class_name,
            "automatic_backfill": automatic_backfill,
            "cron_timezone": cron_timezone,
            "queue_name": queue_name,
        },
        here.ground.codec,
    )

    async def make(place: Here) -> None:
        # In a workflow the id follows from the step, so that one which is done again finds its own work.
        step, run = place.step, place.run
        name = f"{run.workflow_id if run else ''} {step.step_id if step else ''} {schedule_name}"
        schedule_id = new_id() if run is None else str(uuid.uuid5(uuid.NAMESPACE_OID, name))

        def work(conn: Conn) -> bool:
            if conn.run(ADD, schedule_id=schedule_id, **definition):
                _count_from(conn, schedule_id, here.ground.clock.now_ms())
                return True
            found = conn.first(NAMED, name=definition["name"])
            return found is not None and found.schedule_id == schedule_id

        if not await place.tx(work, rings=[CHANGED]):
            raise DBOSException(f"Schedule '{schedule_name}' already exists")

    await as_step(here, "DBOS.createSchedule", make)


@op("DBOS.applySchedules", blocks=True)
async def apply_schedules(here: Here, schedules: Sequence[ClientScheduleInput]) -> None:
    """Make these schedules, or change those that exist to what is given here; all of them or none.

    A schedule that exists keeps its id, its status and what it fired for last; others stay as they are. Raises
    DBOSException in a workflow, and for every definition that `create_schedule` refuses.
    """
    _refuse_in_workflow(here, "apply_schedules")
    definitions = []
    for place, each in enumerate(schedules):
        require_fields(place, each, ("schedule_name", "workflow_name", "schedule"))
        definitions.append(_definition(each, here.ground.codec))
    names = [definition["name"] for definition in definitions]
    for name in names:
        if names.count(name) > 1:
            raise DBOSException(f"Schedule '{name}' is given twice")
    new_ids = [new_id() for _ in definitions]
    # In one order, so that two programs that do so at once do not wait for each other.
    todo = sorted(zip(definitions, new_ids, strict=True), key=lambda each: str(each[0]["name"]))

    def work(conn: Conn) -> None:
        for definition, schedule_id in todo:
            _apply(conn, definition, schedule_id, here.ground.clock.now_ms())

    await here.tx(work, rings=[CHANGED])


def _apply(conn: Conn, definition: dict[str, Any], new_schedule_id: str, now_ms: int) -> None:
    while True:
        found = conn.first(NAMED, name=definition["name"])
        if found is None:
            if conn.run(ADD, schedule_id=new_schedule_id, **definition):
                _count_from(conn, new_schedule_id, now_ms)
                return
        elif conn.run(CHANGE, **definition):
            same = (found.schedule, found.cron_timezone) == (definition["schedule"], definition["cron_timezone"])
            if not same:
                _count_from(conn, found.schedule_id, now_ms)
            return
        # Another program made or deleted it between our two looks.


def require_fields(place: int, entry: Mapping[str, Any], fields: Sequence[str]) -> None:
    """Refuse a schedule to be applied that is incomplete."""
    for field in fields:
        if field not in entry:
            raise DBOSException(f"Schedule entry {place} is missing required field '{field}'")


def _definition(given: Mapping[str, Any], codec: Codec) -> dict[str, Any]:
    """What is stored of a schedule, checked."""
    unknown = sorted(set(given) - set(ClientScheduleInput.__annotations__))
    if unknown:
        raise DBOSException(f"A schedule has no such field: {', '.join(unknown)}")
    name = checked_id(given["schedule_name"], "A schedule name")
    if len(name.encode()) > MOST_BYTES - LONGEST_MOMENT:
        raise DBOSException(f"A schedule name has at most {MOST_BYTES - LONGEST_MOMENT} bytes; this is longer: {name}")
    zone, class_name, queue = (given.get(key) for key in ("cron_timezone", "workflow_class_name", "queue_name"))
    try:
        clock = zone_of(zone)
    except ValueError:
        raise DBOSException(f"Invalid timezone: '{zone}'") from None
    try:
        Cron(given["schedule"], clock, name)
    except ValueError as error:
        raise DBOSException(f"Invalid cron schedule: '{given['schedule']}' ({error})") from None
    return {
        "name": name,
        "workflow_name": checked_id(given["workflow_name"], "A workflow name"),
        "workflow_class_name": None if class_name is None else checked_id(class_name, "A class name"),
        "schedule": given["schedule"],
        "context": codec.encode(
            given.get("context"), codec.default, Slot.context(name), f"the context of schedule {name!r}"
        ),
        "automatic_backfill": bool(given.get("automatic_backfill", False)),
        "cron_timezone": zone,
        "queue_name": None if queue is None else checked_id(queue, "A queue name"),
    }


# -- reading ---------------------------------------------------------------------------------------------------

Words = str | list[str] | None


@op("DBOS.listSchedules", blocks=True)
async def list_schedules(
    here: Here, *, status: Words = None, workflow_name: Words = None, schedule_name_prefix: Words = None
) -> list[WorkflowSchedule]:
    """Return the schedules that match every given condition, by name. A list of words means any of them.

    `status` is "ACTIVE" or "PAUSED".
    """
    statuses, names, prefixes = (
        [words] if isinstance(words, str) else words for words in (status, workflow_name, schedule_name_prefix)
    )
    strange = sorted(set(statuses or ()) - {ACTIVE, PAUSED})
    if strange:
        raise ValueError(f"there is no status {', '.join(strange)}; there are {ACTIVE}, {PAUSED}")

    async def find(place: Here) -> list[WorkflowSchedule]:
        return [
            _shown(each, place.ground.codec)
            for each in await place.read(read_schedules)
            if (statuses is None or each.status in statuses)
            and (names is None or each.workflow_name in names)
            and (prefixes is None or each.schedule_name.startswith(tuple(prefixes)))
        ]

    return await as_step(here, "DBOS.listSchedules", find)


@op("DBOS.getSchedule", blocks=True)
async def get_schedule(here: Here, name: str) -> WorkflowSchedule | None:
    """Return the schedule of that name, or None."""

    async def find(place: Here) -> WorkflowSchedule | None:
        found = await _find(place, name)
        return None if found is None else _shown(found, place.ground.codec)

    return await as_step(here, "DBOS.getSchedule", find)


async def _find(here: Here, name: str) -> Schedule | None:
    schedules: list[Schedule] = await here.read(read_schedules)
    return next((each for each in schedules if each.schedule_name == name), None)


def _shown(schedule: Schedule, codec: Codec) -> WorkflowSchedule:
    return {
        "schedule_id": schedule.schedule_id,
        "schedule_name": schedule.schedule_name,
        "workflow_name": schedule.workflow_name,
        "workflow_class_name": schedule.workflow_class_name,
        "schedule": schedule.schedule,
        "status": schedule.status,
        "context": codec.shown(schedule.context, None, Slot.context(schedule.schedule_name)),
        "last_fired_at": schedule.last_fired_at,
        "automatic_backfill": schedule.automatic_backfill,
        "cron_timezone": schedule.cron_timezone,
        "queue_name": schedule.queue_name,
    }


# -- pause, resume, delete -------------------------------------------------------------------------------------


@op("DBOS.pauseSchedule", blocks=True)
async def pause_schedule(here: Here, name: str) -> None:
    """Let a schedule not fire any more until it is resumed. An unknown name is passed over."""
    await as_step(here, "DBOS.pauseSchedule", lambda place: _set_status(place, name, PAUSED))


@op("DBOS.resumeSchedule", blocks=True)
async def resume_schedule(here: Here, name: str) -> None:
    """Let a paused schedule fire again, from now on. An unknown name is passed over."""
    await as_step(here, "DBOS.resumeSchedule", lambda place: _set_status(place, name, ACTIVE))


async def _set_status(here: Here, name: str, status: str) -> None:
    def work(conn: Conn) -> None:
        for changed in conn.run(SET_STATUS, name=name, new_status=status):
            if status == ACTIVE:
                _count_from(conn, changed.schedule_id, here.ground.clock.now_ms())

    await here.tx(work, rings=[CHANGED])


@op("DBOS.deleteSchedule", blocks=True)
async def delete_schedule(here: Here, name: str) -> None:
    """Delete a schedule; the workflows that it started stay. An unknown name is passed over."""

    def work(conn: Conn) -> None:
        for removed in conn.run(REMOVE, name=name):
            if conn.tables.layout.own:
                conn.run(FORGET_ORIGIN, schedule_id=removed.schedule_id)

    async def remove(place: Here) -> None:
        await place.tx(work, rings=[CHANGED])

    await as_step(here, "DBOS.deleteSchedule", remove)


# -- backfill, trigger -----------------------------------------------------------------------------------------


@op("DBOS.backfillSchedule", blocks=True)
async def backfill_schedule(here: Here, schedule_name: str, start: datetime, end: datetime) -> list[Reference]:
    """Enqueue what a schedule would have started between two moments, both excluded; return handles of all of it.

    What was started for a moment already is not started again. A moment without a time zone is in UTC. Works for a
    paused schedule too. Raises DBOSException in a workflow, and if there is no such schedule.
    """
    _refuse_in_workflow(here, "backfill_schedule")
    schedule = await _existing(here, schedule_name)
    moments = schedule.cron().between(_aware(start), _aware(end))
    references = []
    while batch := list(itertools.islice(moments, BATCH)):
        orders = schedule.orders(here.ground, batch)
        await here.tx(placing(here.ground, orders), rings=rings_of(schedule.queue, None))
        references += [Reference(here.ground, order.workflow_id or "") for order in orders]
    return references


@op("DBOS.triggerSchedule", blocks=True)
async def trigger_schedule(here: Here, schedule_name: str) -> Reference:
    """Enqueue the workflow of a schedule now, and return its handle. Works for a paused schedule too.

    Raises DBOSException in a workflow, and if there is no such schedule.
    """
    _refuse_in_workflow(here, "trigger_schedule")
    schedule = await _existing(here, schedule_name)
    # The clock tells milliseconds; two calls in one of them are two workflows.
    micros = here.ground.clock.now_ms() * 1000 + next(_calls) % 1000
    moment = datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000)
    # Always with its microseconds, also when they are none.
    workflow_id = f"sched-{schedule_name}-trigger-{moment.isoformat(timespec='microseconds')}"
    order = schedule.order(workflow_id, moment, schedule.opened(here.ground))
    await here.tx(placing(here.ground, [order]), rings=rings_of(schedule.queue, None))
    return Reference(here.ground, workflow_id)


_calls = itertools.count(uuid.uuid4().int % 1000)


async def _existing(here: Here, name: str) -> Schedule:
    schedule = await _find(here, name)
    if schedule is None:
        raise DBOSException(f"Schedule '{name}' does not exist")
    return schedule


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _refuse_in_workflow(here: Here, name: str) -> None:
    """Refuse what starts or replaces much at once; the step id is taken as other DBOS programs take it."""
    refuse_in_transaction(here, name)
    if here.run is not None:
        if here.in_body:
            here.run.next_step()
        raise DBOSException(f"DBOS.{name} cannot be called from within a workflow")
