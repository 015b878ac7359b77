"""The notebooks we ship, run in a real kernel: every cell, and what is stored of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.kernels.driver import Kernel
from tests.notebooks.tool import NOTEBOOKS, cleaned, execute, read, texts

MOST_BYTES = 200_000


def named(word: str) -> Path:
    (found,) = (file for file in NOTEBOOKS if word in file.stem)
    return found


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook: Path, tmp_path: Path) -> None:
    """And shows what is stored of it, cell by cell: as much, in the same order."""
    before = read(notebook)
    after = cleaned(execute(read(notebook), tmp_path))

    assert [len(each.outputs) for each in code_cells(before)] == [len(each.outputs) for each in code_cells(after)]
    assert not any(output.get("name") == "stderr" for cell in code_cells(after) for output in cell.outputs)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_what_is_stored_is_small_and_clean(notebook: Path) -> None:
    loaded = read(notebook)
    nbformat.validate(loaded)
    text = notebook.read_text()

    assert notebook.stat().st_size < MOST_BYTES
    assert "widgets" not in loaded.metadata
    assert not any(output.output_type == "error" for cell in code_cells(loaded) for output in cell.outputs)
    assert not re.search(r"/(tmp|home|root|Users|var|opt)/", text)
    assert "<script" not in json.dumps([output for cell in code_cells(loaded) for output in cell.outputs])
    assert any(cell.outputs for cell in code_cells(loaded))
    # Cells are known by their place, so that a change of one is a change of one.
    assert [f"cell-{number:02d}" for number in range(1, len(loaded.cells) + 1)] == [cell.id for cell in loaded.cells]


def code_cells(loaded: Any) -> list[Any]:
    return [cell for cell in loaded.cells if cell.cell_type == "code"]


def test_the_quickstart_does_what_it_says(tmp_path: Path) -> None:
    first = "\n".join(texts(execute(read(named("quickstart")), tmp_path)))
    assert "(5, ['extract north', 'extract south', 'load'])" in first
    assert "5 is too much" in first
    assert "(4, ['check'])" in first

    second = "\n".join(texts(execute(read(named("quickstart")), tmp_path)))
    assert "(5, [])" in second, "the second kernel ran what the first had recorded"


def test_the_crash_lab_with_the_crash(kernel: Kernel, tmp_path: Path) -> None:
    """A person does what it says: runs the cell that kills, restarts, and runs the cells above again."""
    cells = code_cells(read(named("crash_lab")))
    (deadly,) = (number for number, cell in enumerate(cells) if "skip-execution" in cell.metadata.get("tags", []))
    for cell in cells[:deadly]:
        kernel.run(cell.source)
    kernel.start(cells[deadly].source)
    kernel.wait_dead()
    kernel.revive()

    told = "".join(kernel.run(cell.source).text for cell in cells[:deadly])
    rest = [kernel.run(cell.source) for cell in cells[deadly + 1 :]]

    assert "waits for code: nightly crash-lab. " in told
    assert "'published 2.0'" == rest[0].result
    assert ["extract", "fit", "fit", "publish"] == rest[-1].stdout.split()
