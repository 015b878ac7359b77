"""What the workflows of the machine do. It is said once, for those who run it and for the reference."""

from __future__ import annotations

from typing import NamedTuple

STEP, FAILING_STEP, AWAIT = "step", "failing_step", "await"
# With further words: RECV and ASK a topic or key and so many seconds, SET a key, TELL a workflow and a topic, PUT a
# queue, a script and (if it has one) a deduplication id. Before SET, TELL and PUT stands a STEP: what happens when time
# passes has no effect on others then, so nothing depends on who is faster.
RECV, SET, ASK, TELL, PUT = "recv", "set", "ask", "tell", "put"
#: What each workflow does, in order. The name of a script starts it as a child; AWAIT takes that child's result.
SCRIPTS: dict[str, tuple[str, ...]] = {
    "at_once": (),
    "stages": (STEP, STEP, STEP),
    "failing": (STEP, FAILING_STEP, STEP),
    "family": (STEP, "stages", STEP, AWAIT),
    "unlucky": ("failing", STEP, AWAIT, STEP),
    "household": ("family", AWAIT),
}
#: Those that talk, and use queues.
TALKING: dict[str, tuple[str, ...]] = {
    "at_once": (),
    "errand": (STEP, STEP, STEP),
    "listener": (STEP, "recv news 20.5", STEP, "recv news 20.5", "recv gossip 20.5", STEP, "recv news 0"),
    "speaker": (STEP, "set stage", STEP, "tell a news", "set stage", STEP, "set mood", "set stage", STEP),
    "asker": (STEP, "ask b stage 30.25", STEP, "ask c stage 30.25", "ask a mood 0", STEP),
    "chatterer": (STEP, "tell b news", "tell b gossip", "set mood", "recv news 20.5", STEP, "set stage", STEP),
    "foreman": (STEP, "put serial listener", STEP, "put serial errand", AWAIT),
    "client": (STEP, "put ranked errand one", STEP, AWAIT),
}
#: Queues that run one workflow at a time; the last in each of its partitions.
SERIAL = ("serial", "ranked", "parted")
#: These are async functions, so that each colour has children of the other.
ASYNC = {"failing", "family", "listener", "chatterer", "client"}
#: `max_recovery_attempts`, so small that two deaths are enough for some.
LIMITS = {"stages": 1, "family": 2, "errand": 1}
DEFAULT_LIMIT = 100


class Visit(NamedTuple):
    """One execution of a step: the `number`-th of that step in that workflow."""

    workflow_id: str
    step_id: int
    number: int


def numbers_of(script: tuple[str, ...]) -> list[int]:
    """The step id of each act: RECV and ASK have two, of which the second is for a wait."""
    numbers, number = [], 1
    for act in script:
        numbers.append(number)
        number += 2 if act.split()[0] in (RECV, ASK) else 1
    return numbers
