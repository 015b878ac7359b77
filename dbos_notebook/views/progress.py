"""Progress of many runs, and waiting for them.

A wait never blocks for longer than a tick, so that the stop button and the buttons of widgets work while it lasts;
when it is broken off, the runs go on, and the view says how far they were.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dbos.error import DBOSNonExistentWorkflowError
from dbos_notebook.frames import UNFINISHED
from dbos_notebook.views import words
from dbos_notebook.views.html import (
    FULL,
    LOOKS,
    Child,
    element,
    fitting,
    line,
    page,
    status_mark,
    status_text,
)
from dbos_notebook.views.live import PAUSE_SECONDS, Live, Seen, can_update
from dbos_notebook.views.view import View

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.source import Source

TICK_SECONDS = 0.1
# One question to the database names at most so many ids.
CHUNK = 500
WIDTH = 30
MOST_ERRORS = 5


class Progress:
    """How far these runs are, as a live view shows it."""

    def __init__(self, source: Source, workflow_ids: Sequence[str], title: str = "") -> None:
        self._source, self._ids, self._title = source, list(dict.fromkeys(workflow_ids)), title
        self._statuses: dict[str, str] = {}
        self._errors: dict[str, str] = {}
        self._names: Counter[str] = Counter()
        self._looked = time.time()

    @property
    def unfinished(self) -> list[str]:
        return [each for each in self._ids if self._statuses.get(each, "PENDING") in UNFINISHED]

    def look(self) -> Seen:
        """Read the runs that had not ended. Raises DBOSNonExistentWorkflowError for one that is not there."""
        self._looked = time.time()
        for chunk in _chunks(self.unfinished):
            found = self._source.runs(workflow_ids=chunk)
            missing = set(chunk) - {str(each) for each in found.index}
            if missing:
                raise DBOSNonExistentWorkflowError("target", min(missing))
            columns = (found[name].tolist() for name in ("name", "status", "error"))
            for workflow_id, name, status, error in zip(found.index, *columns, strict=True):
                self._note(str(workflow_id), str(name), str(status), words.text(error))
        return Seen(tuple(sorted(self._counts().items())), not self.unfinished)

    def _note(self, workflow_id: str, name: str, status: str, error: str) -> None:
        if workflow_id not in self._statuses:
            self._names[name] += 1
        self._statuses[workflow_id] = status
        if status not in UNFINISHED and status != "SUCCESS":
            self._errors[workflow_id] = error

    def _counts(self) -> Counter[str]:
        return Counter(self._statuses.values())

    def _when(self, *, is_live: bool) -> str:
        if not self.unfinished:
            return ""
        return " \u00b7 live" if is_live else f" \u00b7 as of {words.time_of_day(self._looked)}"

    def draw(self, *, is_live: bool) -> View:
        total, done = len(self._ids), len(self._ids) - len(self.unfinished)
        counts = self._counts()
        title = line(self._title or ", ".join(name for name, _ in self._names.most_common(3)) or "runs", 120)
        failed = sum(counts[status] for status in counts if status not in UNFINISHED and status != "SUCCESS")
        # What went wrong is seen without its words: at the end of the done part.
        done_cells = done * WIDTH // total if total else WIDTH
        drawn = FULL * done_cells + "\u2591" * (WIDTH - done_cells)
        state = f"{done:,} of {words.count(total, 'run')}" + self._when(is_live=is_live)
        known = [status for status in LOOKS if counts[status]]
        errors = [(key, f"{words.short(key)} {self._statuses[key]}: {error}") for key, error in self._errors.items()]
        color = LOOKS["ERROR" if failed else "SUCCESS" if done == total else "PENDING"].color
        meter = element(
            "span",
            drawn,
            role="progressbar",
            aria_valuemin=0,
            aria_valuemax=total,
            aria_valuenow=done,
            aria_label=state,
            style=f"font-family:monospace;color:{color}",
        )
        shown: list[Child] = [[element("b", title), " ", meter, " ", state]]
        shown.append([[status_mark(status), f" {counts[status]:,} \u00a0 "] for status in known])
        shown += [line(text, 300) for _, text in errors[:MOST_ERRORS]]
        more = [f"... and {len(errors) - MOST_ERRORS:,} more"] if len(errors) > MOST_ERRORS else []
        lines = [f"{title}  {drawn}  {state}", "  " + "   ".join(f"{status_text(s)} {counts[s]:,}" for s in known)]
        lines += [f"  {line(text, 300)}" for _, text in errors[:MOST_ERRORS]]
        return View(page(*(element("div", each) for each in (*shown, *more))), fitting([*lines, *more]))


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]


def progress(source: Source, workflow_ids: Sequence[str], title: str = "") -> Live:
    """A live view of how far these runs are."""
    return Live(Progress(source, workflow_ids, title))


def begun(source: Source, workflow_ids: Sequence[str], *, is_shown: bool, pause_seconds: float = PAUSE_SECONDS) -> Live:
    """A progress that is followed, shown where outputs can be replaced."""
    subject = Progress(source, workflow_ids)
    # An unknown id is an error of the caller, not one more thing that cannot be read at the moment.
    subject.look()
    live = Live(subject, pause_seconds=pause_seconds)
    if is_shown and can_update():
        return live.show()
    live.follow()
    return live


def wait(
    source: Source, workflow_ids: Sequence[str], timeout_seconds: float | None = None, *, is_shown: bool = True
) -> pd.DataFrame:
    """Wait for runs to end, in any way, and return them. Raises TimeoutError; the runs go on."""
    live = begun(source, workflow_ids, is_shown=is_shown)
    until = _until(timeout_seconds)
    try:
        while not live.ended.wait(TICK_SECONDS):
            _in_time(live, until, timeout_seconds)
    finally:
        live.stop()
    return ended(source, workflow_ids)


async def wait_async(
    source: Source,
    workflow_ids: Sequence[str],
    timeout_seconds: float | None = None,
    *,
    is_shown: bool = True,
) -> pd.DataFrame:
    """Wait for runs to end; see `wait`. In short ticks, for the stop button is seen when the loop wakes."""
    live = begun(source, workflow_ids, is_shown=is_shown)
    until = _until(timeout_seconds)
    try:
        while not live.ended.is_set():
            await asyncio.sleep(TICK_SECONDS)
            _in_time(live, until, timeout_seconds)
    finally:
        live.stop()
    return ended(source, workflow_ids)


def _until(timeout_seconds: float | None) -> float | None:
    return None if timeout_seconds is None else time.monotonic() + timeout_seconds


def _in_time(live: Live, until: float | None, timeout_seconds: float | None) -> None:
    if until is None or time.monotonic() <= until or live.ended.is_set():
        return
    subject: Any = live.subject
    left = subject.unfinished
    if left:
        named = ", ".join(words.short(each) for each in left[:5])
        raise TimeoutError(
            f"{words.count(len(left), 'run')} not ended after {timeout_seconds:g} s: {named}. They go on."
        )


def ended(source: Source, workflow_ids: Sequence[str]) -> pd.DataFrame:
    """The runs, in the order of their ids."""
    ids = list(dict.fromkeys(workflow_ids))
    frames = [source.runs(workflow_ids=chunk) for chunk in _chunks(ids)] or [source.runs(workflow_ids=[])]
    if len(frames) == 1:
        return frames[0].reindex(ids) if set(ids) == set(frames[0].index) and len(ids) > 1 else frames[0]
    import pandas as pd  # inside: it costs half a second, and a progress bar alone does without

    return pd.concat(frames)
