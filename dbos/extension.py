"""For tools that stand around the runtime, as a notebook does: what they may take part in, and what they may ask.

Install one `Extension` before anything is defined. It is asked for the version of each workflow's code, gives each
run the function to call, and may watch runs and keep notes of them (`DBOS.list_notes`). None of its errors reaches
a run.
"""

from __future__ import annotations

import ast
import hashlib
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dbos._engine import rehearsal, travel
from dbos._engine.handle import Handle
from dbos._engine.registry import NAME_ATTRIBUTE
from dbos._engine.rehearsal import Archive, Rehearsal, is_ours
from dbos._engine.travel import Replayed, Sight, Stop
from dbos._faces.ambient import instance, registry, runtime
from dbos._faces.client import DBOSClient
from dbos._kernel import extension as hooks
from dbos._kernel.codec import Codec, DefaultSerializer, Serializer
from dbos._kernel.extension import Extension, Note, Observed, Observer, installed
from dbos._kernel.model import STEP_WORKFLOW_PREFIX
from dbos._kernel.scope import HERE, Ground
from dbos._kernel.slot import Slot

__all__ = [
    "Extension",
    "Note",
    "Observed",
    "Observer",
    "Place",
    "Records",
    "Rehearsal",
    "Replayed",
    "Sight",
    "Slot",
    "Stop",
    "client",
    "database_url",
    "declared_queues",
    "defined_versions",
    "digest_of",
    "exported",
    "function_of",
    "install",
    "installed",
    "is_defined",
    "is_launched",
    "is_ours",
    "is_pinned",
    "launch_id",
    "name_of",
    "place",
    "rehearse",
    "rehearse_all",
    "replay",
    "review",
    "running",
    "stop_at",
]

logger = logging.getLogger("dbos")

DIGEST_LENGTH = 16


def install(extension: Extension | None) -> None:
    """Have this extension take part from now on, in place of an earlier one; None: nobody.

    While one is installed, definitions replace earlier ones of their name without a word, sync calls may block a
    running event loop, and handles can be awaited: whoever installs it sees to all that.
    """
    hooks.install(extension)
    if extension is not None:
        Handle.__await__ = Handle.as_awaited  # type: ignore[attr-defined]  # it is there only now
    elif "__await__" in vars(Handle):
        del Handle.__await__  # type: ignore[attr-defined]  # as above


class Place(NamedTuple):
    """Where code is: in which workflow, in which of its steps (None: in its body), and after how many of them."""

    workflow_id: str
    step_id: int | None
    steps_taken: int


def place() -> Place | None:
    """Where the caller is; None outside of workflows. Cheap: asked for every line that is printed."""
    here = HERE.get()
    if here is None or here.run is None:
        return None
    if here.ground.is_rehearsal:
        return Place("", None, 0)
    return Place(here.run.workflow_id, None if here.step is None else here.step.step_id, here.run.steps_taken)


def review() -> list[str]:
    """Ask the extension for all versions again, because helpers may have changed; the names of what changed."""
    return [spec.name for spec in registry.review()]


def defined_versions() -> dict[str, str | None]:
    """The names of the workflows that are defined here, each with the version of its code."""
    return {name: spec.version for name, spec in dict(registry.workflows).items() if not _hidden(name)}


def function_of(name: str) -> Callable[..., Any]:
    """The function that is defined as this workflow. Raises DBOSWorkflowFunctionNotFoundError if there is none."""
    return registry.workflow(name).fn


def declared_queues() -> dict[str, tuple[Any, ...]]:
    """The queues that code declares here: concurrency, worker concurrency, limit, period, priority, partitioned."""
    found: dict[str, tuple[Any, ...]] = {}
    for name, spec in dict(registry.queues).items():
        limits = spec.whole if spec.each is None else spec.each
        rate = (None, None) if limits.rate is None else (limits.rate.limit, limits.rate.period_ms / 1000)
        places = (limits.concurrency, limits.worker_concurrency)
        found[name] = (*places, *rate, spec.priority_enabled, spec.each is not None)
    return found


def is_defined(name: str, version: str | None) -> bool:
    """Whether work of this name and version finds its code in this process."""
    if name not in registry.workflows:
        return False
    made = instance()
    served = () if made is None or made.launched is None else made.launched.runtime.versions()
    return version is None or version in served


def is_launched() -> bool:
    """Whether there is a runtime."""
    made = instance()
    return made is not None and made.launched is not None


def launch_id() -> str | None:
    """What no other launch has, in this process or another; None while there is no runtime."""
    made = instance()
    return None if made is None or made.launched is None else made.launched.runtime.owner_id


def database_url() -> str | None:
    """The database of the runtime that is launched, with its password: for opening it, and not for showing."""
    made = instance()
    if made is None or made.launched is None:
        return None
    return made.config.system_url.render_as_string(hide_password=False)


def client() -> DBOSClient:
    """A client of the database of the runtime that is launched, however that was configured."""
    runtime()  # raises where there is none
    made = instance()
    assert made is not None
    config = made.config
    place: dict[str, Any] = (
        {"system_database_url": database_url()} if config.engine is None else {"system_database_engine": config.engine}
    )
    return DBOSClient(**place, dbos_system_schema=config.schema, serializer=config.serializer)


def is_pinned() -> bool:
    """Whether the configuration says what version all code has, because it does or because it is changed by patches."""
    made = instance()
    return made is not None and made.config.version is not None


class Records(NamedTuple):
    """Whose records are played: those of a client's database, or with None those of the runtime that is launched."""

    client: DBOSClient | None = None
    #: How pickles are read that the codec of that place cannot read, such as one of a class that is not here.
    unpickle: Callable[[str], Any] | None = None

    def archive(self) -> Archive:
        """Where they are read from, with the code that is defined here."""
        if self.client is not None:
            self.client.check_connection()
        return Archive(self._ground, registry, self._codec)

    def value(self, text: str, serialization: str | None, slot: Slot) -> Any:
        """The value that is stored so and there, which may run code; raises what that raises."""
        return self._codec.decode(text, serialization, slot)

    def error(self, text: str, serialization: str | None, slot: Slot) -> BaseException:
        """The error that is stored so; see `value`."""
        return self._codec.decode_error(text, serialization, slot)

    @property
    def _ground(self) -> Ground:
        return runtime() if self.client is None else self.client._ground  # noqa: SLF001 - hidden from programs only

    @property
    def _codec(self) -> Codec:
        own = self._ground.codec
        if self.unpickle is None or not isinstance(own.default, DefaultSerializer):
            return own
        return Codec(_Lenient(own.default, self.unpickle))


class _Lenient(Serializer):
    """A serializer of pickles that reads in another way what it cannot read."""

    def __init__(self, own: Serializer, unpickle: Callable[[str], Any]) -> None:
        self._own, self._unpickle = own, unpickle

    def serialize(self, data: Any) -> str:
        return self._own.serialize(data)

    def deserialize(self, serialized_data: str) -> Any:
        try:
            return self._own.deserialize(serialized_data)
        except Exception:  # noqa: BLE001 - whatever a class that is not here makes of it
            return self._unpickle(serialized_data)

    def name(self) -> str:
        return self._own.name()


HERE_AND_NOW = Records()


def rehearse(
    workflow_id: str,
    code: Callable[..., Any] | None = None,
    records: Records = HERE_AND_NOW,
    *,
    before: int | None = None,
    outputs: Mapping[int, Any] | None = None,
) -> Rehearsal:
    """Say whether a workflow's code, as it is now or as given, fits what it has recorded. Runs no step, writes no row.

    `before` and `outputs` are those of a fork: only the steps before one, and what some of them shall have returned.
    Raises DBOSWorkflowFunctionNotFoundError where its code is not here, and DBOSNonExistentWorkflowError for an unknown id.
    """
    return rehearsal.rehearse(records.archive(), workflow_id, code, before=before, outputs=outputs)


def rehearse_all(workflow_ids: list[str], records: Records = HERE_AND_NOW) -> list[Rehearsal]:
    """Rehearse many workflows with the code as it is now. What cannot be rehearsed has that for its difference."""
    return rehearsal.rehearse_all(records.archive(), list(workflow_ids))


def stop_at(workflow_id: str, step_id: int, records: Records = HERE_AND_NOW) -> Stop:
    """Play a workflow on its record up to the call of a step, recorded or next: its arguments, and all variables there.

    Runs no step, writes no row. The code is that of the workflow's version, if that is here. Raises DBOSException where
    the step cannot be reached, and says why.
    """
    return travel.travel(records.archive(), workflow_id, step_id)


def replay(workflow_id: str, records: Records = HERE_AND_NOW) -> Replayed:
    """Play a workflow on all that it has recorded: what its code raises, and by which step. As `stop_at` otherwise."""
    return travel.replayed(records.archive(), workflow_id)


def running() -> list[str]:
    """The ids of the workflows that run in this process now."""
    made = instance()
    return [] if made is None or made.launched is None else list(made.launched.runtime.runs)


def name_of(fn: object) -> str | None:
    """The name that a decorated function is recorded under; None for any other."""
    return getattr(fn, NAME_ATTRIBUTE, None)


def digest_of(source: str) -> str:
    """What tells the code of a module from other code, whatever its comments; without the call of `exported`."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if "exported" not in ast.unparse(node).partition("(")[0]]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:DIGEST_LENGTH]


def exported(module: str, digest: str, versions: Mapping[str, str]) -> None:
    """Called at the end of a module that was written from a notebook, whose runs it goes on with.

    Its workflows have the versions that they had there, unless it was edited: then it is a version of its own. What the
    runs hold of its classes names them as the notebook's, `__main__`, and so does what it stores itself.
    """
    made, main = sys.modules[module], sys.modules["__main__"]
    for name, value in vars(made).items():
        if isinstance(value, type) and value.__module__ == module:
            value.__module__ = "__main__"
            if not hasattr(main, name):
                setattr(main, name, value)
    if digest_of(Path(made.__file__ or "").read_text("utf-8")) != digest:
        logger.warning(
            "%s was edited since it was written from its notebook: its workflows have another version", module
        )
        return
    for name, version in versions.items():
        registry.pin(name, version)


def _hidden(name: str) -> bool:
    return name.startswith(STEP_WORKFLOW_PREFIX)
