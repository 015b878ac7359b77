"""What runs on executors: functions that another process finds by their name."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from dbos import DBOS
from tests.waiting import eventually


def pool(workers: int = 1) -> ProcessPoolExecutor:
    # Never forked: a process with threads must not be.
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


def square(x: int) -> tuple[int, int]:
    return x * x, os.getpid()


async def square_async(x: int) -> tuple[int, int]:
    return x * x, os.getpid()


@DBOS.step(name="decorated", executor=pool)
def decorated(x: int, *, plus: int = 0) -> int:
    return x * x + plus


class Awkward(Exception):
    """One that pickles, and cannot be unpickled."""

    def __init__(self, *, number: int) -> None:
        super().__init__(f"number {number}")


def raises(which: str) -> None:
    raise {"value": ValueError("no"), "awkward": Awkward(number=3)}[which]


def die_once(file: str, x: int) -> int:
    """Kill the process that runs this; the second time, do not."""
    if not Path(file).exists():
        Path(file).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def leave(_: int) -> None:
    raise SystemExit(3)


def wait_for(reached: str, gate: str) -> str:
    Path(reached).touch()
    eventually(Path(gate).exists, 60)
    return "over"


def uses_dbos(which: str) -> Any:
    acts: dict[str, Callable[[], Any]] = {
        "list": DBOS.list_workflows,
        "sleep": lambda: DBOS.sleep(1),
        "send": lambda: DBOS.send("w", 1),
        "event": lambda: DBOS.set_event("k", 1),
        "where": lambda: (DBOS.workflow_id, DBOS.step_id, DBOS.step_status),
        "step": lambda: decorated(3),
    }
    return acts[which]()


def lock() -> Any:
    import threading

    return threading.Lock()


def sums(frame: pd.DataFrame) -> pd.DataFrame:
    """A pandas example: one part of a frame, summed up where the worker is."""
    return frame.groupby("city", as_index=False)["amount"].sum()
