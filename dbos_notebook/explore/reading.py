"""Reading what the explorer looks at: one page of runs, one tab of one run.

A reading asks for what is on the screen and never counts: a hundred thousand runs cost no more than the page that is
shown of them. It knows nothing of the last reading; what changed is found out by who draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dbos_notebook.explore.state import (
    NOT_CHECKED,
    PAGE_SIZE,
    Detail,
    FitRow,
    GroupRow,
    Look,
    Order,
    Row,
    ScheduleRow,
    Seen,
    Shown,
    StepRow,
    Wanted,
)
from dbos_notebook.explore.tabs import shown_of, stream_keys
from dbos_notebook.failures import MOST_GROUPS, Triage, triage
from dbos_notebook.replay.guarding import guard_for
from dbos_notebook.typed import moment_of
from dbos_notebook.views.html import element, line, page, table
from dbos_notebook.views.steps import records
from dbos_notebook.views.words import is_missing, moment, seconds_of, text

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.source import Source

# A text is looked for in so many of the newest runs: no index knows it.
SEARCHED = 500
FITTED = 50
# Names and queues are offered by filters; they change rarely.
NAMES_EVERY_SECONDS = 15.0
# Every failure is looked at for a triage.
TRIAGE_EVERY_SECONDS = 3.0

#: What keeps a run from fitting the newest code, None if nothing does.
Fits = Callable[["Source", str], str | None]


@dataclass
class Reader:
    """Reads for one explorer."""

    source: Source
    #: The version of the newest code of a workflow, by its name.
    newest: Callable[[str], str | None]
    fits: Fits | None = None
    _found: Triage | None = field(default=None, init=False)
    _found_at: float = field(default=float("-inf"), init=False)
    _named_at: float = field(default=float("-inf"), init=False)
    _stream_of: tuple[Look, Shown] | None = field(default=None, init=False)
    _obstacles: dict[tuple[str, str], str | None] = field(default_factory=dict, init=False)
    _guarded: tuple[tuple[str, str, str], str] | None = field(default=None, init=False)

    def read(self, look: Look, now: float) -> Seen:
        """What is there to be seen now; `now` is the time of a clock that only goes forward."""
        match look.section:
            case "schedules":
                return self._schedules(look)
            case "triage":
                return self._triage(look, now)
            case "patch":
                return self._patch(look, now)
            case "runs":
                return self._runs(look, now)

    def _runs(self, look: Look, now: float) -> Seen:
        rows, has_more = self._page(look)
        names, queues = self._names(rows, now)
        detail = None if look.chosen is None else self._detail(look, look.chosen)
        return Seen(look, _now(), rows, has_more, queues, names, detail)

    def _page(self, look: Look) -> tuple[tuple[Row, ...], bool]:
        filters, start = filters_of(look.wanted), look.page * PAGE_SIZE
        is_oldest_first = look.order == "oldest"
        if look.wanted.text:
            found = self.source.runs(**filters, limit=SEARCHED, sort_desc=not is_oldest_first)
            rows = rows_of(found[_holds(found, look.wanted.text)])[start : start + PAGE_SIZE + 1]
        else:
            # One more than is shown: so it is known whether there is a next page, without counting.
            more: dict[str, Any] = {"limit": PAGE_SIZE + 1, "offset": start, "sort_desc": not is_oldest_first}
            rows = rows_of(self.source.runs(**filters, **more, values=False))
        return ordered(tuple(rows[:PAGE_SIZE]), look.order), len(rows) > PAGE_SIZE

    def _names(self, rows: tuple[Row, ...], now: float) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
        names = tuple(sorted({row.name for row in rows}))
        if now - self._named_at < NAMES_EVERY_SECONDS:
            return names, None
        self._named_at = now
        return names, tuple(sorted(self.source.queues().index.tolist()))

    def _detail(self, look: Look, run_id: str) -> Detail | None:
        found = rows_of(self.source.runs(workflow_ids=[run_id], values=False))
        if not found:
            return None
        steps = tuple(
            StepRow(int(number), text(each["name"]), text(each["status"]))
            for (_, number), each in _numbered(self.source.steps(run_id))
        )
        keys = stream_keys(self.source, run_id) if look.tab == "streams" else ()
        return Detail(found[0], self._shown(look, run_id, keys), steps, keys)

    def _shown(self, look: Look, run_id: str, keys: tuple[str, ...]) -> Shown:
        stream = look.stream if look.stream in keys else next(iter(keys), "")
        is_stopped = look.tab == "streams" and not look.is_tailing
        if is_stopped and self._stream_of is not None and self._stream_of[0] == look:
            return self._stream_of[1]
        shown = shown_of(self.source, run_id, look, stream)
        self._stream_of = (look, shown) if is_stopped else None
        return shown

    def _schedules(self, look: Look) -> Seen:
        found = self.source.schedules()
        rows = [(str(name), each) for name, each in zip(found.index, records(found), strict=True)]
        listed = tuple(ScheduleRow(name, text(each["workflow"]), text(each["status"])) for name, each in rows)
        return Seen(look, _now(), schedules=listed, table=_schedule_table(rows))

    def _triage(self, look: Look, now: float) -> Seen:
        if self._found is None or now - self._found_at > TRIAGE_EVERY_SECONDS:
            self._found, self._found_at = triage(self.source), now
        found = self._found
        rows = tuple(
            GroupRow(
                each.number,
                each.fingerprint,
                f"{each.number}: {each.workflow}, {each.error}",
                len(each.unforked),
                len(each.resumable),
            )
            for each in found.groups[:MOST_GROUPS]
        )
        return Seen(look, _now(), groups=rows, table=found.view.html)

    def _patch(self, look: Look, now: float) -> Seen:
        known = rows_of(self.source.runs(limit=SEARCHED, values=False))
        names, _ = self._names(tuple(known), now)
        if not look.workflow:
            return Seen(look, _now(), names=names, fits=())
        newest = self.newest(look.workflow) or ""
        runs = rows_of(self.source.runs(name=look.workflow, limit=FITTED))
        fits = tuple(FitRow(row, self._obstacle(row, newest)) for row in runs)
        return Seen(look, _now(), names=names, fits=fits, newest=newest, guarded=self._guard(look, newest, fits))

    def _guard(self, look: Look, newest: str, fits: tuple[FitRow, ...]) -> str:
        """The workflow with a guard for the newest run that does not fit; empty where none is needed, or known."""
        unfit = next((each.run.workflow_id for each in fits if each.obstacle not in (None, NOT_CHECKED)), None)
        if unfit is None:
            return ""
        key = (unfit, newest, look.patch)
        if self._guarded is None or self._guarded[0] != key:
            try:
                found = guard_for(self.source, look.workflow, unfit, look.patch)
            except Exception:  # noqa: BLE001 - its code is not here, or the user's raises: the table says so
                found = None
            self._guarded = key, found or ""
        return self._guarded[1]

    def _obstacle(self, row: Row, newest: str) -> str | None:
        if self.fits is None:
            is_same = bool(newest) and row.version == newest
            return None if is_same else NOT_CHECKED
        key = (row.workflow_id, newest)
        if key not in self._obstacles:
            self._obstacles[key] = self.fits(self.source, row.workflow_id)
        return self._obstacles[key]


def filters_of(wanted: Wanted) -> dict[str, Any]:
    """The conditions of a listing; what was left empty is none."""
    found = {
        "status": wanted.status,
        "name": wanted.name,
        "queue_name": wanted.queue,
        "workflow_id_prefix": wanted.prefix,
    }
    given = {name: words for name, words in found.items() if words}
    return {**given, **({"start_time": moment_of(wanted.since)} if wanted.since else {})}


def rows_of(runs: pd.DataFrame) -> list[Row]:
    """Runs of a frame as the list shows them."""
    return [
        Row(
            str(workflow_id),
            text(each["name"]),
            text(each["status"]),
            None if is_missing(each["created"]) else each["created"].to_pydatetime(),
            seconds_of(each["duration"]),
            text(each["queue"]),
            text(each["version"]),
            text(each["forked_from"]),
        )
        for workflow_id, each in zip(runs.index, records(runs), strict=True)
    ]


def ordered(rows: tuple[Row, ...], order: Order) -> tuple[Row, ...]:
    """A page in this order, where the database has not put it in order already."""
    match order:
        case "name":
            return tuple(sorted(rows, key=lambda row: row.name.lower()))
        case "status":
            return tuple(sorted(rows, key=lambda row: row.status))
        case "longest":
            return tuple(sorted(rows, key=lambda row: -(row.seconds or 0.0)))
        case "newest" | "oldest":
            return rows


def _holds(runs: pd.DataFrame, words: str) -> Any:
    columns = ("name", "input", "output", "error", "attributes")
    found = [runs[each].str.contains(words, case=False, regex=False, na=False) for each in columns]
    held = found[0]
    for each in found[1:]:
        held |= each
    return held


def _numbered(steps: pd.DataFrame) -> list[tuple[Any, dict[str, Any]]]:
    return list(zip(steps.index.tolist(), records(steps), strict=True))


def _schedule_table(rows: list[tuple[str, dict[str, Any]]]) -> str:
    if not rows:
        return page(element("p", "There are no schedules. DBOS.create_schedule makes one.", style="note"))
    cells = [
        (
            line(name, 60),
            line(text(each["workflow"]), 60),
            element("code", line(text(each["cron"]), 40)),
            line(text(each["zone"]), 40),
            "■ PAUSED" if text(each["status"]) == "PAUSED" else "▶ ACTIVE",
            moment(each["last_fired"]) or "never",
            moment(each["next_fire"]),
        )
        for name, each in rows
    ]
    return page(table("Schedules", ("schedule", "workflow", "cron", "zone", "status", "last", "next"), cells))


def _now() -> datetime:
    return datetime.now(UTC)
