"""The records that travel: what a workflow's row and a step's row look like to a reader.

`WorkflowStatus` is also a recorded value (the output of `DBOS.getStatus` and of listings), so other DBOS
programs read our pickles of it and we read theirs: its module name and its attributes are part of the format.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, NamedTuple, TypedDict

# Every queue of ours and of other DBOS programs whose name starts so belongs to the runtime.
# What is told of by alerts.
WORKFLOW_FAILURE, SLOW_QUEUE, UNRESPONSIVE = "WorkflowFailure", "SlowQueue", "UnresponsiveApplication"

INTERNAL_QUEUE = "_dbos_internal_queue"
# The name under which a step, started or enqueued by itself, runs as a workflow.
STEP_WORKFLOW_PREFIX = "<temp>."
# The last value of a stream that is closed: as JSON, and the bare word that some programs write.
STREAM_CLOSED = "__DBOS_STREAM_CLOSED__"
STREAM_MARKS = (f'"{STREAM_CLOSED}"', STREAM_CLOSED)
# Between the names of a class and of an instance of it, where both are one key.
TARGET_SEPARATOR = "\x1f"


class WorkflowStatusString(Enum):
    """Every status a workflow can have."""

    PENDING = "PENDING"
    SUCCESS = "SUCCESS"
    ERROR = "ERROR"
    MAX_RECOVERY_ATTEMPTS_EXCEEDED = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
    CANCELLED = "CANCELLED"
    ENQUEUED = "ENQUEUED"
    DELAYED = "DELAYED"


PENDING, ENQUEUED, DELAYED = "PENDING", "ENQUEUED", "DELAYED"
SUCCESS, ERROR, CANCELLED = "SUCCESS", "ERROR", "CANCELLED"
DEAD_LETTER = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
# A workflow leaves these only by an explicit resume or delete.
TERMINAL = frozenset({SUCCESS, ERROR, CANCELLED, DEAD_LETTER})
UNFINISHED = frozenset({PENDING, ENQUEUED, DELAYED})
# These two are final even for a resume.
FINISHED = frozenset({SUCCESS, ERROR})


class WorkflowInputs(TypedDict):
    """The arguments of a workflow, as `WorkflowStatus.input` shows them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(slots=False)
class WorkflowStatus:
    """One workflow, as `get_workflow_status` and `list_workflows` return it. Times are epoch milliseconds."""

    #: The workflow's id.
    workflow_id: str
    #: One of `WorkflowStatusString`, as a plain string.
    status: str
    #: The registered name of the workflow function.
    name: str
    #: The registered class, for class and instance methods.
    class_name: str | None = None
    #: The configured instance, for instance methods.
    config_name: str | None = None
    #: The user who started it, the role it assumed, and all roles of that user.
    authenticated_user: str | None = None
    assumed_role: str | None = None
    authenticated_roles: list[str] | None = None
    #: The arguments; the stored text where they cannot be read; None when not loaded.
    input: WorkflowInputs | None = None
    #: The result, once there is one.
    output: Any = None
    #: The exception, once there is one.
    error: Any = None
    created_at: int | None = None
    updated_at: int | None = None
    #: The queue it was put on, if any.
    queue_name: str | None = None
    #: The executor that ran it last.
    executor_id: str | None = None
    #: The application version that may run it; None: any.
    app_version: str | None = None
    app_id: str | None = None
    #: How often it was started.
    recovery_attempts: int | None = None
    workflow_timeout_ms: int | None = None
    workflow_deadline_epoch_ms: int | None = None
    deduplication_id: str | None = None
    #: 1 is the most urgent; 0, the default, goes before all.
    priority: int | None = None
    queue_partition_key: str | None = None
    #: The workflow this one was forked from, and whether another was forked from this one.
    forked_from: str | None = None
    was_forked_from: bool = False
    parent_workflow_id: str | None = None
    #: When it was last taken from a queue.
    dequeued_at: int | None = None
    #: Not to be started before this moment.
    delay_until_epoch_ms: int | None = None
    #: When it ended, where the database records it.
    completed_at: int | None = None
    #: What was noted of it, with `SetWorkflowAttributes` or `update_workflow_attributes`.
    attributes: dict[str, Any] | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state that any DBOS program pickled; what it does not know stays at its default."""
        for field in fields(self):
            if field.name not in state:
                state[field.name] = None
        self.__dict__.update(state)


WorkflowStatus.__module__ = "dbos._sys_db"


class StepInfo(TypedDict):
    """One recorded step, as `list_workflow_steps` returns it."""

    #: Position in the workflow, from 1.
    function_id: int
    function_name: str
    output: Any
    error: Any
    #: The workflow this step started or awaited.
    child_workflow_id: str | None
    started_at_epoch_ms: int | None
    completed_at_epoch_ms: int | None


class VersionInfo(TypedDict):
    """One application version; the latest has the highest `version_timestamp`."""

    version_id: str
    version_name: str
    version_timestamp: int
    created_at: int


class Recorded(NamedTuple):
    """A step's row as replay needs it: the values still as text."""

    step_id: int
    name: str
    output: str | None
    error: str | None
    child_id: str | None
    serialization: str | None


Words = str | list[str] | None


class WorkflowFilter(TypedDict, total=False):
    """Everything that listings can be asked for. A list of words means any of them; None means no condition."""

    workflow_ids: list[str] | None
    status: Words
    #: ISO 8601 texts that bound the time of creation; without a zone they are local time.
    start_time: str | None
    end_time: str | None
    name: Words
    app_version: Words
    forked_from: Words
    parent_workflow_id: Words
    user: Words
    queue_name: Words
    #: At most so many, after passing over so many.
    limit: int | None
    offset: int | None
    #: Newest first.
    sort_desc: bool
    workflow_id_prefix: Words
    #: Without values a listing is much faster.
    load_input: bool
    load_output: bool
    executor_id: Words
    #: Only what waits or runs on a queue.
    queues_only: bool
    #: Only what others were forked from, or was not.
    was_forked_from: bool | None
    #: Only what was started by another workflow, or was not.
    has_parent: bool | None
    #: Only what has all of these attributes, nested objects and lists included.
    attributes: dict[str, Any] | None
