"""What a client does inside a transaction of its program: work is enqueued, and messages are sent, if that commits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbos._engine.guest import Guest
from dbos._features import enqueue, messages
from dbos._kernel.codec import WorkflowSerializationFormat
from dbos._kernel.plan import run

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from dbos._engine.handle import WorkflowHandle
    from dbos._engine.order import EnqueueOptions
    from dbos._engine.outside import Outside
    from dbos._features.messages import SendMessage

DEFAULT = WorkflowSerializationFormat.DEFAULT


class Joining:
    """The part of a client that joins the transactions of others.

    The transaction must be on the system database: a SQLAlchemy Connection or Session of whatever engine. Nothing is
    visible to anybody before it commits, and nothing is left of it if it does not. An error ends it, as any other does.
    """

    _ground: Outside

    def _guest(self, place: Connection | Session) -> Guest:
        run(self._ground.place())  # connected, it knows the layout of the tables
        return Guest(self._ground, place)

    def enqueue_in_transaction(
        self, place: Connection | Session, options: EnqueueOptions, *args: Any, **kwargs: Any
    ) -> WorkflowHandle[Any]:
        """Put a workflow on a queue if this transaction commits; otherwise as `enqueue`.

        The handle is of use after the commit: before it, nobody finds the workflow.
        """
        return run(enqueue.enqueue.plan(self._guest(place), options, *args, **kwargs)).handle()

    def send_in_transaction(
        self,
        place: Connection | Session,
        destination_id: str,
        message: Any,
        topic: str | None = None,
        idempotency_key: str | None = None,
        *,
        serialization_type: WorkflowSerializationFormat | None = DEFAULT,
    ) -> None:
        """Send a message if this transaction commits; otherwise as `send`."""
        letter = messages.SendMessage(destination_id, message, topic, idempotency_key)
        self.send_bulk_in_transaction(place, [letter], serialization_type=serialization_type)

    def send_bulk_in_transaction(
        self,
        place: Connection | Session,
        messages_: list[SendMessage],
        *,
        serialization_type: WorkflowSerializationFormat | None = DEFAULT,
    ) -> None:
        """Send several messages if this transaction commits; otherwise as `send_bulk`."""
        run(messages.send_bulk.plan(self._guest(place), messages_, serialization_type=serialization_type))
