"""What each tab shows of the chosen run.

A tab reads only what it shows, and shows only so much of it as one can read; where more is, it names the command that
gives all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from dbos_notebook.explore.state import Look, Shown, Tab
from dbos_notebook.views.code import source_view
from dbos_notebook.views.errors import error_markup, told
from dbos_notebook.views.html import Child, Markup, cut, element, facts, line, page, pre, status_mark, table
from dbos_notebook.views.run import snapshot_of
from dbos_notebook.views.steps import html_rows, records, steps_of
from dbos_notebook.views.words import count, duration, moment, seconds_of, short, text

if TYPE_CHECKING:
    from dbos_notebook.source import Source

MOST_ROWS, BARS_BYTES = 200, 40_000
VALUE_LIMIT, LOG_LIMIT, MOST_ERRORS = 400, 12_000, 10


def shown_of(source: Source, run_id: str, look: Look, stream: str) -> Shown:
    """What the chosen tab shows of a run."""
    if look.tab == "streams":
        return _streams(source, run_id, stream)
    return TABS_OF[look.tab](source, run_id)


def _timeline(source: Source, run_id: str) -> Shown:
    snapshot = snapshot_of(source, run_id)
    row = snapshot.row
    parts: list[Child] = [facts([(kind, line(text(row[kind]), VALUE_LIMIT))]) for kind in ("input", "output")]
    parts += [error_markup(text(row["error"]))] if text(row["error"]) else []
    # While a run goes on, its figure would be drawn anew, and flicker, at every change; bars of characters do not.
    if snapshot.steps.empty:
        return Shown(page(*parts, element("p", "No step is recorded yet.", style="note")))
    if not snapshot.is_finished:
        steps = steps_of(snapshot, MOST_ROWS)
        rows = html_rows(steps, f"all: %dbos steps {short(run_id)}", BARS_BYTES)
        heads = ("step", "status", "when", "took", "output")
        return Shown(page(*parts, table(count(steps.total, "step"), heads, rows)))
    from dbos_notebook.figures import timeline  # here: plotly takes half a second to load

    figure = timeline(snapshot.steps, pd.concat([snapshot.run, snapshot.children]))
    # The page has a title of its own.
    figure.update_layout(title=None)
    return Shown(page(*parts), str(figure.to_json()))


def _tree(source: Source, run_id: str) -> Shown:
    family = source.family(run_id)
    above: dict[str, str] = {}
    of = dict(zip(family.index.tolist(), records(family), strict=True))
    for workflow_id, record in of.items():
        origin = text(record["parent"]) or text(record["forked_from"])
        above[workflow_id] = origin if origin in of else ""
    rows = [_leaf(workflow_id, depth, of[workflow_id], run_id) for workflow_id, depth in _descent(above)[:MOST_ROWS]]
    caption = f"{count(len(of), 'run')}: who started whom, and what was forked from what"
    return Shown(page(table(caption, ("run", "status", "created", "took"), rows), _more(len(of), f"tree {run_id}")))


def _descent(above: dict[str, str]) -> list[tuple[str, int]]:
    """The ids with their depths, each below the one it came from."""
    below: dict[str, list[str]] = {}
    for workflow_id, origin in above.items():
        below.setdefault(origin, []).append(workflow_id)
    found: list[tuple[str, int]] = []
    waiting = [(workflow_id, 0) for workflow_id in reversed(below.get("", []))]
    while waiting:
        workflow_id, depth = waiting.pop()
        found.append((workflow_id, depth))
        waiting += [(each, depth + 1) for each in reversed(below.get(workflow_id, []))]
    return found


def _leaf(workflow_id: str, depth: int, record: dict[str, Any], chosen: str) -> Sequence[Child]:
    how = "fork" if not text(record["parent"]) and text(record["forked_from"]) else ""
    indent = "\u00a0\u00a0\u00a0" * min(depth, 12) + ("↳ " if depth else "")
    name = element("b" if workflow_id == chosen else "span", line(text(record["name"]), 60))
    label = [indent, name, " ", element("code", short(workflow_id)), f" {how}" if how else ""]
    return (label, status_mark(text(record["status"])), moment(record["created"]), _took(record))


def _steps(source: Source, run_id: str) -> Shown:
    steps = source.steps(run_id)
    if steps.empty:
        return _nothing("No step is recorded yet.")
    rows: list[Sequence[Child]] = []
    for (_, number), record in list(zip(steps.index, records(steps), strict=True))[:MOST_ROWS]:
        name = f"{number} {line(text(record['name']), 60)}"
        # What a step was given and what came of it belong under each other, long as they may be.
        rows.append((name, status_mark(text(record["status"])), _took(record), _values(record)))
    return Shown(
        page(
            table(count(len(steps), "step"), ("step", "status", "took", "values"), rows),
            _more(len(steps), f"steps {run_id}"),
        )
    )


def _values(record: dict[str, Any]) -> list[Child]:
    parts: list[Child] = []
    for kind, words in (("input", "in"), ("output", "out"), ("error", "error"), ("child", "child")):
        value = text(record[kind])
        if value:
            parts.append(element("div", element("b", words), " ", _value(value)))
    return parts


def _value(value: str) -> Markup:
    lines = value.strip().splitlines()
    # The last line of a traceback is what happened.
    return element("code", line(lines[-1] if lines and lines[0].startswith("Traceback") else value, VALUE_LIMIT))


def _source(source: Source, run_id: str) -> Shown:
    return Shown(str(source_view(source, run_id).html))


def _events(source: Source, run_id: str) -> Shown:
    events = source.events(run_id)
    rows = [(line(text(each["key"]), 80), _value(text(each["value"])), text(each["step"])) for each in _first(events)]
    if not rows:
        return _nothing("No event is set.")
    return Shown(page(table(count(len(events), "event"), ("key", "value", "set by step"), rows)))


def _messages(source: Source, run_id: str) -> Shown:
    messages = source.messages(run_id)
    if messages.empty:
        return _nothing("Nothing was sent to this run.")
    rows = [
        (
            moment(each["sent"]),
            line(text(each["topic"]), 60) or element("i", "none"),
            _value(text(each["message"])),
            "✓ received" if each["consumed"] else "… waits",
        )
        for each in _first(messages)
    ]
    heads = ("sent", "topic", "message", "state")
    return Shown(page(table(count(len(messages), "message"), heads, rows), _more(len(messages), f"messages {run_id}")))


def stream_keys(source: Source, run_id: str) -> tuple[str, ...]:
    """The streams that a run has written to."""
    return tuple(dict.fromkeys(source.streams(run_id)["key"].tolist()))


def _streams(source: Source, run_id: str, key: str) -> Shown:
    streams = source.streams(run_id)
    entries = streams[streams["key"] == key]
    if entries.empty:
        return _nothing("This run has written to no stream.")
    is_closed = bool(entries["closes"].any())
    values = entries[~entries["closes"]]
    rows = [(str(each["offset"]), _value(text(each["value"]))) for each in records(values.tail(MOST_ROWS))]
    state = "closed" if is_closed else "open"
    left_out = f", the last {MOST_ROWS} of them" if len(values) > MOST_ROWS else ""
    caption = f"{line(key, 60)}: {count(len(values), 'value')}{left_out}, {state}"
    return Shown(page(table(caption, ("offset", "value"), rows[::-1])))


def _log(source: Source, run_id: str) -> Shown:
    printed = source.printed(run_id)
    if printed.empty:
        return _nothing("Nothing was printed.")
    names = {int(number): text(name) for (_, number), name in source.steps(run_id)["name"].items()}
    parts: list[Child] = []
    for each in records(printed)[-MOST_ROWS:]:
        number = int(each["step"])
        where = f"{number} {line(names.get(number, ''), 60)}" if number else "at the beginning"
        place = f"after step {where}" if each["after"] and number else f"step {where}" if number else where
        parts += [element("b", place), pre(cut(text(each["text"]), LOG_LIMIT, f"all: %dbos steps {run_id}"))]
    return Shown(page(*parts))


def _error(source: Source, run_id: str) -> Shown:
    # Frames have what an error says; the notes have the way it came.
    noted = {each.step_id: each.text for each in source.notes([run_id], ["error"])}
    run, steps = source.runs(workflow_ids=[run_id]), source.steps(run_id)
    failed = steps[steps["error"].notna()].tail(MOST_ERRORS)
    found = [
        (f"in step {number} {line(text(name), 60)}", number, text(error)) for number, name, error in _errors(failed)
    ]
    whole = text(run["error"].iloc[0]) if not run.empty else ""
    if whole:
        found.append(("of the run", 0, whole))
    parts = [_told(noted.get(number) or error, where) for where, number, error in found]
    return Shown(page(*parts)) if parts else _nothing("No error.")


def _errors(failed: pd.DataFrame) -> list[tuple[int, Any, Any]]:
    numbers = [int(number) for _, number in failed.index.tolist()]
    return list(zip(numbers, failed["name"].tolist(), failed["error"].tolist(), strict=True))


def _told(error: str, where: str) -> Markup:
    found = told(error)
    headline = element("div", status_mark("ERROR"), " ", element("b", line(found.headline, VALUE_LIMIT)), " ", where)
    return element("div", headline, pre(found.traceback[-LOG_LIMIT:]) if found.traceback else None)


def _first(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return records(frame.head(MOST_ROWS))


def _took(record: dict[str, Any]) -> str:
    return duration(seconds_of(record["duration"]))


def _more(total: int, command: str) -> Child:
    if total <= MOST_ROWS:
        return None
    return element("p", f"{total - MOST_ROWS:,} more: %dbos {command}", style="note")


def _nothing(words: str) -> Shown:
    return Shown(page(element("p", words, style="note")))


TABS_OF: dict[Tab, Callable[[Source, str], Shown]] = {
    "timeline": _timeline,
    "tree": _tree,
    "steps": _steps,
    "source": _source,
    "events": _events,
    "messages": _messages,
    "log": _log,
    "error": _error,
}
