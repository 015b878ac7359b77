"""Programs that write in all the ways there are, each in a few commits and under fixed ids; they depend on no time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID, SetWorkflowTimeout
from dbos._faces import ambient
from dbos.error import DBOSAwaitedWorkflowCancelledError
from dbos.testing import Ledger
from tests.compat.rows import Rows
from tests.hand import Hand, Inside
from tests.waiting import Gate, eventually

# What a program does after its launch; it is given the database as another program sees it.
Act = Callable[[Rows], object]
# What the coroner finds of `controls`, which deletes a fork that one of its workflows has made.
DELETED_ON_PURPOSE = "C1 controller: .* started fork-inside"


def starts(hand: Hand, ledger: Ledger) -> Act:
    """Started, recorded, ended: a workflow with steps, a transaction, a child that is called and one that is started."""

    @hand.step()
    def double(x: int) -> int:
        ledger.note()
        return x * 2

    @hand.step()
    def fail() -> None:
        ledger.note()
        raise ValueError("no")

    @DBOS.transaction(name="insert")
    def insert(x: int) -> int:
        DBOS.sql_session.execute(sa.text("INSERT INTO effects VALUES (:x)"), {"x": x})
        return x

    @hand.workflow()
    async def child(do: Inside, x: int) -> int:
        return await do(double(x))

    @hand.workflow()
    async def failing_child(do: Inside) -> None:
        await do(fail())

    @hand.workflow()
    async def parent(do: Inside) -> list[Any]:
        results: list[Any] = [await do(double(1)), insert(2), await do(child(3))]
        handle = await do.start(child, 4)
        results.append(await do(handle.get_result()))
        try:
            await do(failing_child())
        except ValueError as error:
            results.append(error.args)
        return results

    def act(_: Rows) -> object:
        with SetWorkflowID("parent"):
            called = hand.call(parent)
        with SetWorkflowID("started"):
            return called, hand.start(child, 5).result()

    return act


def controls(hand: Hand, ledger: Ledger) -> Act:
    """Cancelled, resumed, forked, deleted: from outside, and as steps of a workflow."""
    gates: list[Gate] = []

    @hand.step()
    def hold() -> None:
        gates[-1].pass_through()

    @hand.step()
    def note(x: int) -> int:
        ledger.note()
        return x

    @hand.workflow()
    async def waiter(do: Inside) -> int:
        first = await do(note(1))
        return first + await do.get_result("awaited") + await do(note(2))

    @hand.workflow()
    async def awaited(do: Inside) -> int:
        await do(hold())
        return 10

    @hand.workflow()
    async def controller(do: Inside) -> list[Any]:
        await do.cancel_workflow("waiter")
        stopped = await do.resume_workflow("waiter")
        with SetWorkflowID("fork-inside"):
            forked = await do.fork_workflow("waiter", 2)
        gates[-1].open()
        return [await do(stopped.get_result()), await do(forked.get_result())]

    def waiting(workflow_id: str) -> bool:
        run = ambient.runtime().running(workflow_id)
        return run is not None and run.is_waiting

    def act(_: Rows) -> object:
        gates.append(Gate())
        for workflow, workflow_id in ((awaited, "awaited"), (waiter, "waiter")):
            with SetWorkflowID(workflow_id):
                hand.start(workflow)
        eventually(lambda: waiting("waiter"))
        hand.do("cancel_workflow", "waiter")
        eventually(lambda: not waiting("waiter"))
        hand.do("resume_workflow", "waiter")
        eventually(lambda: waiting("waiter"))
        with SetWorkflowID("controller"):
            results = hand.call(controller)
        with SetWorkflowID("fork"):
            forked = hand.do("fork_workflow", "waiter", 3).result()
        hand.do("delete_workflow", "fork-inside")
        return results, forked

    return act


def takes_up(hand: Hand, ledger: Ledger) -> Act:
    """Taken up: by the dispatcher after a recovery, and by a call under the id of a workflow that was interrupted."""

    @hand.step()
    def half(x: int) -> int:
        ledger.note()
        return x

    @hand.workflow()
    async def whole(do: Inside) -> int:
        return await do(half(1)) + await do(half(2))

    def act(rows: Rows) -> object:
        results = []
        for workflow_id in ("recovered", "adopted", "started-again"):
            with SetWorkflowID(workflow_id):
                results.append(hand.call(whole))
            rows.interrupt(workflow_id, executor_id="local" if workflow_id == "recovered" else "another")
        DBOS._recover_pending_workflows()
        results.append(hand.do("get_result", "recovered"))
        with SetWorkflowID("adopted"):
            results.append(hand.call(whole))
        with SetWorkflowID("started-again"):
            results.append(hand.start(whole).result())
        return results

    return act


def runs_late(hand: Hand, ledger: Ledger) -> Act:
    """Cancelled at its deadline, while it waits for a workflow of another program."""

    @hand.step()
    def tick() -> None:
        ledger.note()

    @hand.workflow()
    async def late(do: Inside) -> None:
        await do(tick())
        await do.get_result("never")

    def act(rows: Rows) -> object:
        rows.add("never", "never", status="PENDING", owner_xid="another-program")
        with SetWorkflowID("late"), SetWorkflowTimeout(0.3):
            held = hand.start(late)
        with pytest.raises(DBOSAwaitedWorkflowCancelledError):
            held.result()
        return held.status().status

    return act


def rewinds(hand: Hand, ledger: Ledger) -> Act:
    """Rewound, from outside and as a step of a workflow; and what is noted of it, at its start and later."""

    @hand.step()
    def turn(number: int) -> int:
        ledger.note()
        return number

    @hand.workflow()
    async def turns(do: Inside) -> list[int]:
        return [await do(turn(number)) for number in (1, 2, 3)]

    @hand.workflow()
    async def mender(do: Inside) -> list[int]:
        handle = await do.rewind_workflow("turned", start_step=3)
        result: list[int] = await do(handle.get_result())
        await do.update_workflow_attributes("turned", {"b": 2}, merge=True)
        return result

    def act(_: Rows) -> object:
        with SetWorkflowID("turned"), SetWorkflowAttributes({"a": 1}):
            results = [hand.call(turns)]
        results.append(hand.do("rewind_workflow", "turned", start_step=2).result())
        with SetWorkflowID("mender"):
            results.append(hand.call(mender))
        return results, hand.do("get_workflow_status", "turned").attributes

    return act


PROGRAMS: dict[str, Callable[[Hand, Ledger], Act]] = {
    each.__name__: each for each in (starts, controls, takes_up, runs_late, rewinds)
}
