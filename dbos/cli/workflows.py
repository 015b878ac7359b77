"""`dbos workflow`: lists, looks into, stops, continues, copies and deletes workflows.

What a workflow or step took and gave is shown as the preview that was noted of it when it ran, or as its text where
that is JSON; it is decoded only for --values.
"""

from __future__ import annotations

import contextlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from dbos import SetWorkflowID, WorkflowStatus
from dbos._hooks.previews import LONGEST_TEXT, VALUES, previews, step_previews
from dbos._kernel.model import TERMINAL
from dbos.cli import database, output
from dbos.cli.ask import confirm, given_ids, in_batches
from dbos.cli.failure import Failure
from dbos.cli.output import Column

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from dbos import DBOSClient

Record = dict[str, Any]
KEYS = tuple(field.name for field in fields(WorkflowStatus) if field.name not in VALUES)

WORKFLOWS = (
    Column("ID", "workflow_id", whole=True),
    Column("STATUS", "status", whole=True),
    Column("NAME", "name"),
    Column("CREATED", "created", whole=True),
    Column("TOOK", "took", whole=True),
    Column("QUEUE", "queue_name"),
    Column("VERSION", "app_version"),
)
DECODED = (*WORKFLOWS, Column("INPUT", "input"), Column("OUTPUT", "output"), Column("ERROR", "error"))
QUEUED = (
    Column("ID", "workflow_id", whole=True),
    Column("STATUS", "status", whole=True),
    Column("QUEUE", "queue_name"),
    Column("PRIORITY", "priority"),
    Column("NAME", "name"),
    Column("CREATED", "created", whole=True),
)
STEPS = (
    Column("STEP", "step_id", whole=True),
    Column("STATUS", "status", whole=True),
    Column("NAME", "name"),
    Column("STARTED", "started", whole=True),
    Column("TOOK", "took", whole=True),
    Column("CHILD", "child_workflow_id"),
    Column("OUTPUT", "output"),
    Column("ERROR", "error"),
)
OUTCOMES = (Column("ID", "workflow_id", whole=True), Column("STATUS", "status", whole=True))


# -- looking ---------------------------------------------------------------------------------------------------


def list_(arguments: Namespace) -> None:
    wanted = {**filter_of(arguments), "user": arguments.user, "app_version": arguments.application_version}
    values = bool(arguments.values)
    with database.reader(arguments) as client:
        found = client.list_workflows(**wanted, load_input=values, load_output=values)
    records = [_record(each, values=values) for each in found]
    if arguments.json:
        output.document(records)
    else:
        columns = DECODED if values else WORKFLOWS
        output.table(columns, list(map(_for_people, records)), empty="There are no such workflows.")


def list_queued(arguments: Namespace) -> None:
    with database.reader(arguments) as client:
        found = client.list_queued_workflows(**filter_of(arguments), load_input=False)
    records = [_record(each, values=False) for each in found]
    if arguments.json:
        output.document(records)
    else:
        output.table(QUEUED, list(map(_for_people, records)), empty="Nothing waits or runs on a queue.")


def get(arguments: Namespace) -> None:
    values = bool(arguments.values)
    with database.reader(arguments) as client:
        found = _existing(client, arguments.id, values=values)
        record = _record(found, values=values)
        if not values:
            record |= previews(client, found)
    if arguments.json:
        output.document(record)
        return
    output.card(
        {
            "id": record["workflow_id"],
            "status": record["status"],
            "name": record["name"],
            **{title: output.moment(record[key]) for title, key in _MOMENTS.items()},
            "took": _took(record),
            **{title: record[key] for title, key in _DETAILS.items()},
            **{key: record[key] for key in VALUES},
        }
    )


_MOMENTS = {
    "created": "created_at",
    "started": "dequeued_at",
    "completed": "completed_at",
    "changed": "updated_at",
    "deadline": "workflow_deadline_epoch_ms",
    "delayed until": "delay_until_epoch_ms",
}
_DETAILS = {
    "queue": "queue_name",
    "partition": "queue_partition_key",
    "deduplication": "deduplication_id",
    "priority": "priority",
    "version": "app_version",
    "executor": "executor_id",
    "attempts": "recovery_attempts",
    "parent": "parent_workflow_id",
    "forked from": "forked_from",
    "class": "class_name",
    "instance": "config_name",
    "user": "authenticated_user",
    "attributes": "attributes",
}


def steps(arguments: Namespace) -> None:
    with database.reader(arguments) as client:
        _existing(client, arguments.id, values=False)
        stored = client.list_steps([arguments.id], longest=LONGEST_TEXT)
        texts = _decoded_steps(client, arguments.id) if arguments.values else step_previews(client, stored)
    records = [
        {
            "step_id": each.step_id,
            "name": each.name,
            "status": "ERROR" if each.failed else "SUCCESS",
            "child_workflow_id": each.child_workflow_id,
            "started_at": each.started_at,
            "completed_at": each.completed_at,
            **texts.get(each.step_id, dict.fromkeys(VALUES)),  # nothing, if it was deleted meanwhile
        }
        for each in stored
    ]
    if arguments.json:
        output.document(records)
        return
    rows = [
        {
            **each,
            "started": output.moment(each["started_at"]),
            "took": output.duration(each["started_at"], each["completed_at"]),
        }
        for each in records
    ]
    output.table(STEPS, rows, empty="No step is recorded.")


def filter_of(arguments: Namespace) -> Record:
    """The conditions that the command line gives."""
    start, end = arguments.start_time, arguments.end_time
    return {
        "limit": arguments.limit,
        "offset": arguments.offset,
        "start_time": start and start.isoformat(),
        "end_time": end and end.isoformat(),
        "status": arguments.status,
        "name": arguments.name,
        "queue_name": arguments.queue_name,
        "sort_desc": arguments.sort_desc,
    }


def _existing(client: DBOSClient, workflow_id: str, *, values: bool) -> WorkflowStatus:
    found = client.list_workflows(workflow_ids=[workflow_id], load_input=values, load_output=values)
    if not found:
        raise Failure(f"there is no workflow {workflow_id!r}")
    return found[0]


def _record(status: WorkflowStatus, *, values: bool) -> Record:
    keys = (*KEYS, *VALUES) if values else KEYS
    return {key: getattr(status, key) for key in keys}


def _for_people(record: Record) -> Record:
    return {**record, "created": output.moment(record["created_at"]), "took": _took(record)}


def _took(record: Mapping[str, Any]) -> str:
    # Not every database records when a workflow ended; who has ended is not changed any more.
    ended_at = record["completed_at"] or (record["updated_at"] if record["status"] in TERMINAL else None)
    return output.duration(record["dequeued_at"] or record["created_at"], ended_at)


# -- values that nobody decoded --------------------------------------------------------------------------------


def _decoded_steps(client: DBOSClient, workflow_id: str) -> dict[int, Record]:
    noted = {each.step_id: each.text for each in client.list_notes([workflow_id], ["input"])}
    return {
        each["function_id"]: {
            "input": noted.get(each["function_id"]),
            "output": each["output"],
            "error": each["error"],
        }
        for each in client.list_workflow_steps(workflow_id)
    }


# -- acting ----------------------------------------------------------------------------------------------------


def cancel(arguments: Namespace) -> None:
    with database.actor(arguments) as client:
        ids = _known(client, given_ids(arguments))
        in_batches(
            "cancelled", ids, lambda batch: client.cancel_workflows(batch, cancel_children=bool(arguments.children))
        )
        _tell(arguments, client, ids)


def resume(arguments: Namespace) -> None:
    with database.actor(arguments) as client:
        ids = _known(client, given_ids(arguments))
        in_batches("resumed", ids, lambda batch: client.resume_workflows(batch, queue_name=arguments.queue_name))
        _tell(arguments, client, ids)


def fork(arguments: Namespace) -> None:
    new_id = arguments.forked_workflow_id
    with (
        database.actor(arguments) as client,
        contextlib.nullcontext() if new_id is None else SetWorkflowID(new_id),
    ):
        made = client.fork_workflow(arguments.id, arguments.step, application_version=arguments.application_version)
    if arguments.json:
        output.document({"workflow_id": made.workflow_id, "forked_from": arguments.id, "start_step": arguments.step})
    else:
        output.line(made.workflow_id)


def delete(arguments: Namespace) -> None:
    with database.actor(arguments) as client:
        ids = _known(client, given_ids(arguments))
        what = f"Delete workflow {ids[0]}" if len(ids) == 1 else f"Delete {len(ids)} workflows"
        confirm(arguments, what + (" and all that they started" if arguments.children else ""))
        in_batches(
            "deleted", ids, lambda batch: client.delete_workflows(batch, delete_children=bool(arguments.children))
        )
    if arguments.json:
        output.document({"deleted": ids})
    else:
        output.line(f"Deleted {ids[0] if len(ids) == 1 else f'{len(ids)} workflows'}.")


def _known(client: DBOSClient, ids: list[str]) -> list[str]:
    """The ids, if there are workflows of all of them: a misspelt one must not pass for done."""
    if not ids:
        raise Failure("no id was given")
    found = {status.workflow_id for status in _statuses(client, ids)}
    for each in ids:
        if each not in found:
            raise Failure(f"there is no workflow {each!r}; nothing was done")
    return ids


def _statuses(client: DBOSClient, ids: list[str]) -> list[WorkflowStatus]:
    found: list[WorkflowStatus] = []
    in_batches(
        "looked up",
        ids,
        lambda batch: found.extend(client.list_workflows(workflow_ids=batch, load_input=False, load_output=False)),
    )
    return found


def _tell(arguments: Namespace, client: DBOSClient, ids: list[str]) -> None:
    """Show what became of workflows."""
    by_id = {each.workflow_id: each.status for each in _statuses(client, ids)}
    records = [{"workflow_id": each, "status": by_id.get(each)} for each in ids]
    if arguments.json:
        output.document(records)
    else:
        output.table(OUTCOMES, records, empty="")
