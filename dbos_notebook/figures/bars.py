"""What a timeline shows, apart from how it is drawn: the stretches of time of a run, each in a lane.

Steps are lanes of their own while they are few; many share the lane of their name, and those of one lane that would
touch each other are drawn as one. What is missing or contradicts itself (no end, no start, an end before the start
because clocks differ) becomes the nearest thing that can be drawn.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dbos_notebook.figures.theme import TIMES, label, lasting, look_of, safe, seconds_of, short_id, told
from dbos_notebook.frames import UNFINISHED, tries_of, words
from dbos_notebook.signs import SLEEP, TIMED, WAITS

# More steps than that share lanes; more lanes than that share the last one.
MOST_ROWS, MOST_LANES = 40, 40
WAIT, TRY, QUEUED = "wait", "try", "queued"
FAILED = frozenset({"ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"})
# What runs has no record yet, and so no name.
NAMELESS = "(running now)"


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of time in a lane. `kind` is a status, or what else it is."""

    lane: str
    kind: str
    start: float
    end: float
    hover: str
    #: What stands behind it.
    text: str = ""
    number: int = 1
    #: Whether it is work that the axis must show at full length.
    is_work: bool = True


class Step(NamedTuple):
    """A row of the frame, as seconds since the origin."""

    workflow_id: str
    number: int
    name: str
    status: str
    start: float
    end: float
    child: str | None
    output: str | None
    error: str | None
    tries: str | None


class Run(NamedTuple):
    """A row of the frame of runs, as seconds since the origin; `start` is missing while it waits."""

    workflow_id: str
    name: str
    status: str
    created: float
    start: float
    end: float


def beginning_of(steps: pd.DataFrame, runs: pd.DataFrame, ids: Iterable[str]) -> Any:
    """The moment that everything is counted from: NaT if there is none."""
    shown = runs.loc[runs.index.isin(list(ids))]
    moments = [shown["created"].min(), shown["started"].min(), steps["started"].min(), steps["completed"].min()]
    known = [moment for moment in moments if not pd.isna(moment)]
    return min(known) if known else pd.NaT


def read_runs(runs: pd.DataFrame, origin: Any, now: float) -> dict[str, Run]:
    """The runs by their ids."""
    columns = [seconds_of(runs[name], origin) for name in ("created", "started", "completed")]
    rows = zip(words(runs.index), words(runs["name"]), words(runs["status"]), *columns, strict=True)
    found = {}
    for workflow_id, name, status, created, start, completed in rows:
        end = now if status in UNFINISHED else completed
        first = created if not math.isnan(created) else start
        end = first if math.isnan(end) else max(end, first)
        found[workflow_id or ""] = Run(workflow_id or "", name or "", status or "", first, start, end)
    return found


def read_steps(steps: pd.DataFrame, origin: Any, now: float) -> list[Step]:
    """The steps in order, but for the sleeps that a wait records for its timeout."""
    starts, ends = (seconds_of(steps[name], origin) for name in ("started", "completed"))
    index = steps.index
    columns = (words(steps[name]) for name in ("name", "status", "child", "output", "error", "tries"))
    rows = zip(words(index.get_level_values(0)), index.get_level_values(1), starts, ends, *columns, strict=True)
    found: list[Step] = []
    for workflow_id, number, begun, done, name, status, child, output, error, tries in rows:
        before = found[-1] if found and found[-1].workflow_id == workflow_id else None
        if name == SLEEP and before and before.name in TIMED and before.number == number - 1:
            continue
        earlier = before.end if before else 0.0
        start = float(next((each for each in (begun, done) if not math.isnan(each)), earlier))
        end = _woken(output, origin, start) if name == SLEEP else float(done)
        if math.isnan(end):
            end = now if status == "PENDING" else start
        step = (workflow_id or "", int(number), name or "", status or "", start, max(start, end))
        found.append(Step(*step, child, output, error, tries))
    return _bounded(found, now)


def _woken(output: str | None, origin: Any, start: float) -> float:
    """A sleep records when it ends, at its beginning."""
    try:
        return max(start, float(output or "") - float(pd.Timestamp(origin).timestamp()))
    except ValueError:
        return start


def _bounded(steps: list[Step], now: float) -> list[Step]:
    """No sleep goes on after now, nor after a next step has begun."""
    bounded = list(steps)
    for place, step in enumerate(steps):
        if step.name == SLEEP:
            after = steps[place + 1] if place + 1 < len(steps) else None
            goes_on = after is not None and after.workflow_id == step.workflow_id and after.start > step.start
            limit = min(now, after.start) if after is not None and goes_on else now
            bounded[place] = step._replace(end=max(step.start, min(step.end, limit)))
    return bounded


def outcome(step: Step, runs: dict[str, Run]) -> str:
    """The status of a step; of one that started a child, the child's."""
    child = runs.get(step.child or "")
    return child.status if child is not None and step.name not in WAITS else step.status


# -- lanes -----------------------------------------------------------------------------------------------------


class Lanes:
    """Which lane each step belongs to, and how the lanes are called."""

    def __init__(self, steps: list[Step], runs: dict[str, Run]) -> None:
        self.steps, self._runs = steps, runs
        self._ids = list(dict.fromkeys(step.workflow_id for step in steps))
        self.is_of_runs = len(self._ids) > 1
        self.is_of_names = not self.is_of_runs and len(steps) > MOST_ROWS
        counts = Counter(map(self._key, steps))
        self._numbers = counts
        failures = {self._key(step) for step in steps if outcome(step, runs) in FAILED}
        kept = sorted(counts, key=lambda key: (key not in failures, -counts[key]))[: MOST_LANES - 1]
        self._kept = set(counts) if len(counts) <= MOST_LANES else set(kept)

    def _key(self, step: Step) -> str:
        if self.is_of_runs:
            return step.workflow_id
        return step.name if self.is_of_names else f"{step.workflow_id} {step.number}"

    def of(self, step: Step) -> str:
        """The lane of a step; the last one holds all that have none of their own."""
        key = self._key(step)
        return key if key in self._kept else "…"

    def labels(self) -> dict[str, str]:
        """The lanes from top to bottom, and what is written beside each."""
        members: dict[str, list[Step]] = defaultdict(list)
        for step in self.steps:
            members[self.of(step)].append(step)
        rest = members.pop("…", None)
        named = {key: self._label(key, steps) for key, steps in members.items()}
        if rest is not None:
            others = len(self._numbers) - len(self._kept)
            named["…"] = f"{others:,} more {'runs' if self.is_of_runs else 'names'}, {len(rest):,} steps"
        return named

    def _label(self, key: str, steps: list[Step]) -> str:
        if self.is_of_runs:
            run = self._runs.get(key)
            whose = f"{look_of(run.status).glyph} {label(run.name, 24)} " if run else ""
            return f"{whose}{label(short_id(key))}"
        if not self.is_of_names:
            (step,) = steps
            return f"{look_of(outcome(step, self._runs)).glyph} {step.number} {label(step.name or NAMELESS)}"
        outcomes = [outcome(step, self._runs) for step in steps]
        failed, running = (sum(each in some for each in outcomes) for some in (FAILED, UNFINISHED))
        glyph = look_of("ERROR" if failed else "PENDING" if running else "SUCCESS").glyph
        tail = [f"{failed:,} failed"] * bool(failed) + [f"{running:,} running"] * bool(running)
        times = f" {TIMES}{len(steps):,}" if len(steps) > 1 else ""
        return ", ".join([f"{glyph} {label(steps[0].name or NAMELESS, 30)}{times}", *tail])


# -- bars ------------------------------------------------------------------------------------------------------


def run_bars(run: Run) -> Iterator[Bar]:
    """The run itself: how long it waited, and ran."""
    lane = run.workflow_id
    about = f"<b>{label(run.name)}</b> {safe(lane)}<br>{told(run.status)}"
    start = run.end if math.isnan(run.start) else min(max(run.start, run.created), run.end)
    if start > run.created:
        waited = lasting(start - run.created)
        yield Bar(lane, QUEUED, run.created, start, f"{about}<br>waited {waited}", is_work=False)
    if not math.isnan(run.start):
        took = lasting(run.end - start)
        yield Bar(lane, run.status, start, run.end, f"{about}<br>ran {took}", took, is_work=False)


def step_bars(step: Step, lane: str, runs: dict[str, Run]) -> Iterator[Bar]:
    """A step: its attempts, the step itself or what it waited for, and the child that it started."""
    head = f"<b>{step.number} {label(step.name or NAMELESS)}</b>"
    took = lasting(step.end - step.start)
    if step.name in WAITS:
        yield Bar(lane, WAIT, step.start, step.end, f"{head}<br>waited {took}", took, is_work=False)
        return
    child = runs.get(step.child or "")
    if child is not None:
        took = lasting(child.end - step.start)
        hover = f"{head}<br>child {safe(child.workflow_id)}<br>{told(child.status)}, {took}"
        end = max(step.start, child.end)
        # A child that waits, or was ended while it did, has not worked.
        begun = end if math.isnan(child.start) else min(max(step.start, child.start), end)
        if begun > step.start:
            yield Bar(lane, QUEUED, step.start, begun, hover, took if begun == end else "", is_work=False)
        if begun < end or end == step.start:
            yield Bar(lane, child.status, begun, end, hover, took)
        return
    start = step.start
    for place, (begun, ended, error) in enumerate(_failed_tries(step), 1):
        hover = f"{head}<br>attempt {place} failed after {lasting(ended - begun)}<br>{label(error, 100)}"
        yield Bar(lane, TRY, begun, ended, hover)
        start = max(start, min(ended, step.end))
    hover = f"{head}<br>{told(step.status)}, {took}"
    if step.error:
        hover += f"<br>{label(step.error, 100)}"
    yield Bar(lane, step.status, start, step.end, hover, took)


def _failed_tries(step: Step) -> list[tuple[float, float, str]]:
    """The attempts before the last one, in seconds since the origin."""
    tries = tries_of(step.tries)
    if len(tries) < 2 or any(not isinstance(each[0], int) or not isinstance(each[1], int) for each in tries[:-1]):
        return []
    first = tries[0][0]
    assert isinstance(first, int)
    return [
        (step.start + (begun - first) / 1000, step.start + max(ended - first, begun - first) / 1000, error or "")
        for begun, ended, error in tries[:-1]
        if isinstance(begun, int) and isinstance(ended, int)
    ]


def merged(bars: list[Bar], least: float) -> list[Bar]:
    """The bars of each lane and kind, those that are less apart than `least` made one."""
    of: dict[tuple[str, str], list[Bar]] = defaultdict(list)
    parallel = _parallel(bars)
    for bar in bars:
        # Where many run at once a failure is a moment: as stretches, a few would cover all the others.
        is_moment = bar.lane in parallel and bar.kind in {*FAILED, "CANCELLED"}
        shown = replace(bar, start=max(bar.start, bar.end - 3 * least)) if is_moment else bar
        of[bar.lane, bar.kind].append(shown)
    return [whole for group in of.values() for whole in _touching(sorted(group, key=_start), least)]


def _parallel(bars: list[Bar]) -> set[str]:
    """The lanes in which much goes on at once."""
    work: dict[str, float] = defaultdict(float)
    spans: dict[str, tuple[float, float]] = {}
    for bar in bars:
        work[bar.lane] += bar.end - bar.start
        first, last = spans.get(bar.lane, (bar.start, bar.end))
        spans[bar.lane] = (min(first, bar.start), max(last, bar.end))
    return {lane for lane, (first, last) in spans.items() if work[lane] > 1.5 * (last - first)}


def _start(bar: Bar) -> float:
    return bar.start


def _touching(bars: list[Bar], least: float) -> Iterator[Bar]:
    block: list[Bar] = []
    until = -math.inf
    for bar in bars:
        if block and bar.start > until + least:
            yield _block(block, until)
            block, until = [], -math.inf
        block.append(bar)
        until = max(until, bar.end)
    if block:
        yield _block(block, until)


def _block(bars: list[Bar], until: float) -> Bar:
    first = bars[0]
    if len(bars) == 1:
        return first
    work = lasting(float(np.sum([bar.end - bar.start for bar in bars])))
    hover = f"<b>{len(bars):,} stretches</b>, {work} in all<br>the first: {first.hover}"
    return replace(first, end=until, hover=hover, text="", number=len(bars))
