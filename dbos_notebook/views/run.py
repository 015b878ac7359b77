"""A run as it shows itself: its header, its steps with bars, its output or error.

It is drawn from frames that were read at one moment, so that its parts agree; a clock never runs in it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dbos.error import DBOSNonExistentWorkflowError
from dbos_notebook.frames import UNFINISHED
from dbos_notebook.views import errors, words
from dbos_notebook.views.html import (
    HTML_BYTES,
    TEXT_BYTES,
    Child,
    Markup,
    element,
    escape,
    facts,
    fitting,
    line,
    page,
    status_mark,
    status_text,
    table,
)
from dbos_notebook.views.steps import HEADS, MOST_ROWS, Steps, html_rows, records, steps_of, text_lines
from dbos_notebook.views.view import View

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.source import Source

MOST_CHILDREN = 300
VALUE_LIMIT = 300
# For the table's own head and the page around it.
ROOM_BYTES = 2_500


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a view of a run is drawn from: frames, read at one moment."""

    run: pd.DataFrame
    steps: pd.DataFrame
    children: pd.DataFrame
    #: What the body printed after each of its steps; 0: before the first.
    between: dict[int, str]
    #: The traceback of its error, where one was kept.
    traceback: str
    now: float

    @property
    def workflow_id(self) -> str:
        return str(self.run.index[0])

    @property
    def row(self) -> dict[str, Any]:
        return records(self.run)[0]

    @property
    def status(self) -> str:
        return words.text(self.run["status"].iloc[0])

    @property
    def is_finished(self) -> bool:
        return self.status not in UNFINISHED


def snapshot_of(source: Source, workflow_id: str) -> Snapshot:
    """Read a run. Raises DBOSNonExistentWorkflowError if it is not there."""
    run = source.runs(workflow_ids=[workflow_id])
    if run.empty:
        raise DBOSNonExistentWorkflowError("target", workflow_id)
    steps = source.steps(workflow_id)
    children = source.runs(parent_workflow_id=workflow_id, limit=MOST_CHILDREN)
    printed = source.printed(workflow_id)
    after = printed[printed["after"]]
    between = {int(step): str(text) for step, text in zip(after["step"], after["text"], strict=True)}
    has_failed = run["status"].iloc[0] == "ERROR"
    traceback = source.tracebacks(workflow_id).get(0, "") if has_failed else ""
    return Snapshot(run, steps, children, between, traceback, time.time())


def run_view(snapshot: Snapshot, *, is_live: bool = False) -> View:
    """A run: header, input, steps, output or error."""
    parts = _parts(snapshot, is_live=is_live)
    return View(_html(snapshot, *parts, HTML_BYTES), _text(snapshot, *parts))


def _parts(snapshot: Snapshot, *, is_live: bool, most: int = MOST_ROWS) -> tuple[_Shown, Steps, list[str], str]:
    row = snapshot.row
    shown = _Shown(
        line(words.text(row.get("name")) or "?", 120),
        [("id", line(snapshot.workflow_id, 120)), *_facts(row)],
        [(kind, value) for kind in ("input", "output") if (value := words.text(row.get(kind)))],
        snapshot.traceback or words.text(row.get("error")),
        _state(snapshot, is_live=is_live),
    )
    steps = steps_of(snapshot, most)
    folded = [f"idle {words.duration(stop - start)} folded" for start, stop in steps.axis.folded[:3]]
    return shown, steps, folded, f"all: %dbos steps {words.short(snapshot.workflow_id)}"


def run_page(snapshot: Snapshot, *, budget: int) -> Markup:
    """A run with as many of its steps as fit into so many bytes."""
    return _html(snapshot, *_parts(snapshot, is_live=False, most=len(snapshot.steps)), budget)


def _state(snapshot: Snapshot, *, is_live: bool) -> str:
    """When this was true; a page that was loaded again hears of no update, so it says what shows it anew."""
    if snapshot.is_finished:
        return ""
    when = f"as of {words.time_of_day(snapshot.now)}"
    return (
        f" \u00b7 live, {when} (again: %dbos watch {words.short(snapshot.workflow_id)})"
        if is_live
        else f" \u00b7 {when}"
    )


class _Shown(NamedTuple):
    """The words about a run that both forms of its view have."""

    name: str
    facts: list[tuple[str, str]]
    texts: list[tuple[str, str]]
    error: str
    state: str


def _html(snapshot: Snapshot, shown: _Shown, steps: Steps, folded: list[str], how: str, budget: int) -> Markup:
    name = [element("b", shown.name), " ", element("code", words.short(snapshot.workflow_id)), " "]
    parts: list[Child] = [element("div", name, status_mark(snapshot.status), shown.state), facts(shown.facts)]
    parts += [facts([(kind, line(value, VALUE_LIMIT, how))]) for kind, value in shown.texts]
    if shown.error:
        parts.append(errors.error_markup(shown.error))
    if steps.total:
        size = sum(len(escape(part).encode()) for part in parts)
        caption = " \u00b7 ".join([words.count(steps.total, "step"), *folded])
        rows = html_rows(steps, how, budget - size - ROOM_BYTES)
        parts.append(table(caption, HEADS, rows))
    return page(*parts, budget=budget)


def _text(snapshot: Snapshot, shown: _Shown, steps: Steps, folded: list[str], how: str) -> str:
    short = words.short(snapshot.workflow_id)
    lines = [f"{shown.name}  {short}  {status_text(snapshot.status)}{shown.state}"]
    lines.append("  " + "  ".join(f"{key} {value}" for key, value in shown.facts if value))
    lines += [f"  {kind}: {line(value, VALUE_LIMIT)}" for kind, value in shown.texts]
    lines += [f"  {each}" for each in errors.error_lines(shown.error)] if shown.error else []
    lines += [f"  ~~~ {each} ~~~" for each in folded]
    left = TEXT_BYTES - sum(len(each.encode()) + 1 for each in lines) - ROOM_BYTES
    return fitting([*lines, *text_lines(steps, how, left)])


def _facts(row: dict[str, Any]) -> list[tuple[str, str]]:
    attempts = words.number(row.get("attempts"))
    return [
        ("started", words.moment(row.get("started")) or f"not yet (created {words.moment(row.get('created'))})"),
        ("took", words.duration(words.seconds_of(row.get("duration")))),
        ("queue", line(words.text(row.get("queue")), 60)),
        ("not before", words.moment(row.get("delayed_until"))),
        ("starts", str(attempts) if attempts > 1 else ""),
        ("version", line(words.text(row.get("version")), 40)),
        ("code", line(words.text(row.get("code")), 40)),
        ("child of", line(words.text(row.get("parent")), 60)),
        ("forked from", line(words.text(row.get("forked_from")), 60)),
    ]
