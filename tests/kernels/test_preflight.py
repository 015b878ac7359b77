"""A fork with edited code is checked first: whether the code fits what is kept, and what becomes of children."""

from __future__ import annotations

import pytest

from tests.kernels.driver import Kernel

NIGHT = """
@DBOS.workflow()
def part(n):
    return n

@DBOS.step()
def load():
    return [1, 2]

@DBOS.step()
def clean(rows):
    return rows

@DBOS.step()
def fit(rows):
    if len(rows) < 3:
        raise ValueError("no rows")
    return sum(rows)

@DBOS.workflow()
def nightly():
    rows = load()
    first = part(1)
    rows = clean(rows)
    result = fit(rows)
    return result + part(2)
"""


@pytest.fixture
def failed(notebook: Kernel) -> Kernel:
    notebook.run(NIGHT)
    notebook.attempt("with SetWorkflowID('night'):\n    nightly()")
    return notebook


def test_code_that_fits_is_forked_and_says_what_is_kept(failed: Kernel) -> None:
    said = failed.run("%dbos fork night --dry-run").result or ""
    assert "3 steps of night kept" in said or "4 steps of night kept" in said
    assert "child runs kept: 1, run again: 0" in said
    assert "kept" in said
    assert "part" in said
    assert failed.run("len(DBOS.list_workflows(forked_from='night'))").result == "0", "it was a dry run"
    failed.run(NIGHT.replace("< 3", "< 2"))
    cell = failed.run("run = %dbos fork night")
    assert "preflight" in cell.text
    assert failed.run("DBOS.retrieve_workflow(run.workflow_id).get_result()").result == "5"


def test_code_that_does_not_fit_is_not_forked(failed: Kernel) -> None:
    failed.run(
        NIGHT.replace("    first = part(1)\n    rows = clean(rows)", "    rows = clean(rows)\n    first = part(1)")
    )
    refused = failed.attempt("%dbos fork night --from fit").stderr
    assert "does not fit what is kept" in refused
    assert "'clean'" in refused
    assert "--force" in refused
    assert failed.run("len(DBOS.list_workflows(forked_from='night'))").result == "0"
    assert "run again: 1" in (failed.run("%dbos fork night --from 2 --dry-run").result or "")
    failed.run("run = %dbos fork night --from fit --force")
    assert failed.run("len(DBOS.list_workflows(forked_from='night'))").result == "1"


def test_replaced_outputs_are_played(failed: Kernel) -> None:
    failed.run(
        NIGHT.replace("    rows = clean(rows)\n", "    rows = clean(rows)\n    if len(rows) > 5:\n        load()\n")
    )
    failed.run("many = list(range(9))")
    number = failed.run(
        "[s['function_id'] for s in DBOS.list_workflow_steps('night') if s['function_name'] == 'clean'][0]"
    ).result
    said = failed.run(f"%dbos fork night --set {number}=many --dry-run").result or ""
    assert f"replaced: what step {number} returned" in said
    assert "fits" in said


def test_what_is_not_defined_here_is_not_checked(failed: Kernel) -> None:
    failed.restart()
    failed.run("%load_ext dbos_notebook")
    assert "not checked: nightly is not defined here" in (failed.run("%dbos fork night --dry-run").result or "")
