"""How the explorer looks: controls made once, and drawn from the state.

Drawing writes only what differs from what is there; it reads nothing. The list, the forms and the panels draw
themselves; this file puts them in their places.
"""

from __future__ import annotations

import json
from typing import Any

import ipywidgets as widgets

from dbos_notebook.explore.forms import RunForms, StreamForms
from dbos_notebook.explore.panels import PatchPanel, SchedulePanel, TriagePanel
from dbos_notebook.explore.parts import CSS, Desk, area, bar, button, free_comms, said, take_away, toggles
from dbos_notebook.explore.runlist import RunList
from dbos_notebook.explore.state import SECTIONS, TABS, Confirmed, Dismissed, Entered, Opened, State
from dbos_notebook.signs import PLOTLY
from dbos_notebook.views.html import element, escape, line, status_mark
from dbos_notebook.views.words import duration, moment


class Layout:
    """All widgets of one explorer, which a cell of this id shows."""

    def __init__(self, desk: Desk, cell: str) -> None:
        self._desk = desk
        self.section = toggles("Show", SECTIONS)
        desk.on_change(self.section, Entered)
        self._where = widgets.HTML()
        self.list = RunList(desk)
        self._make_detail()
        self.schedules, self.triage, self.patch = SchedulePanel(desk), TriagePanel(desk), PatchPanel(desk, cell)
        self._make_answers()
        self._runs = widgets.VBox([self.list.box, self._detail])
        self.root = widgets.VBox(
            [
                widgets.HTML(element("style", CSS)),
                bar(self.section, self._where),
                self._runs,
                self.schedules.box,
                self.triage.box,
                self.patch.box,
                self._question,
                self._notice,
            ]
        )
        self.root.add_class("dbos-explorer")
        free_comms(self.root)

    def _make_detail(self) -> None:
        self._title = widgets.HTML()
        self.tab = toggles("Of the chosen run", TABS)
        self._desk.on_change(self.tab, Opened)
        self._content = widgets.HTML()
        self._content.add_class("dbos-content")
        self._figure = widgets.Output()
        self._figure_text = ""
        self.streams, self.forms = StreamForms(self._desk), RunForms(self._desk)
        self._detail = area(self._title, self.tab, self.streams.box, self._figure, self._content, self.forms.box)

    def _make_answers(self) -> None:
        self._asks = widgets.HTML()
        self.yes, self.no = button("Yes", style="danger"), button("No", tooltip="Leave everything as it is")
        self._desk.on_click(self.yes, Confirmed)
        self._desk.on_click(self.no, Dismissed)
        self._question = bar(self._asks, self.yes, self.no)
        self._question.add_class("dbos-question")
        self._notice = widgets.HTML()
        self._notice.add_class("dbos-notice")

    def draw(self, state: State) -> None:
        """Show this state."""
        with self._desk.drawing():
            look = state.look
            self.section.value = look.section
            self._where.value = _where(state)
            self._runs.layout.display = None if look.section == "runs" else "none"
            if look.section == "runs":
                self.list.draw(state)
                self._draw_detail(state)
            self.schedules.draw(state)
            self.triage.draw(state)
            self.patch.draw(state)
            self._draw_question(state)
            self._notice.value = _notice(state)

    def close(self) -> None:
        """Take every control off the page and forget it."""
        take_away(self.root)

    def _draw_detail(self, state: State) -> None:
        self._detail.layout.display = None if state.look.chosen is not None else "none"
        if state.look.chosen is None:
            return
        self._title.value = _title(state)
        self.tab.value = state.look.tab
        shown = None if state.detail is None else state.detail.shown
        self._content.value = "" if shown is None else shown.html
        self._draw_figure("" if shown is None else shown.figure)
        self.streams.draw(state)
        self.forms.draw(state)

    def _draw_figure(self, text: str) -> None:
        # Compared as text: a figure is drawn anew by the page, which is seen as a flicker.
        if text == self._figure_text:
            return
        self._figure_text = text
        self._figure.outputs = (_display(text),) if text else ()

    def _draw_question(self, state: State) -> None:
        asked = state.asked
        self._question.layout.display = "none" if asked is None else None
        if asked is not None:
            self._asks.value = element("div", element("b", asked.question), role="alert")
            self.yes.description = f"Yes, {asked.verb.lower()}"
            self.yes.tooltip = f"Same as: {line(asked.command, 300)}"


def _display(text: str) -> dict[str, Any]:
    return {"output_type": "display_data", "data": {PLOTLY: json.loads(text)}, "metadata": {}}


def _where(state: State) -> str:
    if state.unread:
        return said("✗ The database cannot be read: ", state.unread)
    words = "reading…" if state.read_at is None else f"read at {moment(state.read_at)[11:]}"
    busy = " · the kernel runs a cell: clicks may wait for its end" if state.is_kernel_busy else ""
    return element("span", words, busy)


def _notice(state: State) -> str:
    if state.error:
        return said(status_mark("ERROR"), " ", state.error)
    waits = " The kernel is busy." if state.queued and state.is_kernel_busy else ""
    return said(state.notice, waits) if state.notice else said()


def _title(state: State) -> str:
    chosen = state.look.chosen or ""
    if state.detail is None:
        return element("div", element("b", line(chosen, 80)), " · reading…")
    run = state.detail.run
    facts = [
        element("b", line(run.name, 80)),
        " ",
        element("code", line(chosen, 80)),
        " · ",
        status_mark(run.status),
        f" · created {moment(run.created)}" if run.created else "",
        f" · took {duration(run.seconds)}" if run.seconds is not None else "",
        f" · queue {line(run.queue, 40)}" if run.queue else "",
        f" · forked from {line(run.forked_from, 40)}" if run.forked_from else "",
    ]
    return element("div", escape(facts))
