"""What tests of messages and streams do: receive, write, read, and see what is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dbos import DBOS, SetWorkflowID
from tests.compat.rows import Rows
from tests.hand import Hand, Held, Inside


def receiver(hand: Hand, workflow_id: str = "to", *, timeout_seconds: float = 60) -> Callable[..., Held]:
    """What starts a workflow that takes so many messages of a topic, and returns them."""

    @hand.workflow(name=f"receiver-{workflow_id}")
    async def receive(do: Inside, topic: str | None, count: int) -> list[Any]:
        return [await do.recv(topic, timeout_seconds) for _ in range(count)]

    def begin(topic: str | None = None, count: int = 1) -> Held:
        with SetWorkflowID(workflow_id):
            return hand.start(receive, topic, count)

    return begin


def messages(rows: Rows) -> list[Any]:
    return rows.run("SELECT * FROM {}notifications ORDER BY created_at_epoch_ms")


async def collected(do: Inside, *args: Any, **kwargs: Any) -> list[Any]:
    """All values of a stream, inside a body."""
    if do.is_async:
        return [value async for value in DBOS.read_stream_async(*args, **kwargs)]
    return list(DBOS.read_stream(*args, **kwargs))


def read(hand: Hand, *args: Any, **kwargs: Any) -> list[Any]:
    """All values of a stream, in a test."""
    do = Inside(is_async=hand.is_async)
    return hand.wait(collected(do, *args, **kwargs)) if hand.is_async else list(DBOS.read_stream(*args, **kwargs))


def writer(hand: Hand, *values: Any, key: str = "k", closes: bool = True, **options: Any) -> Any:
    """A workflow that writes these values."""

    @hand.workflow(name="writer", **options)
    async def work(do: Inside) -> None:
        for value in values:
            await do.write_stream(key, value)
        if closes:
            await do.close_stream(key)

    return work


def run(hand: Hand, work: Any, workflow_id: str = "w") -> Any:
    with SetWorkflowID(workflow_id):
        return hand.call(work)


def stored(rows: Rows, key: str = "k") -> list[tuple[int, int, str, str]]:
    found = rows.run(
        'SELECT "offset", function_id, value, serialization FROM {}streams WHERE key = :k ORDER BY 1', k=key
    )
    return [tuple(each) for each in found]
