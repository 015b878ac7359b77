"""The other parts of the explorer: schedules, failures by their causes, and runs whose code changes."""

from __future__ import annotations

from datetime import datetime, timedelta

import ipywidgets as widgets

from dbos_notebook.explore.actions import (
    Backfill,
    ForkGroup,
    Pause,
    Resume,
    ResumeGroup,
    Trigger,
    TryGroup,
    Unpause,
    guard,
)
from dbos_notebook.explore.cellwriter import CellWriter
from dbos_notebook.explore.parts import Desk, Doer, area, bar, dropdown, offer, text
from dbos_notebook.explore.state import NOT_CHECKED, FitRow, GroupRow, NamedPatch, PickedWorkflow, State
from dbos_notebook.views.html import element, escape, line, page, pre, status_mark, table
from dbos_notebook.views.words import count, short


class SchedulePanel:
    """The schedules; one of them can be triggered, backfilled, paused and let go on."""

    def __init__(self, desk: Desk) -> None:
        self.table = widgets.HTML()
        self.schedule = dropdown("schedule", [], "280px")
        now = datetime.now().astimezone().replace(microsecond=0, second=0)
        self.start, self.end = _moment("from", now - timedelta(days=1)), _moment("to", now)
        self.trigger = Doer(desk, Trigger, lambda: Trigger(self.schedule.value) if self.schedule.value else None)
        self.pause = Doer(desk, Pause, lambda: Pause(self.schedule.value) if self.schedule.value else None)
        self.unpause = Doer(desk, Unpause, lambda: Unpause(self.schedule.value) if self.schedule.value else None)
        self.backfill = Doer(desk, Backfill, self._backfilling)
        self._paused: frozenset[str] = frozenset()
        for control in (self.schedule, self.start, self.end):
            control.observe(lambda _: self._refresh(), names=["value"])
        self._forms = area(
            bar(self.schedule, self.trigger.button, self.pause.button, self.unpause.button),
            bar(self.start, self.end, self.backfill.button),
        )
        self.box = widgets.VBox([self.table, self._forms])

    def _backfilling(self) -> Backfill | None:
        if not (self.schedule.value and self.start.value and self.end.value):
            return None
        return Backfill(self.schedule.value, self.start.value, self.end.value)

    def draw(self, state: State) -> None:
        self.box.layout.display = None if state.look.section == "schedules" else "none"
        if state.look.section != "schedules":
            return
        self.table.value = state.table
        self._forms.layout.display = None if state.schedules else "none"
        names = [each.name for each in state.schedules]
        chosen = self.schedule.value if self.schedule.value in names else next(iter(names), None)
        offer(self.schedule, [(line(name, 40), name) for name in names], chosen)
        self._paused = frozenset(each.name for each in state.schedules if each.status == "PAUSED")
        self._refresh()

    def _refresh(self) -> None:
        is_paused = self.schedule.value in self._paused
        self.pause.refresh(not is_paused)
        self.unpause.refresh(is_paused)
        self.trigger.refresh()
        self.backfill.refresh()


class TriagePanel:
    """What failed, by its causes; all runs of one can be forked or resumed, once their number is typed."""

    def __init__(self, desk: Desk) -> None:
        self.table = widgets.HTML()
        self.group = dropdown("group", [], "480px")
        self.count = text("number of runs", "typed, to confirm", "260px")
        self._groups: tuple[GroupRow, ...] = ()
        self.dry_run = Doer(desk, TryGroup, self._trying)
        self.fork = Doer(desk, ForkGroup, lambda: self._acting(ForkGroup), style="primary")
        self.resume = Doer(desk, ResumeGroup, lambda: self._acting(ResumeGroup))
        for control in (self.group, self.count):
            control.observe(lambda _: self._refresh(), names=["value"])
        self._forms = area(bar(self.group, self.dry_run.button), bar(self.count, self.fork.button, self.resume.button))
        self.box = widgets.VBox([self.table, self._forms])

    def _acting(self, kind: type[ForkGroup | ResumeGroup]) -> ForkGroup | ResumeGroup | None:
        typed = self.count.value.strip().replace(",", "")
        if not self.group.value:
            return None
        if not typed.isdigit():
            raise ValueError(f"{kind.verb}: type how many runs this is about, to confirm it")
        return kind(self.group.value, int(typed))

    def _trying(self) -> TryGroup | None:
        chosen = self._chosen()
        if chosen is None or not (chosen.forkable or chosen.resumable):
            return None
        return TryGroup(chosen.fingerprint, "fork" if chosen.forkable else "resume")

    def _chosen(self) -> GroupRow | None:
        return next((each for each in self._groups if each.fingerprint == self.group.value), None)

    def draw(self, state: State) -> None:
        self.box.layout.display = None if state.look.section == "triage" else "none"
        if state.look.section != "triage":
            return
        self.table.value = state.table
        self._groups = state.groups
        self._forms.layout.display = None if state.groups else "none"
        offer(self.group, [(line(each.words, 90), each.fingerprint) for each in state.groups], self.group.value)
        self._refresh()

    def _refresh(self) -> None:
        chosen = self._chosen()
        self.dry_run.refresh()
        for doer, number in (
            (self.fork, 0 if chosen is None else chosen.forkable),
            (self.resume, 0 if chosen is None else chosen.resumable),
        ):
            doer.refresh()
            # What is typed comes in no message before the field is left: then a click would be lost.
            doer.button.disabled = not number
            doer.button.description = f"{doer.verb} ({count(number, 'run')})" if number else doer.verb


class PatchPanel:
    """A workflow whose code changes: its runs beside the newest code, and the lines that keep old runs going."""

    def __init__(self, desk: Desk, cell: str) -> None:
        self.workflow = dropdown("workflow", [], "320px")
        self.patch = text("patch", "name of the change", "240px")
        self.table, self.guard, self.writer = widgets.HTML(), widgets.HTML(), CellWriter(below=cell)
        self._fits: tuple[FitRow, ...] = ()
        self.resume = Doer(desk, Resume, self._resuming)
        desk.on_change(self.workflow, lambda name: PickedWorkflow(name or ""))
        desk.on_change(self.patch, lambda name: NamedPatch(name.strip()))
        forms = area(bar(self.patch, self.resume.button), self.guard, self.writer)
        self.box = widgets.VBox([bar(self.workflow), self.table, forms])

    def _resuming(self) -> Resume | None:
        stopped = {"ENQUEUED", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"}
        fitting = [each.run for each in self._fits if each.obstacle is None and each.run.status in stopped]
        return Resume(tuple(run.workflow_id for run in fitting), new_code=True) if fitting else None

    def _draw_guard(self, state: State) -> None:
        told = "Runs that do not fit keep their way with this cell: look at it, run it, and see the list again."
        if not state.guarded:
            told = "Put this around what changed: runs in flight take the old way, new ones the new way."
        self.writer.text = state.guarded or guard(state.look.patch or "what-changed")
        self.writer.tooltip = f"Same as: %dbos patch {line(state.look.workflow, 60)}" if state.look.workflow else ""
        self.guard.value = page(element("div", told), pre(self.writer.text))

    def draw(self, state: State) -> None:
        self.box.layout.display = None if state.look.section == "patch" else "none"
        if state.look.section != "patch":
            return
        offer(
            self.workflow, [("choose one", ""), *((line(name, 60), name) for name in state.names)], state.look.workflow
        )
        self._fits = state.fits
        self.table.value = fits_table(state)
        self._draw_guard(state)
        self.resume.refresh()
        self.resume.button.description = "Resume those that fit"


def fits_table(state: State) -> str:
    """The runs of the chosen workflow beside its newest code."""
    if not state.look.workflow:
        return page(element("p", "Choose the workflow whose code changes.", style="note"))
    if not state.fits:
        return page(element("p", "It has no runs: change its code as you like.", style="note"))
    rows = [
        (
            short(each.run.workflow_id),
            status_mark(each.run.status),
            line(each.run.version, 40) or "any",
            "the newest" if each.run.version == state.newest else "another",
            _fit_words(each),
        )
        for each in state.fits
    ]
    caption = f"{line(state.look.workflow, 80)}: {count(len(rows), 'run')}; newest code {line(state.newest, 40) or '?'}"
    return page(table(caption, ("run", "status", "its code", "which is", "fits the newest code"), rows))


def _fit_words(row: FitRow) -> str:
    if row.obstacle is None:
        return escape("✓ yes")
    return escape("? not checked" if row.obstacle == NOT_CHECKED else f"✗ {line(row.obstacle, 200)}")


def _moment(label: str, value: datetime) -> widgets.DatetimePicker:
    return widgets.DatetimePicker(
        description=label,
        value=value,
        tooltip=f"{label}, in local time",
        style={"description_width": "initial"},
        layout=widgets.Layout(width="260px"),
    )
