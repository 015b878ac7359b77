"""Threads of the runtime that something strikes: each goes on, or another takes its place."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dbos import DBOS, Queue, SetWorkflowID
from dbos._faces.ambient import instance
from dbos.testing import FakeClock
from tests.compat.conftest import Log
from tests.compat.rows import Rows
from tests.conftest import App
from tests.coroner import Coroner
from tests.waiting import Gate, eventually


def strike(thread: threading.Thread, error: type[BaseException]) -> None:
    """Raise an error in another thread, wherever that is."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error))


def services() -> dict[str, threading.Thread]:
    return {each.name: each for each in threading.enumerate() if each.name.startswith("dbos-")}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [SystemExit, MemoryError])
def test_every_service_survives(app: App, log: Log, coroner: Coroner, error: type[BaseException]) -> None:
    """Struck at rest or at work, it goes on: a workflow is delayed, claimed, run, and heard of."""
    # Struck between opening a connection and keeping it, a thread leaves that to the garbage collector.
    coroner.excuse("C8 connection", "C8 .* still open")
    queue = Queue("line")

    @DBOS.workflow(name="short")
    def short(x: int) -> int:
        return x

    app.launch(log_level="DEBUG")
    alive = {name for name in services() if "service" not in name}
    for thread in services().values():
        if thread.name not in ("dbos-committer",):
            strike(thread, error)

    assert list(range(5)) == [queue.enqueue(short, x).get_result() for x in range(5)]
    eventually(lambda: log.says("disturbed and goes on") or log.says("failed and tries again"))
    assert alive <= set(services())


async def nothing() -> None:
    return


def exits(where: str) -> Callable[[], Any]:
    async def leave() -> None:
        raise SystemExit(3)

    async def body() -> None:
        if where == "task":
            await asyncio.gather(leave(), nothing())
        await leave()

    return body


@pytest.mark.parametrize("where", ["body", "task"])
def test_an_exit_in_one_workflow_is_not_that_of_others(app: App, rows: Rows, where: str, coroner: Coroner) -> None:
    """It stays PENDING, as anything that is interrupted; others run on the same loop, before and after."""
    coroner.excuse("C9 A workflow task failed")
    leaving = DBOS.workflow(name="leaving")(exits(where))

    @DBOS.workflow(name="patient")
    async def patient() -> str:
        return await DBOS.recv_async()

    app.launch()
    with SetWorkflowID("before"):
        before = DBOS.start_workflow(patient)
    with SetWorkflowID("leaves"):
        DBOS.start_workflow(leaving)
    with SetWorkflowID("after"):
        after = DBOS.start_workflow(patient)
    for each in ("before", "after"):
        DBOS.send(each, "done")

    assert ["done", "done"] == [before.get_result(), after.get_result()]
    assert "PENDING" == DBOS.get_workflow_status("leaves").status


def test_code_that_blocks_the_loop_is_named(clock: FakeClock, app: App, log: Log) -> None:
    """And everything that is not on that loop goes on."""
    gate = Gate()

    @DBOS.workflow(name="blocks")
    async def blocks() -> None:
        gate.pass_through()

    @DBOS.workflow(name="plain")
    def plain() -> str:
        return "goes on"

    app.launch(log_level="WARNING")
    handle = DBOS.start_workflow(blocks)
    gate.wait_reached()

    def tells() -> bool:
        clock.advance(5)
        return log.says("Async workflows stand still")

    eventually(tells)
    assert log.says("in pass_through")
    assert "goes on" == plain()
    gate.open()
    handle.get_result()
    eventually(lambda: log.says("The loop of async workflows goes on"))


def test_work_that_was_claimed_and_did_not_begin_is_given_back(app: App) -> None:
    """The dispatcher is struck just when it begins what it has claimed, and the row is ours already."""
    queue = Queue("line")

    @DBOS.workflow(name="short")
    def short(x: int) -> int:
        return x

    strikes = [MemoryError]
    app.launch()
    runtime = instance().launched.runtime
    spawn = runtime.spawn

    def strike_once(*args: Any, **kwargs: Any) -> None:
        if strikes:
            raise strikes.pop()
        spawn(*args, **kwargs)

    runtime.spawn = strike_once

    assert list(range(5)) == [queue.enqueue(short, x).get_result() for x in range(5)]
    assert [] == strikes
