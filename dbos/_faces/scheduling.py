"""What `DBOS` says about schedules: as `_features.schedules`, but with functions in the place of names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NotRequired, TypedDict

from dbos._engine.handle import Reference, WorkflowHandle, WorkflowHandleAsync
from dbos._engine.registry import NAME_ATTRIBUTE, class_name_of, first_parameter
from dbos._engine.runtime import Runtime
from dbos._faces.ambient import here, registry
from dbos._features import schedules as stored
from dbos._kernel.extension import installed
from dbos._kernel.plan import op
from dbos._kernel.scope import Ground, Here
from dbos.error import DBOSException


class ScheduleInput(TypedDict):
    """A schedule for `DBOS.apply_schedules`; see `DBOS.create_schedule` for what its keys mean."""

    schedule_name: str
    workflow_fn: Callable[..., Any]
    schedule: str
    context: NotRequired[Any]
    automatic_backfill: NotRequired[bool]
    cron_timezone: NotRequired[str | None]
    queue_name: NotRequired[str | None]


@op("DBOS.createSchedule", blocks=True)
async def create_schedule(
    place: Here,
    *,
    schedule_name: str,
    workflow_fn: Callable[..., Any],
    schedule: str,
    context: Any = None,
    automatic_backfill: bool = False,
    cron_timezone: str | None = None,
    queue_name: str | None = None,
) -> None:
    """Start a workflow regularly: with the scheduled moment and `context` as its two arguments.

    `schedule` is a cron expression of 5 fields, or 6 with the seconds in front, or 7 with the year at the end, in the
    time zone `cron_timezone` (default: UTC). Where clocks are set forward or back, an expression for every hour goes
    on with the clock; any other fires once for each of its times, after the gap where the time does not exist.
    What is missed while no process runs is skipped, or with `automatic_backfill` made up for at the next launch.
    Raises DBOSException for an expression that never fires, an unknown time zone, a function that is not a registered
    workflow, a queue that is not declared, and a name that is taken.
    """
    workflow_name, class_name = _named(workflow_fn)
    _check_queue(place.ground, queue_name)
    if installed() is not None and place.run is None and await stored.get_schedule.plan(place, schedule_name):
        # The cell that creates it is run again: it says what the schedule is now.
        again: ScheduleInput = {
            "schedule_name": schedule_name,
            "workflow_fn": workflow_fn,
            "schedule": schedule,
            "context": context,
            "automatic_backfill": automatic_backfill,
            "cron_timezone": cron_timezone,
            "queue_name": queue_name,
        }
        return await apply_schedules.plan(place, [again])
    await stored.create_schedule.plan(
        place,
        schedule_name=schedule_name,
        workflow_name=workflow_name,
        workflow_class_name=class_name,
        schedule=schedule,
        context=context,
        automatic_backfill=automatic_backfill,
        cron_timezone=cron_timezone,
        queue_name=queue_name,
    )
    return None


@op("DBOS.applySchedules", blocks=True)
async def apply_schedules(place: Here, schedules: Sequence[ScheduleInput]) -> None:
    """Make these schedules, or change those that exist to what is given here; all of them or none.

    A schedule that exists keeps its id, its status and what it fired for last; others stay as they are. Raises
    DBOSException in a workflow, and for every definition that `create_schedule` refuses.
    """
    entries: list[Any] = []
    for number, each in enumerate(schedules):
        entry: dict[str, Any] = dict(each)
        if place.run is None:
            stored.require_fields(number, entry, ("schedule_name", "workflow_fn", "schedule"))
            entry["workflow_name"], entry["workflow_class_name"] = _named(entry.pop("workflow_fn"))
            _check_queue(place.ground, entry.get("queue_name"))
        entries.append(entry)
    await stored.apply_schedules.plan(place, entries)


def _named(fn: Callable[..., Any]) -> tuple[str, str | None]:
    """The names of a workflow function and, for a class method, of its class."""
    shown, target = getattr(fn, "__qualname__", repr(fn)), getattr(fn, "__self__", None)
    if (target is not None and not isinstance(target, type)) or _is_instance_method(fn):
        raise DBOSException(f"Configured instance methods cannot be used as scheduled workflows: {shown}")
    name = getattr(fn, NAME_ATTRIBUTE, None)
    if name not in registry.workflows:
        raise DBOSException(f"The function {shown} is not registered as a workflow. Decorate it with @DBOS.workflow().")
    if target is None:
        return str(name), None
    class_name = class_name_of(target)
    if registry.classes.get(class_name) is not target:
        raise DBOSException(f"The class of {shown} is not registered. Decorate it with @DBOS.dbos_class().")
    return str(name), class_name


def _is_instance_method(fn: Callable[..., Any]) -> bool:
    return callable(fn) and getattr(fn, "__self__", None) is None and first_parameter(fn) == "self"


def _check_queue(ground: Ground, name: str | None) -> None:
    if name is not None and isinstance(ground, Runtime) and name not in ground.queues():
        raise DBOSException(f"Queue '{name}' is not declared. Declare it before it is used in a schedule.")


def _handle(found: Reference) -> WorkflowHandle[None]:
    return found.handle()


def _handle_async(found: Reference) -> WorkflowHandleAsync[None]:
    return found.handle_async()


def _handles(found: list[Reference]) -> list[WorkflowHandle[None]]:
    return [each.handle() for each in found]


def _handles_async(found: list[Reference]) -> list[WorkflowHandleAsync[None]]:
    return [each.handle_async() for each in found]


class Scheduling:
    """The schedules of `DBOS`."""

    create_schedule, create_schedule_async = create_schedule.pair(here)
    apply_schedules, apply_schedules_async = apply_schedules.pair(here)
    list_schedules, list_schedules_async = stored.list_schedules.pair(here)
    get_schedule, get_schedule_async = stored.get_schedule.pair(here)
    pause_schedule, pause_schedule_async = stored.pause_schedule.pair(here)
    resume_schedule, resume_schedule_async = stored.resume_schedule.pair(here)
    delete_schedule, delete_schedule_async = stored.delete_schedule.pair(here)
    backfill_schedule, backfill_schedule_async = stored.backfill_schedule.pair_as(here, _handles, _handles_async)
    trigger_schedule, trigger_schedule_async = stored.trigger_schedule.pair_as(here, _handle, _handle_async)
