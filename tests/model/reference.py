"""What the runtime should do, without a database, a thread or time: the statuses of workflows as plain values.

Every act here happens at once and completely: what the runtime does a moment later (claim, tell who waits) is done
when the method returns. It says what the specification says, and where that leaves a choice, what this runtime
promises: a run that was fenced off keeps its place in its process until its step returns, and who waits there for the
workflow is told then. It knows nothing of how: no owners, leases, bells or transactions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.model.records import DEAD_LETTER, FINISHED, UNFINISHED, Ending, Step, Workflow, matches
from tests.model.scripts import AWAIT, DEFAULT_LIMIT, FAILING_STEP, LIMITS, SCRIPTS, STEP, Visit, numbers_of

VERSION, INTERNAL_QUEUE = "v1", "_dbos_internal_queue"
#: What awaiting a workflow raises that has neither output nor error.
AWAITED = {
    "CANCELLED": "DBOSAwaitedWorkflowCancelledError",
    DEAD_LETTER: "DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded",
}


class Refused(Exception):
    """The act raises the error of this name, and changes nothing."""


@dataclass(eq=False)
class Run:
    """An execution in this process: how far it has come in its script, and where it waits."""

    workflow_id: str
    position: int = 0
    visit: Visit | None = None  # None: it waits for its child
    child: tuple[str, Run | None] = ("", None)
    is_fenced: bool = False
    ending: Ending | None = None


class Reference:
    """All workflows, and the runs of this process."""

    scripts = SCRIPTS

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.workflows: dict[str, Workflow] = {}
        self.runs: dict[str, Run] = {}
        self.counts: Counter[tuple[str, int]] = Counter()
        self.waiting: list[Visit] = []

    # -- what users do -----------------------------------------------------------------------------------------

    def start(self, workflow_id: str, name: str, timeout_ms: int | None = None) -> Run | None:
        """Start it, or attach to the one that has this id; its run here, if it has one."""
        there = self.workflows.get(workflow_id)
        if there is None:
            deadline_ms = None if timeout_ms is None else self.now_ms + timeout_ms
            run = self._begin(workflow_id, name, timeout_ms=timeout_ms, deadline_ms=deadline_ms)
            self._settle()
            return run
        if there.name != name:
            raise Refused("DBOSConflictingWorkflowError")
        if there.status == DEAD_LETTER:
            raise Refused("MaxRecoveryAttemptsExceededError")
        return self.runs.get(workflow_id)

    def delay(self, workflow_id: str, name: str, queue: str, seconds: float) -> None:
        """Another program enqueues a workflow that is not to start yet."""
        self.workflows[workflow_id] = Workflow(workflow_id, name, "DELAYED", self.now_ms, queue=queue)
        self.set_delay(workflow_id, seconds)

    def set_delay(self, workflow_id: str, seconds: float) -> None:
        workflow = self.workflows.get(workflow_id)
        if workflow is not None and workflow.status == "DELAYED":
            workflow.delay_until_ms = self.now_ms + int(seconds * 1000)
        self.pass_time(0)

    def cancel(self, workflow_ids: list[str], *, children: bool) -> None:
        for workflow in self._known(self._family(workflow_ids) if children else workflow_ids):
            self._cancel(workflow)
        self._settle()

    def resume(self, workflow_ids: list[str], queue: str | None) -> None:
        if not set(workflow_ids) <= set(self.workflows):
            raise Refused("DBOSNonExistentWorkflowError")
        for workflow in self._known(workflow_ids):
            if workflow.status not in FINISHED:
                if workflow.status == "DELAYED":
                    workflow.delay_until_ms = None
                self._take_away(workflow, "ENQUEUED", queue or INTERNAL_QUEUE)
                workflow.attempts, workflow.deadline_ms = 0, None
        self._settle()

    def fork(self, workflow_id: str, cut: int, fork_id: str, queue: str | None, replaced: dict[str, str]) -> None:
        original, there = self.workflows.get(workflow_id), self.workflows.get(fork_id)
        if original is None:
            raise Refused("DBOSNonExistentWorkflowError")
        if there is not None and there.forked_from == workflow_id:
            return  # asked for again
        if there is not None:
            raise Refused("DBOSConflictingWorkflowError")
        original.was_forked_from = True
        steps = [
            each._replace(child_id=replaced.get(each.child_id or "", each.child_id))
            for each in original.steps
            if each.number < cut
        ]
        self.workflows[fork_id] = Workflow(
            fork_id,
            original.name,
            "ENQUEUED",
            self.now_ms,
            queue=queue or INTERNAL_QUEUE,
            forked_from=workflow_id,
            steps=steps,
            events=[each for each in original.events if each.number < cut],
        )
        self._settle()

    def delete(self, workflow_ids: list[str], *, children: bool) -> None:
        for workflow in self._known(self._family(workflow_ids) if children else workflow_ids):
            self._fence(workflow.workflow_id)
            del self.workflows[workflow.workflow_id]
        self._settle()

    def let_go(self, visit: Visit) -> bool:
        """A step returns. Its record counts only if its run still has the workflow; say whether it does."""
        self.waiting.remove(visit)
        run = self.runs.get(visit.workflow_id)
        if run is None or run.visit != visit:
            return False
        run.visit = None
        if run.is_fenced:
            del self.runs[visit.workflow_id]
        else:
            workflow = self.workflows[visit.workflow_id]
            act = self.scripts[workflow.name][run.position]
            ending = Ending(visit.number) if act == STEP else Ending(error=f"StepFailed{tuple(visit)}")
            self._record(workflow, Step(visit.step_id, act, ending))
        self._settle()
        return not run.is_fenced

    def pass_time(self, milliseconds: int) -> None:
        self.now_ms += milliseconds
        for workflow in self.workflows.values():
            if workflow.status == "PENDING" and self._is_expired(workflow):
                self._cancel(workflow)
            if workflow.status == "DELAYED" and (workflow.delay_until_ms or 0) <= self.now_ms:
                workflow.status = "ENQUEUED"
        self._settle()

    def die_and_relaunch(self, down_ms: int) -> None:
        """All runs are gone; what they did not finish is taken up again."""
        self.runs.clear()
        for workflow in self.workflows.values():
            if workflow.status == "PENDING":
                held = workflow.deduplication_id
                self._take_away(workflow, "ENQUEUED", workflow.queue or INTERNAL_QUEUE)
                workflow.deduplication_id = held
        self.pass_time(down_ms)

    # -- what users see ----------------------------------------------------------------------------------------

    def ending(self, workflow_id: str, held: Run | None = None) -> Ending | None:
        """What awaiting it comes to now, for who holds this run of it; None: it waits."""
        if held is not None and held.ending is not None:
            return held.ending
        if workflow_id in self.runs:
            return None
        workflow = self.workflows.get(workflow_id)
        if workflow is None:
            return Ending(error="DBOSNonExistentWorkflowError")
        if workflow.status in FINISHED:
            return workflow.ending
        return Ending(error=AWAITED[workflow.status]) if workflow.status in AWAITED else None

    def fenced(self) -> list[Visit]:
        """The executions of steps that have lost their workflow or their process, the latest first."""
        live = {run.visit for run in self.runs.values() if not run.is_fenced}
        return [each for each in reversed(self.waiting) if each not in live]

    def listed(self, wanted: dict[str, Any]) -> list[str]:
        """The ids that `list_workflows` returns for this filter."""
        found = [each for each in self.workflows.values() if matches(each, wanted)]
        found.sort(key=lambda each: (each.created_ms, each.workflow_id), reverse=wanted.get("sort_desc", False))
        first = wanted.get("offset", 0)
        return [each.workflow_id for each in found[first : first + (wanted.get("limit") or len(found))]]

    # -- what the runtime does ---------------------------------------------------------------------------------

    def _known(self, workflow_ids: Iterable[str]) -> list[Workflow]:
        return [self.workflows[each] for each in dict.fromkeys(workflow_ids) if each in self.workflows]

    def _family(self, workflow_ids: list[str]) -> list[str]:
        family = list(workflow_ids)
        for each in family:  # grows while it is walked
            family += [w.workflow_id for w in self.workflows.values() if w.parent_id == each]
        return family

    def _is_expired(self, workflow: Workflow) -> bool:
        return workflow.deadline_ms is not None and workflow.deadline_ms <= self.now_ms

    def _cancel(self, workflow: Workflow) -> None:
        if workflow.status in UNFINISHED:
            self._take_away(workflow, "CANCELLED", None)

    def _take_away(self, workflow: Workflow, status: str, queue: str | None) -> None:
        workflow.status, workflow.queue, workflow.dequeued_ms = status, queue, None
        workflow.deduplication_id = None
        self._fence(workflow.workflow_id)

    def _fence(self, workflow_id: str) -> None:
        """The run loses its workflow. In a step it notices when the step returns, else at once."""
        run = self.runs.get(workflow_id)
        if run is not None:
            run.is_fenced = True
            if run.visit is None:
                del self.runs[workflow_id]

    def _begin(self, workflow_id: str, name: str, **columns: Any) -> Run:
        self.workflows[workflow_id] = Workflow(
            workflow_id, name, "PENDING", self.now_ms, version=VERSION, attempts=1, **columns
        )
        run = self.runs[workflow_id] = Run(workflow_id)
        self._go_on(run)
        return run

    def _settle(self) -> None:
        """Claim what may run, and let every run go as far as it comes."""
        moved = True
        while moved:
            claimed = self._claimable()
            for workflow in claimed:
                self._claim(workflow)
            moved = any([self._go_on(run) for run in list(self.runs.values()) if run.visit is None]) or bool(claimed)

    def _claimable(self) -> list[Workflow]:
        """What waits on the queue we serve."""
        return [each for each in self.workflows.values() if (each.status, each.queue) == ("ENQUEUED", INTERNAL_QUEUE)]

    def _claim(self, workflow: Workflow) -> None:
        workflow.status, workflow.version, workflow.dequeued_ms = "PENDING", VERSION, self.now_ms
        workflow.attempts += 1
        if workflow.deadline_ms is None and workflow.timeout_ms is not None:
            workflow.deadline_ms = self.now_ms + workflow.timeout_ms
        if workflow.attempts > LIMITS.get(workflow.name, DEFAULT_LIMIT) + 1:
            self._take_away(workflow, DEAD_LETTER, None)
        elif self._is_expired(workflow):
            self._cancel(workflow)
        else:
            self.runs[workflow.workflow_id] = Run(workflow.workflow_id)

    def _go_on(self, run: Run) -> bool:
        """Follow the script, past what is recorded, until something has to be waited for; say whether it went on."""
        workflow, began = self.workflows[run.workflow_id], run.position
        script = self.scripts[workflow.name]
        numbers = numbers_of(script)
        while run.position < len(script):
            act, number, child = script[run.position], numbers[run.position], None
            step = next((each for each in workflow.steps if each.number == number), None)
            if step is None:
                step, child = self._perform(run, workflow, act, number)
                if step is None:
                    return run.position > began
                self._record(workflow, step)
            if step.child_id is not None and act != AWAIT:
                run.child = step.child_id, child or self.runs.get(step.child_id)
            run.position += 1
            if step.ending.error is not None:
                return self._finish(run, workflow, "ERROR", Ending(error=step.ending.error))
        results = [step.ending.output for step in workflow.steps if self._is_result(step)]
        return self._finish(run, workflow, "SUCCESS", Ending(results))

    def _record(self, workflow: Workflow, step: Step) -> None:
        workflow.steps.append(step)
        workflow.steps.sort(key=lambda each: each.number)

    def _is_result(self, step: Step) -> bool:
        return step.name not in self.scripts

    def _perform(self, run: Run, workflow: Workflow, act: str, number: int) -> tuple[Step | None, Run | None]:
        """The record of what is done now, with the child's run that it starts; no record while it waits."""
        if act in (STEP, FAILING_STEP):
            self.counts[run.workflow_id, number] += 1
            run.visit = Visit(run.workflow_id, number, self.counts[run.workflow_id, number])
            self.waiting.append(run.visit)
            return None, None
        if act == AWAIT:
            ending = self.ending(*run.child)
            return (None if ending is None else Step(number, "DBOS.getResult", ending, run.child[0])), None
        child_id = f"{run.workflow_id}-{number}"
        there = self.workflows.get(child_id)
        if there is not None and there.name != act:
            return Step(number, act, Ending(error="DBOSConflictingWorkflowError")), None
        child = None
        if there is None:
            child = self._begin(child_id, act, parent_id=run.workflow_id, deadline_ms=workflow.deadline_ms)
        return Step(number, act, child_id=child_id), child

    def _finish(self, run: Run, workflow: Workflow, status: str, ending: Ending) -> bool:
        workflow.status, workflow.ending, run.ending = status, ending, ending
        workflow.deduplication_id = None
        del self.runs[run.workflow_id]
        return True
