"""The past of runs whose code was written in cells, and written anew since."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell

from dbos import SetWorkflowID, extension
from dbos_notebook import door
from dbos_notebook.cells.code import Cells
from dbos_notebook.cells.observer import CellExtension
from tests.notebook.shells import line, shell  # noqa: F401 - a fixture

STEPS = """
from dbos import DBOS

@DBOS.step()
def clean(rows):
    return sorted(rows)

@DBOS.step()
def score(rows):
    return len(rows)
"""
FIRST = """
@DBOS.workflow()
def nightly(day):
    kept = clean([2, 1])
    return score(kept)
"""
SECOND = """
@DBOS.workflow()
def nightly(day):
    total = score([3])
    kept = clean([2, 1])
    return score(kept) + total
"""
MENDED = """
@DBOS.step()
def clean(rows):
    return sorted(rows, reverse=True)
"""


@pytest.fixture
def cells(shell: InteractiveShell) -> Iterator[InteractiveShell]:  # noqa: F811 - the fixture
    """A run "a" of the first code, and "b" of the second."""
    known = Cells(shell.user_ns)
    extension.install(CellExtension(known, lambda: None))
    door.session().launch()
    for cell, workflow_id in ((STEPS + FIRST, "a"), (SECOND, "b")):
        define(shell, known, cell)
        with SetWorkflowID(workflow_id):
            shell.user_ns["nightly"]("monday")
    yield shell
    extension.install(None)


def define(shell: InteractiveShell, known: Cells, cell: str) -> None:  # noqa: F811 - the fixture
    known.begin(cell)
    shell.run_cell(cell).raise_error()
    extension.review()


def test_a_run_is_seen_in_the_code_that_it_ran(cells: InteractiveShell) -> None:
    then, later = line(cells, "at a 2"), line(cells, "at b 3")

    assert ("score", [1, 2]) == (then.name, then.locals["kept"])
    assert ">     return score(kept)" in then.source
    assert "total" not in then.source
    assert 1 == later.locals["total"]
    assert ">     return score(kept) + total" in later.source


def test_the_check_is_of_the_newest_code(cells: InteractiveShell) -> None:
    found = line(cells, "check nightly")

    assert {"a": False, "b": True} == found.frame["fits"].to_dict()
    assert "step 1 is 'score', where 'clean' is recorded" == found.groups[0].difference


def test_the_code_of_two_runs_is_told_apart(cells: InteractiveShell) -> None:
    found = line(cells, "diff a b")

    assert "-    return score(kept)" in found.code.splitlines()
    assert "+    total = score([3])" in found.code.splitlines()
    assert [(None, 1), (1, 2), (2, 3)] == [
        tuple(None if each is None or each != each else int(each) for each in row)
        for row in found.frame[["first", "second"]]
        .astype(object)
        .where(found.frame[["first", "second"]].notna(), None)
        .to_numpy()
    ]


def test_a_step_that_was_mended_is_told(cells: InteractiveShell) -> None:
    define(cells, Cells(cells.user_ns), MENDED)
    with SetWorkflowID("c"):
        cells.user_ns["nightly"]("monday")

    found = line(cells, "diff b c")

    assert "output differs; code differs" == found.frame["what"].iloc[1]
    assert "-    return sorted(rows)" in found.code.splitlines()
