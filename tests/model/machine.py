"""The machine: it does what Hypothesis chooses to the runtime and to the reference, and compares them.

After each act all workflows, their steps and the numbers of their executions are compared, until they agree. Runs wait
at gates (see `programs`), so nearly every act meets workflows that are running, and time is a clock that only the
machine moves.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from dbos import DBOS, SetWorkflowID, SetWorkflowTimeout, WorkflowHandle
from dbos._kernel.model import StepInfo, WorkflowStatus
from dbos.testing import FakeClock, use_clock
from tests.compat.acts import beside
from tests.compat.rows import Rows
from tests.conftest import App
from tests.model.acts import Act, acts, beginnings
from tests.model.laws import Laws
from tests.model.programs import Program, StepFailed
from tests.model.records import Ending, Step, Workflow
from tests.model.reference import INTERNAL_QUEUE, Reference, Refused, Run
from tests.waiting import LIMIT_SECONDS, eventually

EXAMPLES = os.environ.get("MODEL_EXAMPLES")
#: So long the runtime may take to do what the reference did at once.
PATIENCE_SECONDS = 10


class Statuses(RuleBasedStateMachine):
    """One program, and all that its users may do to its workflows."""

    def __init__(self, app: App, clear: Callable[[], None], program: Program) -> None:
        super().__init__()
        self.app, self.clear = app, clear
        self.functions, self.turnstile = program.functions, program.turnstile

    @initialize(beginnings=beginnings)
    def launch(self, beginnings: list[tuple[str, int | None, int]]) -> None:
        """With some workflows that have come some way: many acts need one."""
        self.clear()
        self.rows = Rows(self.app.database)
        self.clock = FakeClock()
        use_clock(self.clock)
        self.new_reference()
        self.read_steps: dict[str, list[Step]] = {}
        #: Handles, and what waits in threads for results, each with the run that its holder knows.
        self.handles: deque[tuple[WorkflowHandle[Any], Run | None]] = deque()
        self.waiters: list[tuple[Future[Any], str, Run | None]] = []
        self.app.launch()
        for workflow_id, (name, timeout, steps) in zip("abcd", beginnings, strict=False):
            self.start(workflow_id, name, timeout)
            self.go_on(workflow_id, steps)

    def new_reference(self) -> None:
        self.reference, self.laws = Reference(self.clock.now_ms()), Laws()

    def teardown(self) -> None:
        self.app.crash()
        self.turnstile.empty()

    @rule(act=acts)
    def do(self, act: Act) -> None:
        name, *arguments = act
        getattr(self, name)(*arguments)

    def agree(self, planned: Callable[[], Any], done: Callable[[], Any]) -> tuple[Any, Any]:
        """Do it on both sides; what the reference refuses is refused with the same error."""
        try:
            expected = planned()
        except Refused as error:
            refused = str(error)
        else:
            return expected, done()
        with pytest.raises(Exception) as caught:
            done()
        assert refused == type(caught.value).__name__
        return None, None

    # -- starting and letting go -------------------------------------------------------------------------------

    def start(self, workflow_id: str, name: str, timeout: int | None) -> None:
        """New, or again: then it attaches to the workflow of that id."""

        def begin() -> WorkflowHandle[Any]:
            with SetWorkflowID(workflow_id), SetWorkflowTimeout(timeout):
                return DBOS.start_workflow(self.functions[name])

        run, handle = self.agree(
            lambda: self.reference.start(workflow_id, name, None if timeout is None else timeout * 1000), begin
        )
        if handle is not None:
            assert workflow_id == handle.workflow_id
            self.handles.append((handle, run))

    def start_again(self, workflow_id: str) -> None:
        """As whoever does not know that it was started; by its id it is the same."""
        workflow = self.reference.workflows.get(workflow_id)
        self.start(workflow_id, "at_once" if workflow is None else workflow.name, None)

    def go_on(self, workflow_id: str, most: int) -> None:
        """Let up to so many steps return, until it has ended or waits for its child."""
        for _ in range(most):
            run = self.reference.runs.get(workflow_id)
            if run is None or run.visit is None or run.is_fenced:
                return
            self.all_is_as_the_reference_says()
            visit = run.visit
            assert self.reference.let_go(visit)
            self.turnstile.let_go(visit)

    def let_a_fenced_step_return(self, number: int) -> None:
        """It has lost its workflow: its run is over, and has changed nothing."""
        visits = self.reference.fenced()
        if visits:
            visit = visits[number % len(visits)]
            assert not self.reference.let_go(visit)
            assert self.turnstile.let_go(visit).wait(LIMIT_SECONDS)

    # -- control -----------------------------------------------------------------------------------------------

    def cancel(self, workflow_ids: list[str], children: bool) -> None:
        self.reference.cancel(workflow_ids, children=children)
        if len(workflow_ids) == 1:
            DBOS.cancel_workflow(workflow_ids[0], cancel_children=children)
        else:
            DBOS.cancel_workflows(workflow_ids, cancel_children=children)

    def resume(self, workflow_ids: list[str], queue: str | None) -> None:
        if set(workflow_ids) <= set(self.reference.workflows):
            self.laws.allow_resuming(workflow_ids)

        def done() -> list[WorkflowHandle[Any]]:
            if len(workflow_ids) == 1:
                return [DBOS.resume_workflow(workflow_ids[0], queue_name=queue)]
            return DBOS.resume_workflows(workflow_ids, queue_name=queue)

        _, handles = self.agree(lambda: self.reference.resume(workflow_ids, queue), done)
        assert handles is None or workflow_ids == [each.workflow_id for each in handles]

    def fork(self, workflow_id: str, cut: int, fork_id: str, queue: str | None, child: str | None) -> None:
        """With its children, or with another workflow in their place."""
        original = self.reference.workflows.get(workflow_id)
        old = {step.child_id for step in original.steps if step.child_id} if original is not None else set()
        replaced = {} if child is None else dict.fromkeys(old, child)

        def done() -> WorkflowHandle[Any]:
            with SetWorkflowID(fork_id):
                return DBOS.fork_workflow(workflow_id, cut, queue_name=queue, replacement_children=replaced)

        _, handle = self.agree(lambda: self.reference.fork(workflow_id, cut, fork_id, queue, replaced), done)
        assert handle is None or fork_id == handle.workflow_id

    def delete(self, workflow_ids: list[str], children: bool) -> None:
        before = set(self.reference.workflows)
        self.reference.delete(workflow_ids, children=children)
        if len(workflow_ids) == 1:
            DBOS.delete_workflow(workflow_ids[0], delete_children=children)
        else:
            DBOS.delete_workflows(workflow_ids, delete_children=children)
        self.laws.forget(before - set(self.reference.workflows))

    # -- time, and death ---------------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        self.reference.pass_time(int(seconds * 1000))
        self.clock.advance(seconds)

    def enqueue_with_a_delay(self, workflow_id: str, name: str, queue: str | None, seconds: float) -> None:
        """As another program does: a portable row. It has no Python errors, so it is of a workflow that does not fail."""
        if workflow_id not in self.reference.workflows:
            far_ms = self.clock.now_ms() + 3_600_000
            place = {"queue_name": queue or INTERNAL_QUEUE, "delay_until_epoch_ms": far_ms}
            self.rows.add(workflow_id, name, status="DELAYED", created_at=self.clock.now_ms(), **place)
            self.reference.delay(workflow_id, name, queue or INTERNAL_QUEUE, seconds)
            DBOS.set_workflow_delay(workflow_id, delay_seconds=seconds)

    def set_delay(self, workflow_id: str, seconds: float) -> None:
        self.reference.set_delay(workflow_id, seconds)
        DBOS.set_workflow_delay(workflow_id, delay_seconds=seconds)

    def die_and_relaunch(self, seconds: float) -> None:
        """All runs here are lost, with whoever waited in this process."""
        self.app.crash()
        self.read_steps.clear()
        self.handles.clear()
        self.waiters.clear()
        self.reference.die_and_relaunch(int(seconds * 1000))
        self.clock.advance(seconds)
        self.app.launch()

    def recover(self) -> None:
        """What runs here is not taken up again."""
        pending = [each.workflow_id for each in self.reference.workflows.values() if each.status == "PENDING"]
        assert sorted(pending) == sorted(each.workflow_id for each in DBOS._recover_pending_workflows())

    # -- looking -----------------------------------------------------------------------------------------------

    def wait_by_an_old_handle(self) -> None:
        """That of a start, whose workflow may be gone by now."""
        if self.handles:
            handle, run = self.handles[0]
            self.handles.rotate()
            self.wait(handle, run)

    def wait(self, handle: WorkflowHandle[Any], run: Run | None) -> None:
        self.waiters.append((beside(handle.get_result), handle.workflow_id, run))

    def look(self, wanted: dict[str, Any], workflow_id: str, limit: int, offset: int) -> None:
        assert self.reference.listed(wanted) == [each.workflow_id for each in DBOS.list_workflows(**wanted)]
        queued = {**wanted, "queues_only": True}
        assert self.reference.listed(queued) == [each.workflow_id for each in DBOS.list_queued_workflows(**wanted)]

        expected, status = self.reference.workflows.get(workflow_id), DBOS.get_workflow_status(workflow_id)
        steps = [] if expected is None else expected.steps
        found = DBOS.list_workflow_steps(workflow_id, limit=limit, offset=offset)
        assert steps[offset : offset + limit] == [step_of(each) for each in found]
        assert expected == (None if status is None else workflow_of(status, steps))
        self.read_steps.clear()

    # -- what holds after each of them -------------------------------------------------------------------------

    @invariant()
    def all_is_as_the_reference_says(self) -> None:
        workflows = [self.reference.workflows[each] for each in self.reference.listed({})]
        expected = workflows, dict(self.reference.counts)
        try:
            eventually(lambda: expected == self.seen(), PATIENCE_SECONDS)
        except AssertionError:
            for expected_one, seen_one in zip(workflows, self.seen()[0], strict=False):
                assert expected_one == seen_one  # the first difference says more than all
            assert expected == self.seen()
        self.read_steps = {each.workflow_id: list(each.steps) for each in workflows}

    @invariant()
    def who_waits_is_told_when_it_has_ended(self) -> None:
        still = []
        for waiter, workflow_id, run in self.waiters:
            expected = self.reference.ending(workflow_id, run)
            if expected is None:
                assert not waiter.done()
                still.append((waiter, workflow_id, run))
            else:
                assert expected == ending_of(waiter)
        self.waiters = still
        self.wait_for_everything()

    def wait_for_everything(self) -> None:
        """Somebody waits for every workflow that has not ended."""
        awaited = {workflow_id for _, workflow_id, _ in self.waiters}
        for each in self.reference.workflows:
            if each not in awaited and self.reference.ending(each) is None:
                self.wait(DBOS.retrieve_workflow(each), self.reference.runs.get(each))

    def seen(self) -> tuple[list[Workflow], dict[tuple[str, int], int]]:
        """All workflows with their steps, oldest first, and how often each step was executed."""
        found = [workflow_of(each, self.steps_of(each.workflow_id)) for each in DBOS.list_workflows()]
        counts = self.turnstile.counts()
        self.laws.check(found, counts)
        return found, counts

    def steps_of(self, workflow_id: str) -> list[Step]:
        """Read, unless they were and should not have changed since; from time to time all are read again."""
        expected, known = self.reference.workflows.get(workflow_id), self.read_steps.get(workflow_id)
        if expected is not None and known == expected.steps:
            return known
        return [step_of(each) for each in DBOS.list_workflow_steps(workflow_id)]


# -- the records of the runtime, as the reference writes them ------------------------------------------------------


def workflow_of(status: WorkflowStatus, steps: list[Step]) -> Workflow:
    return Workflow(
        status.workflow_id,
        status.name,
        status.status,
        status.created_at or 0,
        version=status.app_version,
        attempts=status.recovery_attempts or 0,
        queue=status.queue_name,
        dequeued_ms=status.dequeued_at,
        timeout_ms=status.workflow_timeout_ms,
        deadline_ms=status.workflow_deadline_epoch_ms,
        delay_until_ms=status.delay_until_epoch_ms,
        parent_id=status.parent_workflow_id,
        forked_from=status.forked_from,
        was_forked_from=status.was_forked_from,
        priority=status.priority or 0,
        deduplication_id=status.deduplication_id,
        partition=status.queue_partition_key,
        ending=Ending(status.output, error_name(status.error)),
        steps=steps,
    )


def step_of(step: StepInfo) -> Step:
    ending = Ending(step["output"], error_name(step["error"]))
    return Step(step["function_id"], step["function_name"], ending, step["child_workflow_id"])


def error_name(error: object) -> str | None:
    if error is None or isinstance(error, StepFailed):
        return error and repr(error)
    return type(error).__name__


def ending_of(waiter: Future[Any]) -> Ending:
    try:
        return Ending(waiter.result(PATIENCE_SECONDS))
    except Exception as error:
        return Ending(error=error_name(error))


def walk(make: Callable[[], RuleBasedStateMachine], examples: int = 30) -> None:
    """Let Hypothesis lead such machines through so many examples."""
    run_state_machine_as_test(
        make,
        settings=settings(
            max_examples=int(EXAMPLES or examples),
            stateful_step_count=20,
            derandomize=EXAMPLES is None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
