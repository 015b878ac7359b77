"""A run as a notebook: its code, and one cell for each step that loads what the step was given and runs it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dbos import extension
from dbos_notebook.cells.code import Cells
from dbos_notebook.export.module import ExportError, module_of
from dbos_notebook.views import words
from dbos_notebook.views.code import source_text
from dbos_notebook.views.html import line

if TYPE_CHECKING:
    from dbos_notebook.source import Source

# More cells than anybody reads; the rest is a loop away.
MOST_STEPS = 200


def notebook_of(source: Source, workflow_id: str, cells: Cells, names: Mapping[str, Any], launch: str) -> str:
    """The file's text. `launch` is the line that opens the run's database."""
    run = source.runs(workflow_ids=[workflow_id])
    row = run.iloc[0]
    name = words.text(row["name"])
    steps = source.steps(workflow_id)
    made = [
        _text(f"# {line(name, 120)} `{line(workflow_id, 200)}`\n\n{words.text(row['status'])}, "
              f"{words.moment(row['created'])}, {words.count(len(steps), 'step')}. "
              "Each cell below has the inputs that its step had in this run, and runs the step's function on them here: "
              "nothing is recorded."),
        _code(f"%load_ext dbos_notebook\nimport dbos_notebook\n{launch}\nRUN = {workflow_id!r}"),
        _code(_definitions(source, workflow_id, name, cells, names)),
    ]  # fmt: skip
    for number, (_, step) in zip(steps.index.get_level_values("step"), steps.head(MOST_STEPS).iterrows(), strict=False):
        made.append(_code(_step(int(number), step)))
    if len(steps) > MOST_STEPS:
        made.append(
            _text(f"... and {len(steps) - MOST_STEPS:,} more steps: `dbos_notebook.at(RUN, number)` opens any of them.")
        )
    document = {
        "cells": [{**cell, "id": f"cell-{number}"} for number, cell in enumerate(made)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _definitions(source: Source, workflow_id: str, name: str, cells: Cells, names: Mapping[str, Any]) -> str:
    """The code of the run: as it is here, or as it was kept."""
    try:
        if name in extension.defined_versions():
            return module_of(cells, names, [name]).text(f"The code of {name} as it is now.")
    except ExportError:
        pass  # what was kept is better than nothing
    kept = source_text(source, workflow_id)
    if kept is None:
        return f"# The code of {name} was not kept: define the workflow and its steps here."
    return f"# The code that the run ran. Import what it needs first.\nfrom dbos import DBOS\n\n{kept}"


def _step(number: int, step: Any) -> str:
    name = line(words.text(step["name"]), 120)
    took = words.duration(words.seconds_of(step["duration"]))
    said = line(words.text(step["error"]).strip().rpartition("\n")[2] or words.text(step["output"]), 200)
    head = f"# {number} {name}: {words.text(step['status'])} {took}\n# it came to: {said}\n"
    if words.text(step["child"]):
        return f"{head}dbos_notebook.show({words.text(step['child'])!r})"
    if name.startswith("DBOS."):
        return f"{head}dbos_notebook.value(RUN, {number})"
    return f"{head}step_{number} = dbos_notebook.at(RUN, {number})\nstep_{number}.call()"


def _code(source: str) -> dict[str, Any]:
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}


def _text(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}
