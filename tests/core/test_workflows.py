"""Workflows and steps: run once, recorded, replayed."""

from __future__ import annotations

import pytest

from dbos import SetWorkflowID
from tests.conftest import App
from tests.hand import Hand, Inside


def test_same_id_runs_once(app: App, hand: Hand) -> None:
    """A second call under the same id returns the stored result and runs nothing."""
    calls: list[str] = []

    @hand.step()
    def greet(name: str) -> str:
        calls.append("step")
        return f"hello {name}"

    @hand.workflow()
    async def welcome(do: Inside, name: str) -> str:
        calls.append("workflow")
        return await do(greet(name))

    app.launch()
    for _ in range(2):
        with SetWorkflowID("w-1"):
            assert "hello you" == hand.call(welcome, "you")

    assert ["workflow", "step"] == calls


def test_steps_are_numbered_and_listed(app: App, hand: Hand) -> None:
    """Steps, a sleep and a child appear in order, with their recorded names."""

    @hand.step()
    def one(x: int) -> int:
        return x + 1

    @hand.workflow()
    async def child(do: Inside, x: int) -> int:
        return await do(one(x))

    @hand.workflow()
    async def parent(do: Inside, x: int) -> int:
        a = await do(one(x))
        await do.sleep(0.01)
        b = await do(child(a))
        handle = await do.start(child, b)
        return await do(handle.get_result())

    app.launch()
    with SetWorkflowID("p"):
        assert 4 == hand.call(parent, 1)

    steps = hand.do("list_workflow_steps", "p")
    assert [
        (1, "one", None),
        (2, "DBOS.sleep", None),
        (3, "child", "p-3"),
        (4, "DBOS.getResult", "p-3"),
        (5, "child", "p-5"),
        (6, "DBOS.getResult", "p-5"),
    ] == [(s["function_id"], s["function_name"], s["child_workflow_id"]) for s in steps]
    assert [2, None, None, 3, None, 4] == [s["output"] if s["function_name"] != "DBOS.sleep" else None for s in steps]


def test_error_survives(app: App, hand: Hand) -> None:
    """An error is raised equally by the call, its replay and the handle."""

    @hand.workflow()
    async def fail(do: Inside) -> None:
        raise ValueError("no", 7)

    app.launch()
    for _ in range(2):
        with SetWorkflowID("f"), pytest.raises(ValueError) as caught:
            hand.call(fail)
        assert ("no", 7) == caught.value.args
    held = hand.do("retrieve_workflow", "f")
    assert "ERROR" == held.status().status
    assert ("no", 7) == held.status().error.args
