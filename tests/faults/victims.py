"""Programs in processes of their own: to whom a file does not belong, or whose disk is full.

python -m tests.faults.victims hold FILE        holds the write lock of a file until a line comes
python -m tests.faults.victims launch FILE      tries to launch on it for each line that comes
python -m tests.faults.victims fill FILE HOW    runs a workflow while the disk is full, then frees it
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
from pathlib import Path
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


class Disk:
    """The disk of a file, to be filled and freed; `how` is by a limit of this process or by a file beside."""

    def __init__(self, file: str, how: str) -> None:
        self.filler, self.how = Path(file).with_name("filler"), how
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(self) -> None:
        if self.how == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            return
        with self.filler.open("wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError:
                return

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.filler.unlink(missing_ok=True)


class Said(logging.Handler):
    """What the runtime said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def fill(file: str, how: str) -> None:
    disk, gate, ran, said = Disk(file, how), Gate(), list[int](), Said()
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
    disk.fill()
    gate.open()
    eventually(lambda: any("wait for it" in line for line in said.lines))
    while_full = handle.get_status().status, list(ran), said.lines[-1]
    disk.free()
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
