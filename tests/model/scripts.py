"""What the workflows of the machine do. It is said once, for those who run it and for the reference."""

from __future__ import annotations

from typing import NamedTuple

STEP, FAILING_STEP, AWAIT = "step", "failing_step", "await"
#: What each workflow does, in order. The name of a script starts it as a child; AWAIT takes that child's result.
SCRIPTS: dict[str, tuple[str, ...]] = {
    "at_once": (),
    "stages": (STEP, STEP, STEP),
    "failing": (STEP, FAILING_STEP, STEP),
    "family": (STEP, "stages", STEP, AWAIT),
    "unlucky": ("failing", STEP, AWAIT, STEP),
    "household": ("family", AWAIT),
}
#: These are async functions, so that each colour has children of the other.
ASYNC = {"failing", "family"}
#: `max_recovery_attempts`, so small that two deaths are enough for some.
LIMITS = {"stages": 1, "family": 2}
DEFAULT_LIMIT = 100


class Visit(NamedTuple):
    """One execution of a step: the `number`-th of that step in that workflow."""

    workflow_id: str
    step_id: int
    number: int
