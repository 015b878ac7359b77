"""`asyncio.wait`, made durable: which of the awaitables were done is recorded, so a replay sees the same split."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from dbos._kernel.journal import answer, commit, ensure_running, record, replay
from dbos._kernel.plan import arun
from dbos._kernel.slot import Slot

if TYPE_CHECKING:
    from dbos._kernel.scope import Here

ASYNCIO_WAIT = "DBOS.asyncio_wait"
Split = tuple[set[asyncio.Task[Any]], set[asyncio.Task[Any]]]


async def asyncio_wait(
    here: Here | None,
    fs: Iterable[Awaitable[Any]],
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - the signature of asyncio.wait
    return_when: str = asyncio.ALL_COMPLETED,
) -> Split:
    """Wait for awaitables like `asyncio.wait`, and record which of them were done."""
    if here is None or here.run is None or not here.in_body:
        return await asyncio.wait(
            [asyncio.ensure_future(each) for each in fs], timeout=timeout, return_when=return_when
        )
    run = here.run
    # Drawn before any of the coroutines starts and draws its own: the order is the program's.
    step_id = run.next_step()
    tasks = [_task(each) for each in fs]
    found = replay(run, step_id, ASYNCIO_WAIT)
    if found is not None:
        done = {tasks[place] for place in answer(run, found)}
        if done:
            await asyncio.wait(done)
        return done, set(tasks) - done
    await arun(ensure_running(run))
    started_ms = here.ground.clock.now_ms()
    done, pending = await asyncio.wait(tasks, timeout=timeout, return_when=return_when)
    codec = here.ground.codec
    slot, places = Slot.step_output(run.workflow_id, step_id), [n for n, task in enumerate(tasks) if task in done]
    output = codec.encode(places, codec.default, slot, ASYNCIO_WAIT)
    entry = record(run, step_id, ASYNCIO_WAIT, output=output, serialization=codec.default.name(), started_ms=started_ms)
    await arun(commit(here, entry))
    return done, pending


def _task(awaitable: Awaitable[Any]) -> asyncio.Task[Any]:
    if isinstance(awaitable, Coroutine):
        return asyncio.get_running_loop().create_task(awaitable)
    return asyncio.ensure_future(awaitable)
