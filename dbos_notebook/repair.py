"""Repair: forking or resuming all runs of a group of failures.

A group is acted on only when its count is given: what would be done is said first, with the number to confirm. The
group is looked for again then, and another number is refused. Whatever is forked has an id made of that of its original
and the group's fingerprint: asked for again after a crash, it goes on where it stopped, and forks nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbos import SetWorkflowAttributes, SetWorkflowID
from dbos.error import DBOSSchemaError
from dbos_notebook import door
from dbos_notebook.failures import FAILED, Group, triage
from dbos_notebook.naming import NotFoundError
from dbos_notebook.source import cut_at
from dbos_notebook.views import words
from dbos_notebook.views.html import element, fitting, line, page, table
from dbos_notebook.views.view import View

if TYPE_CHECKING:
    import pandas as pd

    from dbos import StoredStep
    from dbos_notebook.source import Source

CHUNK = 5_000
MOST_ROWS = 15


class NotConfirmedError(ValueError):
    """The number that was given is not that of the runs that would be acted on."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done to which runs of a group, and how."""

    group: Group
    verb: str
    ids: tuple[str, ...]
    #: What each is forked from: the number and name of a step.
    cuts: Mapping[str, tuple[int, str]]

    @property
    def view(self) -> View:
        """What would be done, and what to type to have it done."""
        shown = Counter((number, name) for number, name in self.cuts.values()) if self.cuts else Counter()
        rows = [
            (f"step {number} {line(name, 80)}".rstrip(), f"{many:,}")
            for (number, name), many in shown.most_common(MOST_ROWS)
        ]
        head = f"Nothing was done. This would {self.verb} {words.count(len(self.ids), 'run')} of {line(self.group.workflow, 80)}"
        head += f" ({line(self.group.error, 200)})"
        left = len(self.group.ids) - len(self.group.unforked)
        notes = [f"Forked already, and left as they are: {words.count(left, 'run')}."] if left and self.cuts else []
        if self.group.following and self.cuts:
            notes.append(
                f"Failed because of them, and left as they are: {words.count(len(self.group.following), 'run')}."
            )
        do = f"%dbos {self.verb} --group {self.group.number} --confirm {len(self.ids)}"
        runs = [words.short(each) for each in self.ids[:MOST_ROWS]]
        some = f"such as {', '.join(runs)}" if len(self.ids) > MOST_ROWS else ", ".join(runs)
        parts = [element("div", f"{head}: {some}"), table("from which step", ["step", "runs"], rows) if rows else None]
        lines = [f"{head}: {some}", *(f"  from {step}: {many}" for step, many in rows), *notes]
        return View(
            page(*parts, *(element("div", note) for note in notes), element("div", "To do it: ", element("code", do))),
            fitting([*lines, f"To do it: {do}"]),
        )


def fork_group(
    here: Source,
    group: int | str,
    step: int | str | None = None,
    *,
    dry_run: bool = False,
    confirm: int | None = None,
    version: str | None = None,
) -> pd.DataFrame | View:
    """Fork every run of a group, from the step that failed or another, if `confirm` is their number.

    Without it, it is said what would be done. What is forked already is left out. `group` is the number of the last
    triage, or a fingerprint.
    """
    found = _group(here, group)
    cuts = _cuts(here, found.unforked, step)
    plan = Plan(found, "fork", tuple(cuts), cuts)
    if not _is_confirmed(plan, confirm, dry_run=dry_run):
        return plan.view
    here.client.refuse_if_read_only()  # before the first, and not after it
    return here.runs(
        workflow_ids=[_forked(here, found, each, cut, version) for each, (cut, _) in cuts.items()], values=False
    )


def resume_group(
    here: Source, group: int | str, *, dry_run: bool = False, confirm: int | None = None, new_code: bool = False
) -> pd.DataFrame | View:
    """Resume every run of a group that can be, with those that follow them, if `confirm` is their number."""
    found = _group(here, group)
    if not found.resumable:
        raise ValueError(
            f"the runs of group {found.number} ended with {FAILED}, and such runs cannot be resumed: "
            f"%dbos fork --group {found.number}"
        )
    plan = Plan(found, "resume", found.resumable, {})
    if not _is_confirmed(plan, confirm, dry_run=dry_run):
        return plan.view
    here.client.refuse_if_read_only()  # before the first, and not after it
    for each in found.resumable:
        _marked(here, each, {"triage": found.fingerprint, "resumed_by": door.session().executor_id})
    return here.runs(workflow_ids=here.resume(*found.resumable, new_code=new_code), values=False)


# -- the group -----------------------------------------------------------------------------------------------------


def _group(here: Source, group: int | str) -> Group:
    """The group as it is now: the same cause, and the runs that it has meanwhile."""
    # A number is one of the triage that was shown; a fingerprint is the same in all.
    shown = (here.triaged or triage(here)) if isinstance(group, int) else triage(here)
    wanted = shown.group(group).fingerprint if isinstance(group, int) else group
    for each in (triage(here, shown.asked) if isinstance(group, int) else shown).groups:
        if each.fingerprint == wanted:
            # The number by which it is known, whatever its place is now.
            known = [old.number for old in shown.groups if old.fingerprint == wanted]
            return each.known_as(known[0]) if known else each
    raise LookupError(f"the group {group} is gone: nothing fails for that reason any more; see %dbos triage")


def _is_confirmed(plan: Plan, confirm: int | None, *, dry_run: bool) -> bool:
    if dry_run or confirm is None:
        return False
    number = len(plan.ids)
    if not number:
        raise ValueError(f"nothing is left to {plan.verb} in group {plan.group.number}")
    if confirm != number:
        raise NotConfirmedError(
            f"{plan.verb} of group {plan.group.number} is about {words.count(number, 'run')} now, not {confirm:,}; nothing "
            f"was done. If that is meant: %dbos {plan.verb} --group {plan.group.number} --confirm {number}"
        )
    return True


def _cuts(here: Source, ids: Sequence[str], step: int | str | None) -> dict[str, tuple[int, str]]:
    """The step from which each run is forked; of a name, the first. All are found before any run is forked."""
    listed: dict[str, list[StoredStep]] = {each: [] for each in ids}
    for start in range(0, len(ids), CHUNK):
        for each in here.client.list_steps(list(ids[start : start + CHUNK]), longest=0):
            listed[each.workflow_id].append(each)
    cuts: dict[str, tuple[int, str]] = {}
    for workflow_id, steps in listed.items():
        try:
            number = cut_at(workflow_id, steps, step)
        except NotFoundError as error:
            raise NotFoundError(f"{error}. It is of this group, so nothing was forked") from None
        cuts[workflow_id] = number, next((kept.name for kept in steps if kept.step_id == number), "after the last")
    return cuts


# -- acting --------------------------------------------------------------------------------------------------------


def _forked(here: Source, group: Group, workflow_id: str, cut: int, version: str | None) -> str:
    # An id that only this fork can have: who dies here and does it again makes no second one.
    fork_id = f"{workflow_id}-{group.fingerprint}"
    by = {"triage": group.fingerprint, "forked_by": door.session().executor_id}
    try:
        with SetWorkflowID(fork_id), SetWorkflowAttributes(by):
            here.client.fork_workflow(workflow_id, cut, application_version=version)
    except DBOSSchemaError:  # of a release without attributes, and no program of ours has opened it
        with SetWorkflowID(fork_id):
            here.client.fork_workflow(workflow_id, cut, application_version=version)
    return fork_id


def _marked(here: Source, workflow_id: str, attributes: Mapping[str, Any]) -> None:
    """Note by whom and why, where the database has a place for that."""
    try:
        here.client.update_workflow_attributes(workflow_id, dict(attributes), merge=True)
    except DBOSSchemaError:  # of a release without attributes, and no program of ours has opened it
        return
