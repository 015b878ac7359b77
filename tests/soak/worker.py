"""One worker of the soak: serves everything that the feeder asks for, until it is told to end.

It notes every step in a ledger, and tells now and then how many threads, files and megabytes it has.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy.exc import OperationalError

from dbos import DBOS, DBOSConfig, Queue

TELLS_EVERY_SECONDS = 5.0
PIECES = 5


def note(ledger: Path, word: str) -> None:
    """One line, whole or not at all, whoever else writes."""
    file = os.open(ledger, os.O_APPEND | os.O_WRONLY | os.O_CREAT)
    try:
        os.write(file, f"{word}\n".encode())
    finally:
        os.close(file)


def define(ledger: Path) -> None:
    @DBOS.step(name="work")
    def work(number: int, part: int) -> int:
        note(ledger, f"{DBOS.workflow_id} {DBOS.step_id}")
        return number * 10 + part

    @DBOS.workflow(name="task", max_recovery_attempts=None)
    def task(number: int) -> int:
        return sum(work(number, part) for part in range(3))

    @DBOS.workflow(name="parent", max_recovery_attempts=None)
    def parent(number: int) -> int:
        handles = [DBOS.start_workflow(task, number + each) for each in range(3)]
        return sum(handle.get_result() for handle in handles)

    @DBOS.workflow(name="talker", max_recovery_attempts=None)
    def talker(number: int) -> list[Any]:
        heard = []
        for piece in range(PIECES):
            heard.append(DBOS.recv("talk", timeout_seconds=600))
            DBOS.set_event("heard", piece + 1)
            DBOS.write_stream("heard", heard[-1])
        DBOS.close_stream("heard")
        return heard

    @DBOS.workflow(name="sleeper", max_recovery_attempts=None)
    async def sleeper(number: int) -> int:
        await DBOS.sleep_async(1 + number % 3)
        return number

    @DBOS.workflow(name="tick", max_recovery_attempts=None)
    def tick(moment: Any, context: Any) -> str:
        return str(moment)

    Queue("jobs", concurrency=20, worker_concurrency=8)
    Queue("limited", limiter={"limit": 20, "period": 1.0})


def tell(file: Path, is_over: threading.Event) -> None:
    while not is_over.wait(TELLS_EVERY_SECONDS):
        gc.collect()
        status = Path("/proc/self/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        files = len(os.listdir("/proc/self/fd"))
        with file.open("a") as out:
            out.write(f"{threading.active_count()} {files} {resident // 1024}\n")


def main(url: str, name: str, folder: str) -> None:
    define(Path(folder) / "ledger")
    config: DBOSConfig = {
        "name": "soak", "system_database_url": url, "application_version": "v1", "executor_id": name,
        "log_level": "ERROR", "run_admin_server": False,
    }  # fmt: skip
    while True:
        DBOS(config=config)
        try:
            DBOS.launch()
            break
        except OperationalError:  # the server was killed just now
            time.sleep(0.5)
    is_over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: is_over.set())
    tell(Path(folder) / f"{name}.stats", is_over)
    DBOS.destroy(workflow_completion_timeout_sec=20)


if __name__ == "__main__":
    main(*sys.argv[1:])
