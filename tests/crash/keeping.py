"""Programs that bring workflows back from an archive, and forget old ones, killed at every moment."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

from dbos import DBOS
from dbos.testing import Ledger

Act = Callable[[], object]


def _archive() -> str:
    """Three workflows with a step and an event each, of which two are old, and one of those had not ended."""
    lines: list[dict[str, object]] = [{"header": {"format": "dbos-archive", "version": 1}}]
    for number, status in enumerate(("SUCCESS", "PENDING", "SUCCESS")):
        id, moment = f"kept-{number}", 1000 if number < 2 else 5000
        lines += [
            {
                "workflow": {
                    "workflow_uuid": id,
                    "status": status,
                    "name": "n",
                    "created_at": moment,
                    "updated_at": moment,
                }
            },
            {"step": {"workflow_uuid": id, "function_id": 1, "function_name": "s", "output": "1"}},
            {"event": {"workflow_uuid": id, "key": "e", "value": "1", "serialization": "portable_json"}},
        ]
    lines.append({"footer": {"workflow": 3, "step": 3, "event": 3}})
    return "\n".join(map(json.dumps, lines))


def keeping(_: Ledger) -> Act:
    """Workflows come from an archive, the old ones are forgotten, and the rest leaves again."""

    def act() -> object:
        DBOS.import_workflows(io.StringIO(_archive()))
        DBOS.garbage_collect(cutoff_epoch_timestamp_ms=2000)
        left = io.StringIO()
        DBOS.export_workflows(left)
        found = [(each.workflow_id, each.status) for each in DBOS.list_workflows()]
        return found, DBOS.get_all_events("kept-2"), left.getvalue()

    return act


KEEPING: dict[str, Callable[[Ledger], Act]] = {"keeping": keeping}
