"""What a client asks for when it enqueues a workflow by name: the options, checked, as an order.

An option that is misspelt or makes no sense is refused here, before anything is written: nobody in the client's
process would notice otherwise, because the workflow runs somewhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from dbos._engine.attributes import attributes_text
from dbos._engine.queue import checked_priority, returns_existing
from dbos._engine.row import Order
from dbos._kernel.codec import WorkflowSerializationFormat
from dbos._kernel.naming import WorkflowIDReusePolicy, checked_id, refuses_known_ids
from dbos.error import DBOSException

if TYPE_CHECKING:
    from dbos._kernel.clock import Clock


class EnqueueOptions(TypedDict):
    """What a `DBOSClient` enqueues, and how. Only the names of the workflow and the queue are required."""

    #: The name under which the workflow is registered: its `name`, else the function's qualified name.
    workflow_name: str
    queue_name: str
    #: Default: a new id. An id that exists already is the same workflow.
    workflow_id: NotRequired[str | None]
    #: "return-existing" (as above, the default), or "reject": an id that exists raises DBOSWorkflowIDInUseError.
    workflow_id_reuse_policy: NotRequired[WorkflowIDReusePolicy | None]
    #: The only version of the application that may run it. Default: any.
    app_version: NotRequired[str | None]
    #: Seconds that it may run, counted from when it is taken from the queue.
    workflow_timeout: NotRequired[float | None]
    #: Seconds that it waits before it may be taken from the queue.
    delay_seconds: NotRequired[float | None]
    #: At most one workflow of this id waits or runs on the queue.
    deduplication_id: NotRequired[str | None]
    #: What happens when there is one: "reject" (raise, the default) or "return-existing".
    duplication_policy: NotRequired[str | None]
    #: From 1 (the first) to 2147483647; one without goes before all of them.
    priority: NotRequired[int | None]
    #: The partition of a partitioned queue.
    queue_partition_key: NotRequired[str | None]
    #: Accepted for programs that give it: the number belongs to the workflow's function.
    max_recovery_attempts: NotRequired[int | None]
    #: What is noted of it: a JSON object, which listings can ask for.
    attributes: NotRequired[dict[str, Any] | None]
    #: On whose behalf it runs.
    authenticated_user: NotRequired[str | None]
    authenticated_roles: NotRequired[list[str] | None]
    #: The format of its arguments, result and error. Default: the client's serializer.
    serialization_type: NotRequired[WorkflowSerializationFormat | None]
    #: The class of a method.
    class_name: NotRequired[str | None]
    #: The name of the configured instance that it is called on.
    instance_name: NotRequired[str | None]


NAMES = {
    "workflow_name": "A workflow name",
    "queue_name": "A queue name",
    "workflow_id": "A workflow ID",
    "app_version": "An application version",
    "deduplication_id": "A deduplication ID",
    "queue_partition_key": "A queue partition key",
    "authenticated_user": "A user",
    "class_name": "A class name",
    "instance_name": "An instance name",
}


def order_of(options: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any], clock: Clock) -> Order:
    """The order that these options make. Raises TypeError for keys that do not exist or are missing."""
    unknown = sorted(set(options) - set(EnqueueOptions.__annotations__))
    if unknown:
        raise TypeError(f"EnqueueOptions has no such key: {', '.join(unknown)}")
    given = {key: value for key, value in options.items() if value is not None}
    missing = sorted({"workflow_name", "queue_name"} - set(given))
    if missing:
        raise TypeError(f"EnqueueOptions needs {', '.join(missing)}")
    for key, what in NAMES.items():
        if key in given:
            checked_id(given[key], what)
    timeout_ms, delay_ms = (_milliseconds(given, key) for key in ("workflow_timeout", "delay_seconds"))
    roles = given.get("authenticated_roles")
    return Order(
        name=given["workflow_name"],
        queue=given["queue_name"],
        args=args,
        kwargs=kwargs,
        class_name=given.get("class_name"),
        config_name=given.get("instance_name"),
        workflow_id=given.get("workflow_id"),
        is_new=refuses_known_ids(given.get("workflow_id_reuse_policy")),
        app_version=given.get("app_version"),
        timeout_ms=timeout_ms,
        delay_until_ms=None if delay_ms is None else clock.now_ms() + delay_ms,
        deduplication_id=given.get("deduplication_id"),
        returns_existing=returns_existing(given.get("duplication_policy"), given.get("deduplication_id")),
        priority=checked_priority(given["priority"]) if "priority" in given else 0,
        partition_key=given.get("queue_partition_key"),
        user=given.get("authenticated_user"),
        roles=None if roles is None else tuple(roles),
        format=given.get("serialization_type"),
        attributes=attributes_text(given["attributes"]) if "attributes" in given else None,
    )


def _milliseconds(given: Mapping[str, Any], key: str) -> int | None:
    seconds = given.get(key)
    if seconds is None:
        return None
    if not isinstance(seconds, int | float) or not (seconds >= 0 and math.isfinite(seconds)):
        raise DBOSException(f"{key} must be a number of seconds, not negative, but is {seconds!r}")
    return max(1, int(seconds * 1000)) if seconds else None
