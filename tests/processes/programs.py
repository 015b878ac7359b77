"""What the processes of `test_processes.py` run; each is started anew, as a terminal would."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dbos import DBOS, SetWorkflowID
from tests.waiting import eventually


@DBOS.step(name="note")
def note(file: str, x: int) -> int:
    with Path(file).open("a") as out:
        out.write(f"{x}\n")
    return x


@DBOS.step(name="pass_gate")
def pass_gate(gate: str) -> None:
    """Wait until somebody makes this file."""
    eventually(Path(gate).exists, 60)


@DBOS.workflow(name="gated")
def gated(file: str, gate: str) -> int:
    first = note(file, 1)
    pass_gate(gate)
    return first + note(file, 2)


@DBOS.workflow(name="sleeper")
def sleeper() -> None:
    DBOS.sleep(3600)


def launch(url: str, **more: Any) -> None:
    DBOS(
        config={
            "name": "processes",
            "system_database_url": url,
            "application_version": "v1",
            "log_level": "CRITICAL",
            **more,
        }
    )
    DBOS.launch()


def boot(url: str, number: str) -> None:
    """Launch on an empty database, work, end."""
    launch(url)
    with SetWorkflowID(f"boot-{number}"):
        assert 3 == gated(f"{number}.txt", ".")
    DBOS.destroy()


def serve(url: str, executor_id: str, *work: str) -> None:
    """Run what there is, and what is asked for, until the standard input ends."""
    launch(url, executor_id=executor_id)
    for name in work:
        with SetWorkflowID("w"):
            if name == "gated":
                DBOS.start_workflow(gated, "notes.txt", "gate")
            else:
                DBOS.start_workflow(sleeper)
    print("ready", flush=True)
    sys.stdin.read()
    DBOS.destroy()


if __name__ == "__main__":
    {"boot": boot, "serve": serve}[sys.argv[1]](*sys.argv[2:])
