"""Spans, for whoever installs a tracer; without one a span is nothing and costs nothing."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dbos._kernel.scope import Run


class Tracer(Protocol):
    """What a telemetry hook installs."""

    def span(self, name: str, kind: str, run: Run) -> AbstractContextManager[Any]: ...

    def current(self) -> Any: ...


_NOTHING: AbstractContextManager[Any] = nullcontext()
_tracer: Tracer | None = None


def set_tracer(tracer: Tracer | None) -> None:
    """Install a tracer, or take it away."""
    global _tracer  # noqa: PLW0603 - one tracer for the whole process
    _tracer = tracer


def span(name: str, kind: str, run: Run) -> AbstractContextManager[Any]:
    """A span of that name and kind around what happens inside."""
    return _NOTHING if _tracer is None else _tracer.span(name, kind, run)


def current_span() -> Any:
    """The span that this code is in; None without a tracer."""
    return None if _tracer is None else _tracer.current()
