"""Check: do the runs that there are fit the code as it is now? Where they do not, where would a patch stand?

Each run is rehearsed: the workflow's function is played on what the run has recorded. No step runs.
"""

from __future__ import annotations

import linecache
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from dbos import extension
from dbos_notebook.frames import TEXT, UNFINISHED
from dbos_notebook.views import words
from dbos_notebook.views.html import element, fitting, line, page, table
from dbos_notebook.views.view import Shown, View

if TYPE_CHECKING:
    from dbos.extension import Rehearsal
    from dbos_notebook.source import Source

TEXT_LIMIT = 300
MOST_GROUPS, MOST_NAMED = 20, 3
LAST = 50


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ from the code in the same way."""

    difference: str
    suggestion: str
    #: The line of the code that calls what is not recorded.
    place: str
    ids: tuple[str, ...]
    #: How many of them have not ended.
    in_flight: int


@dataclass(frozen=True, slots=True, repr=False)
class Check(Shown):
    """What a check of one workflow found. `frame` has a row for each run."""

    workflow: str
    version: str | None
    frame: pd.DataFrame
    groups: tuple[Group, ...]

    @property
    def fits(self) -> bool:
        """Whether all runs fit."""
        return bool(self.frame["fits"].all())

    @property
    def view(self) -> View:
        headlines = self._headlines()
        rows = [
            (words.count(len(each.ids), "run"), each.in_flight, line(each.difference, TEXT_LIMIT), line(each.place, 120),
             element("code", line(each.suggestion, TEXT_LIMIT)) if each.suggestion else "", _some(each.ids))
            for each in self.groups[:MOST_GROUPS]
        ]  # fmt: skip
        lines = list(headlines)
        for each in self.groups[:MOST_GROUPS]:
            lines.append(f"  {words.count(len(each.ids), 'run')}: {each.difference}   ({_some(each.ids)})")
            lines += [f"    at {each.place}"] if each.place else []
            lines += [f"    -> {each.suggestion}"] if each.suggestion else []
        if len(self.groups) > MOST_GROUPS:
            lines.append(f"  ... and {len(self.groups) - MOST_GROUPS} more groups; .groups has them all")
        heads = ["runs", "in flight", "first difference", "at", "what to do", "such as"]
        found = table("runs that do not fit", heads, rows) if rows else None
        return View(page([element("div", each) for each in headlines], found), fitting(lines))

    def _headlines(self) -> list[str]:
        name = f"{line(self.workflow, 80)} {line(self.version or '', 40)}".rstrip()
        if self.frame.empty:
            return [f"There is no run of {name} to check."]
        ends = ~self.frame["status"].isin(sorted(UNFINISHED))
        told = []
        for kind, chosen in (("ended", self.frame[ends]), ("in flight", self.frame[~ends])):
            if len(chosen):
                fitting_ = int(chosen["fits"].sum())
                told.append(f"{kind}: {fitting_:,} of {words.count(len(chosen), 'run')} fit {name}")
        return told


def fits(source: Source, workflow_id: str) -> str | None:
    """What keeps a run from fitting the code as it is now, in words; None if nothing does."""
    try:
        return extension.rehearse(workflow_id, records=source.records).difference
    except Exception as error:  # noqa: BLE001 - its arguments are the user's, and so is what they raise
        return source.mask.text(str(error)) or type(error).__name__


def check(source: Source, workflow: str, last: int = LAST) -> Check:
    """Rehearse the newest runs of a workflow with its code as it is now."""
    versions = extension.defined_versions()
    if workflow not in versions:
        known = ", ".join(sorted(versions)) or "none"
        raise LookupError(f"the workflow {workflow!r} is not defined here; there are: {known}")
    runs = source.runs(name=workflow, limit=last, values=False)
    ids = [str(each) for each in runs.index]
    found = extension.rehearse_all(ids, source.records)
    if source.mask:  # a difference may be what the user's code raised
        found = [each._replace(difference=each.difference and source.mask.text(each.difference)) for each in found]
    groups = _groups(source, runs, found)
    of = {each.difference: each.suggestion for each in groups}
    frame = pd.DataFrame(
        {
            "status": runs["status"],
            "version": runs["version"],
            "fits": pd.Series([each.fits for each in found], index=runs.index, dtype=bool),
            "steps": pd.array([each.steps for each in found], dtype="Int64"),
            "step": pd.array([each.step_id for each in found], dtype="Int64"),
            "difference": pd.array([each.difference for each in found], dtype=TEXT),
            "suggestion": pd.array([of.get(each.difference or "") for each in found], dtype=TEXT),
        },
        index=runs.index,
    )
    return Check(workflow, versions[workflow], frame, groups)


def _groups(source: Source, runs: pd.DataFrame, found: list[Rehearsal]) -> tuple[Group, ...]:
    """The runs by their first difference, the commonest first."""
    of: dict[str, list[Rehearsal]] = {}
    for each in found:
        if each.difference is not None:
            of.setdefault(each.difference, []).append(each)
    in_flight = set(runs.index[runs["status"].isin(sorted(UNFINISHED))])
    groups = [
        Group(
            difference,
            _suggestion(source, members[0]),
            _place(members[0]),
            tuple(each.workflow_id for each in members),
            sum(each.workflow_id in in_flight for each in members),
        )
        for difference, members in of.items()
    ]
    return tuple(sorted(groups, key=lambda group: -len(group.ids)))


def _suggestion(source: Source, found: Rehearsal) -> str:
    """Where a patch would let old and new runs both fit."""
    if found.recorded is None:
        return ""
    steps = source.client.list_steps([found.workflow_id], longest=0)
    later = {each.name for each in steps if each.step_id > (found.step_id or 0)}
    if found.found is None or found.found in later:
        # The code goes on with what is recorded later: it has left out a step, or calls it later.
        return f'keep {found.recorded} for earlier runs: if not DBOS.patch("no {found.recorded}"): ...'
    return f'call {found.found} in new runs only: if DBOS.patch("{found.found}"): ...'


def _place(found: Rehearsal) -> str:
    if found.place is None:
        return ""
    file, number = found.place
    return f"line {number}: {linecache.getline(file, number).strip()}"


def _some(ids: tuple[str, ...]) -> str:
    return ", ".join(words.short(each) for each in ids[:MOST_NAMED]) + (", ..." if len(ids) > MOST_NAMED else "")
