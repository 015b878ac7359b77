"""Running and publishing the notebooks we ship.

`python -m tests.notebooks.tool` executes all of them (or those named) and stores them with their outputs, without
what differs from machine to machine: times of execution, the versions of kernels, the state of widgets.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def read(notebook: Path) -> Any:
    return nbformat.read(notebook, as_version=4)


def execute(loaded: Any, folder: Path) -> Any:
    """Run all cells in a kernel of its own, in that folder; the first error is raised."""
    NotebookClient(
        loaded,
        timeout=60,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    return loaded


def cleaned(loaded: Any) -> Any:
    """The notebook as it is published."""
    loaded.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in loaded.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        for output in getattr(cell, "outputs", []):
            output.pop("transient", None)
    return loaded


def texts(loaded: Any) -> list[str]:
    """What each code cell showed, as text."""
    return ["".join(map(_text, cell.outputs)) for cell in loaded.cells if cell.cell_type == "code"]


def _text(output: Any) -> str:
    return str(output.text if output.output_type == "stream" else output.get("data", {}).get("text/plain", ""))


def publish(names: list[str]) -> None:
    for notebook in NOTEBOOKS:
        if names and not any(name in notebook.stem for name in names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(cleaned(execute(read(notebook), Path(folder))), notebook)
        print(f"{notebook.name}: {notebook.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    publish(sys.argv[1:])
