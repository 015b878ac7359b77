"""What a request of a web server is to us: an id, a span, and perhaps the id of the workflow that it starts.

`x-request-id` is kept or made, and sent back. `dbos-idempotency-key` is the id of the first workflow that the handler
starts: a client that asks twice gets the one result. Both are looked at before anything is done.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from dbos._kernel.naming import checked_id
from dbos._kernel.scope import NO_OPTIONS, OPTIONS, AssignedId
from dbos._kernel.trace import handler
from dbos.error import DBOSException

ID_HEADER = "x-request-id"
KEY_HEADER = "dbos-idempotency-key"


@dataclass(frozen=True)
class Request:
    """One request, as a hook reads it from its framework."""

    method: str
    path: str
    #: Without its query: that is where secrets are.
    url: str
    address: str
    headers: Mapping[str, str]

    @property
    def id(self) -> str:
        """As it was given, if that can be sent back; otherwise a new one."""
        given = self.headers.get(ID_HEADER, "")
        return given if given and given.isascii() and given.isprintable() else str(uuid.uuid4())


class BadKeyError(DBOSException):
    """The idempotency key of a request cannot be the id of a workflow."""


class Answer:
    """What became of a request, for its span."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def began(self, code: int) -> None:
        if self._span is not None:
            self._span.set_attribute("responseCode", code)


@contextmanager
def in_request(request: Request, request_id: str) -> Iterator[Answer]:
    """Handle the request inside. Raises BadKeyError for an idempotency key that cannot be an id."""
    assigned = _assigned(request.headers.get(KEY_HEADER))
    facts = {
        "requestID": request_id,
        "requestIP": request.address,
        "requestURL": request.url,
        "requestMethod": request.method,
        "headers": request.headers,
    }
    token = OPTIONS.set(replace(NO_OPTIONS, assigned=assigned))
    try:
        with handler(request.path, facts) as span:
            yield Answer(span)
    finally:
        OPTIONS.reset(token)


def _assigned(key: str | None) -> AssignedId | None:
    try:
        return None if key is None else AssignedId(checked_id(key, f"The header {KEY_HEADER}"))
    except DBOSException as error:
        raise BadKeyError(error.message) from None


def told(error: DBOSException) -> dict[str, Any]:
    """An error as JSON."""
    code = error.dbos_error_code
    return {
        "message": error.message,
        "dbos_error_code": None if code is None else str(code),
        "dbos_error": type(error).__name__,
    }
