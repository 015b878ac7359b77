"""Programs that put work off, change their code and keep schedules, and are killed at every moment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from dbos import DBOS, Debouncer, SetWorkflowID
from dbos.testing import FakeClock, Ledger, use_clock
from tests.crash.scenarios import Act, ended
from tests.waiting import eventually


def patched(ledger: Ledger) -> Act:
    """One patch that is in force and one that is deprecated, between steps."""

    @DBOS.step(name="piece")
    def piece(x: int) -> int:
        ledger.note()
        return x

    @DBOS.workflow(name="patched")
    def workflow() -> list[object]:
        results: list[object] = [piece(1)]
        results.append(DBOS.patch("new") and piece(2))
        results.append(DBOS.deprecate_patch("old") and piece(3))
        results.append(DBOS.patch("last"))
        return results

    def act() -> object:
        with SetWorkflowID("patched"):
            return workflow()

    return act


def debounced(ledger: Ledger) -> Act:
    """A workflow debounces another three times, in two bursts, and awaits both."""

    @DBOS.step(name="note")
    def note(x: int) -> int:
        ledger.note()
        return x

    @DBOS.workflow(name="late")
    def late(x: int) -> int:
        return note(x)

    debouncer = Debouncer.create(late, debounce_timeout_sec=30)

    @DBOS.workflow(name="debounces")
    def debounces() -> list[int]:
        debouncer.debounce("key", 10, 1)
        first = debouncer.debounce("key", 10, 2)
        results = [first.get_result()]
        results.append(debouncer.debounce("key", 10, 3).get_result())
        return results

    def act() -> object:
        with SetWorkflowID("debounces"):
            handle = DBOS.start_workflow(debounces)
        # Until both bursts are over, each as soon as the workflow waits for it.
        for workflow_id, steps in (("debounces-1", 2), ("debounces-4", 4)):
            eventually(lambda: ended(handle) or len(DBOS.list_workflow_steps("debounces")) >= steps)
            burst = DBOS.get_workflow_status(workflow_id)
            if burst is not None and burst.status == "DELAYED":
                clock.advance(10)
                eventually(lambda: ended(DBOS.retrieve_workflow(workflow_id)))
        return handle.get_result()

    clock = FakeClock()
    use_clock(clock)
    return act


def scheduling(ledger: Ledger) -> Act:
    """A workflow makes schedules, looks at them, pauses, resumes and deletes them."""

    @DBOS.step(name="look")
    def look(x: object) -> object:
        ledger.note()
        return x

    @DBOS.workflow(name="yearly")
    def yearly(moment: datetime, context: object) -> None: ...

    @DBOS.workflow(name="schedules")
    def schedules() -> list[object]:
        for name in ("a", "b"):
            DBOS.create_schedule(schedule_name=name, workflow_fn=yearly, schedule="0 0 29 2 *", context=name)
        DBOS.pause_schedule("a")
        seen = look([(each["schedule_name"], each["status"]) for each in DBOS.list_schedules()])
        DBOS.resume_schedule("a")
        DBOS.delete_schedule("b")
        left = DBOS.get_schedule("a")
        return [seen, left and left["status"], DBOS.get_schedule("b")]

    def act() -> object:
        with SetWorkflowID("schedules"):
            return schedules()

    return act


TIMING: dict[str, Callable[[Ledger], Act]] = {each.__name__: each for each in (patched, debounced, scheduling)}
