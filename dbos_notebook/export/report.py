"""A run as one page: everything that is known of it, for those who have neither this notebook nor its database.

The page has no script, loads nothing, and says so to the browser. Values are the previews that views show.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dbos_notebook.views import words
from dbos_notebook.views.code import source_text
from dbos_notebook.views.html import Child, Markup, document, element, fold, line, page, pre, table
from dbos_notebook.views.run import run_page, snapshot_of

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.source import Source

# Of steps, and of other rows: what a browser shows without effort.
PAGE_BYTES = 8_000_000
MOST_ROWS = 1_000
VALUE_LIMIT = 400
SECTIONS = (
    ("events", ("key", "value")),
    ("messages", ("topic", "message", "sent")),
    ("streams", ("key", "offset", "value")),
)


def report_of(source: Source, workflow_id: str) -> str:
    """The page."""
    snapshot = snapshot_of(source, workflow_id)
    name = line(words.text(snapshot.row.get("name")), 120)
    parts: list[Child] = [run_page(snapshot, budget=PAGE_BYTES)]
    family = source.family(workflow_id)
    if len(family) > 1:
        parts.append(_section("related runs", _family(family)))
    for kind, columns in SECTIONS:
        frame = getattr(source, kind)(workflow_id)
        if not frame.empty:
            parts.append(_section(kind, _rows(frame, kind, columns)))
    text = source_text(source, workflow_id)
    if text is not None:
        parts.append(_section("its code", pre(text)))
    made = f"written {words.moment(datetime.now(UTC))} {words.zone()}"
    body = page(*parts, element("p", made), budget=2 * PAGE_BYTES)
    return document(f"{name} {words.short(snapshot.workflow_id)}", body)


def _section(title: str, content: Child) -> Markup:
    return fold(title, content, is_open=True)


def _family(family: pd.DataFrame) -> Markup:
    columns = ("name", "status", "started", "duration", "parent", "forked_from")
    rows = [
        [str(workflow_id), *(_said(row[column]) for column in columns)]
        for workflow_id, (_, row) in zip(family.index[:MOST_ROWS], family.head(MOST_ROWS).iterrows(), strict=True)
    ]
    return table(words.count(len(family), "run"), ("id", *columns), rows)


def _rows(frame: pd.DataFrame, kind: str, columns: tuple[str, ...]) -> Markup:
    shown = frame.reset_index()
    rows = [[_said(row[column]) for column in columns] for _, row in shown.head(MOST_ROWS).iterrows()]
    return table(f"{len(frame):,} {kind}", columns, rows)


def _said(value: object) -> str:
    if hasattr(value, "to_pydatetime") and not words.is_missing(value):
        return words.moment(value)
    if hasattr(value, "total_seconds"):
        return words.duration(words.seconds_of(value))
    return line(words.text(value), VALUE_LIMIT)
