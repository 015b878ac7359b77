"""Which runs are meant: an id, the beginning of one, a handle, a status, a frame of runs, or several of these."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbos_notebook.source import Source

# A str | WorkflowHandle | WorkflowHandleAsync | WorkflowStatus | DataFrame of runs | iterable of these.
Target = Any


def ids_of(at: Source, *targets: Target) -> list[str]:
    """The ids of the runs that are meant, each once. Raises LookupError for one that is not there."""
    return list(dict.fromkeys(each for target in targets for each in _ids(at, target)))


def id_of(at: Source, target: Target) -> str:
    """The id of the one run that is meant."""
    found = ids_of(at, target)
    if len(found) != 1:
        raise ValueError(f"one run is meant here, not {len(found)}")
    return found[0]


def _ids(at: Source, target: Target) -> Iterable[str]:
    if isinstance(target, str):
        return [at.run(target).workflow_id]
    workflow_id = getattr(target, "workflow_id", None)
    if isinstance(workflow_id, str):
        return [workflow_id]
    index = getattr(target, "index", None)
    if index is not None and not callable(index):
        # A frame of runs, of steps, or of what belongs to runs; a column of ids has no name of its own.
        level = "workflow_id" if "workflow_id" in index.names else None
        if level is not None:
            return [str(each) for each in index.get_level_values(level)]
        return [str(each) for each in (target["workflow_id"] if hasattr(target, "columns") else target)]
    if isinstance(target, Iterable):
        return [each for member in target for each in _ids(at, member)]
    raise TypeError(f"a run is named by its id or its handle, not by {type(target).__name__}")
