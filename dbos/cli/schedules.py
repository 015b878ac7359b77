"""`dbos schedule`: lists, pauses, resumes, fires and deletes schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbos.cli import database, output
from dbos.cli.ask import confirm
from dbos.cli.failure import Failure
from dbos.cli.output import Column

if TYPE_CHECKING:
    from argparse import Namespace

    from dbos import DBOSClient, WorkflowSchedule

# So many of the next moments are shown of one schedule.
NEXT = 10
SCHEDULES = (
    Column("SCHEDULE", "schedule_name", whole=True),
    Column("STATUS", "status", whole=True),
    Column("WORKFLOW", "workflow_name"),
    Column("CRON", "schedule", whole=True),
    Column("ZONE", "cron_timezone"),
    Column("LAST FIRED", "last_fired_at"),
    Column("NEXT", "next"),
)
# The context of a schedule is a value, and not decoded; the rest is shown.
KEYS = (
    "schedule_id",
    "schedule_name",
    "workflow_name",
    "workflow_class_name",
    "schedule",
    "status",
    "last_fired_at",
    "automatic_backfill",
    "cron_timezone",
    "queue_name",
)


def list_(arguments: Namespace) -> None:
    with database.reader(arguments) as client:
        fires = client.list_fire_times(number=1)
        records = [_record(each, fires.get(each["schedule_name"], [])) for each in client.list_schedules()]
    if arguments.json:
        output.document(records)
        return
    rows = [{**each, "next": each["next_fires"][0] if each["next_fires"] else None} for each in records]
    output.table(SCHEDULES, rows, empty="There are no schedules.")


def get(arguments: Namespace) -> None:
    with database.reader(arguments) as client:
        _show(arguments, client)


def pause(arguments: Namespace) -> None:
    with database.reader(arguments) as client:
        _existing(client, arguments.name)
        client.pause_schedule(arguments.name)
        _show(arguments, client)


def resume(arguments: Namespace) -> None:
    with database.reader(arguments) as client:
        _existing(client, arguments.name)
        client.resume_schedule(arguments.name)
        _show(arguments, client)


def trigger(arguments: Namespace) -> None:
    with database.actor(arguments) as client:
        made = client.trigger_schedule(arguments.name)
    if arguments.json:
        output.document({"schedule_name": arguments.name, "workflow_id": made.workflow_id})
    else:
        output.line(made.workflow_id)


def backfill(arguments: Namespace) -> None:
    with database.actor(arguments) as client:
        ids = [each.workflow_id for each in client.backfill_schedule(arguments.name, arguments.start, arguments.end)]
    if arguments.json:
        output.document({"schedule_name": arguments.name, "workflow_ids": ids})
        return
    for each in ids:
        output.line(each)


def delete(arguments: Namespace) -> None:
    with database.reader(arguments) as client:
        _existing(client, arguments.name)
        confirm(arguments, f"Delete schedule {arguments.name}")
        client.delete_schedule(arguments.name)
    if arguments.json:
        output.document({"deleted": arguments.name})
    else:
        output.line(f"Deleted {arguments.name}.")


def _existing(client: DBOSClient, name: str) -> WorkflowSchedule:
    found = client.get_schedule(name)
    if found is None:
        raise Failure(f"there is no schedule {name!r}")
    return found


def _record(schedule: WorkflowSchedule, next_fires: list[Any]) -> dict[str, Any]:
    return {
        **{key: schedule[key] for key in KEYS},  # type: ignore[literal-required]  # the keys of that record
        "next_fires": [each.isoformat() for each in next_fires],
    }


def _show(arguments: Namespace, client: DBOSClient) -> None:
    found = _existing(client, arguments.name)
    record = _record(found, client.list_fire_times(number=NEXT).get(arguments.name, []))
    if arguments.json:
        output.document(record)
        return
    output.card(
        {
            "schedule": record["schedule_name"],
            "status": record["status"],
            "workflow": record["workflow_name"],
            "class": record["workflow_class_name"],
            "cron": record["schedule"],
            "zone": record["cron_timezone"],
            "queue": record["queue_name"],
            "backfills": record["automatic_backfill"],
            "last fired": record["last_fired_at"],
            "next": ", ".join(record["next_fires"]),
        }
    )
