"""Roles: which a function requires, and whether its caller has one of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from dbos.error import DBOSNotAuthorizedError

if TYPE_CHECKING:
    from dbos._kernel.scope import Caller

# The attributes of the innermost function, by the outermost: asked at every call.
_marks: WeakKeyDictionary[Callable[..., Any], dict[str, Any]] = WeakKeyDictionary()
OWN, OF_CLASS = "dbos_required_roles", "dbos_default_required_roles"


def require(fn: Callable[..., Any], roles: list[str]) -> None:
    """Let a function run only in one of these roles."""
    # On the innermost function, because other decorators may stand on either side of ours.
    setattr(inspect.unwrap(fn), OWN, list(roles))


def require_of_class(cls: type, roles: list[str]) -> None:
    """Let all methods that a class defines run only in one of these roles, where they do not name their own."""
    for member in vars(cls).values():
        method = member.__func__ if isinstance(member, staticmethod | classmethod) else member
        if inspect.isfunction(method):
            setattr(inspect.unwrap(method), OF_CLASS, list(roles))


def roles_of(fn: Callable[..., Any]) -> list[str]:
    """The roles of which a caller needs one; none: everybody may call."""
    marks = _marks.get(fn)
    if marks is None:
        marks = _marks[fn] = vars(inspect.unwrap(fn))
    roles: list[str] = marks.get(OWN, marks.get(OF_CLASS, []))
    return roles


def in_role(required: list[str], caller: Caller) -> Caller:
    """The caller in the first required role that the user has."""
    held = [role for role in required if role in (caller.roles or ())]
    return replace(caller, assumed_role=held[0]) if held else caller


def authorize(name: str, required: list[str], caller: Caller) -> Caller:
    """The caller in the first required role that the user has; raises where there is none."""
    allowed = in_role(required, caller)
    if not required or allowed is not caller:
        return allowed
    if caller.user is None and not caller.roles:
        raise DBOSNotAuthorizedError(f"Function {name} requires a role, but was called without an authenticated user")
    raise DBOSNotAuthorizedError(
        f"Function {name} has required roles, but user {caller.user!r} has none of them: {', '.join(required)}"
    )
