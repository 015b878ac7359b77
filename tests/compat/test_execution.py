"""Where workflows run: threads, loops, and what becomes of one that nobody awaits."""

from __future__ import annotations

import asyncio
import gc
import threading

from dbos import DBOS, SetWorkflowID
from tests.compat.acts import status_of
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate, eventually


def test_a_called_sync_workflow_runs_in_the_callers_thread(app: App) -> None:
    @DBOS.workflow()
    def tell_thread() -> int:
        return threading.get_ident()

    app.launch()

    assert threading.get_ident() == tell_thread()


def test_a_started_sync_workflow_runs_in_a_thread_of_the_pool(app: App) -> None:
    @DBOS.workflow()
    def tell_thread() -> str:
        return threading.current_thread().name

    app.launch()

    assert DBOS.start_workflow(tell_thread).get_result().startswith("dbos-executor-")


def test_the_pool_has_no_more_threads_than_configured(app: App) -> None:
    """With one thread, started workflows run one after the other."""
    events: list[str] = []
    gate = Gate()

    @DBOS.workflow()
    def work(number: int) -> None:
        events.append(f"begin {number}")
        gate.pass_through()
        events.append(f"end {number}")

    app.launch(max_executor_threads=1)
    handles = [DBOS.start_workflow(work, number) for number in range(3)]
    gate.wait_reached()
    gate.open()
    for handle in handles:
        handle.get_result()

    assert [f"{what} {number}" for number in range(3) for what in ("begin", "end")] == events


def test_a_called_async_workflow_runs_on_the_callers_loop(app: App) -> None:
    @DBOS.workflow()
    async def tell_loop() -> bool:
        return asyncio.get_running_loop() is loops[0]

    async def main() -> bool:
        loops.append(asyncio.get_running_loop())
        return await tell_loop()

    loops: list[asyncio.AbstractEventLoop] = []
    app.launch()

    assert asyncio.run(main())


def test_a_started_async_workflow_runs_on_the_callers_loop(app: App) -> None:
    @DBOS.workflow()
    async def find_loop() -> None:
        loops.append(asyncio.get_running_loop())

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        await (await DBOS.start_workflow_async(find_loop)).get_result()

    loops: list[asyncio.AbstractEventLoop] = []
    app.launch()
    asyncio.run(main())

    assert loops[0] is loops[1]


def test_sync_code_can_start_an_async_workflow(app: App) -> None:
    """It runs on a loop of the runtime, in a thread of its own."""

    @DBOS.workflow()
    async def tell_thread() -> int:
        await asyncio.sleep(0)
        return threading.get_ident()

    app.launch()
    handle = DBOS.start_workflow(tell_thread)

    assert threading.get_ident() != handle.get_result()


def test_async_code_can_start_a_sync_workflow(app: App) -> None:
    """It runs in a thread of the pool and does not hold the loop."""
    gate = Gate()

    @DBOS.workflow()
    def wait() -> str:
        gate.pass_through()
        return threading.current_thread().name

    async def main() -> str:
        handle = await DBOS.start_workflow_async(wait)
        gate.open()
        return await handle.get_result()

    app.launch()

    assert asyncio.run(main()).startswith("dbos-executor-")


def test_an_async_workflow_goes_on_the_loop_that_launched(app: App) -> None:
    """Launched inside a running loop, the runtime runs async workflows there that others start."""

    @DBOS.workflow()
    async def tell_loop() -> bool:
        return asyncio.get_running_loop() is loops[0]

    async def main() -> bool:
        loops.append(asyncio.get_running_loop())
        app.launch()
        handle = await asyncio.to_thread(DBOS.start_workflow, tell_loop)
        return await asyncio.to_thread(handle.get_result)

    loops: list[asyncio.AbstractEventLoop] = []

    assert asyncio.run(main())


def test_start_workflow_may_be_called_inside_a_loop(app: App) -> None:
    """Its sync form is exempt from the rule of the async twins."""

    @DBOS.workflow()
    async def double(x: int) -> int:
        return 2 * x

    async def main() -> int:
        handle = DBOS.start_workflow(double, 4)
        return await DBOS.get_result_async(handle.workflow_id)

    app.launch()

    assert 8 == asyncio.run(main())


def test_an_async_workflow_that_nobody_awaits_still_finishes(app: App) -> None:
    """Also when its handle is gone and the garbage collected; the same for an error."""

    @DBOS.workflow()
    async def work(fails: bool) -> str:
        for _ in range(3):
            await asyncio.sleep(0)
            gc.collect()
        if fails:
            raise ValueError("forgotten")
        return "done"

    async def main() -> None:
        for workflow_id, fails in (("good", False), ("bad", True)):
            with SetWorkflowID(workflow_id):
                await DBOS.start_workflow_async(work, fails)
            gc.collect()
        await asyncio.to_thread(eventually, lambda: ("SUCCESS", "ERROR") == (status_of("good"), status_of("bad")))

    app.launch()
    asyncio.run(main())

    assert "forgotten" == str(DBOS.get_workflow_status("bad").error)


def test_hundreds_of_async_workflows_run_at_once(app: App) -> None:
    """More than there are threads or connections, each with a step and a child: none waits for another."""

    @DBOS.step()
    async def one(x: int) -> int:
        return x

    @DBOS.workflow()
    async def child(x: int) -> int:
        return await one(x)

    @DBOS.workflow()
    async def parent(x: int) -> int:
        return await child(x) + await one(x)

    async def main() -> list[int]:
        return await asyncio.gather(*(parent(number) for number in range(250)))

    app.launch(sys_db_pool_size=3)

    assert [2 * number for number in range(250)] == asyncio.run(main())


def test_many_sync_workflows_run_at_once(app: App) -> None:
    @DBOS.step()
    def one(x: int) -> int:
        return x

    @DBOS.workflow()
    def child(x: int) -> int:
        return one(x)

    @DBOS.workflow()
    def parent(x: int) -> int:
        return DBOS.start_workflow(child, x).get_result()

    app.launch(sys_db_pool_size=3)
    handles = [DBOS.start_workflow(parent, number) for number in range(150)]

    assert list(range(150)) == [handle.get_result() for handle in handles]


def test_a_workflow_may_start_a_child_of_the_other_colour(app: App, hand: Hand) -> None:
    @DBOS.workflow()
    def sync_child(x: int) -> int:
        return x + 1

    @DBOS.workflow()
    async def async_child(x: int) -> int:
        return x + 2

    @hand.workflow()
    async def parent(do: Inside) -> list[int]:
        handles = [await do.start(child, 10) for child in (sync_child, async_child)]
        return [await do(handle.get_result()) for handle in handles]

    app.launch()

    assert [11, 12] == hand.call(parent)
