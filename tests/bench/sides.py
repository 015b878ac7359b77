"""What is compared: each side runs a scenario in a process of its own, which has a limit and leaves nothing behind.

A side that fails is a failed cell in the table and never the end of the bench.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.bench.places import PEER_FOLDER, ROOT, peer_python
from tests.bench.scenarios import Measured, Size

LIMIT_SECONDS = 180
SCENARIOS = Path(__file__).with_name("scenarios.py")
# They would change what a side does, or which package it finds.
FOREIGN = ("DBOS", "PG", "PYTHON")


class ScenarioFailed(Exception):
    """A scenario's process ended without a result. The message says how, and what it wrote to stderr."""


@dataclass(frozen=True)
class Side:
    """One column of the table."""

    name: str
    python: Path
    package: Path
    #: The traceback of a package quotes its source, and the peer's is not for us to read.
    is_silent: bool = False

    def count(self, size: Size) -> int | None:
        """How much of a scenario this side is given."""
        return {"ours": size.ours, "peer": size.peer, "floor": size.floor}[self.name]

    def command(self, scenario: str, url: str, count: int) -> list[str]:
        if self.name == "floor":
            return [str(self.python), "-m", "tests.bench.floor", url, str(count)]
        # Isolated: neither this folder nor the current one may come before the package to be measured.
        return [str(self.python), "-I", str(SCENARIOS), scenario, url, str(count)]

    def run(self, scenario: str, url: str, count: int, limit_seconds: float = LIMIT_SECONDS) -> list[Measured]:
        with tempfile.TemporaryFile("w+") as stderr:
            # Only the floor is a module of the repository; the others must not find our package by standing in it.
            process = subprocess.Popen(
                self.command(scenario, url, count),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL if self.is_silent else stderr,
                text=True,
                cwd=ROOT if self.name == "floor" else tempfile.gettempdir(),
                env={key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)},
                start_new_session=True,
            )
            stdout = self._ended(process, stderr, limit_seconds)
        return self._measured(stdout)

    def _ended(self, process: subprocess.Popen[str], stderr: IO[str], limit_seconds: float) -> str:
        """What it wrote; it and its children are dead then, whatever happened here."""
        try:
            stdout, _ = process.communicate(timeout=limit_seconds)
        except subprocess.TimeoutExpired:
            raise ScenarioFailed(f"not done in {limit_seconds} seconds\n{_tail(stderr)}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode != 0:
            raise ScenarioFailed(f"exit code {process.returncode}\n{_tail(stderr)}")
        return stdout

    def _measured(self, stdout: str) -> list[Measured]:
        try:
            first = json.loads(stdout.strip().splitlines()[-1])
            also, package = first.pop("also"), Path(first.pop("package"))
            measured = [Measured(**each) for each in (first, *also)]
        except (IndexError, ValueError, TypeError, KeyError, AttributeError):
            raise ScenarioFailed("its last line is no measurement") from None
        if not package.is_relative_to(self.package):
            raise ScenarioFailed(f"it ran another package than that of {self.name}")
        return measured


def _tail(stderr: IO[str], lines: int = 30) -> str:
    stderr.seek(0)
    return "".join(stderr.readlines()[-lines:])


def all_sides() -> list[Side]:
    ours = Path(sys.executable)
    return [
        Side("ours", ours, ROOT / "dbos"),
        Side("peer", peer_python(), PEER_FOLDER, is_silent=True),
        Side("floor", ours, ROOT / "dbos"),
    ]
