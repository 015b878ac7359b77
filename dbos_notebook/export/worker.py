"""A module that serves a notebook's workflows: `dbos worker FILE` goes on with the runs that the notebook began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dbos import extension
from dbos_notebook.cells.code import Cells
from dbos_notebook.export.files import write
from dbos_notebook.export.module import ExportError, module_of

# The last lines of what is written; a file without them is somebody else's.
MARK = "from dbos.extension import exported"


def worker_source(cells: Cells, names: Mapping[str, Any], workflows: Sequence[str], file: str) -> str:
    """The text of the module. It says which versions its code has, as long as nobody edits it."""
    versions = extension.defined_versions()
    unknown = [each for each in workflows if each not in versions]
    if unknown:
        known = ", ".join(each for each in versions if "." not in each) or "none"
        raise ExportError(f"there is no workflow {', '.join(unknown)} here; there are: {known}")
    docstring = f"Workflows of a notebook, written from its cells. Serve them: dbos worker {file}"
    text = module_of(cells, names, workflows).text(docstring)
    served = {name: versions[name] for name in workflows if versions[name] is not None}
    call = f"exported(__name__, {extension.digest_of(text)!r}, {served!r})"
    why = "# As exported, this is the code that the notebook's runs began with; edited, it is a version of its own."
    return f"{text}\n\n{why}\n{MARK}  # noqa: E402\n\n{call}\n"


def export_worker(
    cells: Cells, names: Mapping[str, Any], workflows: Sequence[str], file: Path, *, replace: bool
) -> str:
    """Write it to a file, and return its text."""
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise ExportError(f"{file.name} cannot be imported; give it a name such as worker.py")
    chosen = list(workflows) or [
        name for name in extension.defined_versions() if extension.function_of(name).__module__ == "__main__"
        and not extension.function_of(name).__name__.startswith("_cell_")
    ]  # fmt: skip
    if not chosen:
        raise ExportError("there is no workflow in this notebook yet")
    text = worker_source(cells, names, chosen, file.name)
    write(file, text, replace=replace or (file.exists() and MARK in file.read_text("utf-8", "replace")))
    return text
