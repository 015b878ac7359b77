"""A program that acknowledges in a file of its own what it was promised, and is killed inside the storage engine."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

from dbos import DBOS, SetWorkflowID
from tests.faults.disk import Change, Disk

FLOWS = 3


def define(note: Callable[[str], None]) -> Callable[[], None]:
    """Workflows of two steps and an event; each promise that was kept is noted."""

    @DBOS.step(name="part")
    def part(x: int) -> str:
        note(f"ran {DBOS.workflow_id} {DBOS.step_id}")
        return f"{x}" * 3000

    @DBOS.workflow(name="whole", max_recovery_attempts=None)
    def whole(x: int) -> int:
        total = len(part(x)) + len(part(x))
        DBOS.set_event("total", total)
        return total

    def act() -> None:
        for x in range(FLOWS):
            with SetWorkflowID(f"w{x}"):
                handle = DBOS.start_workflow(whole, x)
            note(f"started w{x}")
            handle.get_result()
            note(f"ended w{x}")

    return act


def launch(file: str) -> None:
    DBOS(
        config={
            "name": "diskful",
            "system_database_url": f"sqlite:///{file}",
            "application_version": "v1",
            "log_level": "CRITICAL",
            "run_admin_server": False,
        }
    )
    DBOS.launch()


def live(file: str, ledger: str, number: int) -> None:
    """The program, killed at the change of that number, in the middle of it if it is a write; 0: only counted."""
    changes = itertools.count(1)
    count = 0

    def note(line: str) -> None:
        with Path(ledger).open("a") as out:
            out.write(f"{line}\n")

    def watch(change: Change) -> int:
        nonlocal count
        count = next(changes)
        if count == number:
            change.do(len(change.data) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    act = define(note)
    with Disk(watch).mounted():
        launch(file)
        act()
        DBOS.destroy()
    note(f"changes {count}")
