"""Frames that no database made: runs and steps at chosen moments."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from dbos_notebook import frames

# 18 Nov 2026 11:06:40 UTC, in milliseconds.
BEGAN = 1_795_000_000_000
NOW = pd.Timestamp(BEGAN + 3_600_000, unit="ms", tz="UTC")


def run(
    workflow_id: str, created: int | None = 0, started: int | None = 0, completed: int | None = None, **columns: Any
) -> dict[str, Any]:
    """A run; moments are milliseconds since `BEGAN`."""
    status = "PENDING" if completed is None else "SUCCESS"
    return {
        **dict.fromkeys(frames.RUNS),
        "workflow_id": workflow_id,
        "name": "work",
        "status": status,
        **{name: at(value) for name, value in (("created", created), ("started", started), ("completed", completed))},
        **columns,
    }  # fmt: skip


def step(number: int, started: int | None, completed: int | None, **columns: Any) -> dict[str, Any]:
    """A step of the run "w"; moments as in `run`, attempts as a list."""
    tries = columns.pop("tries", None)
    return {
        **dict.fromkeys(frames.STEPS),
        "workflow_id": "w",
        "step": number,
        "name": f"step {number}",
        "status": "SUCCESS",
        "started": at(started),
        "completed": at(completed),
        "tries": None if tries is None else json.dumps(tries),
        **columns,
    }


def at(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else BEGAN + milliseconds


def runs(*rows: dict[str, Any]) -> pd.DataFrame:
    return frames.frame(frames.RUNS, [tuple(row.values()) for row in rows])


def steps(*rows: dict[str, Any]) -> pd.DataFrame:
    return frames.frame(frames.STEPS, [tuple(row.values()) for row in rows], 2)
