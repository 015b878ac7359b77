"""The steps of a run as rows: which are shown, and where their bars stand.

A run of ten thousand steps is shown by those that matter: the first, the last, what failed and what runs. Time in
which nothing worked is folded, so that two busy seconds are seen beside two hours of waiting.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise, zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

from dbos_notebook.signs import SLEEP, WAITS
from dbos_notebook.views import words
from dbos_notebook.views.html import (
    Child,
    Markup,
    bar,
    clean,
    colored_bar,
    element,
    line,
    pre,
    row,
    status_mark,
    status_text,
)

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.views.run import Snapshot

T = TypeVar("T", bound=str)

HEADS = ("step", "status", "when", "took", "output")
MOST_ROWS, MOST_LINES = 100, 80
LOUD = 40
NAME_LIMIT, VALUE_LIMIT, ERROR_LIMIT, PRINTED_LIMIT = 80, 120, 300, 600
LONGEST_GAP_SECONDS = 10.0
LOUD_STATUSES = ("ERROR", "PENDING")


@dataclass(frozen=True, slots=True)
class Row:
    """One step, or the child that it started."""

    label: str
    status: str
    #: Epoch seconds; None where nothing is known.
    start: float | None
    end: float | None
    took: float | None
    attempts: int = 0
    value: str = ""
    error: str = ""
    printed: str = ""
    is_child: bool = False


class Axis:
    """Where moments stand between 0 and 1, with long idle times folded to a sliver."""

    def __init__(self, busy: Iterable[tuple[float, float]], begin: float, end: float) -> None:
        merged: list[list[float]] = []
        for start, stop in sorted(busy):
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], stop)
            else:
                merged.append([start, stop])
        worked = sum(stop - start for start, stop in merged)
        longest = max(LONGEST_GAP_SECONDS, worked)
        edges = [begin, *(moment for span in merged for moment in span), max(end, begin)]
        self.folded: list[tuple[float, float]] = []
        self._moments, self._places = [begin], [0.0]
        for place, (left, right) in enumerate(pairwise(edges)):
            width = max(right - left, 0.0)
            # Even places are the gaps before, between and after the spans.
            if place % 2 == 0 and width > longest:
                self.folded.append((left, right))
                width = max(worked, 1.0) * 0.05
            self._moments.append(max(right, self._moments[-1]))
            self._places.append(self._places[-1] + width)
        self._length = self._places[-1] or 1.0

    def place(self, moment: float) -> float:
        """Where a moment stands."""
        at = min(max(bisect_right(self._moments, moment) - 1, 0), len(self._moments) - 2)
        left, right = self._moments[at], self._moments[at + 1]
        part = (moment - left) / (right - left) if right > left else 0.0
        placed = self._places[at] + min(max(part, 0.0), 1.0) * (self._places[at + 1] - self._places[at])
        return placed / self._length


def epoch(value: Any) -> float | None:
    """A time of a frame as epoch seconds."""
    return None if words.is_missing(value) else float(value.timestamp())


def chosen(statuses: Sequence[str], most: int = MOST_ROWS) -> list[int]:
    """The positions of the steps to show, the most telling first: from both ends, of all and of what is loud."""
    total = len(statuses)
    loud = [place for place, status in enumerate(statuses) if status in LOUD_STATUSES]
    ends = zip_longest(range(total), reversed(range(total)), loud[:LOUD], reversed(loud[-LOUD:]))
    wished = (place for places in islice(ends, most) for place in places if place is not None)
    return list(dict.fromkeys(wished))[:most]


@dataclass(frozen=True, slots=True)
class Steps:
    """The rows of a run that are shown, and the axis of their bars."""

    rows: dict[int, list[Row]]
    order: list[int]
    total: int
    axis: Axis
    now: float

    def bar_of(self, row: Row) -> tuple[float, float] | None:
        if row.start is None:
            return None
        return self.axis.place(row.start), self.axis.place(row.end if row.end is not None else self.now)


def steps_of(snapshot: Snapshot, most: int = MOST_ROWS) -> Steps:
    """The rows to show of a run."""
    frame, run = snapshot.steps, snapshot.row
    statuses = [words.text(each) or "SUCCESS" for each in frame["status"].tolist()]
    order = chosen(statuses, most)
    picked = frame.iloc[sorted(order)]
    children = {
        str(key): record for key, record in zip(snapshot.children.index, records(snapshot.children), strict=True)
    }
    rows: dict[int, list[Row]] = {}
    seen: set[str] = set()
    for place, (key, record) in zip(sorted(order), zip(picked.index, records(picked), strict=True), strict=True):
        number = int(key[1])
        group = [_step_row(number, record)]
        child = words.text(record.get("child"))
        if child and child not in seen:
            seen.add(child)
            group.append(_child_row(child, children.get(child)))
        if number in snapshot.between:
            group.append(Row("(between steps)", "", None, None, None, printed=snapshot.between[number]))
        rows[place] = group
    begin = epoch(run.get("started")) or epoch(run.get("created")) or 0.0
    end = epoch(run.get("completed")) or snapshot.now
    return Steps(rows, order, len(statuses), Axis(busy(frame, begin, snapshot.now), begin, end), snapshot.now)


def busy(frame: pd.DataFrame, begin: float, now: float) -> list[tuple[float, float]]:
    """The spans of the steps that worked."""
    spans = []
    for name, started, completed in zip(
        frame["name"].tolist(), frame["started"].tolist(), frame["completed"].tolist(), strict=True
    ):
        start = epoch(started)
        if start is None or name in WAITS:
            continue
        stop = epoch(completed)
        spans.append((max(start, begin), max(now if stop is None else stop, start, begin)))
    return spans


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame."""
    columns = [frame[name].tolist() for name in frame.columns]
    return [dict(zip(frame.columns, values, strict=True)) for values in zip(*columns, strict=True)]


def _step_row(number: int, record: dict[str, Any]) -> Row:
    return Row(
        f"{number} {line(words.text(record.get('name')) or '(begun)', NAME_LIMIT)}",
        words.text(record.get("status")) or "SUCCESS",
        epoch(record.get("started")),
        epoch(record.get("completed")),
        words.seconds_of(record.get("duration")),
        words.number(record.get("attempts")),
        _output(record),
        words.text(record.get("error")),
        words.text(record.get("printed")),
    )


def _output(record: dict[str, Any]) -> str:
    output = words.text(record.get("output"))
    if record.get("name") != SLEEP:
        return output
    try:
        # What it records is the moment of its end.
        return f"until {words.time_of_day(float(output))}"
    except (ValueError, OverflowError, OSError):
        return output


def _child_row(child: str, record: dict[str, Any] | None) -> Row:
    if record is None:
        return Row(f"child {words.short(child)}", "", None, None, None, is_child=True)
    return Row(
        f"child {line(words.text(record.get('name')), NAME_LIMIT)} {words.short(child)}",
        words.text(record.get("status")),
        epoch(record.get("started")) or epoch(record.get("created")),
        epoch(record.get("completed")),
        words.seconds_of(record.get("duration")),
        value=words.text(record.get("output")),
        error=words.text(record.get("error")),
        is_child=True,
    )


def html_rows(steps: Steps, how: str, budget: int) -> list[Markup]:
    """The rows of the table of steps, as many as fit, in order, with a row for each gap."""

    def made(place: int) -> list[Markup]:
        return [row(cells, len(HEADS)) for each in steps.rows[place] for cells in _cells(steps, each, how)]

    groups = _fitting(steps.order, made, budget)
    return [
        each
        for item in _with_gaps(sorted(groups), steps.total)
        for each in ([row([element("i", f"{item}; {how}")], len(HEADS))] if isinstance(item, str) else groups[item])
    ]


def _fitting(order: Iterable[int], make: Callable[[int], list[T]], budget: int) -> dict[int, list[T]]:
    """What is made of the first places, as long as it fits: the most telling ones stand first."""
    made: dict[int, list[T]] = {}
    for place in order:
        group = make(place)
        budget -= sum(len(each.encode()) + 1 for each in group)
        if budget < 0 and made:
            break
        made[place] = group
    return made


def _with_gaps(places: list[int], total: int) -> list[int | str]:
    out: list[int | str] = []
    next_place = 0
    for place in [*places, total]:
        if place > next_place:
            out.append(f"... {words.count(place - next_place, 'step')} left out")
        if place < total:
            out.append(place)
        next_place = place + 1
    return out


def _cells(steps: Steps, found: Row, how: str) -> list[list[Child]]:
    placed = steps.bar_of(found)
    drawn: Child = colored_bar(found.status, *placed) if placed is not None else ""
    label: Child = ["\u00a0\u00a0\u00a0\u21b3 ", found.label] if found.is_child else found.label
    value = line(found.value, VALUE_LIMIT, how)
    cells: list[list[Child]] = [[label, _status(found), drawn, _took(found), value]]
    if found.error:
        cells.append([element("div", line(found.error, ERROR_LIMIT, how), style="padding-left:2em")])
    if found.printed:
        cells.append([_printed(found.printed, how)])
    return cells


def _printed(text: str, how: str) -> Markup:
    return element("div", pre(_tail(text, how)), style="padding-left:2em")


def _tail(text: str, how: str) -> str:
    """The last lines that were printed: they say how far it is."""
    if len(text) <= PRINTED_LIMIT:
        return text.rstrip("\n")
    return f"... ({len(text):,} characters printed; {how})\n{text[-PRINTED_LIMIT:]}".rstrip("\n")


def _status(row: Row) -> Child:
    if not row.status:
        return ""
    tries = f" (attempt {row.attempts})" if row.attempts > 1 else ""
    return [status_mark(row.status), tries]


def _took(row: Row) -> str:
    if row.took is None and row.start is not None and row.end is None and row.status in LOUD_STATUSES:
        # No clock runs in a view: a moment stays true, however long nothing else changes.
        return f"since {words.time_of_day(row.start)}"
    return words.duration(row.took)


def text_lines(steps: Steps, how: str, budget: int) -> list[str]:
    """The steps in plain text."""
    order = steps.order[:MOST_LINES]
    width = max(
        (len(clean(each.label)) + 2 * each.is_child for place in order for each in steps.rows[place]), default=0
    )
    groups = _fitting(
        order, lambda place: [text for each in steps.rows[place] for text in _text_row(steps, each, width, how)], budget
    )
    return [
        each
        for item in _with_gaps(sorted(groups), steps.total)
        for each in ([f"  {item}; {how}"] if isinstance(item, str) else groups[item])
    ]


def _text_row(steps: Steps, found: Row, width: int, how: str) -> list[str]:
    placed = steps.bar_of(found)
    drawn = bar(*placed).replace("\u00a0", " ") if placed is not None else " " * 20
    label = ("  " if found.is_child else "") + clean(found.label)
    mark = status_text(found.status) if found.status else ""
    tries = f" (attempt {found.attempts})" if found.attempts > 1 else ""
    shown = f"  {label.ljust(width)}  {mark + tries:<11}  {drawn}  {_took(found):<9} {line(found.value, 60)}".rstrip()
    below = [f"      {line(found.error, ERROR_LIMIT, how)}"] if found.error else []
    below += [f"      > {each}" for each in clean(_tail(found.printed, how)).splitlines()] if found.printed else []
    return [shown, *below]
