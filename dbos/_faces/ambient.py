"""The one runtime of this process, and where the caller is in it.

`DBOS` is a singleton to its users. Nothing below the faces knows that: there, a runtime is a value.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from dbos._engine.registry import Registry
from dbos._kernel.clock import Clock
from dbos._kernel.extension import installed
from dbos._kernel.forks import farewell_of_fork, keep_for_ever
from dbos._kernel.scope import HERE
from dbos.error import DBOSException

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbos._engine.launch import Launched
    from dbos._engine.runtime import Runtime
    from dbos._faces.config import Config
    from dbos._kernel.scope import Here

# Decorators fill it before there is an instance, and it survives the instance.
registry = Registry()


class Instance:
    """What `DBOS(config=...)` made: the object it returns, a configuration, and the runtime once it is launched."""

    def __init__(self, face: object, config: Config) -> None:
        self.face, self.config = face, config
        self.launched: Launched | None = None
        #: What else is to be ended with it.
        self.farewells: list[Callable[[], None]] = []

    def say_farewell(self) -> None:
        while self.farewells:
            self.farewells.pop()()


# By database, as long as somebody holds a handle of theirs.
_runtimes: WeakValueDictionary[tuple[str, str], Runtime] = WeakValueDictionary()
_instance: Instance | None = None
# In the child of a fork, until it makes an instance of its own.
_is_forked = False


def instance() -> Instance | None:
    return _instance


def take_over_handles(made: Instance) -> None:
    """Handles of a runtime that has ended go on with the one that was launched on its database."""
    assert made.launched is not None
    place = made.config.system_url.render_as_string(hide_password=False), made.config.schema
    before, now = _runtimes.get(place), made.launched.runtime
    if before is not None:
        before.successor = now
    _runtimes[place] = now


def set_instance(new: Instance | None) -> None:
    global _instance, _is_forked  # noqa: PLW0603 - the one place that holds it
    if _is_forked and new is not None:
        HERE.set(None)  # forked in a workflow: that one goes on in the parent
        _is_forked = False
    _instance = new


def _after_fork() -> None:
    """In the child there is no runtime: the one that was launched is the parent's."""
    global _instance, _is_forked
    if _instance is not None and _instance.launched is not None:
        keep_for_ever(_instance)
        _instance, _is_forked = None, True


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)


_clock: Clock | None = None


def clock() -> Clock:
    """The clock of the next launch."""
    return _clock or Clock()


def set_clock(new: Clock | None) -> None:
    global _clock  # noqa: PLW0603 - for tests; the one place that holds it
    _clock = new


def present_clock() -> Clock:
    """The clock of the launched runtime; before there is one, that of the next."""
    return clock() if _instance is None or _instance.launched is None else _instance.launched.runtime.clock


def runtime_for(name: str) -> Runtime:
    """The launched runtime, to call the function of that name."""
    _want()
    if _instance is None:
        raise DBOSException(
            f"Function {name} invoked before DBOS initialized. Create DBOS(config=...) and launch it first."
        )
    return _launched(_instance)


def runtime() -> Runtime:
    """The launched runtime."""
    _want()
    if _instance is None:
        raise not_created()
    return _launched(_instance)


def not_created() -> BaseException:
    """The error that there is no instance; in the child of a fork it says why."""
    return (
        farewell_of_fork(False)
        if _is_forked
        else DBOSException("No DBOS was created yet. Create DBOS(config=...) and launch it first.")
    )


def here() -> Here:
    """Where the caller is: in a workflow or step, or outside."""
    return HERE.get() or runtime().here


def patching_here() -> Here:
    """Where the caller is, for code that is changed by patches: without the setting no old workflow would meet it."""
    # Where versions of single workflows are told apart, a guarded workflow is a version that old runs can be moved to.
    is_one_version = installed() is None
    if _instance is not None and is_one_version and not _instance.config.given.get("enable_patching"):
        raise DBOSException("enable_patching must be True in DBOS configuration")
    return here()


def _want() -> None:
    if _is_forked:
        raise farewell_of_fork(False)
    extension = installed()
    if extension is not None and (_instance is None or _instance.launched is None):
        extension.wanted()


def _launched(made: Instance) -> Runtime:
    if made.launched is None:
        raise DBOSException("System database accessed before DBOS was launched. Call DBOS.launch() first.")
    return made.launched.runtime
