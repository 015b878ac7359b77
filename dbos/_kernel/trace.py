"""Spans, for whoever installs a tracer; without one a span is nothing and costs nothing.

Workflows, steps and transactions make theirs where they are performed, operations of DBOS in `Op`: a hook sees them all
and decides which it shows.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dbos._kernel.scope import Run


class Tracer(Protocol):
    """What a telemetry hook installs."""

    def span(self, name: str, kind: str, run: Run) -> AbstractContextManager[Any]:
        """Around a workflow, step or transaction."""

    def operation(self, title: str, place: Any) -> AbstractContextManager[Any]:
        """Around an operation of DBOS at this place, which may be anything."""

    def handler(self, name: str, facts: dict[str, Any]) -> AbstractContextManager[Any]:
        """Around a request of a web server."""

    def event(self, name: str, facts: dict[str, Any]) -> None:
        """Something happened in the current span."""

    def failed(self, error: BaseException) -> None:
        """What the current span is of has failed, though nothing is raised through it."""

    def current(self) -> Any:
        """The span that this code is in."""

    def carrier(self, context: Any) -> dict[str, str]:
        """A context of the tracer, None for the current one, as a workflow that is enqueued takes it along."""


_NOTHING: AbstractContextManager[Any] = nullcontext()
_tracer: Tracer | None = None


def set_tracer(tracer: Tracer | None) -> None:
    """Install a tracer, or take it away."""
    global _tracer  # noqa: PLW0603 - one tracer for the whole process
    _tracer = tracer


def installed_tracer() -> Tracer | None:
    """The tracer of this process."""
    return _tracer


def span(name: str, kind: str, run: Run) -> AbstractContextManager[Any]:
    """A span of that name and kind around what happens inside."""
    return _NOTHING if _tracer is None else _tracer.span(name, kind, run)


def operation(title: str, place: Any) -> AbstractContextManager[Any]:
    """A span around an operation of DBOS, where that has one."""
    return _NOTHING if _tracer is None else _tracer.operation(title, place)


def handler(name: str, facts: dict[str, Any]) -> AbstractContextManager[Any]:
    """A span around a request, whose attributes these facts are."""
    return _NOTHING if _tracer is None else _tracer.handler(name, facts)


def happened(name: str, **facts: Any) -> None:
    """Something happened in the current span."""
    if _tracer is not None:
        _tracer.event(name, facts)


def failed(error: BaseException) -> None:
    """What the current span is of has failed, though nothing is raised through it."""
    if _tracer is not None:
        _tracer.failed(error)


def current_span() -> Any:
    """The span that this code is in; None without a tracer."""
    return None if _tracer is None else _tracer.current()
