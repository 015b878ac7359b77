"""What a tool around the runtime takes part in. One is installed for a whole process; without one nothing is asked.

A notebook is such a tool: it knows the source of cells, keeps what steps print, and stores previews of values, so
that whoever looks at a run later need not unpickle anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

logger = logging.getLogger("dbos")


class Note(NamedTuple):
    """What is kept beside a step; beside the workflow itself where the step id is 0."""

    step_id: int
    kind: str
    text: str


class Observer:
    """Watches one run of a workflow. What it notes is written together with the run's own records."""

    def attempt(self, step_id: int, name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        """The function of a step as it is called, once for each attempt; of the same colour."""
        return fn

    def step_notes(self, step_id: int, value: Any, error: BaseException | None) -> Iterable[Note]:
        """What to keep of the run until now, when a step has come to this."""
        return ()

    def last_notes(self, value: Any, error: BaseException | None) -> Iterable[Note]:
        """What to keep when the workflow has come to this."""
        return ()

    def interrupted(self, interrupt: BaseException) -> None:
        """The run was stopped from outside, by KeyboardInterrupt or a cancelled task. Its row is still PENDING."""

    def left(self) -> None:
        """The run is over, in whatever way."""


class Extension:
    """Takes part in what is defined and what is run. Override what is of interest."""

    def version(self, name: str, fn: Callable[..., Any]) -> str | None:
        """The version of a workflow's code as it is now; None: the application's.

        Asked when it is defined and at each `review`. Work of an earlier version goes on with the earlier function, as
        long as this process lives; what no process has the code of waits.
        """
        return None

    def earlier_code(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """An earlier function as it is to be called from now on, when another has its name."""
        return fn

    def code(self, fn: Callable[..., Any], version: str | None) -> Callable[..., Any]:
        """The function as a run calls it to its end, whatever is defined meanwhile."""
        return fn

    def wanted(self) -> None:
        """A runtime is asked for and there is none: launch one, or leave it at the error that follows."""

    def waits(self, workflow_id: str) -> AbstractContextManager[Any]:
        """Somebody awaits the handle of a workflow, and can be shown how far it is."""
        return nullcontext()

    def observe(self, run: Observed) -> Observer | None:
        """A run begins."""
        return None


class Observed(NamedTuple):
    """A run that begins."""

    workflow_id: str
    name: str
    version: str | None
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    is_recovered: bool
    #: Keeps notes now, while the run goes on; in any thread but that of an event loop.
    write: Callable[[Iterable[Note]], None]


class _Watched(Protocol):
    observer: Observer | None
    workflow_id: str


_installed: Extension | None = None


def install(extension: Extension | None) -> None:
    """Have this extension take part from now on, in place of an earlier one; None: nobody. See `dbos.extension`."""
    global _installed  # noqa: PLW0603 - one for the whole process
    _installed = extension


def installed() -> Extension | None:
    """The extension of this process."""
    return _installed


def notes_of(run: _Watched, ask: Callable[[Observer], Iterable[Note]]) -> list[Note]:
    """What the observer of a run notes. Its errors are its own: they never touch the run."""
    if run.observer is None:
        return []
    try:
        return list(ask(run.observer))
    except Exception:
        logger.exception("Nothing could be noted of workflow %s", run.workflow_id)
        return []


def guarded(what: str, act: Callable[[], Any], otherwise: Any = None) -> Any:
    """Do what an extension does; its errors are its own."""
    try:
        return act()
    except Exception:
        logger.exception("%s failed", what)
        return otherwise
