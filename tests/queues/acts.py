"""What the tests of queues do: enqueueing in either colour, and reading the history of what ran when."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dbos import DBOS, Queue, WorkflowStatus
from tests import coroner
from tests.hand import Hand, Held, Inside


def put(hand: Hand, queue: Queue, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Held:
    """Enqueue a function in the hand's colour."""
    enqueue = queue.enqueue_async if hand.is_async else queue.enqueue
    return Held(hand, hand.call(enqueue, fn, *args, **kwargs))


async def put_inside(do: Inside, queue: Queue, fn: Callable[..., Any], *args: Any) -> Any:
    """Enqueue a function in a workflow's body; returns the handle."""
    return await queue.enqueue_async(fn, *args) if do.is_async else queue.enqueue(fn, *args)


def history(ids: Iterable[str]) -> list[WorkflowStatus]:
    """The workflows in the order in which they were taken from their queue."""
    found = DBOS.list_workflows(workflow_ids=list(ids))
    return sorted(found, key=lambda each: each.dequeued_at or 0)


def most_at_once(found: Iterable[WorkflowStatus]) -> int:
    """How many of these ran at one moment, by the times that the database has of them."""
    spans = []
    for each in found:
        assert each.dequeued_at is not None
        assert each.updated_at is not None
        spans.append((each.dequeued_at, each.updated_at))
    return coroner.most_at_once(spans)
