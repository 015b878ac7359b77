"""Programs that are killed at every moment: what each does, and nothing about the killing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from dbos import DBOS, SetWorkflowID, SetWorkflowTimeout, WorkflowHandle
from dbos import error as dboserror
from dbos.testing import FakeClock, Ledger, use_clock
from tests.waiting import eventually

Act = Callable[[], object]


def steps(ledger: Ledger) -> Act:
    """Three steps and a durable sleep."""

    @DBOS.step(name="add")
    def add(a: int, b: int) -> int:
        ledger.note()
        return a + b

    @DBOS.workflow(name="sum")
    def total(n: int) -> int:
        x = add(n, 1)
        DBOS.sleep(0.02)
        return add(add(x, 2), 3)

    def act() -> object:
        with SetWorkflowID("steps"):
            return total(1)

    return act


def failing(ledger: Ledger) -> Act:
    """Retries, a step that fails for good and is caught, and a workflow that fails."""

    @DBOS.step(name="flaky", retries_allowed=True, max_attempts=2, interval_seconds=0.001)
    def flaky() -> None:
        if DBOS.step_status is not None and DBOS.step_status.current_attempt == 0:
            ledger.note()
        raise ValueError("flaky")

    @DBOS.step(name="broken")
    def broken() -> None:
        ledger.note()
        raise KeyError("broken")

    @DBOS.workflow(name="fails")
    def fails() -> None:
        try:
            flaky()
        except dboserror.DBOSMaxStepRetriesExceeded:
            broken()

    def act() -> object:
        with SetWorkflowID("failing"):
            return fails()

    return act


def transaction(ledger: Ledger) -> Act:
    """A transaction between two steps; its rows are counted by the test."""

    @DBOS.step(name="before")
    def before() -> int:
        ledger.note()
        return 1

    @DBOS.transaction(name="insert")
    def insert(x: int) -> int:
        session = DBOS.sql_session
        session.execute(sa.text("INSERT INTO effects VALUES (:x)"), {"x": x})
        return x + 1

    @DBOS.workflow(name="transacts")
    def transacts() -> int:
        return insert(insert(before()))

    def act() -> object:
        with SetWorkflowID("transaction"):
            return transacts()

    return act


def children(ledger: Ledger) -> Act:
    """Children called and started, one of them failing."""

    @DBOS.step(name="work")
    def work(x: int) -> int:
        ledger.note()
        if x == 3:
            raise ValueError("three")
        return x * 2

    @DBOS.workflow(name="child")
    def child(x: int) -> int:
        return work(x)

    @DBOS.workflow(name="parent")
    def parent() -> list[object]:
        handles = [DBOS.start_workflow(child, x) for x in (1, 3)]
        results: list[object] = [child(2)]
        for handle in handles:
            try:
                results.append(handle.get_result())
            except ValueError as error:
                results.append(str(error))
        return results

    def act() -> object:
        with SetWorkflowID("parent"):
            return parent()

    return act


def forks(ledger: Ledger) -> Act:
    """A fork from the middle of a finished workflow, and one of the fork."""

    @DBOS.step(name="piece")
    def piece(x: int) -> int:
        ledger.note()
        return x

    @DBOS.workflow(name="pieces")
    def pieces() -> int:
        return piece(1) + piece(2) + piece(3)

    def act() -> object:
        with SetWorkflowID("original"):
            pieces()
        with SetWorkflowID("fork"):
            DBOS.fork_workflow("original", 3).get_result()
        with SetWorkflowID("fork-of-fork"):
            return DBOS.fork_workflow("fork", 2).get_result()

    return act


def did(workflow_id: str, step: str) -> bool:
    """Whether a workflow has a step of that name on record."""
    return any(each["function_name"] == step for each in DBOS.list_workflow_steps(workflow_id))


def ended(handle: WorkflowHandle[Any]) -> bool:
    return handle.get_status().status not in ("PENDING", "ENQUEUED")


def cancel_and_resume(ledger: Ledger) -> Act:
    """A workflow that sleeps is cancelled, and resumed by another workflow."""

    @DBOS.step(name="early")
    def early() -> int:
        ledger.note()
        return 1

    @DBOS.step(name="late")
    def late() -> int:
        ledger.note()
        return 2

    @DBOS.workflow(name="sleeper")
    def sleeper() -> int:
        first = early()
        DBOS.sleep(100)
        return first + late()

    @DBOS.workflow(name="controller")
    def controller() -> object:
        handle = DBOS.start_workflow(sleeper)
        DBOS.sleep(10)
        DBOS.cancel_workflow(handle.workflow_id)
        return DBOS.resume_workflow(handle.workflow_id).get_result()

    def act() -> object:
        with SetWorkflowID("control"):
            handle = DBOS.start_workflow(controller)
        # Time stands still until both sleep, and then until the sleeper was resumed.
        for seconds, come_to in ((10, "DBOS.sleep"), (100, "DBOS.resumeWorkflow")):
            eventually(lambda: ended(handle) or (did("control", come_to) and did("control-1", "DBOS.sleep")))
            clock.advance(seconds)
        return handle.get_result()

    clock = FakeClock()
    use_clock(clock)
    return act


def timeout(ledger: Ledger) -> Act:
    """A workflow with a child runs into its deadline; another has a child that is detached from it."""

    @DBOS.step(name="tick")
    def tick() -> int:
        ledger.note()
        return 1

    @DBOS.workflow(name="slow")
    def slow() -> int:
        tick()
        DBOS.sleep(30)
        return tick()

    @DBOS.workflow(name="quick")
    def quick() -> int:
        return tick()

    @DBOS.workflow(name="timed")
    def timed() -> int:
        with SetWorkflowTimeout(None):
            detached = DBOS.start_workflow(quick)
        DBOS.start_workflow(slow)
        detached.get_result()
        DBOS.sleep(30)
        return 0

    def act() -> object:
        with SetWorkflowID("timed"), SetWorkflowTimeout(10):
            handle = DBOS.start_workflow(timed)
        # Time stands still until both sleep, so that every life gets as far as the others.
        eventually(lambda: ended(handle) or (did("timed", "DBOS.sleep") and did("timed-2", "DBOS.sleep")))
        clock.advance(11)
        return handle.get_result()

    clock = FakeClock()
    use_clock(clock)
    return act


def gathered(ledger: Ledger) -> Act:
    """Async steps, a child and a sleep, all at once."""

    @DBOS.step(name="one")
    async def one(x: int) -> int:
        ledger.note()
        await asyncio.sleep(0)
        return x

    @DBOS.workflow(name="async-child")
    async def child(x: int) -> int:
        return await one(x)

    @DBOS.workflow(name="gathers")
    async def gathers() -> list[object]:
        results = await asyncio.gather(one(1), child(2), DBOS.sleep_async(0.01), one(3), return_exceptions=True)
        handle = await DBOS.start_workflow_async(child, 4)
        return [*results, await handle.get_result()]

    async def run() -> object:
        with SetWorkflowID("gathered"):
            handle = await DBOS.start_workflow_async(gathers)
        return await handle.get_result()

    return lambda: asyncio.run(run())


def many(ledger: Ledger) -> Act:
    """Eight workflows at once, whose rows share commits."""

    @DBOS.step(name="unit")
    def unit(x: int) -> int:
        ledger.note()
        return x

    @DBOS.workflow(name="units")
    def units(x: int) -> int:
        return unit(x) + unit(x + 1)

    def act() -> object:
        handles = []
        for x in range(8):
            with SetWorkflowID(f"many-{x}"):
                handles.append(DBOS.start_workflow(units, x))
        return [handle.get_result() for handle in handles]

    return act


def rewinds(ledger: Ledger) -> Act:
    """A finished workflow is rewound by another one, to its last step."""

    @DBOS.step(name="half")
    def half(number: int) -> int:
        if number == 1:  # the other one is run again, however often it was recorded
            ledger.note()
        return number

    @DBOS.workflow(name="rewound")
    def rewound() -> list[int]:
        DBOS.set_event("half", 1)
        return [half(1), half(2)]

    @DBOS.workflow(name="rewinds")
    def mender() -> list[int]:
        handle = DBOS.rewind_workflow("rewound", start_step=3)
        return list(handle.get_result())

    def act() -> object:
        with SetWorkflowID("rewound"):
            first = DBOS.start_workflow(rewound).get_result()
        with SetWorkflowID("mender"):
            return first, DBOS.start_workflow(mender).get_result()

    return act


SCENARIOS: dict[str, Callable[[Ledger], Act]] = {
    each.__name__: each
    for each in (steps, failing, transaction, children, forks, cancel_and_resume, timeout, gathered, many, rewinds)
}
