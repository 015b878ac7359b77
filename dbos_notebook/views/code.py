"""The source that a run ran, as it was then."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dbos_notebook.views import words
from dbos_notebook.views.handle import text_view

if TYPE_CHECKING:
    from dbos_notebook.source import Source
    from dbos_notebook.views.view import View


def source_view(source: Source, workflow_id: str) -> View:
    """What was kept of the code of a run; or that nothing was."""
    found = source_text(source, workflow_id)
    if found is None:
        name = words.text(source.runs(workflow_ids=[workflow_id], values=False)["name"].iloc[0])
        return text_view(f"No source was kept of {name} {words.short(workflow_id)}: it did not run in a notebook.")
    return text_view(found)


def source_text(source: Source, workflow_id: str) -> str | None:
    """The source that a run ran; None where none was kept."""
    run = source.runs(workflow_ids=[workflow_id], values=True)
    code, name = words.text(run["code"].iloc[0]), words.text(run["name"].iloc[0])
    kept = source.sources([code]) if code else None
    if kept is None or kept.empty:
        return None
    mine = kept[kept["workflow"] == name]
    return _readable(str((kept if mine.empty else mine)["text"].iloc[-1]))


def _readable(text: str) -> str:
    """The parts of a workflow's code, which are kept by their names."""
    try:
        parts = json.loads(text)
    except ValueError:
        return text
    return "\n\n".join(str(each).rstrip() for each in parts.values()) if isinstance(parts, dict) else text
