"""A client in the colour of a hand, and what it enqueues."""

from __future__ import annotations

from typing import Any

from dbos import DBOSClient
from tests.compat.rows import INTERNAL_QUEUE
from tests.hand import Hand, Held


class Caller:
    """Calls the operations of a client in a hand's colour."""

    def __init__(self, hand: Hand, client: DBOSClient) -> None:
        self.hand, self.client = hand, client

    def __call__(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        name = f"{operation}_async" if self.hand.is_async else operation
        value = self.hand.call(getattr(self.client, name), *args, **kwargs)
        if isinstance(value, list) and value and hasattr(value[0], "get_result"):
            return [Held(self.hand, each) for each in value]
        return Held(self.hand, value) if hasattr(value, "get_result") else value

    def enqueue(self, name: str, *args: Any, **options: Any) -> Held:
        """Enqueue a workflow on a queue that every application serves."""
        held: Held = self("enqueue", to(name, **options), *args)
        return held


def to(name: str, **options: Any) -> Any:
    """The options to enqueue a workflow of that name."""
    return {"workflow_name": name, "queue_name": INTERNAL_QUEUE, **options}
