"""The soak: `python -m tests.soak [--minutes 10]`, which is `make soak`.

Four workers serve queues, schedules, messages and streams on a Postgres of their own, while workers and the server
are killed at random moments. Then everything that was acknowledged must have ended, once, with the right result;
nothing may be stranded, and the one worker that is never killed may not have grown.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dbos import DBOSClient, run_dbos_database_migrations
from tests import coroner
from tests.compat.rows import Rows
from tests.databases import admin, url_of
from tests.faults.server import Server, own_server
from tests.soak.worker import PIECES

WORKERS = 4
SETTLE_SECONDS = 180.0
# The first minute makes pools, caches and plans; growth is measured after it.
WARM_SECONDS = 60.0
MOST_GROWTH = 1.3
# What a worker has under way when it dies.
STEPS_AT_ONCE = 30
TICKS = "SELECT count(*) FROM {}workflow_status WHERE name = 'tick'"
KINDS = ("task", "task", "task", "parent", "talker", "sleeper", "limited")


class Crew:
    """The workers; the first is never killed."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.kills = url, folder, 0
        self.running = {f"worker-{number}": self.start(f"worker-{number}") for number in range(WORKERS)}

    def start(self, name: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}.log").open("ab")
        words = [sys.executable, "-m", "tests.soak.worker", self.url, name, str(self.folder)]
        return subprocess.Popen(words, stdout=log, stderr=log)

    def kill_one(self) -> None:
        name = f"worker-{random.randrange(1, WORKERS)}"
        self.running[name].kill()
        self.running[name].wait()
        self.kills += 1
        self.running[name] = self.start(name)

    def end(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait(60)


class Feeder:
    """Asks for work all the time, and remembers what was acknowledged."""

    def __init__(self, url: str) -> None:
        self.client = DBOSClient(system_database_url=url)
        self.expected: dict[str, Any] = {}
        self.number = 0

    def feed(self) -> None:
        self.number += 1
        kind, number = random.choice(KINDS), self.number
        queue, name = ("limited", "task") if kind == "limited" else ("jobs", kind)
        workflow_id = f"{kind}-{number}"
        options: Any = {"workflow_name": name, "queue_name": queue, "workflow_id": workflow_id, "app_version": "v1"}
        self.insist(lambda: self.client.enqueue(options, number))
        self.expected[workflow_id] = self.result(kind, number)
        if kind == "talker":
            for piece in range(PIECES):
                key = f"{workflow_id}-{piece}"
                self.insist(lambda piece=piece, key=key: self.client.send(workflow_id, piece, "talk", key))

    def insist(self, act: Any) -> None:
        """The same again until it is acknowledged: ids and keys make that safe."""
        while True:
            try:
                act()
            except Exception:
                time.sleep(0.2)
            else:
                return

    @staticmethod
    def result(kind: str, number: int) -> Any:
        task = 30 * number + 3
        return {"parent": 3 * task + 90, "talker": list(range(PIECES)), "sleeper": number}.get(kind, task)


def run(minutes: float, folder: Path, server: Server) -> list[str]:
    """The soak; what is wrong."""
    admin(server.url, "CREATE DATABASE soak")
    url = url_of(server.url, "soak")
    run_dbos_database_migrations(url)
    crew, feeder = Crew(url, folder), Feeder(url)
    feeder.client.create_schedule(schedule_name="tick", workflow_name="tick", schedule="* * * * * *", context=None)
    now, crashes = time.monotonic(), 0
    ends, next_kill, next_crash = now + minutes * 60, now + 10, now + 40
    while time.monotonic() < ends:
        feeder.feed()
        time.sleep(0.02)
        if time.monotonic() > next_kill:
            crew.kill_one()
            next_kill = time.monotonic() + random.uniform(3, 8)
        if time.monotonic() > next_crash:
            server.strike(signal.SIGKILL, random.uniform(0.2, 2))
            crashes += 1
            next_crash = time.monotonic() + random.uniform(30, 60)
    feeder.insist(lambda: feeder.client.pause_schedule("tick"))
    rows = Rows(url)
    wrong = settle(rows) + fates(feeder) + coroner.autopsy(url, [*coroner.AT_REST, coroner.stranded])
    crew.end()
    feeder.client.destroy()
    print(f"{len(feeder.expected):,} workflows, {crew.kills} workers and {crashes} servers killed")
    steps = (folder / "ledger").read_text().splitlines()
    deaths = crew.kills + crashes * WORKERS
    print(f"{len(set(steps)):,} steps, {len(steps) - len(set(steps))} run again")
    logs = [log.read_text(errors="replace") for log in folder.glob("*.log")]
    return [
        *wrong,
        *coroner.autopsy(url, [coroner.stranded, coroner.left_open]),
        *coroner.repeated(steps, deaths, STEPS_AT_ONCE),
        *grown(folder / "worker-0.stats"),
        *[finding for log in logs for finding in (*coroner.unseen_trouble(log), *coroner.leaks(log))],
    ]


def settle(rows: Rows) -> list[str]:
    """Wait for the end of all work; what is left of it."""
    unfinished = "SELECT count(*) FROM {}workflow_status WHERE status IN ('PENDING', 'ENQUEUED', 'DELAYED')"
    until = time.monotonic() + SETTLE_SECONDS
    while (left := rows.run(unfinished)[0][0]) and time.monotonic() < until:
        time.sleep(1)
    print(f"{rows.run(TICKS)[0][0]} ticks")
    return [f"{left} workflows are stranded"] if left else []


def fates(feeder: Feeder) -> list[str]:
    """Whatever was acknowledged came to its result."""
    names = ["task", "parent", "talker", "sleeper"]
    found = {each.workflow_id: each for each in feeder.client.list_workflows(name=names)}
    outcomes = {
        workflow_id: each.output if each.status == "SUCCESS" else (each.status, each.error)
        for workflow_id, each in found.items()
    }
    return coroner.lost(feeder.expected, outcomes)


def grown(stats: Path) -> list[str]:
    """Threads, files and megabytes of the worker that lived through it all: first and last third after the warm-up."""
    rows = [tuple(map(int, line.split())) for line in stats.read_text().splitlines()][int(WARM_SECONDS // 5) :]
    third = len(rows) // 3
    if not third:
        return []
    wrong = []
    for place, what in enumerate(("threads", "files", "megabytes")):
        first, last = max(row[place] for row in rows[:third]), min(row[place] for row in rows[-third:])
        print(f"{what}: {first} -> {last}")
        if last > first * MOST_GROWTH:
            wrong.append(f"{what} grew from {first} to {last}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    given = parser.parse_args()
    random.seed(given.seed)
    print(f"seed {given.seed}")
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    with own_server() as server:
        wrong = run(given.minutes, folder, server)
    for line in wrong[:50]:
        print("WRONG:", line)
    if not wrong:
        shutil.rmtree(folder, ignore_errors=True)
        print("nothing lost, nothing stranded, nothing grown")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
