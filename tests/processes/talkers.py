"""What the processes of `test_talking.py` run: a workflow that answers, in events and in a stream too."""

from __future__ import annotations

import sys

from dbos import DBOS, SetWorkflowID
from dbos._kernel import ear
from tests.processes.programs import launch


@DBOS.workflow(name="answers")
def answers(count: int) -> int:
    """Answer messages: to their sender, as an event, and as a value of a stream."""
    for _ in range(count):
        sender, number = DBOS.recv("question", 600)
        DBOS.set_event(f"heard-{number}", number)
        DBOS.write_stream("heard", number)
        if sender is not None:
            DBOS.send(sender, number, "answer")
    DBOS.close_stream("heard")
    return count


def serve(url: str, executor_id: str, count: str) -> None:
    # What is heard comes by the database's own means, and not by a look from time to time.
    ear.FULL_LOOK_MS = 3_600_000
    launch(url, executor_id=executor_id)
    with SetWorkflowID("server"):
        DBOS.start_workflow(answers, int(count))
    print("ready", flush=True)
    sys.stdin.read()
    DBOS.destroy()


if __name__ == "__main__":
    serve(*sys.argv[1:])
