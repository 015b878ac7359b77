"""Step ids: which calls take one, how many, and under which name they are recorded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from tests.compat.acts import step_ids, step_names
from tests.conftest import App
from tests.hand import Hand, Inside

# An operation on the finished workflow "other", its arguments, and the records it makes in a workflow's body.
OPERATIONS: list[tuple[str, tuple[Any, ...], dict[str, Any], list[str]]] = [
    ("get_result", ("other",), {}, ["DBOS.getResult"]),
    ("get_workflow_status", ("other",), {}, ["DBOS.getStatus"]),
    ("retrieve_workflow", ("other",), {}, ["DBOS.getStatus"]),
    ("retrieve_workflow", ("other", False), {}, []),
    ("list_workflows", (), {}, ["DBOS.listWorkflows"]),
    ("list_queued_workflows", (), {}, ["DBOS.listQueuedWorkflows"]),
    ("list_workflow_steps", ("other",), {}, ["DBOS.listWorkflowSteps"]),
    ("cancel_workflow", ("other",), {}, ["DBOS.cancelWorkflow"]),
    ("cancel_workflows", (["other"],), {}, ["DBOS.cancelWorkflow"]),
    ("resume_workflow", ("other",), {}, ["DBOS.resumeWorkflow"]),
    ("resume_workflows", (["other"],), {}, ["DBOS.resumeWorkflow"]),
    ("fork_workflow", ("other", 1), {}, ["DBOS.forkWorkflow", "DBOS.getStatus"]),
    ("delete_workflow", ("other",), {}, ["DBOS.deleteWorkflow"]),
    ("delete_workflows", (["other"],), {}, ["DBOS.deleteWorkflow"]),
    ("set_workflow_delay", ("other",), {"delay_seconds": 1}, ["DBOS.setWorkflowDelay"]),
    ("sleep", (0.001,), {}, ["DBOS.sleep"]),
    ("sleep", (0,), {}, []),
    ("sleep", (-1,), {}, []),
    ("list_application_versions", (), {}, []),
    ("get_latest_application_version", (), {}, []),
    ("set_latest_application_version", ("v1",), {}, []),
]
NAMES = [f"{operation}{arguments or ''}" for operation, arguments, _, _ in OPERATIONS]
# Those which may be called in a step; sleep may not.
ANYWHERE = [each for each in OPERATIONS if each[0] != "sleep"]
# Those which a transaction refuses, whatever it is that is refused: see the records they make.
REFUSED = [each for each in OPERATIONS if each[3]]


@pytest.fixture
def other(hand: Hand):
    """To be called after launch: makes the finished workflow "other"."""

    @hand.workflow()
    async def other(do: Inside) -> int:
        return 7

    def make() -> None:
        with SetWorkflowID("other"):
            hand.call(other)

    return make


@pytest.mark.parametrize(("operation", "arguments", "options", "records"), OPERATIONS, ids=NAMES)
def test_an_operation_takes_its_ids_under_its_names(
    app: App, hand: Hand, other, operation: str, arguments: tuple, options: dict, records: list[str]
) -> None:
    @hand.step()
    def after() -> None:
        return None

    @hand.workflow()
    async def body(do: Inside) -> None:
        await getattr(do, operation)(*arguments, **options)
        await do(after())

    app.launch()
    other()
    with SetWorkflowID("w"):
        hand.call(body)

    assert [*records, "after"] == step_names("w")
    assert list(range(1, len(records) + 2)) == step_ids("w")


@pytest.mark.parametrize(
    ("operation", "arguments", "options", "records"), ANYWHERE, ids=[n for n in NAMES if "sleep" not in n]
)
def test_an_operation_inside_a_step_is_not_recorded(
    app: App, hand: Hand, other, operation: str, arguments: tuple, options: dict, records: list[str]
) -> None:
    @hand.step()
    def inside() -> None:
        getattr(DBOS, operation)(*arguments, **options)

    @hand.workflow()
    async def body(do: Inside) -> None:
        await do(inside())

    app.launch()
    other()
    with SetWorkflowID("w"):
        hand.call(body)

    assert ["inside"] == step_names("w")


@pytest.mark.parametrize(("operation", "arguments", "options", "records"), REFUSED, ids=[each[0] for each in REFUSED])
def test_an_operation_inside_a_transaction_is_refused(
    app: App, operation: str, arguments: tuple, options: dict, records: list[str]
) -> None:
    @DBOS.transaction()
    def inside() -> None:
        getattr(DBOS, operation)(*arguments, **options)

    @DBOS.workflow()
    def body() -> None:
        inside()

    app.launch()

    with pytest.raises(Exception, match=rf"Invalid call to `{records[0]}` inside a transaction"):
        body()


def test_handles_take_one_id_for_each_call(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def child(do: Inside) -> int:
        return 7

    @hand.workflow()
    async def body(do: Inside) -> None:
        handle = await do.start(child)
        for _ in range(2):
            await do(handle.get_result())
        await do(handle.get_status())

    app.launch()
    with SetWorkflowID("w"):
        hand.call(body)

    assert ["child", "DBOS.getResult", "DBOS.getResult", "DBOS.getStatus"] == step_names("w")


def test_handles_inside_a_step_or_transaction(app: App) -> None:
    """A step uses a handle without a record; a transaction must not."""

    @DBOS.step()
    def use(handle) -> int:
        return handle.get_result() if handle.get_status().status else 0

    @DBOS.transaction()
    def misuse(handle) -> None:
        handle.get_status()

    @DBOS.workflow()
    def child() -> int:
        return 7

    @DBOS.workflow()
    def body() -> int:
        handle = DBOS.start_workflow(child)
        with pytest.raises(Exception, match="Invalid call to `DBOS.getStatus` inside a transaction"):
            misuse(handle)
        return use(handle)

    app.launch()

    assert 7 == body()


def test_waiting_for_the_first_takes_one_id(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def child(do: Inside) -> int:
        return 7

    @hand.workflow()
    async def body(do: Inside) -> str:
        first = await do.wait_first([await do.start(child)])
        return first.workflow_id

    app.launch()
    with SetWorkflowID("w"):
        assert "w-1" == hand.call(body)

    assert ["child", "DBOS.waitFirst"] == step_names("w")


def test_asyncio_wait_takes_its_id_before_what_it_waits_for(app: App) -> None:
    @DBOS.step(name="one")
    async def one(x: int) -> int:
        return x

    @DBOS.workflow()
    async def body() -> None:
        await DBOS.asyncio_wait([one(1), one(2)])
        await one(3)

    async def main() -> None:
        with SetWorkflowID("w"):
            await body()

    app.launch()
    asyncio.run(main())

    steps = DBOS.list_workflow_steps("w")
    assert ["DBOS.asyncio_wait", "one", "one", "one"] == [step["function_name"] for step in steps]
    assert [[0, 1], 1, 2, 3] == [step["output"] for step in steps]


def test_a_transaction_and_a_run_step_take_one_id(app: App, hand: Hand) -> None:
    @DBOS.transaction(name="txn")
    def txn() -> int:
        return 1

    def plain() -> int:
        return 2

    @hand.workflow()
    async def body(do: Inside) -> list[int]:
        return [await do(txn()), await do.run_step({"name": "plain"}, plain), await do(txn())]

    app.launch()
    with SetWorkflowID("w"):
        assert [1, 2, 1] == hand.call(body)

    assert ["txn", "plain", "txn"] == step_names("w")
    assert [1, 2, 3] == step_ids("w")


def test_context_and_authentication_take_no_id(app: App, hand: Hand) -> None:
    @hand.step()
    def one() -> int:
        return 1

    @hand.workflow()
    async def body(do: Inside) -> int:
        DBOS.set_authentication("me", ["admin"])
        assert (DBOS.workflow_id, DBOS.step_id, DBOS.authenticated_user) == ("w", None, "me")
        assert (DBOS.application_version, DBOS.executor_id) == ("v1", "local")
        return await do(one())

    app.launch()
    with SetWorkflowID("w"):
        hand.call(body)

    assert [1] == step_ids("w")


def test_a_step_inside_a_step_takes_no_id(app: App, hand: Hand) -> None:
    @DBOS.step()
    def inner() -> int:
        return 1

    @hand.step()
    def outer() -> int:
        return inner() + DBOS.run_step(None, inner)

    @hand.workflow()
    async def body(do: Inside) -> int:
        return await do(outer())

    app.launch()
    with SetWorkflowID("w"):
        assert 2 == hand.call(body)

    assert ["outer"] == step_names("w")
