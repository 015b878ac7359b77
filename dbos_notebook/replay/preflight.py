"""Before a fork: does the code as it is now fit the steps that are kept, and what becomes of children?

The code is played on what the fork would keep, replaced outputs included. No step runs, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from dbos import extension
from dbos.error import DBOSWorkflowFunctionNotFoundError
from dbos_notebook.frames import UNFINISHED
from dbos_notebook.views import words
from dbos_notebook.views.html import element, fitting, line, page, status_text, table
from dbos_notebook.views.view import Shown, View

if TYPE_CHECKING:
    from dbos_notebook.source import Source

MOST_SHOWN = 50
HEADS = ("step", "child", "workflow", "status", "in the fork")


@dataclass(frozen=True, slots=True, repr=False)
class Preflight(Shown):
    """What a fork would do. `children` has a row for each child: its step, id, name, status, and whether it is kept."""

    workflow_id: str
    name: str
    #: The fork runs from this step on.
    step: int
    kept: int
    #: Where the code does not fit what is kept; None if it fits.
    difference: str | None
    #: Why it could not be checked.
    unchecked: str | None
    replaced: tuple[int, ...]
    children: pd.DataFrame

    @property
    def fits(self) -> bool:
        return self.difference is None and self.unchecked is None

    @property
    def difference_in_words(self) -> str:
        return (
            f"{self.name} as it is now does not fit what is kept of {words.short(self.workflow_id)}: {self.difference}."
        )

    @property
    def view(self) -> View:
        shown = [
            (int(step), words.short(child), line(name, 60), status_text(words.text(status)), said)
            for step, child, name, status, said in self.children.head(MOST_SHOWN).itertuples(index=False)
        ]
        lines = self._lines()
        text = [*lines, *("  " + "  ".join(str(each) for each in row) for row in shown)]
        left = len(self.children) - len(shown)
        text += [f"  ... and {left:,} more; .children has them all"] if left > 0 else []
        found = table(words.count(len(self.children), "child run"), HEADS, shown) if shown else None
        return View(page([element("div", each) for each in lines], found), fitting(text))

    def _lines(self) -> list[str]:
        kept = f"{words.count(self.kept, 'step')} of {words.short(self.workflow_id)} kept"
        if self.unchecked is not None:
            said = [f"preflight: {kept}; not checked: {self.unchecked}"]
        elif self.difference is not None:
            said = [f"preflight: {self.difference_in_words}"]
        else:
            said = [f"preflight: {kept}, and {line(self.name, 60)} as it is now fits; it runs from step {self.step}"]
        if self.replaced:
            said.append(f"replaced: what step {', '.join(map(str, self.replaced))} returned")
        if len(self.children):
            reused = int((self.children["in_fork"] != AGAIN).sum())
            said.append(f"child runs kept: {reused}, run again: {len(self.children) - reused}")
        return said


KEPT, WAITED, AGAIN = "kept", "kept: the fork waits for it", "run again"


def checked(
    source: Source, workflow_id: str, step: int | str | None = None, outputs: Mapping[int, Any] | None = None
) -> Preflight:
    """Play the code as it is now on what a fork from this step would keep."""
    found = source.run(workflow_id)
    cut = source.step_to_fork_from(found.workflow_id, step)
    steps = source.client.list_steps([found.workflow_id], longest=0)
    difference = unchecked = None
    try:
        said = extension.rehearse(found.workflow_id, None, source.records, before=cut, outputs=outputs)
        difference = said.difference
    except DBOSWorkflowFunctionNotFoundError:
        unchecked = f"{found.name} is not defined here"
    except Exception as error:  # noqa: BLE001 - its arguments are the user's, and so is what they raise
        unchecked = str(error) or type(error).__name__
    return Preflight(
        found.workflow_id,
        found.name,
        cut,
        sum(each.step_id < cut for each in steps),
        difference,
        unchecked,
        tuple(sorted(outputs or ())),
        _children(source, found.workflow_id, cut),
    )


def _children(source: Source, workflow_id: str, cut: int) -> pd.DataFrame:
    steps = [each for each in source.client.list_steps([workflow_id], longest=0) if each.child_workflow_id]
    runs = source.runs(workflow_ids=[str(each.child_workflow_id) for each in steps], values=False) if steps else None
    rows: dict[str, tuple[Any, ...]] = {}
    for each in steps:
        child = str(each.child_workflow_id)
        is_here = runs is not None and child in runs.index
        name = runs.loc[child, "name"] if runs is not None and is_here else each.name
        status = runs.loc[child, "status"] if runs is not None and is_here else None
        fate = AGAIN if each.step_id >= cut else WAITED if status in UNFINISHED else KEPT
        rows.setdefault(child, (each.step_id, child, name, status, fate))
    return pd.DataFrame(list(rows.values()), columns=["step", "child", "name", "status", "in_fork"])
