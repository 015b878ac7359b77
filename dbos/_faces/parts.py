"""What the features add to a runtime and to a client: one line each, because a slice knows nothing of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dbos._engine.result import look_for_done

if TYPE_CHECKING:
    from dbos._engine.runtime import Runtime
    from dbos._kernel.bell import Look
    from dbos._kernel.service import Service

# How to find, with one statement, who of all that wait for this kind of channel has something.
LOOKS: dict[str, Look] = {
    "done": look_for_done,
}

# What runs in a launched runtime besides the engine's own services.
SERVICES: Sequence[Callable[[Runtime], Service]] = ()
