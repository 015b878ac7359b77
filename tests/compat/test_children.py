"""Children: their ids, what their parent records of them, and that a replay does not run them again."""

from __future__ import annotations

import asyncio

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSAwaitedWorkflowCancelledError
from tests.compat.acts import again
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside


def links(workflow_id: str) -> list[tuple[int, str, str | None]]:
    steps = DBOS.list_workflow_steps(workflow_id)
    return [(step["function_id"], step["function_name"], step["child_workflow_id"]) for step in steps]


def test_a_child_is_named_after_its_parent_and_place(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def child(do: Inside) -> str | None:
        return DBOS.workflow_id

    @hand.workflow()
    async def parent(do: Inside) -> list[str]:
        called = await do(child())
        started = await do.start(child)
        return [called, await do(started.get_result())]

    app.launch()
    with SetWorkflowID("p"):
        assert ["p-1", "p-3"] == hand.call(parent)

    assert [
        (1, "child", "p-1"),
        (2, "DBOS.getResult", "p-1"),
        (3, "child", "p-3"),
        (4, "DBOS.getResult", "p-3"),
    ] == links("p")


def test_a_child_may_have_an_id_of_its_own(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def child(do: Inside) -> str | None:
        return DBOS.workflow_id

    @hand.workflow()
    async def parent(do: Inside) -> list[str]:
        with SetWorkflowID("called"):
            called = await do(child())
        with SetWorkflowID("started"):
            started = await do.start(child)
        return [called, await do(started.get_result())]

    app.launch()
    with SetWorkflowID("p"):
        assert ["called", "started"] == hand.call(parent)

    assert ["called", "called", "started", "started"] == [child_id for _, _, child_id in links("p")]


def test_every_child_knows_its_parent(app: App, hand: Hand) -> None:
    """Called, started, and started as a step."""

    @hand.step()
    def one() -> int:
        return 1

    @hand.workflow()
    async def child(do: Inside) -> int:
        return 2

    @hand.workflow()
    async def parent(do: Inside) -> None:
        await do(child())
        for function in (child, one):
            await do((await do.start(function)).get_result())

    app.launch()
    with SetWorkflowID("p"):
        hand.call(parent)

    assert {"p-1", "p-3", "p-5"} == {each.workflow_id for each in DBOS.list_workflows(parent_workflow_id="p")}
    assert DBOS.get_workflow_status("p").parent_workflow_id is None


def test_a_step_started_as_a_child_has_the_name_of_its_hidden_workflow(app: App, hand: Hand) -> None:
    @hand.step()
    def one() -> int:
        return 1

    @hand.workflow()
    async def parent(do: Inside) -> int:
        return await do((await do.start(one)).get_result())

    app.launch()
    with SetWorkflowID("p"):
        assert 1 == hand.call(parent)

    assert [(1, "<temp>.one", "p-1"), (2, "DBOS.getResult", "p-1")] == links("p")


def test_a_replayed_parent_does_not_run_its_children_again(app: App, hand: Hand, rows: Rows) -> None:
    """Wherever they stand in it, called or started; ids and links stay."""
    ran: list[str] = []

    @hand.step()
    def between() -> None:
        ran.append("step")

    @hand.workflow()
    async def child(do: Inside) -> str:
        ran.append("child")
        return DBOS.workflow_id

    @hand.workflow()
    async def parent(do: Inside) -> list[str]:
        first = await do(child())
        await do(between())
        middle = await do((await do.start(child)).get_result())
        await do(between())
        return [first, middle, await do(child())]

    app.launch()
    with SetWorkflowID("p"):
        result = hand.call(parent)
    before = links("p")

    assert result == again(rows, "p").get_result() == ["p-1", "p-4", "p-7"]
    assert before == links("p")
    assert ["child", "step", "child", "step", "child"] == ran


def test_a_childs_error_is_the_parents_to_catch(app: App, hand: Hand, rows: Rows) -> None:
    """It is recorded as the result of the child, and a replay meets it again."""
    ran: list[int] = []

    @hand.workflow()
    async def child(do: Inside) -> None:
        ran.append(1)
        raise ValueError("child")

    @hand.workflow()
    async def parent(do: Inside) -> str:
        try:
            await do(child())
        except ValueError as error:
            return f"caught {error}"
        return "nothing"

    app.launch()
    with SetWorkflowID("p"):
        assert "caught child" == hand.call(parent)

    result = DBOS.list_workflow_steps("p")[1]
    assert (None, "child") == (result["output"], str(result["error"]))
    assert "caught child" == again(rows, "p").get_result()
    assert [1] == ran


def test_a_parent_learns_that_its_child_was_cancelled(app: App, hand: Hand, rows: Rows) -> None:
    @hand.step()
    def cancel(workflow_id: str) -> None:
        DBOS.cancel_workflow(workflow_id)

    @hand.workflow()
    async def child(do: Inside) -> None:
        await do(cancel(DBOS.workflow_id))

    @hand.workflow()
    async def parent(do: Inside) -> str:
        try:
            await do(child())
        except DBOSAwaitedWorkflowCancelledError as error:
            return error.workflow_id
        return "nothing"

    app.launch()
    with SetWorkflowID("p"):
        assert "p-1" == hand.call(parent)
    assert "p-1" == again(rows, "p").get_result()


def test_a_grandchild_continues_the_name(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def leaf(do: Inside) -> str:
        return DBOS.workflow_id

    @hand.workflow()
    async def branch(do: Inside) -> str:
        return await do(leaf())

    @hand.workflow()
    async def root(do: Inside) -> str:
        return await do(branch())

    app.launch()
    with SetWorkflowID("r"):
        assert "r-1-1" == hand.call(root)


def test_a_parent_that_was_interrupted_finds_its_running_child(app: App, hand: Hand) -> None:
    """The process dies while the child runs: after recovery each of its steps has run to its end once."""
    from tests.compat.acts import Stages

    stages = Stages(hand)

    @hand.workflow()
    async def parent(do: Inside) -> list[int]:
        return await do((await do.start(stages.workflow)).get_result())

    app.launch()
    with SetWorkflowID("p"):
        hand.start(parent)
    stages.gate.wait_reached()
    app.restart()
    stages.gate.wait_reached(2)
    stages.gate.open()

    assert [1, 2, 3] == hand.do("get_result", "p")
    assert [1, 2, 2, 3] == stages.ran
    assert ["p-1"] == [each.workflow_id for each in DBOS.list_workflows(name="stages")]


def test_gathered_children_take_their_ids_in_the_order_of_the_call(app: App, rows: Rows) -> None:
    """Two ids each, whichever is done first; the replay finds the same."""

    @DBOS.workflow()
    async def child(number: int) -> int:
        for _ in range(3 - number):
            await asyncio.sleep(0)
        return number

    @DBOS.workflow()
    async def parent() -> list[int]:
        return list(await asyncio.gather(*(child(number) for number in range(3))))

    async def main() -> list[int]:
        with SetWorkflowID("p"):
            return await parent()

    app.launch()
    assert [0, 1, 2] == asyncio.run(main())

    name = child.dbos_function_name
    rest = "DBOS.getResult"
    expected = [(2 * n + k, (name, rest)[k - 1], f"p-{2 * n + 1}") for n in range(3) for k in (1, 2)]
    assert expected == links("p")
    assert [0, 1, 2] == again(rows, "p").get_result()


@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_child_is_linked_wherever_it_stands(app: App, hand: Hand, place: int) -> None:
    @hand.step()
    def one() -> None:
        return None

    @hand.workflow()
    async def child(do: Inside) -> None:
        return None

    @hand.workflow()
    async def parent(do: Inside) -> None:
        for position in (1, 2, 3):
            if position == place:
                await do.start(child)
            else:
                await do(one())

    app.launch()
    with SetWorkflowID("p"):
        hand.call(parent)

    assert (place, "child", f"p-{place}") == links("p")[place - 1]
    assert 3 == len(links("p"))
