"""Papermill runs notebooks as jobs: with parameters, and it must come back."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

from tests.notebooks.tool import NOTEBOOKS, texts

CELLS = [
    "day = 'none'",
    "%load_ext dbos_notebook\nfrom dbos import DBOS",
    "%%workflow\ndef load(day):\n    print('loading', day)\n    return len(day)\n\ndef nightly(day):\n    return load(day)",
    "handle = DBOS.start_workflow(nightly, day)\n%dbos wait handle",
    "handle.get_result()",
    "handle",
    "%dbos",
]


def run(file: Path, folder: Path, **parameters: Any) -> Any:
    made = folder / f"made-{file.name}"
    papermill.execute_notebook(str(file), str(made), parameters, progress_bar=False, cwd=str(folder))
    return nbformat.read(made, 4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # papermill's own
def test_a_job_has_its_parameters_and_ends(tmp_path: Path) -> None:
    written = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in CELLS])
    written.cells[0].metadata["tags"] = ["parameters"]
    written.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(written, tmp_path / "job.ipynb")
    before = threading.active_count()

    made = run(tmp_path / "job.ipynb", tmp_path, day="monday")

    told = "\n".join(texts(made))
    assert "1 of 1 run" in told
    assert "6" in told
    assert "loading monday" in told
    assert "stderr" not in {output.get("name") for cell in made.cells for output in cell.get("outputs", [])}
    assert threading.active_count() <= before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # papermill's own
def test_a_tutorial_is_a_job(tmp_path: Path) -> None:
    (quickstart,) = (file for file in NOTEBOOKS if "quickstart" in file.stem)

    told = "\n".join(texts(run(quickstart, tmp_path)))

    assert "(5, ['extract north', 'extract south', 'load'])" in told
