"""The crash lab: kill this very kernel at the worst moment, so that one can see what survives."""

from __future__ import annotations

import os
import signal

_armed: set[str] = set()


def arm(step: str) -> None:
    """Kill the kernel when a step of this name has run, before that is recorded. It happens once: then all is gone."""
    _armed.add(step)


def disarm() -> None:
    """Kill nothing."""
    _armed.clear()


def pass_by(step: str) -> None:
    """A step of this name has run."""
    if step in _armed or step.rpartition(".")[2] in _armed:
        os.kill(os.getpid(), signal.SIGKILL)
