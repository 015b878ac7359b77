"""The endpoints of the admin server: what each takes, does and gives.

Values of workflows are not decoded unless a request asks for it, because decoding may run code that lies in the
database; what is stored as JSON is shown as it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from dbos._engine.queue import INTERNAL
from dbos._engine.recovery import recover
from dbos._features import control, fork, inspection, listing, retention
from dbos._hooks.openapi import Endpoint, Refusal, array, full_record, record
from dbos._kernel.codec import PORTABLE
from dbos._kernel.model import WorkflowStatus, WorkflowStatusString
from dbos._kernel.naming import checked_if_given
from dbos._kernel.plan import run
from dbos._kernel.scope import OPTIONS, AssignedId
from dbos.error import DBOSException

if TYPE_CHECKING:
    from dbos._engine.queue import QueueSpec
    from dbos._engine.runtime import Runtime
    from dbos._kernel.model import StepInfo


class Asked(NamedTuple):
    """One request: the parameters of its path and query, and its body."""

    runtime: Runtime
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Any


# How a workflow is shown: each key, and the field of the status that it shows.
SHOWN = {
    "WorkflowUUID": "workflow_id",
    "Status": "status",
    "WorkflowName": "name",
    "WorkflowClassName": "class_name",
    "WorkflowConfigName": "config_name",
    "AuthenticatedUser": "authenticated_user",
    "AssumedRole": "assumed_role",
    "AuthenticatedRoles": "authenticated_roles",
    "CreatedAt": "created_at",
    "UpdatedAt": "updated_at",
    "QueueName": "queue_name",
    "ApplicationVersion": "app_version",
    "ExecutorID": "executor_id",
    "WorkflowTimeoutMS": "workflow_timeout_ms",
    "WorkflowDeadlineEpochMS": "workflow_deadline_epoch_ms",
    "DeduplicationID": "deduplication_id",
    "Priority": "priority",
    "QueuePartitionKey": "queue_partition_key",
    "ForkedFrom": "forked_from",
    "WasForkedFrom": "was_forked_from",
    "ParentWorkflowID": "parent_workflow_id",
    "DequeuedAt": "dequeued_at",
    "DelayUntilEpochMS": "delay_until_epoch_ms",
}
VALUES = {"Input": "input", "Output": "output", "Error": "error"}
# The longest stored text that is shown as it is, and the longest list that nobody asked to be longer.
LONGEST_TEXT, USUAL_PAGE = 100_000, 1_000
LARGEST = 2**63 - 1


# -- showing ---------------------------------------------------------------------------------------------------


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _repr(value: Any) -> str | None:
    """A decoded value as text; it is the user's, so anything may happen."""
    try:
        return None if value is None else repr(value)
    except Exception as error:  # noqa: BLE001 - code of the user's
        return f"<{type(value).__qualname__}: its repr failed: {type(error).__name__}>"


def _shown(status: WorkflowStatus) -> dict[str, str | None]:
    """A workflow; its values are there if they were decoded."""
    found = {key: _text(getattr(status, name)) for key, name in SHOWN.items()}
    return found | {key: _repr(getattr(status, name)) for key, name in VALUES.items()}


def _stored(text: str | None, serialization: str | None) -> str | None:
    """What can be shown of a value that nobody decodes."""
    return text if serialization == PORTABLE else None


# -- what is done ----------------------------------------------------------------------------------------------


def _healthy(_: Asked) -> str:
    return "healthy"


def _deactivate(asked: Asked) -> str:
    asked.runtime.is_deactivated = True
    return "deactivated"


def _queues_metadata(asked: Asked) -> list[dict[str, Any]]:
    known: dict[str, QueueSpec] = {INTERNAL.name: INTERNAL}
    known |= asked.runtime.registry.queues | asked.runtime.registered_queues
    return [_queue(each) for each in known.values()]


def _queue(spec: QueueSpec) -> dict[str, Any]:
    limits = spec.whole if spec.whole or spec.each is None else spec.each
    rate = limits.rate
    fields = {
        "name": spec.name,
        "concurrency": limits.concurrency,
        "workerConcurrency": limits.worker_concurrency,
        "rateLimit": None if rate is None else {"limit": rate.limit, "period": rate.period_ms / 1000},
    }
    return {key: value for key, value in fields.items() if value is not None}


def _get(asked: Asked) -> dict[str, str | None]:
    workflow_id, here = asked.path["workflow_id"], asked.runtime.here
    loads = {key: asked.query.get(key, False) for key in ("load_input", "load_output")}
    found = run(listing.list_workflows.plan(here, workflow_ids=[workflow_id], **loads))
    if not found:
        raise Refusal(404, "")
    shown = _shown(found[0])
    for stored in run(inspection.list_values.plan(here, [workflow_id], longest=LONGEST_TEXT)):
        for key, name in VALUES.items():
            if not loads["load_input" if key == "Input" else "load_output"]:
                shown[key] = _stored(getattr(stored, name), stored.serialization)
    return shown


def _steps(asked: Asked) -> list[dict[str, Any]]:
    workflow_id, here = asked.path["workflow_id"], asked.runtime.here
    if asked.query.get("load_output", False):
        return [_decoded_step(each) for each in run(listing.list_workflow_steps.plan(here, workflow_id))]
    return [
        {
            "function_id": each.step_id,
            "function_name": each.name,
            "output": _stored(each.output, each.serialization),
            "error": _stored(each.error, each.serialization),
            "child_workflow_id": each.child_workflow_id,
            "started_at_epoch_ms": _text(each.started_at),
            "completed_at_epoch_ms": _text(each.completed_at),
        }
        for each in run(inspection.list_steps.plan(here, [workflow_id], longest=LONGEST_TEXT))
    ]


def _decoded_step(step: StepInfo) -> dict[str, Any]:
    moments = {key: _text(step[key]) for key in ("started_at_epoch_ms", "completed_at_epoch_ms")}
    return {**step, **moments, "output": _repr(step["output"]), "error": _repr(step["error"])}


# What a filter of a listing is called in a request, where that is another name.
FILTERS = {
    "workflow_uuids": "workflow_ids",
    "authenticated_user": "user",
    "application_version": "app_version",
    "workflow_name": "name",
}


def _wanted(body: Mapping[str, Any]) -> dict[str, Any]:
    given = {FILTERS.get(key, key): value for key, value in body.items() if value is not None}
    return {"load_input": False, "load_output": False, "limit": USUAL_PAGE, **given}


def _list(asked: Asked) -> list[dict[str, str | None]]:
    return [_shown(each) for each in run(listing.list_workflows.plan(asked.runtime.here, **_wanted(asked.body)))]


def _list_queued(asked: Asked) -> list[dict[str, str | None]]:
    found = run(listing.list_queued_workflows.plan(asked.runtime.here, **_wanted(asked.body)))
    return [_shown(each) for each in found]


def _recover(asked: Asked) -> list[str]:
    return run(recover(asked.runtime.here, asked.runtime, asked.body))


def _garbage_collect(asked: Asked) -> None:
    run(retention.garbage_collect.plan(asked.runtime.here, **asked.body))


def _global_timeout(asked: Asked) -> None:
    run(retention.global_timeout.plan(asked.runtime.here, asked.body["cutoff_epoch_timestamp_ms"]))


def _cancel(asked: Asked) -> None:
    run(control.cancel_workflow.plan(asked.runtime.here, asked.path["workflow_id"]))


def _resume(asked: Asked) -> None:
    run(control.resume_workflow.plan(asked.runtime.here, asked.path["workflow_id"]))


def _restart(asked: Asked) -> dict[str, str]:
    return _forked(asked, 1, None)


def _fork(asked: Asked) -> dict[str, str]:
    return _forked(asked, asked.body.get("start_step") or 1, _name(asked, "application_version"))


def _forked(asked: Asked, start_step: int, version: str | None) -> dict[str, str]:
    new_id = _name(asked, "new_workflow_id")
    options = OPTIONS.get()
    token = OPTIONS.set(options if new_id is None else replace(options, assigned=AssignedId(new_id)))
    try:
        made = fork.fork_workflow.plan(
            asked.runtime.here, asked.path["workflow_id"], start_step, application_version=version
        )
        return {"workflow_id": run(made).workflow_id}
    finally:
        OPTIONS.reset(token)


def _name(asked: Asked, key: str) -> str | None:
    """What the body says under this key, if it can name something."""
    try:
        return checked_if_given((asked.body or {}).get(key), key)
    except DBOSException as error:
        raise Refusal(400, error.message) from None


# -- the table -------------------------------------------------------------------------------------------------

TEXT: dict[str, Any] = {"type": "string"}
MAYBE: dict[str, Any] = {"type": ["string", "null"]}
NAME: dict[str, Any] = {**MAYBE, "minLength": 1, "maxLength": 512}
FLAG = {"type": ["boolean", "null"]}
STATUS = {"type": "string", "enum": [each.value for each in WorkflowStatusString]}
MOMENT = {"type": ["string", "null"], "format": "date-time"}
MILLISECONDS = {"type": ["integer", "null"], "minimum": 0, "maximum": LARGEST}
WORDS = {"type": ["string", "array", "null"], "items": TEXT}
_COMMON: dict[str, Any] = {
    "start_time": MOMENT,
    "end_time": MOMENT,
    "status": {"anyOf": [STATUS, array(STATUS), {"type": "null"}]},
    "forked_from": WORDS,
    "parent_workflow_id": WORDS,
    "workflow_name": WORDS,
    "limit": {"type": ["integer", "null"], "minimum": 1, "maximum": LARGEST, "default": USUAL_PAGE},
    "offset": {"type": ["integer", "null"], "minimum": 0, "maximum": LARGEST},
    "sort_desc": FLAG,
    "load_input": FLAG,
}
WORKFLOW_FILTER = record(
    **_COMMON,
    workflow_uuids={"type": ["array", "null"], "items": TEXT},
    authenticated_user=WORDS,
    application_version=WORDS,
    workflow_id_prefix=WORDS,
    load_output=FLAG,
)
QUEUE_FILTER = record(**_COMMON, queue_name=WORDS)
WORKFLOW = full_record([*SHOWN, *VALUES], MAYBE)
STEP = full_record(
    ("output", "error", "child_workflow_id", "started_at_epoch_ms", "completed_at_epoch_ms", "function_name"), MAYBE
)
STEP["properties"]["function_id"] = {"type": "integer"}
MADE = full_record(["workflow_id"], TEXT)
LOADS = {"load_input": {"type": "boolean"}, "load_output": {"type": "boolean"}}
QUEUE = {"type": "object", "properties": {"name": TEXT}, "required": ["name"]}
BY_ID = "/workflows/{workflow_id}"

ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/dbos-healthz",
        summary="Say that the process lives",
        answer=_healthy,
        is_instant=True,
        result=TEXT,
        media_type="text/plain",
    ),
    Endpoint(
        method="GET",
        path="/deactivate",
        summary="Fire no schedules of the code any more; work and queues go on",
        answer=_deactivate,
        is_instant=True,
        result=TEXT,
        media_type="text/plain",
        changes=True,
    ),
    Endpoint(
        method="GET",
        path="/dbos-workflow-queues-metadata",
        summary="List the queues that this process knows, with their limits",
        answer=_queues_metadata,
        is_instant=True,
        result=array(QUEUE),
    ),
    Endpoint(
        method="GET",
        path=BY_ID,
        summary="Show a workflow",
        answer=_get,
        query=LOADS,
        result=WORKFLOW,
        silent_refusals=(404,),
    ),
    Endpoint(
        method="GET",
        path=f"{BY_ID}/steps",
        summary="List the recorded steps of a workflow; none for an unknown id",
        answer=_steps,
        query={"load_output": LOADS["load_output"]},
        result=array(STEP),
    ),
    Endpoint(
        method="POST",
        path="/dbos-workflow-recovery",
        summary="Take up what these executors have left unfinished; list their unfinished workflows",
        answer=_recover,
        body=array(TEXT),
        result=array(TEXT),
    ),
    Endpoint(
        method="POST",
        path="/workflows",
        summary="List workflows, at most 1000 unless a limit is given",
        answer=_list,
        body=WORKFLOW_FILTER,
        result=array(WORKFLOW),
    ),
    Endpoint(
        method="POST",
        path="/queues",
        summary="List what waits or runs on queues, at most 1000 unless a limit is given",
        answer=_list_queued,
        body=QUEUE_FILTER,
        result=array(WORKFLOW),
    ),
    Endpoint(
        method="POST",
        path="/dbos-garbage-collect",
        summary="Forget old workflows that have ended",
        answer=_garbage_collect,
        body=record(
            cutoff_epoch_timestamp_ms=MILLISECONDS,
            rows_threshold={"type": ["integer", "null"], "minimum": 0, "maximum": LARGEST},
        ),
        status=204,
    ),
    Endpoint(
        method="POST",
        path="/dbos-global-timeout",
        summary="Cancel what was created before a moment and has not ended",
        answer=_global_timeout,
        body=record(cutoff_epoch_timestamp_ms={**MILLISECONDS, "type": "integer"})
        | {"required": ["cutoff_epoch_timestamp_ms"]},
        status=204,
    ),
    Endpoint(method="POST", path=f"{BY_ID}/cancel", summary="Cancel a workflow", answer=_cancel, body=None, status=204),
    Endpoint(
        method="POST",
        path=f"{BY_ID}/resume",
        summary="Let a workflow go on after its last step",
        answer=_resume,
        status=204,
        refusals=(404,),
    ),
    Endpoint(
        method="POST",
        path=f"{BY_ID}/restart",
        summary="Start a copy of a workflow from its first step",
        answer=_restart,
        result=MADE,
        refusals=(404,),
    ),
    Endpoint(
        method="POST",
        path=f"{BY_ID}/fork",
        summary="Start a copy of a workflow that keeps its first steps",
        answer=_fork,
        body=record(
            start_step={"type": ["integer", "null"], "minimum": 0, "maximum": 2**31 - 1, "default": 1},
            new_workflow_id=NAME,
            application_version=NAME,
        ),
        unreadable_status=500,  # as the API has it
        result=MADE,
        refusals=(404, 409),
    ),
)
