"""`%dbos check`: which runs fit the code as it is now, and where a patch would stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from dbos import DBOS, SetWorkflowID
from dbos_notebook import door
from dbos_notebook.replay.check import fits
from tests.notebook.shells import line, shell  # noqa: F401 - a fixture


class Night:
    """A workflow whose code changes between its runs."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.steps = {name: DBOS.step(name=name)(self._step(name)) for name in ("load", "clean", "fit", "normalise")}
        door.session().launch()

    def _step(self, name: str) -> Callable[[], str]:
        def step() -> str:
            self.ran.append(name)
            return name

        return step

    def define(self, *names: str) -> Callable[[], Any]:
        # A new definition replaces the earlier one; outside of a notebook that is told in the log.
        @DBOS.workflow(name="nightly")
        def nightly() -> None:
            for name in names:
                self.steps[name]()

        return nightly

    def run(self, workflow: Callable[[], Any], *ids: str) -> None:
        for workflow_id in ids:
            with SetWorkflowID(workflow_id):
                workflow()
        self.ran.clear()


@pytest.fixture
def night(shell: InteractiveShell) -> Night:  # noqa: F811 - the fixture
    return Night()


def test_runs_that_fit_and_runs_that_do_not(night: Night, shell: InteractiveShell) -> None:  # noqa: F811
    night.run(night.define("load", "clean", "fit"), "old-1", "old-2")
    night.run(night.define("load", "normalise", "clean", "fit"), "new-1")

    found = line(shell, "check nightly")

    assert not found.fits
    assert {"old-1": False, "old-2": False, "new-1": True} == found.frame["fits"].to_dict()
    (group,) = found.groups
    assert "step 2 is 'normalise', where 'clean' is recorded" == group.difference
    assert 'call normalise in new runs only: if DBOS.patch("normalise"): ...' == group.suggestion
    assert {"old-1", "old-2"} == set(group.ids)
    assert group.place.endswith("self.steps[name]()")
    assert [] == night.ran
    assert "ended: 1 of 3 runs fit nightly" in repr(found)
    assert "normalise" in found._repr_mimebundle_()["text/html"]


def test_a_step_that_was_left_out_is_to_be_kept(night: Night, shell: InteractiveShell) -> None:  # noqa: F811
    night.run(night.define("load", "clean", "fit"), "old-1")
    night.define("load", "fit")

    assert (
        'keep clean for earlier runs: if not DBOS.patch("no clean"): ...'
        == line(shell, "check nightly").groups[0].suggestion
    )

    night.define("load", "clean")

    (group,) = line(shell, "check nightly").groups
    assert "step 3 'fit' is recorded, and the code ends before it" == group.difference
    assert 'keep fit for earlier runs: if not DBOS.patch("no fit"): ...' == group.suggestion


def test_only_the_newest_are_checked(night: Night, shell: InteractiveShell) -> None:  # noqa: F811
    night.run(night.define("load"), "a", "b", "c")

    assert ["c", "b"] == list(line(shell, "check nightly --last 2").frame.index)


def test_a_workflow_that_is_not_here_or_never_ran(night: Night, shell: InteractiveShell) -> None:  # noqa: F811
    with pytest.raises(UsageError, match="the workflow 'weekly' is not defined here"):
        line(shell, "check weekly")

    night.define("load")
    found = line(shell, "check nightly")

    assert found.fits
    assert "There is no run of nightly to check." == repr(found)
    assert ["bool", "Int64"] == [str(found.frame.dtypes[name]) for name in ("fits", "step")]


def test_what_keeps_one_run_from_fitting(night: Night) -> None:
    night.run(night.define("load", "fit"), "w")

    assert fits(door.source(), "w") is None
    night.define("clean")
    assert "step 1 is 'clean', where 'load' is recorded" == fits(door.source(), "w")
    assert "nobody" in str(fits(door.source(), "nobody"))
