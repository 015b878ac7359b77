"""`dbos notebook run`: a notebook as one durable run, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Program = Callable[..., subprocess.CompletedProcess[str]]

CELLS = [
    ("%load_ext dbos_notebook", []),
    ("factor = 3\nday = 'monday'", ["parameters"]),
    ("import os\ndef note(word):\n    with open('ran.txt', 'a') as file:\n        file.write(f'{word}\\n')", []),
    ("%%step raw\nnote('raw')\nraw = [1, 2, 3]", []),
    (("%%step model\nnote('model')\nif os.path.exists('die'):\n    os.kill(os.getpid(), 9)\n"
     "assert not os.path.exists('fail'), 'no luck'\nmodel = sum(raw) * factor"), []),
    ("print(f'model of {day}: {model}')", []),
    ("raise AssertionError('nobody is here to see it')", ["skip-execution"]),
]  # fmt: skip


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Run the notebook of the test; a run that hangs is ended."""
    cells = [
        {"cell_type": "code", "metadata": {"tags": tags}, "source": source, "outputs": [], "execution_count": None, "id": f"c{number}"}
        for number, (source, tags) in enumerate(CELLS)
    ]  # fmt: skip
    (tmp_path / "night.ipynb").write_text(
        json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells})
    )

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dbos", "notebook", "run", *words]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DBOS_")}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env=environment
        )

    return run


def ran(folder: Path) -> list[str]:
    return (folder / "ran.txt").read_text().split()


def test_a_notebook_runs_to_its_end(program: Program, tmp_path: Path) -> None:
    done = program("night.ipynb", "--id", "one", "-p", "factor=10", "-p", "day=tuesday")
    assert done.returncode == 0, done.stderr
    assert "model of tuesday: 60" in done.stdout
    again = program("night.ipynb", "--id", "one")
    assert again.returncode == 0
    assert "ended well already" in again.stderr
    assert ran(tmp_path) == ["raw", "model"]


def test_a_killed_run_goes_on_at_the_first_incomplete_cell(program: Program, tmp_path: Path) -> None:
    (tmp_path / "die").touch()
    assert program("night.ipynb", "--id", "one", "-p", "factor=10").returncode == -9
    (tmp_path / "die").unlink()
    done = program("night.ipynb", "--id", "one")
    assert done.returncode == 0, done.stderr
    assert "raw: from the record" in done.stdout
    assert "model of monday: 60" in done.stdout
    assert ran(tmp_path) == ["raw", "model", "model"]


def test_a_failed_run_goes_on_too(program: Program, tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    failed = program("night.ipynb", "--id", "one")
    assert failed.returncode == 1
    assert "cell 5 failed: AssertionError: no luck" in failed.stderr
    (tmp_path / "fail").unlink()
    assert program("night.ipynb", "--id", "one").returncode == 0
    assert ran(tmp_path) == ["raw", "model", "model"]
    shown = subprocess.run(
        [sys.executable, "-m", "dbos", "workflow", "steps", "one", "-s", f"sqlite:///{tmp_path}/dbos.sqlite", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [step["name"] for step in json.loads(shown.stdout)] == ["raw", "model"]
    assert "no luck" not in shown.stdout


def test_what_cannot_be_is_said(program: Program, tmp_path: Path) -> None:
    wrong = program("night.ipynb", "-p", "speed=1")
    assert wrong.returncode == 2
    assert "no parameter speed; it has: day, factor" in wrong.stderr
    assert program("nowhere.ipynb").returncode == 2
    assert program("night.ipynb", "--id", "one").returncode == 0
    other = program("night.ipynb", "--id", "one", "-p", "factor=4")
    assert other.returncode == 2
    assert "begun with other parameters" in other.stderr
    (tmp_path / "text.ipynb").write_text("no notebook")
    assert "no notebook of version 4" in program("text.ipynb").stderr


def test_a_recorded_cell_that_was_edited_is_named(program: Program, tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    assert program("night.ipynb", "--id", "one").returncode == 1
    (tmp_path / "fail").unlink()
    file = tmp_path / "night.ipynb"
    file.write_text(file.read_text().replace("raw = [1, 2, 3]", "raw = [1, 2, 3, 4]"))

    done = program("night.ipynb", "--id", "one")

    assert done.returncode == 0, done.stderr
    assert "raw: its code changed since it was recorded; another --id runs it as it is now" in done.stderr
    assert "model of monday: 18" in done.stdout
    assert "changed since" not in program("night.ipynb", "--id", "two").stderr
