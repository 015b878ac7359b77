"""What becomes of cells: one workflow of several."""

from __future__ import annotations

from typing import Any

from IPython.core.error import UsageError

from dbos import DBOS
from dbos_notebook import door
from dbos_notebook.cells.define import starter
from dbos_notebook.durable.flow import flow as made_flow
from dbos_notebook.durable.recording import store
from dbos_notebook.views import words
from dbos_notebook.views.handle import text_view
from dbos_notebook.views.view import View


def flow(name: str | None = None, *cells: str, schedule: str | None = None) -> View:
    """Make the cells under `%%step` one workflow of that name: all of them, or those named. Without a name, list them.

    `schedule` starts it by the clock, as cron writes it.
    """
    if name is None:
        return _listed()
    shell: Any = door.session().shell
    if shell is None:
        raise UsageError("the extension is not loaded: %load_ext dbos_notebook")
    made = made_flow(name, store().cells, cells, shell.user_ns)
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
