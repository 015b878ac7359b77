"""Recovery: finding unfinished work that nobody runs, and putting it where the dispatcher takes it up.

At launch that is the work of our own executor id and version, besides that of launches that are gone. On
request it is that of any executors. Work of a living launch is never touched, except our own that does not run
any more because it was interrupted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbos._engine.claim import adopt
from dbos._engine.handle import Reference
from dbos._engine.row import TAKEN
from dbos._engine.transitions import ABANDONABLE, REQUEUE_ABANDONED
from dbos._engine.workflow import execute_claimed
from dbos._kernel.bell import queued
from dbos._kernel.model import INTERNAL_QUEUE, TERMINAL
from dbos._kernel.naming import sought
from dbos.error import DBOSRecoveryError

if TYPE_CHECKING:
    from dbos._engine.runtime import Runtime
    from dbos._kernel.scope import Here
    from dbos._kernel.statement import Conn


async def recover(here: Here, runtime: Runtime, executor_ids: list[str]) -> list[str]:
    """Put the abandoned work of these executors back on its queues; the ids of all their unfinished work."""
    for each in executor_ids:
        sought(each, "An executor ID")

    def work(conn: Conn) -> tuple[list[str], set[str]]:
        whose = {"executor_ids": executor_ids, "versions": runtime.versions()}
        pending = [row.workflow_uuid for row in conn.run(ABANDONABLE, **whose)]
        freed = conn.run(
            REQUEUE_ABANDONED,
            **whose,
            owner_id=runtime.owner_id,
            running=list(runtime.runs),
            beginning=list(runtime.beginning),
            now=runtime.clock.now_ms(),
        )
        return pending, {row.queue_name or INTERNAL_QUEUE for row in freed}

    pending: list[str]
    queues: set[str]
    pending, queues = await here.tx(work)
    runtime.bell.ring([queued(name) for name in queues])
    return pending


async def execute_now(here: Here, runtime: Runtime, workflow_id: str) -> Reference:
    """Run a stored workflow in this process now, whatever its version, unless it runs or has ended."""
    taken = await here.read(lambda conn: conn.first(TAKEN, workflow_id=workflow_id))
    if taken is None:
        raise DBOSRecoveryError(workflow_id, "Workflow status not found")
    if taken.status not in TERMINAL and runtime.running(workflow_id) is None:
        spec = runtime.registry.workflow(taken.name)
        runtime.registry.target(taken.class_name, taken.config_name)  # raises where it is not registered
        claimed = await adopt(here, runtime, spec, workflow_id, taken.owner_xid)
        if claimed is not None:
            runtime.spawn(lambda: execute_claimed(runtime, claimed), is_async=spec.is_async, on_this_loop=False)
    return Reference(runtime, workflow_id, runtime.running(workflow_id))
