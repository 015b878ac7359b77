"""What is made of cells and runs: one workflow of several cells, a module, a page, a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from IPython.core.error import UsageError

from dbos import DBOS
from dbos_notebook import door
from dbos_notebook.cells.define import starter
from dbos_notebook.commands.targets import Target, id_of
from dbos_notebook.durable.flow import flow as made_flow
from dbos_notebook.durable.recording import known_cells, store
from dbos_notebook.export import worker
from dbos_notebook.export.files import check_free, write
from dbos_notebook.export.module import ExportError
from dbos_notebook.export.notebook import notebook_of
from dbos_notebook.export.report import report_of
from dbos_notebook.views import words
from dbos_notebook.views.handle import text_view
from dbos_notebook.views.view import View

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.source import Source


def flow(name: str | None = None, *cells: str, schedule: str | None = None) -> View:
    """Make the cells under `%%step` one workflow of that name: all of them, or those named. Without a name, list them.

    `schedule` starts it by the clock, as cron writes it.
    """
    if name is None:
        return _listed()
    made, shell = made_flow(name, store().cells, cells, _names()), cast("Any", door.session().shell)
    source = made.source if schedule is None else f"{made.source}\n\n{made.by_the_clock}"
    if not shell.run_cell(source, store_history=False).success:
        raise UsageError(f"{name} could not be defined")
    workflow = shell.user_ns[name]
    workflow.start = starter(workflow, None)
    if schedule is not None:
        fired = shell.user_ns[f"{name}_by_the_clock"]
        DBOS.apply_schedules([{"schedule_name": name, "workflow_fn": fired, "schedule": schedule, "context": None}])
    way = " -> ".join(cell.name for cell in made.cells)
    takes = ", ".join(f"{each}={value!r}" for each, value in made.parameters.items())
    fires = f" It is started by the clock: {schedule}." if schedule is not None else ""
    return text_view(f"{name}: {way}\n{name}({takes}) runs it, {name}.start({takes}) beside this notebook.{fires}")


def export_worker(file: str | Path, *workflows: str, replace: bool = False) -> View:
    """Write the cells that workflows need as a module, which `dbos worker` serves; without names, all of them.

    Its versions are those of this notebook, so a worker may finish the runs that the notebook began.
    """
    path = _path(file)
    text = worker.export_worker(known_cells(), _names(), workflows, path, replace=replace)
    amount = words.count(text.count("@DBOS.workflow"), "workflow")
    where = f" --sys-db-url {door.session().place_as_url}"
    return text_view(
        f"{path.name}: {amount}, {len(text.splitlines())} lines. Serve them: dbos worker {path.name}{where}"
    )


def export_report(target: Target, file: str | Path, *, replace: bool = False, at: Source | None = None) -> View:
    """Write all that is known of a run as one HTML page, without scripts."""
    here, path = at or door.source(), _path(file)
    write(path, report_of(here, id_of(here, target)), replace=replace)
    return text_view(f"{path.name}: {path.stat().st_size / 1000:,.0f} kB. It can be opened and sent as it is.")


def export_notebook(target: Target, file: str | Path, *, replace: bool = False, at: Source | None = None) -> View:
    """Write a run as a notebook: a cell for each step, which runs it again on the inputs it had."""
    here, path = at or door.source(), _path(file)
    if path.suffix != ".ipynb":
        raise ExportError(f"{path.name} is no name for a notebook; give it one that ends with .ipynb")
    text = notebook_of(here, id_of(here, target), known_cells(), _names(), door.session().opening)
    write(path, text, replace=replace)
    return text_view(f"{path.name}: its first cells open the database and define the code.")


def export_run(target: Target, file: str | Path, *, replace: bool = False, at: Source | None = None) -> View:
    """Write a run with its children and all they recorded, as it is stored, for `import_run` on another database."""
    here, path = at or door.source(), _path(file)
    if here.mask:
        raise ExportError("fields are masked here, and the file would hold them: attach without --mask to write it")
    check_free(path, replace=replace)
    counts = here.client.export_workflows(path, [id_of(here, target)])
    amount = words.count(counts.get("workflow", 1), "run")
    return text_view(
        f"{path.name}: {amount}, {path.stat().st_size / 1000:,.0f} kB. It holds all values, as they are stored."
    )


def import_run(
    file: str | Path, *, new_ids: bool = False, resume: bool = False, at: Source | None = None
) -> pd.DataFrame:
    """Write the runs of a file into this database; return those that were not there yet.

    `new_ids` makes copies. What had not ended comes as CANCELLED, or with `resume` goes on here. What it holds is decoded
    only when somebody asks for a value: then pickled values of strangers can run code.
    """
    here, path = at or door.source(), _path(file)
    if not path.is_file():
        raise ExportError(f"there is no file {file}; %dbos export run RUN FILE writes one")
    made = here.client.import_workflows(path, new_ids=new_ids, resume=resume)
    if not made:
        print("Nothing was imported: all of its runs are here already. --new-ids (new_ids=True) makes copies.")  # noqa: T201 - it belongs to the cell
    return here.runs(workflow_ids=made)


def _path(file: str | Path) -> Path:
    return Path(file).expanduser().resolve()


def _names() -> dict[str, Any]:
    shell: Any = door.session().shell
    if shell is None:
        raise UsageError("the extension is not loaded: %load_ext dbos_notebook")
    names: dict[str, Any] = shell.user_ns
    return names


def _listed() -> View:
    cells = store().cells.values()
    if not cells:
        return text_view("There are no step cells yet: %%step NAME above a cell makes it one.")
    width = max(len(cell.name) for cell in cells)
    lines = [
        f"{cell.name.ljust(width)}  gives {', '.join(cell.gives) or 'nothing'}"
        + (f", takes {', '.join(cell.inputs)}" if cell.inputs else "")
        + (f", tried again {words.count(cell.retries, 'time')}" if cell.retries else "")
        for cell in cells
    ]
    return text_view("\n".join([*lines, "%dbos flow NAME makes them one workflow."]))
