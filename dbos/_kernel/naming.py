"""Ids: what may be one, and new ones. Checked where they enter, so that both databases give the same verdict."""

from __future__ import annotations

import os
import threading
import uuid
from typing import Any, Literal

from dbos.error import DBOSException

# An index entry on Postgres holds no more than about 2,700 bytes; this leaves room for keys of two names.
MOST_BYTES = 512
# That of a step stands alone in one, if another release made it.
LONGEST_NAME = 2_048

WorkflowIDReusePolicy = Literal["return-existing", "reject"]
WorkflowIDReusePolicy.__doc__ = (
    """What a start means whose id is known already: the workflow that has it, or an error."""
)
RETURN_EXISTING, REJECT = "return-existing", "reject"


def checked_id(value: Any, what: str) -> str:
    """The value, if it can name something: 1 to 512 bytes of text, not blank, without control characters."""
    if not isinstance(value, str) or not value.strip():
        raise DBOSException(f"{what} must be a non-empty string, not {value!r}")
    size = len(_encoded(value, what))
    if size > MOST_BYTES:
        raise DBOSException(f"{what} {value[:40]!r}... has {size} bytes; at most {MOST_BYTES} are possible")
    if any(character < " " or character == "\x7f" for character in value):
        raise DBOSException(f"{what} {value!r} contains a control character")
    return value


def _encoded(value: str, what: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise DBOSException(f"{what} {value!r} contains half a surrogate pair, which is no character") from None


def sought(value: Any, what: str = "A workflow ID") -> Any:
    """The value, if it can be looked for: what names nothing may be asked for, but not what no database could hold."""
    if isinstance(value, str):
        if "\0" in value:
            raise DBOSException(f"{what} {value!r} contains a NUL character")
        _encoded(value, what)
    return value


def checked_name(value: Any, what: str) -> str:
    """The value, if it can be the name of something inside a workflow: any text that has room in an index."""
    if not isinstance(value, str):
        raise DBOSException(f"{what} must be a string, not {value!r}")
    if len(_encoded(sought(value, what), what)) > LONGEST_NAME:
        raise DBOSException(f"{what} {value[:40]!r}... is too long; at most {LONGEST_NAME} bytes are possible")
    return value


def checked_if_given(value: Any, what: str) -> str | None:
    """The same for what may be left out."""
    return None if value is None else checked_id(value, what)


def refuses_known_ids(policy: Any) -> bool:
    """Whether only a new workflow may have the id, by a `workflow_id_reuse_policy`."""
    if policy not in (None, RETURN_EXISTING, REJECT):
        raise DBOSException(
            f"Invalid workflow_id_reuse_policy {policy!r}: it must be {RETURN_EXISTING!r} or {REJECT!r}"
        )
    return bool(policy == REJECT)


def pairs_in(key: str) -> list[tuple[str, str]]:
    """The pairs of names that are written `<first>::<second>`: more than one where a name has colons itself."""
    return [(key[:place], key[place + 2 :]) for place in range(1, len(key) - 2) if key.startswith("::", place)]


class _Ids(threading.local):
    """Random bytes in store: asking the system for them costs more than all else about an id."""

    def __init__(self) -> None:
        self.stock = memoryview(b"")


_ids = _Ids()


def new_id() -> str:
    """A random UUID (version 4)."""
    if not _ids.stock:
        _ids.stock = memoryview(os.urandom(16 * 64))
    drawn, _ids.stock = bytes(_ids.stock[:16]), _ids.stock[16:]
    return str(uuid.UUID(bytes=drawn, version=4))


def _forget_stock() -> None:
    _ids.stock = memoryview(b"")


# A forked child must not draw the ids that its parent draws.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_stock)
