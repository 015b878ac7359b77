"""The `with` blocks that say how, and for whom, workflows are started inside them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextvars import ContextVar, Token
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from dbos._engine.attributes import attributes_of, attributes_text
from dbos._engine.queue import checked_priority, returns_existing
from dbos._faces.ambient import present_clock
from dbos._kernel.clock import timeout_ms_of
from dbos._kernel.naming import WorkflowIDReusePolicy, checked_id, checked_if_given, refuses_known_ids
from dbos._kernel.scope import CALLER, OPTIONS, AssignedId, Caller, StartOptions
from dbos._kernel.trace import installed_tracer
from dbos.error import DBOSException, DBOSMisuseError

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")


class _Block(ABC, Generic[T]):
    """Replaces the value of a context variable inside a `with` block."""

    variable: ContextVar[T]

    def __init__(self) -> None:
        self._token: Token[T] | None = None

    @abstractmethod
    def _changed(self, value: T) -> T:
        """The value inside the block."""

    def __enter__(self) -> Self:
        if self._token is not None:
            raise DBOSMisuseError(f"This {type(self).__name__} is entered already; make one for each block")
        self._token = self.variable.set(self._changed(self.variable.get()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            self.variable.reset(token)


class SetWorkflowID(_Block[StartOptions]):
    """Give the first workflow that is started in the block this id.

    The id is an idempotency key: a workflow of that id is run once, and a later start of it returns its result. With
    `workflow_id_reuse_policy="reject"` a later start raises DBOSWorkflowIDInUseError instead, and leaves the workflow that
    has the id as it is.
    """

    variable = OPTIONS

    def __init__(self, wfid: str, workflow_id_reuse_policy: WorkflowIDReusePolicy | None = None) -> None:
        super().__init__()
        self.workflow_id = checked_id(wfid, "A workflow ID")
        self.is_new = refuses_known_ids(workflow_id_reuse_policy)

    def _changed(self, value: StartOptions) -> StartOptions:
        return replace(value, assigned=AssignedId(self.workflow_id, is_new=self.is_new))


class SetWorkflowTimeout(_Block[StartOptions]):
    """Cancel the workflows started in the block, and their children, when they run longer than this.

    The time counts from the start of the workflow; for one on a queue, from when it is taken from the queue. None
    (or 0) detaches a child from its parent's timeout.
    """

    variable = OPTIONS

    def __init__(self, workflow_timeout_sec: float | None) -> None:
        super().__init__()
        self.timeout_ms = timeout_ms_of(workflow_timeout_sec)

    def _changed(self, value: StartOptions) -> StartOptions:
        return replace(value, has_timeout=True, timeout_ms=self.timeout_ms)


class SetEnqueueOptions(_Block[StartOptions]):
    """Say how the workflows are put on queues that are enqueued in the block. What is not given is not inherited.

    `deduplication_id`: one workflow at a time on the queue has it; a second one raises DBOSQueueDeduplicatedError, or
    with `duplication_policy="return-existing"` is the first one. `priority`: 1 goes first; without one, before all.
    `app_version`: the only version that may run it. `queue_partition_key`: for a partitioned queue. `delay_seconds`:
    not before so long from now.
    """

    variable = OPTIONS

    def __init__(
        self,
        *,
        deduplication_id: str | None = None,
        priority: int | None = None,
        app_version: str | None = None,
        queue_partition_key: str | None = None,
        delay_seconds: float | None = None,
        duplication_policy: str | None = None,
    ) -> None:
        super().__init__()
        self._chosen: dict[str, Any] = {
            "deduplication_id": checked_if_given(deduplication_id, "A deduplication ID"),
            "returns_existing": returns_existing(duplication_policy, deduplication_id),
            "priority": None if priority is None else checked_priority(priority),
            "app_version": checked_if_given(app_version, "An application version"),
            "queue_partition_key": checked_if_given(queue_partition_key, "A queue partition key"),
            "delay_until_ms": None if delay_seconds is None else _moment_after(delay_seconds),
        }

    def _changed(self, value: StartOptions) -> StartOptions:
        return replace(value, **self._chosen)


def _moment_after(seconds: float) -> int:
    if not (isinstance(seconds, (int, float)) and seconds >= 0 and math.isfinite(seconds)):
        raise DBOSException(f"delay_seconds must be a number of seconds, not negative, but is {seconds!r}")
    return present_clock().now_ms() + int(seconds * 1000)


class SetWorkflowAttributes(_Block[StartOptions]):
    """Note these attributes of the workflows that are started in the block: a JSON object, in their status and listings.

    A workflow that they start gets none of them. None takes back what an enclosing block says.
    """

    variable = OPTIONS

    def __init__(self, attributes: dict[str, Any] | None) -> None:
        super().__init__()
        self._text = None if attributes is None else attributes_text(attributes)

    def _changed(self, value: StartOptions) -> StartOptions:
        return replace(value, attributes=self._text)


class PropagateOtelContext(_Block[StartOptions]):
    """Have the workflows that are enqueued in the block join the caller's trace: their spans are children of its span.

    It is kept with the workflow, as its attribute `traceparent`. `context` is one of OpenTelemetry, instead of the
    current one. Without telemetry (`enable_otlp`) it does nothing.
    """

    variable = OPTIONS

    def __init__(self, context: Any = None) -> None:
        super().__init__()
        self._context = context

    def _changed(self, value: StartOptions) -> StartOptions:
        tracer = installed_tracer()
        carrier = {} if tracer is None else tracer.carrier(self._context)
        if not carrier:
            return value
        return replace(value, attributes=attributes_text({**(attributes_of(value.attributes) or {}), **carrier}))


def checked_user(user: str | None) -> str | None:
    """The user, if it can be stored; a blank one is nobody's name, but programs use it for that."""
    return checked_id(user, "A user") if user else user


class DBOSContextSetAuth(_Block[Caller]):
    """Run the block on behalf of a user who has these roles."""

    variable = CALLER

    def __init__(self, user: str | None, roles: list[str] | None) -> None:
        super().__init__()
        self.caller = Caller(checked_user(user), None if roles is None else tuple(roles))

    def _changed(self, value: Caller) -> Caller:
        return self.caller


class DBOSContextEnsure(_Block[Caller]):
    """Make sure that there is a context, for `DBOS.set_authentication` inside the block; it ends with the block."""

    variable = CALLER

    def _changed(self, value: Caller) -> Caller:
        return replace(value)
