"""What many tests do: act beside, recover a workflow, read the names of its steps, run one in stages."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from dbos import DBOS, WorkflowHandle
from tests.compat.rows import Rows
from tests.hand import Hand, Inside
from tests.waiting import Gate


def beside(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
    """Call it in a thread of its own."""
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


def again(rows: Rows, workflow_id: str) -> WorkflowHandle[Any]:
    """Recover a workflow that has ended, as if it had been interrupted before it wrote its outcome."""
    rows.interrupt(workflow_id)
    handles = DBOS._recover_pending_workflows()
    return next(each for each in handles if each.workflow_id == workflow_id)


def step_names(workflow_id: str) -> list[str]:
    return [step["function_name"] for step in DBOS.list_workflow_steps(workflow_id)]


def step_ids(workflow_id: str) -> list[int]:
    return [step["function_id"] for step in DBOS.list_workflow_steps(workflow_id)]


def status_of(workflow_id: str) -> str | None:
    found = DBOS.get_workflow_status(workflow_id)
    return None if found is None else found.status


class Stages:
    """A workflow of three steps, the second of which waits at a gate; `ran` says which were run."""

    def __init__(self, hand: Hand, name: str = "stages") -> None:
        self.gate = Gate()
        self.ran: list[int] = []

        @hand.step(name=name.removesuffix("s"))
        def stage(number: int) -> int:
            self.ran.append(number)
            if number == 2:
                self.gate.pass_through()
            return number

        @hand.workflow(name=name)
        async def stages(do: Inside) -> list[int]:
            return [await do(stage(number)) for number in (1, 2, 3)]

        self.workflow = stages
