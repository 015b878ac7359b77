"""Frames of runs that never were, to draw views of: any status, any time, any text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from dbos_notebook import frames
from dbos_notebook.views.run import Snapshot

BEGAN_MS = 1_772_000_000_000
RUN_ID = "7f3a90c1-4be2-4a5e-9d0a-2f6f1c1b0e11"
NOW = BEGAN_MS / 1000 + 3600


def row(columns: dict[str, Any], values: dict[str, Any]) -> list[Any]:
    strange = set(values) - set(columns)
    assert not strange, strange
    empty = {"flag": False}
    return [values.get(name, empty.get(kind)) for name, kind in columns.items()]


def runs(*given: dict[str, Any]) -> pd.DataFrame:
    """Runs of which only what matters is said."""
    usual = {"workflow_id": RUN_ID, "name": "nightly", "status": "SUCCESS", "created": BEGAN_MS, "attempts": 1}
    return frames.frame(frames.RUNS, [row(frames.RUNS, {**usual, **each}) for each in given])


def steps(number: int, change: Callable[[int], dict[str, Any]] = lambda _: {}, each_ms: int = 1000) -> pd.DataFrame:
    """Steps one after the other."""
    rows = []
    for place in range(number):
        begin = BEGAN_MS + place * each_ms
        usual = {
            "workflow_id": RUN_ID, "step": place + 1, "name": f"step_{place}", "status": "SUCCESS", "started": begin,
            "completed": begin + each_ms, "duration": each_ms, "attempts": 1, "output": str(place),
        }  # fmt: skip
        rows.append(row(frames.STEPS, {**usual, **change(place + 1)}))
    return frames.frame(frames.STEPS, rows, 2)


def snapshot(
    run: dict[str, Any] | None = None,
    steps_frame: pd.DataFrame | None = None,
    children: pd.DataFrame | None = None,
    between: dict[int, str] | None = None,
) -> Snapshot:
    done = {"started": BEGAN_MS, "completed": BEGAN_MS + 5000, "duration": 5000}
    return Snapshot(
        runs(done if run is None else run),
        steps(0) if steps_frame is None else steps_frame,
        runs() if children is None else children,
        between or {},
        "",
        NOW,
    )
