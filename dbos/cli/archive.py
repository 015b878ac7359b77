"""`dbos export`, `dbos import` and `dbos gc`: what is kept elsewhere, brought back, and forgotten."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from dbos.cli import database, output
from dbos.cli.ask import confirm, progress
from dbos.cli.failure import Misuse
from dbos.cli.workflows import filter_of

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

# Stands for standard output, or input.
STREAM = "-"


def export(arguments: Namespace) -> None:
    conditions = {key: value for key, value in filter_of(arguments).items() if value}
    if arguments.ids and conditions:
        raise Misuse("give ids or conditions, not both")
    target: Any = sys.stdout if arguments.file == STREAM else arguments.file
    with database.reader(arguments) as client:
        counts = client.export_workflows(
            target,
            arguments.ids or None,
            with_children=not arguments.no_children,
            progress=_told("exported"),
            **conditions,
        )
    _end_progress()
    if arguments.file == STREAM:
        return
    if arguments.json:
        output.document({"file": arguments.file, "rows": counts})
    else:
        output.line(f"Exported {_counted(counts.get('workflow', 0))} to {arguments.file}.")


def import_(arguments: Namespace) -> None:
    source: Any = sys.stdin if arguments.file == STREAM else arguments.file
    with database.actor(arguments) as client:
        made = client.import_workflows(
            source, new_ids=arguments.new_ids, resume=arguments.resume, progress=_told("imported")
        )
    _end_progress()
    if arguments.json:
        output.document({"imported": made})
    else:
        output.line(f"Imported {_counted(len(made))}; what was there already stayed as it was.")


def collect(arguments: Namespace) -> None:
    if arguments.older_than is None and arguments.keep is None:
        raise Misuse("what is to be forgotten? Give --older-than, --keep, or both")
    age: float | None = arguments.older_than
    bounds: dict[str, Any] = {
        "cutoff_epoch_timestamp_ms": None if age is None else max(0, int((time.time() - age) * 1000)),
        "rows_threshold": arguments.keep,
    }
    with database.actor(arguments) as client:
        number = client.garbage_collect(**bounds, dry_run=True)
        if not arguments.dry_run and number:
            confirm(arguments, f"Delete {_counted(number)} that have ended, with everything they recorded")
            number = client.garbage_collect(**bounds)
    if arguments.json:
        output.document({"deleted": 0 if arguments.dry_run else number, "would_delete": number})
    elif arguments.dry_run:
        output.line(f"Would delete {_counted(number)}.")
    else:
        output.line(f"Deleted {_counted(number)}.")


def _counted(number: int) -> str:
    return f"{number} workflow{'' if number == 1 else 's'}"


def _told(verb: str) -> Callable[[int], None]:
    return lambda number: progress(f"{verb} {number}", is_last=False)


def _end_progress() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\n")
