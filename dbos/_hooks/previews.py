"""What can be shown of values that nobody decoded: the preview that the executor noted, or a text that is JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dbos._features.inspection import StoredStep
from dbos._kernel.codec import PORTABLE
from dbos._kernel.model import WorkflowStatus

Record = dict[str, Any]
VALUES = ("input", "output", "error")
# The longest text of a value that is read to be shown as it is.
LONGEST_TEXT = 100_000


def previews(client: Any, status: WorkflowStatus) -> Record:
    """Those of a workflow. The client is a `DBOSClient`."""
    noted = {each.kind: each.text for each in client.list_notes([status.workflow_id], list(VALUES)) if not each.step_id}
    found: Record = dict.fromkeys(VALUES)
    for stored in client.list_values([status.workflow_id], longest=LONGEST_TEXT):
        found = {key: _text(getattr(stored, key), stored.serialization) for key in VALUES}
    return found | noted


def step_previews(client: Any, stored: Sequence[StoredStep]) -> dict[int, Record]:
    """Those of the steps of one workflow, by step id."""
    ids = [each.workflow_id for each in stored[:1]]
    noted = {(each.step_id, each.kind): each.text for each in client.list_notes(ids, list(VALUES))} if ids else {}
    return {
        each.step_id: {
            "input": noted.get((each.step_id, "input")),
            "output": noted.get((each.step_id, "output"), _text(each.output, each.serialization)),
            "error": noted.get((each.step_id, "error"), _text(each.error, each.serialization)),
        }
        for each in stored
    }


def _text(stored: str | None, serialization: str | None) -> str | None:
    """The stored text, where it is one that people read."""
    return stored if serialization == PORTABLE else None
