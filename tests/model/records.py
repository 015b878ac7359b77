"""Workflows and steps as anybody can see them, and which of them a listing finds: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

DEAD_LETTER = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
UNFINISHED = ("PENDING", "ENQUEUED", "DELAYED")
FINISHED = ("SUCCESS", "ERROR")


class Ending(NamedTuple):
    """How a workflow ended: with an output, or with an error by its name."""

    output: Any = None
    error: str | None = None


class Step(NamedTuple):
    """A recorded step."""

    number: int
    name: str
    ending: Ending = Ending()
    child_id: str | None = None


@dataclass
class Message:
    """What was sent to a workflow, under a key or without one."""

    topic: str
    text: str
    key: str | None = None
    is_taken: bool = False


class Event(NamedTuple):
    """What a step set an event to."""

    number: int
    key: str
    value: Any


@dataclass
class Workflow:
    """A workflow's row, as far as anybody can see it, with its records."""

    workflow_id: str
    name: str
    status: str
    created_ms: int
    version: str | None = None
    attempts: int = 0
    queue: str | None = None
    dequeued_ms: int | None = None
    timeout_ms: int | None = None
    deadline_ms: int | None = None
    delay_until_ms: int | None = None
    parent_id: str | None = None
    forked_from: str | None = None
    was_forked_from: bool = False
    priority: int = 0
    deduplication_id: str | None = None
    partition: str | None = None
    ending: Ending = Ending()
    steps: list[Step] = field(default_factory=list)
    # These are not in the row, and looked at by themselves.
    messages: list[Message] = field(default_factory=list, compare=False)
    events: list[Event] = field(default_factory=list, compare=False)


def matches(workflow: Workflow, wanted: dict[str, Any]) -> bool:
    """Whether a filter of `list_workflows` describes this workflow."""
    columns = {
        "workflow_ids": workflow.workflow_id,
        "status": workflow.status,
        "name": workflow.name,
        "app_version": workflow.version,
        "forked_from": workflow.forked_from,
        "parent_workflow_id": workflow.parent_id,
        "queue_name": workflow.queue,
        "was_forked_from": workflow.was_forked_from,
        "has_parent": workflow.parent_id is not None,
    }
    for key, column in columns.items():
        if key in wanted and column not in (wanted[key] if isinstance(wanted[key], list) else [wanted[key]]):
            return False
    if not workflow.workflow_id.startswith(wanted.get("workflow_id_prefix", "")):
        return False
    if wanted.get("queues_only"):
        return workflow.queue is not None and ("status" in wanted or workflow.status in UNFINISHED)
    return True
