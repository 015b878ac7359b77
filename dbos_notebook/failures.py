"""Triage: what failed since a moment, in groups of one cause each, the largest first.

A group has one fingerprint: the workflow, the step that failed, the type of the error and its message without what
differs from run to run. A run whose failure is only that of another one (a parent whose child failed, a child whose
parent ran out of time) belongs to the group of that other one, and is counted as following it.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING

from dbos import StoredFailure
from dbos_notebook.bulk import uncollected
from dbos_notebook.fingerprints import cause_of, fingerprint, kind_and_message
from dbos_notebook.frames import TRIAGE, frame
from dbos_notebook.views import words
from dbos_notebook.views.html import element, fitting, line, page, table
from dbos_notebook.views.view import Shown, View

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.source import Source

FAILED, GIVEN_UP, LATE = "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "CANCELLED"
STATUSES = (FAILED, GIVEN_UP, LATE)
TIMED_OUT, DIED = "ran out of time", "was started too often"
# Errors of a parent that say no more than that a child did not end well.
AWAITED = "DBOSAwaitedWorkflow"
CHANGED = ("DBOSUnexpectedStepError", "DBOSStepNondeterminismError", "DBOSPatchNondeterminismError")
FEW = 3
# By their places: a hundred thousand are sorted so in half the time that their names would take.
NEWEST = itemgetter(*map(StoredFailure._fields.index, ("ended_at", "workflow_id")))
MOST_GROUPS, NAME_LIMIT, ERROR_LIMIT, CELL_LIMIT = 30, 60, 200, 120
AGE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that failed for one reason, the newest first, and those that failed because these did."""

    number: int
    fingerprint: str
    workflow: str
    #: None: in the code of the workflow itself.
    step: str | None
    error: str
    kind: str
    ids: tuple[str, ...]
    following: tuple[str, ...]
    #: Those of `ids` of which there is no fork yet.
    unforked: tuple[str, ...]
    #: Those of all of them that can be resumed.
    resumable: tuple[str, ...]
    first_ms: int
    last_ms: int
    versions: tuple[str, ...]

    def known_as(self, number: int) -> Group:
        """The same under another number."""
        return replace(self, number=number)

    @property
    def suggestion(self) -> str:
        """What to do next."""
        if not self.unforked and not self.resumable:
            return "all are forked already"
        if self.kind == TIMED_OUT:
            return f"resume: all timeouts: %dbos resume --group {self.number}"
        if self.kind == DIED:
            return f"its process died each time: see its log, then %dbos resume --group {self.number}"
        if self.kind in CHANGED:
            return f"its code has changed: %dbos patch {self.workflow}"
        if len(self.ids) <= FEW:
            return f"%dbos debug {words.short(self.ids[0])}"
        start = "" if self.step is None else f" from `{self.step}`"
        return f"%dbos debug {words.short(self.ids[0])}, then fork {len(self.unforked):,}{start}: %dbos fork --group {self.number}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for: how far back, and of which workflows and statuses."""

    since: timedelta = AGE
    names: tuple[str, ...] = ()
    statuses: tuple[str, ...] = STATUSES


@dataclass(frozen=True, slots=True, repr=False)
class Triage(Shown):
    """What a triage found. `frame` has a row for each group."""

    asked: Asked
    groups: tuple[Group, ...]

    @property
    def frame(self) -> pd.DataFrame:
        return frame(TRIAGE, (
            (each.number, len(each.ids), len(each.following), each.first_ms, each.last_ms, each.workflow, each.step,
             each.error, ", ".join(each.versions), each.suggestion, each.fingerprint)
            for each in self.groups
        ))  # fmt: skip

    def group(self, number: int) -> Group:
        """The group of that number."""
        for each in self.groups:
            if each.number == number:
                return each
        raise LookupError(f"there is no group {number}; there are {len(self.groups)}, see %dbos triage")

    def ids(self, number: int, *, following: bool = False) -> list[str]:
        """The runs of a group, with those that follow them if wanted."""
        found = self.group(number)
        return [*found.ids, *(found.following if following else ())]

    @property
    def view(self) -> View:
        if not self.groups:
            told = f"Nothing failed in the last {words.duration(self.asked.since.total_seconds())}."
            return View(page(element("p", told)), told)
        runs = sum(len(each.ids) for each in self.groups)
        following = sum(len(each.following) for each in self.groups)
        caption = f"{words.count(runs, 'run')} failed for {words.count(len(self.groups), 'reason')}"
        caption += f", and {following:,} because of them" if following else ""
        left_out = len(self.groups) - MOST_GROUPS
        more = f"{left_out:,} more groups are in .frame" if left_out > 0 else ""
        shown = [self._cells(each) for each in self.groups[:MOST_GROUPS]]
        heads = ["group", "runs", "first seen", "last seen", "workflow", "step", "error", "code", "what to do"]
        html = [(*cells[:-1], element("code", cells[-1])) for cells in shown]
        lines = [
            caption,
            *("  ".join([str(cells[0]).rjust(3), *(each for each in cells[1:] if each)]) for cells in shown),
        ]
        note = element("p", more, style="note") if more else None
        return View(page(table(caption, heads, html), note), fitting([*lines, *([more] if more else [])]))

    def _cells(self, each: Group) -> tuple[str, ...]:
        number = f"{len(each.ids):,}" + (f" ({len(each.following):,} follow)" if each.following else "")
        seen = [words.moment(moment) for moment in (_moment(each.first_ms), _moment(each.last_ms))]
        code = line(", ".join(words.short(version) for version in each.versions), NAME_LIMIT)
        where = [line(each.workflow, NAME_LIMIT), line(each.step or "its own code", NAME_LIMIT)]
        return (
            str(each.number),
            number,
            *seen,
            *where,
            line(each.error, ERROR_LIMIT),
            code,
            line(each.suggestion, CELL_LIMIT),
        )


def triage(source: Source, asked: Asked = Asked()) -> Triage:
    """Group what failed by its cause. Nothing is decoded: of each error its type and message are read."""
    since_ms = max(int((time.time() - asked.since.total_seconds()) * 1000), 0)
    with uncollected():
        found = source.client.list_failures(since_epoch_ms=since_ms)
        wanted = [each for each in found if each.status in asked.statuses]
        groups = _grouped(wanted, source)
    if asked.names:
        groups = [each for each in groups if each.workflow in asked.names or _has_name(each, wanted, asked.names)]
    # Most first, and among these the latest; numbers count from 1.
    groups.sort(key=lambda each: (-len(each.ids), -each.last_ms, each.fingerprint))
    return Triage(asked, tuple(each.known_as(number) for number, each in enumerate(groups, 1)))


# -- causes --------------------------------------------------------------------------------------------------------


Key = tuple[str, str, str, str]


def _grouped(rows: list[StoredFailure], source: Source) -> list[Group]:
    family = _Family(rows)
    members: dict[Key, list[StoredFailure]] = defaultdict(list)
    following: dict[Key, list[StoredFailure]] = defaultdict(list)
    for row in rows:
        root = family.root(row)
        (members if root is row else following)[_key(root)].append(row)
    return [_group(key, found, following.get(key, []), source) for key, found in members.items()]


class _Family:
    """Which failures follow from which."""

    def __init__(self, rows: list[StoredFailure]) -> None:
        parents = {row.parent_workflow_id for row in rows}
        parents.discard(None)
        self._by_id = {row.workflow_id: row for row in rows} if parents else {}
        self._children: dict[str, list[StoredFailure]] = defaultdict(list)
        for row in rows if parents else ():
            if row.parent_workflow_id in self._by_id:
                self._children[row.parent_workflow_id].append(row)

    def root(self, row: StoredFailure) -> StoredFailure:
        """The failure from which this one follows, itself if from none."""
        if row.workflow_id not in self._children and row.status != LATE:
            return row  # as most do
        seen = {row.workflow_id}
        while (cause := self._cause(row)) is not None and cause.workflow_id not in seen:
            seen.add(cause.workflow_id)
            row = cause
        return row

    def _cause(self, row: StoredFailure) -> StoredFailure | None:
        """The parent or child because of which a run failed."""
        if row.status == LATE:
            # A child has the deadline of its parent.
            parent = self._by_id.get(row.parent_workflow_id or "")
            return parent if parent is not None and parent.status == LATE else None
        below = self._children.get(row.workflow_id)
        if row.status != FAILED or below is None:
            return None
        for child in below:
            if child.workflow_id == row.child_workflow_id:
                return child
        said = kind_and_message(row.error, row.serialization)
        for child in below:
            if child.status == FAILED and kind_and_message(child.error, child.serialization) == said:
                return child
        return below[0] if said[0].startswith(AWAITED) else None


def _key(row: StoredFailure) -> Key:
    if row.status == LATE:
        return row.name or "", "", TIMED_OUT, ""
    if row.status == GIVEN_UP:
        return row.name or "", "", DIED, ""
    return row.name or "", _step(row), *cause_of(row.error, row.serialization)


def _step(row: StoredFailure) -> str:
    """The step in which a run failed: the last that did, unless the run went on after it and failed with another error."""
    if row.step_name is None:
        return ""
    if row.is_error_of_step or row.is_last_step:
        return row.step_name
    own = kind_and_message(row.error, row.serialization)
    return row.step_name if kind_and_message(row.step_error, row.step_serialization) == own else ""


def _group(key: Key, rows: list[StoredFailure], others: list[StoredFailure], source: Source) -> Group:
    workflow, step, kind, message = key
    rows.sort(key=NEWEST, reverse=True)
    versions = Counter([row.app_version for row in rows if row.app_version])
    return Group(
        number=0,
        fingerprint=fingerprint(*key),
        workflow=workflow,
        step=step or None,
        error=source.mask.text(f"{kind}: {message}" if message else kind),
        kind=kind,
        ids=_ids(rows),
        following=_ids(others),
        unforked=_ids([row for row in rows if not row.was_forked_from]),
        resumable=_ids([row for row in (*rows, *others) if row.status != FAILED]),
        first_ms=rows[-1].ended_at,
        last_ms=rows[0].ended_at,
        versions=tuple(version for version, _ in versions.most_common()),
    )


def _ids(rows: Iterable[StoredFailure]) -> tuple[str, ...]:
    return tuple([row.workflow_id for row in rows])


def _has_name(group: Group, rows: list[StoredFailure], names: Collection[str]) -> bool:
    held = set(group.following)
    return any(row.workflow_id in held and row.name in names for row in rows)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
