"""What the processes of `test_schedules.py` run: a workflow for schedules, and one that the code schedules."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from dbos import DBOS


def note(file: str, moment: datetime) -> None:
    with Path(file).open("a") as out:
        out.write(f"{moment.isoformat()}\n")


@DBOS.workflow(name="noted")
def noted(moment: datetime, file: Any) -> None:
    note(file, moment)


@DBOS.scheduled("* * * * * *")
@DBOS.workflow(name="coded")
def coded(moment: datetime, actual: datetime) -> None:
    note("coded.txt", moment)


def serve(url: str, executor_id: str) -> None:
    """Run what there is until the standard input ends."""
    DBOS(
        config={
            "name": "processes",
            "system_database_url": url,
            "application_version": "v1",
            "executor_id": executor_id,
            "log_level": "CRITICAL",
        }
    )
    DBOS.launch()
    print("ready", flush=True)
    sys.stdin.read()
    DBOS.destroy()


if __name__ == "__main__":
    serve(*sys.argv[1:])
