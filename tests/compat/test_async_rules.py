"""Sync calls inside an event loop, cancelled tasks, and the runtime's part in both."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from tests.compat.acts import status_of
from tests.conftest import App
from tests.waiting import Gate

BLOCKING: list[tuple[str, tuple[Any, ...]]] = [
    ("run_step", (None, lambda: 1)),
    ("get_workflow_status", ("w",)),
    ("get_result", ("w",)),
    ("wait_first", ([],)),
    ("retrieve_workflow", ("w",)),
    ("sleep", (1,)),
    ("send", ("w", 1)),
    ("send_bulk", ([],)),
    ("recv", ()),
    ("set_event", ("key", 1)),
    ("get_event", ("w", "key")),
    ("get_all_events", ("w",)),
    ("write_stream", ("key", 1)),
    ("close_stream", ("key",)),
    ("read_stream_offset", ("w", "key", 0)),
    ("cancel_workflow", ("w",)),
    ("cancel_workflows", (["w"],)),
    ("delete_workflow", ("w",)),
    ("delete_workflows", (["w"],)),
    ("resume_workflow", ("w",)),
    ("resume_workflows", (["w"],)),
    ("set_workflow_delay", ("w",)),
    ("fork_workflow", ("w", 1)),
    ("rewind_workflow", ("w",)),
    ("update_workflow_attributes", ("w", {})),
    ("enqueue_workflow_with_options", ({},)),
    ("list_workflows", ()),
    ("list_queued_workflows", ()),
    ("list_workflow_steps", ("w",)),
]


@pytest.mark.parametrize(("operation", "arguments"), BLOCKING, ids=[each for each, _ in BLOCKING])
def test_a_sync_operation_is_refused_inside_a_loop(app: App, operation: str, arguments: tuple) -> None:
    """The message names the twin to use."""

    async def main() -> None:
        getattr(DBOS, operation)(*arguments)

    app.launch()

    said = rf"{operation}s?\(\) was called while an event loop is running. Use await {operation}s?_async\(\.\.\.\) instead\."
    with pytest.raises(RuntimeError, match=said):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("list_application_versions", ()),
        ("get_latest_application_version", ()),
        ("set_latest_application_version", ("v1",)),
    ],
)
def test_the_versions_may_be_asked_for_inside_a_loop(app: App, operation: str, arguments: tuple) -> None:
    async def main() -> None:
        getattr(DBOS, operation)(*arguments)

    app.launch()

    asyncio.run(main())


def test_sync_workflows_and_steps_may_be_called_inside_a_loop(app: App) -> None:
    @DBOS.step()
    def step() -> int:
        return 1

    @DBOS.workflow()
    def work() -> int:
        return step() + DBOS.start_workflow(child).get_result()

    @DBOS.workflow()
    def child() -> int:
        return 2

    async def main() -> int:
        return step() + work()

    app.launch()

    assert 4 == asyncio.run(main())


def test_a_sync_operation_is_refused_in_an_async_workflow(app: App) -> None:
    """It is the workflow's error: the loop was not blocked."""

    @DBOS.workflow()
    async def work() -> None:
        DBOS.sleep(1)

    app.launch()
    with pytest.raises(RuntimeError, match="sleep_async"):
        asyncio.run(work())


def test_a_cancelled_task_leaves_its_workflow_pending(app: App) -> None:
    """Its caller sees the cancellation; recovery finishes the workflow."""
    gate = Gate()

    @DBOS.step()
    async def wait() -> str:
        await asyncio.to_thread(gate.pass_through)
        return "done"

    @DBOS.workflow()
    async def work() -> str:
        return await wait()

    async def main() -> None:
        with SetWorkflowID("w"):
            task = asyncio.create_task(work())
        await asyncio.to_thread(gate.wait_reached)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()

    app.launch()
    asyncio.run(main())

    assert ("PENDING", []) == (status_of("w"), DBOS.list_workflow_steps("w"))
    (handle,) = DBOS._recover_pending_workflows()
    assert "done" == handle.get_result()


def test_a_waiting_task_may_be_cancelled_without_its_workflow(app: App) -> None:
    """Who gives up waiting for a handle does not stop what it waited for."""
    gate = Gate()

    @DBOS.workflow()
    async def work() -> str:
        await asyncio.to_thread(gate.pass_through)
        return "done"

    async def main() -> str:
        handle = await DBOS.start_workflow_async(work)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(handle.get_result(), 0.01)
        gate.open()
        return await handle.get_result()

    app.launch()

    assert "done" == asyncio.run(main())


def test_an_id_holds_for_the_call_that_starts_the_coroutine(app: App) -> None:
    """Also where it is awaited after the block as a task."""

    @DBOS.workflow()
    async def tell() -> str:
        return DBOS.workflow_id

    async def main() -> list[str]:
        with SetWorkflowID("awaited"):
            first = await tell()
        with SetWorkflowID("task"):
            task = asyncio.create_task(tell())
        return [first, await task]

    app.launch()

    assert ["awaited", "task"] == asyncio.run(main())


def test_many_waiting_workflows_need_no_threads(app: App) -> None:
    """Hundreds of async workflows sleep at once beside a pool of one thread."""

    @DBOS.workflow()
    async def nap(number: int) -> int:
        await DBOS.sleep_async(0.05)
        return number

    async def main() -> list[int]:
        return list(await asyncio.gather(*(nap(number) for number in range(200))))

    app.launch(max_executor_threads=1)

    assert list(range(200)) == asyncio.run(main())
