"""Enqueueing by name, for whoever does not have the function: a client."""

from __future__ import annotations

from typing import Any

from dbos._engine.handle import Reference
from dbos._engine.order import EnqueueOptions, order_of
from dbos._engine.row import place
from dbos._kernel.plan import op
from dbos._kernel.scope import Here


@op("DBOS.enqueue")
async def enqueue(here: Here, /, options: EnqueueOptions, *args: Any, **kwargs: Any) -> Reference:
    """Put a workflow on a queue, with these arguments, and return its handle.

    Nothing looks whether there is such a workflow or queue: it waits for an application that has them. The same
    workflow id again is the same workflow; it raises DBOSConflictingWorkflowError where that is of another function,
    and DBOSQueueDeduplicatedError where another workflow holds the deduplication id.
    """
    order = order_of(options, args, kwargs, here.ground.clock)
    return Reference(here.ground, await place(here, order))
