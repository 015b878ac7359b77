"""The `with` blocks that say how, and for whom, workflows are started inside them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextvars import ContextVar, Token
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from dbos._kernel.naming import checked_id
from dbos._kernel.scope import CALLER, OPTIONS, AssignedId, Caller, StartOptions
from dbos.error import DBOSMisuseError

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

    The id is an idempotency key: a workflow of that id is run once, and a later start of it returns its result.
    """

    variable = OPTIONS

    def __init__(self, wfid: str) -> None:
        super().__init__()
        self.workflow_id = checked_id(wfid, "A workflow ID")

    def _changed(self, value: StartOptions) -> StartOptions:
        return replace(value, assigned=AssignedId(self.workflow_id))


class SetWorkflowTimeout(_Block[StartOptions]):
    """Cancel the workflows started in the block, and their children, when they run longer than this.

    The time counts from the start of the workflow; for one on a queue, from when it is taken from the queue. None
    (or 0) detaches a child from its parent's timeout.
    """

    variable = OPTIONS

    def __init__(self, workflow_timeout_sec: float | None) -> None:
        super().__init__()
        if workflow_timeout_sec is not None and not (workflow_timeout_sec >= 0 and math.isfinite(workflow_timeout_sec)):
            raise Exception(  # noqa: TRY002 - the plain exception that such programs expect
                f"Invalid workflow timeout {workflow_timeout_sec}: it must be a number of seconds, not negative"
            )
        self.timeout_ms = None if not workflow_timeout_sec else max(1, int(workflow_timeout_sec * 1000))

    def _changed(self, value: StartOptions) -> StartOptions:
        return replace(value, has_timeout=True, timeout_ms=self.timeout_ms)


class DBOSContextSetAuth(_Block[Caller]):
    """Run the block on behalf of a user who has these roles."""

    variable = CALLER

    def __init__(self, user: str | None, roles: list[str] | None) -> None:
        super().__init__()
        self.caller = Caller(user, None if roles is None else tuple(roles))

    def _changed(self, value: Caller) -> Caller:
        return self.caller


class DBOSContextEnsure(_Block[Caller]):
    """Make sure that there is a context, for `DBOS.set_authentication` inside the block; it ends with the block."""

    variable = CALLER

    def _changed(self, value: Caller) -> Caller:
        return replace(value)
