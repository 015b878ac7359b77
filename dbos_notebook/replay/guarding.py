"""The cell that lets runs of before fit: a workflow's source with a guard around what they have not recorded."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from dbos import extension
from dbos_notebook.cells.guard import guarded

if TYPE_CHECKING:
    from dbos_notebook.source import Source


def guard_for(source: Source, workflow: str, workflow_id: str, patch: str = "") -> str | None:
    """The source of a workflow with a guard for what this run misses, called like the step if it is given no name.

    None: the run misses nothing, or where the guard belongs cannot be guessed.
    """
    function = inspect.unwrap(extension.function_of(workflow))
    missing = extension.rehearse(workflow_id, records=source.records).found
    if missing is None:
        return None
    calls = {each for each, thing in function.__globals__.items() if extension.name_of(thing) == missing}
    try:
        return guarded(inspect.getsource(function), calls or {missing, f"{missing}_async"}, patch or missing)
    except OSError:
        return None
