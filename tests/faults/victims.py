"""Programs in processes of their own: to whom a file does not belong, or whose disk is full.

python -m tests.faults.victims hold FILE        holds the write lock of a file until a line comes
python -m tests.faults.victims launch FILE      tries to launch on it for each line that comes
python -m tests.faults.victims fill FILE        runs a workflow while the file may not grow, and when it may again
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sqlite3
import sys
import threading
from typing import Any

from dbos import DBOS, SetWorkflowID
from tests.waiting import Gate, eventually

NOBODY = 65534


def tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def configure(file: str) -> None:
    DBOS(config={"name": "victim", "system_database_url": f"sqlite:///{file}", "log_level": "WARNING"})


def hold(file: str) -> None:
    conn = sqlite3.connect(file, isolation_level=None)
    conn.execute("BEGIN IMMEDIATE")
    tell(held=True)
    sys.stdin.readline()
    conn.execute("COMMIT")


def launch(file: str) -> None:
    if os.getuid() == 0:  # who may write everywhere
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    for _ in sys.stdin:
        configure(file)
        try:
            DBOS.launch()
        except Exception as error:
            tell(error=type(error).__name__, says=f"{error}\n{error.__notes__}", threads=threading.active_count())
        else:
            tell(workflows=len(DBOS.list_workflows()))
        DBOS.destroy()


def let_files_grow_to(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Said(logging.Handler):
    """What the runtime said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def fill(file: str) -> None:
    gate, ran, said = Gate(), list[int](), Said()
    DBOS.logger.addHandler(said)

    @DBOS.step(name="part")
    def part(number: int) -> str:
        ran.append(number)
        if number == 2:
            gate.pass_through()
        return str(number) * 20_000

    @DBOS.workflow(name="whole")
    def whole() -> list[int]:
        return [len(part(number)) for number in (1, 2, 3)]

    configure(file)
    DBOS.launch()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(whole)
    gate.wait_reached()
    let_files_grow_to(4096)
    gate.open()
    eventually(lambda: any("wait for it" in line for line in said.lines))
    while_full = handle.get_status().status, list(ran), said.lines[-1]
    let_files_grow_to(resource.RLIM_INFINITY)
    result = handle.get_result()
    with SetWorkflowID("after"):
        after = whole()
    tell(while_full=while_full, result=result, after=after, ran=ran, integrity=check(file))
    DBOS.destroy()


def check(file: str) -> str:
    conn = sqlite3.connect(file)
    (answer,) = conn.execute("PRAGMA integrity_check").fetchone()
    conn.close()
    return str(answer)


if __name__ == "__main__":
    {"hold": hold, "launch": launch, "fill": fill}[sys.argv[1]](*sys.argv[2:])
