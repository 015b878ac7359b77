"""The list of runs: its filters, its lines, and its pages.

A line is a button, so that it can be reached and chosen with the keyboard, and is read out as a whole.
"""

from __future__ import annotations

import ipywidgets as widgets

from dbos_notebook.explore.parts import Desk, bar, button, dropdown, text
from dbos_notebook.explore.state import PAGE_SIZE, Chose, Narrowed, Order, Ordered, Row, State, Turned, Wanted
from dbos_notebook.views.html import LOOKS, element, line, look
from dbos_notebook.views.words import duration, moment, short, zone

ORDERS: tuple[tuple[str, Order], ...] = (
    ("newest first", "newest"),
    ("oldest first", "oldest"),
    ("page by name", "name"),
    ("page by status", "status"),
    ("page by duration", "longest"),
)
WIDTHS = {"status": 16, "name": 30, "id": 13, "created": 20, "took": 12, "queue": 16, "version": 13}
HEADS = ("  status", "name", "run", "created", "took", "queue", "version")
# A word of its own where the recorded one is longer than its column.
WORDS = {"MAX_RECOVERY_ATTEMPTS_EXCEEDED": "GAVE UP"}


class RunList:
    """The controls and lines of the list."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._shown: list[tuple[Row, bool] | None] = [None] * PAGE_SIZE
        self._make_filters()
        self._heads = widgets.HTML()
        self._lines = [self._line(place) for place in range(PAGE_SIZE)]
        self._make_pager()
        lines = widgets.VBox(self._lines)
        lines.add_class("dbos-list")
        filters = bar(self.status, self.name, self.queue, self.prefix, self.since, self.text, self.order)
        self.box = widgets.VBox([filters, self._heads, lines, bar(self._newer, self._page, self._older)])

    def _make_filters(self) -> None:
        statuses = [("any", ""), *((WORDS.get(word, word), word) for word in LOOKS)]
        self.status = dropdown("status", statuses, "150px")
        self.name = widgets.Combobox(
            description="name",
            placeholder="any",
            continuous_update=False,
            tooltip="name of the workflow",
            style={"description_width": "initial"},
            layout=widgets.Layout(width="190px"),
        )
        self.queue = dropdown("queue", [("any", "")], "150px")
        self.prefix = text("run", "id begins with", "160px")
        self.since = text("since", "24h, 7d, date", "150px", tooltip="created since: 30m, 24h, 7d or a date")
        self.text = text("text", "in names and values", "190px", tooltip="text in names, values or errors")
        self.order = dropdown("order", ORDERS, "170px")
        for field in ("status", "name", "queue", "prefix", "since", "text"):
            self._desk.on_change(getattr(self, field), lambda _: Narrowed(self._wanted()))
        self._desk.on_change(self.order, Ordered)

    def _wanted(self) -> Wanted:
        return Wanted(
            status=self.status.value,
            name=self.name.value.strip(),
            queue=self.queue.value or "",
            prefix=self.prefix.value.strip(),
            since=self.since.value.strip(),
            text=self.text.value.strip(),
        )

    def _line(self, place: int) -> widgets.Button:
        made = button("", tooltip="Look into this run")
        made.add_class("dbos-line")
        made.layout.display = "none"

        def chose() -> Chose:
            shown = self._shown[place]
            return Chose(None if shown is None else shown[0].workflow_id)

        self._desk.on_click(made, chose)
        return made

    def _make_pager(self) -> None:
        self._newer, self._older = button("← Previous", tooltip="Previous page"), button("Next →", tooltip="Next page")
        self._page = widgets.HTML()
        self._desk.on_click(self._newer, lambda: Turned(-1))
        self._desk.on_click(self._older, lambda: Turned(1))

    def draw(self, state: State) -> None:
        self._offer(state)
        for place in range(PAGE_SIZE):
            self._draw_line(place, state)
        self._heads.value = self._words_above(state)
        self._page.value = element("span", f"page {state.look.page + 1}")
        self._newer.disabled = state.look.page == 0
        self._older.disabled = not state.has_more

    def _offer(self, state: State) -> None:
        if self.name.options != state.names:
            self.name.options = state.names
        queues = (("any", ""), *((line(each, 40), each) for each in state.queues))
        if self.queue.options != queues:
            chosen = self.queue.value
            self.queue.options = queues
            self.queue.value = chosen if chosen in state.queues else ""

    def _words_above(self, state: State) -> str:
        if state.rows or state.read_at is None:
            heads = columns(tuple(f"{each} ({zone()})" if each == "created" else each for each in HEADS))
            return element("div", heads, class_="dbos-heads", aria_hidden="true")
        if state.look.wanted == Wanted() and state.look.page == 0:
            return element("p", "No runs yet. Call a workflow in a cell, and it appears here.", style="note")
        return element("p", "No run matches these filters.", style="note")

    def _draw_line(self, place: int, state: State) -> None:
        row = state.rows[place] if place < len(state.rows) else None
        wanted = None if row is None else (row, row.workflow_id == state.look.chosen)
        shown = self._shown[place]
        if wanted == shown:
            return
        self._shown[place] = wanted
        made = self._lines[place]
        if wanted is None or row is None:
            made.layout.display = "none"
            return
        made.description = line_of(row, wanted[1])
        _mark(made, wanted[1], row.status)
        made.layout.display = None


def _mark(made: widgets.Button, is_chosen: bool, status: str) -> None:
    """Give a line the classes of what it shows."""
    known = status if status in LOOKS else "unknown"
    classes = ("dbos-line", f"dbos-{known.lower()}", *(("dbos-chosen",) if is_chosen else ()))
    if made._dom_classes != classes:  # noqa: SLF001 - adding and removing one by one is a message each
        made._dom_classes = classes  # noqa: SLF001


def columns(cells: tuple[str, ...]) -> str:
    """Texts in columns; one that is too long ends in dots."""
    sized = zip(cells, WIDTHS.values(), strict=True)
    cut = [(each if len(each) <= width else f"{each[: width - 1]}…").ljust(width) for each, width in sized]
    return " ".join(cut).rstrip()


def line_of(row: Row, is_chosen: bool) -> str:
    """A run in one line."""
    found = look(row.status)
    status = f"{'▸' if is_chosen else ' '} {found.glyph} {WORDS.get(row.status, found.word)}"
    return columns(
        (
            status,
            line(row.name, 60),
            line(short(row.workflow_id), 20),
            moment(row.created),
            duration(row.seconds),
            line(row.queue, 40),
            line(row.version, 20),
        )
    )
