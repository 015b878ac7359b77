"""The notebooks we ship, run in a real kernel: every cell, and again in a new kernel on the database they left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def run(notebook: Path, folder: Path) -> list[str]:
    """What the cells showed, in one text each; an error in any of them is raised."""
    loaded: Any = nbformat.read(notebook, as_version=4)
    NotebookClient(loaded, timeout=60, resources={"metadata": {"path": str(folder)}}).execute()
    return ["".join(map(shown, cell.outputs)) for cell in loaded.cells if cell.cell_type == "code"]


def shown(output: Any) -> str:
    return str(output.text if output.output_type == "stream" else output.data["text/plain"])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_stored_without_outputs(notebook: Path) -> None:
    loaded: Any = nbformat.read(notebook, as_version=4)
    nbformat.validate(loaded)
    assert not any(cell.outputs for cell in loaded.cells if cell.cell_type == "code")


def test_the_quickstart_does_what_it_says(tmp_path: Path) -> None:
    (notebook,) = (file for file in NOTEBOOKS if "quickstart" in file.stem)

    first = "\n".join(run(notebook, tmp_path))
    assert "(5, ['extract north', 'extract south', 'load'])" in first
    assert "failed: 5 is too much" in first
    assert "(4, [])" in first

    second = "\n".join(run(notebook, tmp_path))
    assert "(5, [])" in second, "the second kernel ran what the first had recorded"
