"""What the features add to a runtime and to a client: one line each, because a slice knows nothing of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dbos._engine.result import look_for_done
from dbos._engine.schedule import look_for_changes
from dbos._engine.scheduler import Scheduler
from dbos._features import events, messages, queues, streams
from dbos._hooks.kafka import Consumers

if TYPE_CHECKING:
    from dbos._engine.runtime import Runtime
    from dbos._kernel.bell import Look
    from dbos._kernel.service import Service

# How to find, with one statement, who of all that wait for this kind of channel has something.
LOOKS: dict[str, Look] = {
    "done": look_for_done,
    "message": messages.look_for_messages,
    "event": events.look_for_events,
    "stream_at": streams.look_for_values,
    "schedule": look_for_changes,
    "queues": queues.look_for_changes,
}

# What runs in a launched runtime besides the engine's own services.
SERVICES: Sequence[Callable[[Runtime], Service]] = (queues.QueueWatcher, Scheduler, Consumers)
