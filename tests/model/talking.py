"""What workflows should make of messages, events and queues: the reference, with what `scripts.TALKING` does.

Like the rest of the reference it is done at once and completely. A queue that runs one workflow at a time takes the
next one, the most urgent first, as soon as the last one has ended or was taken away.
"""

from __future__ import annotations

from typing import Any

from tests.model.records import DEAD_LETTER, Ending, Event, Message, Step, Workflow
from tests.model.reference import VERSION, Reference, Refused, Run
from tests.model.scripts import ASK, AWAIT, FAILING_STEP, PUT, RECV, SERIAL, SET, STEP, TALKING, TELL

SLEEP, RECEIVED, GOT = "DBOS.sleep", "DBOS.recv", "DBOS.getEvent"
RESULTS = (STEP, "DBOS.getResult", RECEIVED, GOT)
CONFLICT, MISSING, HELD = "DBOSConflictingWorkflowError", "DBOSNonExistentWorkflowError", "DBOSQueueDeduplicatedError"


class TalkingReference(Reference):
    """All workflows with their messages and events, and the queues."""

    scripts = TALKING

    # -- what users do -----------------------------------------------------------------------------------------

    def enqueue(
        self,
        workflow_id: str,
        name: str,
        queue: str,
        priority: int | None = None,
        deduplication_id: str | None = None,
        partition: str | None = None,
        delay_seconds: float | None = None,
        parent_id: str | None = None,
    ) -> bool:
        """Put it on a queue, or attach to the one that has this id; say whether it is new."""
        there = self.workflows.get(workflow_id)
        if there is not None:
            if there.name != name:
                raise Refused(CONFLICT)
            if there.status == DEAD_LETTER:
                raise Refused("MaxRecoveryAttemptsExceededError")
            return False
        if deduplication_id is not None and self.holder(queue, deduplication_id):
            raise Refused(HELD)
        self.workflows[workflow_id] = Workflow(
            workflow_id,
            name,
            "ENQUEUED" if delay_seconds is None else "DELAYED",
            self.now_ms,
            version=VERSION,
            queue=queue,
            delay_until_ms=None if delay_seconds is None else self.now_ms + int(delay_seconds * 1000),
            priority=priority or 0,
            deduplication_id=deduplication_id,
            partition=partition,
            parent_id=parent_id,
        )
        return True

    def send(self, workflow_id: str, text: str, topic: str, key: str | None) -> None:
        """Send a message, which has no effect where one with this key was sent to the same workflow."""
        if workflow_id not in self.workflows:
            raise Refused(MISSING)
        messages = self.workflows[workflow_id].messages
        if key is None or all(each.key != key for each in messages):
            messages.append(Message(topic, text, key))
        self._settle()

    def settle(self) -> None:
        """Let everything go as far as it comes."""
        self._settle()

    # -- what users see ----------------------------------------------------------------------------------------

    def holder(self, queue: str, deduplication_id: str) -> str | None:
        """The workflow that holds this deduplication id."""
        place = queue, deduplication_id
        return next((w.workflow_id for w in self.workflows.values() if (w.queue, w.deduplication_id) == place), None)

    def events(self, workflow_id: str) -> dict[str, Any]:
        """The latest values of the events of a workflow."""
        workflow = self.workflows.get(workflow_id)
        return {} if workflow is None else {each.key: each.value for each in sorted(workflow.events)}

    def next_moment(self, last_ms: int) -> int | None:
        """When something happens by itself next, if not later than that."""
        moments = [w.delay_until_ms or 0 for w in self.workflows.values() if w.status == "DELAYED"]
        for run in self.runs.values():
            if run.visit is None:
                steps = self.workflows[run.workflow_id].steps
                moments += [int(each.ending.output * 1000) for each in steps if each.name == SLEEP]
        return min((each for each in moments if self.now_ms < each <= last_ms), default=None)

    # -- what the runtime does ---------------------------------------------------------------------------------

    def _claimable(self) -> list[Workflow]:
        claimed = super()._claimable()
        places: dict[tuple[str, str | None], list[Workflow]] = {}
        running = {(each.queue, each.partition) for each in self.workflows.values() if each.status == "PENDING"}
        for each in self.workflows.values():
            place = each.queue or "", each.partition if each.queue == "parted" else None
            if each.status == "PENDING":
                running.add(place)
            elif each.status == "ENQUEUED" and each.queue in SERIAL:
                places.setdefault(place, []).append(each)
        for place, waiting in places.items():
            if place not in running:
                claimed.append(min(waiting, key=lambda each: (each.priority, each.created_ms)))
        return claimed

    def _is_result(self, step: Step) -> bool:
        return step.name in RESULTS

    def _perform(self, run: Run, workflow: Workflow, act: str, number: int) -> tuple[Step | None, Run | None]:
        kind, *words = act.split()
        if act in self.scripts or act in (STEP, FAILING_STEP, AWAIT):
            return super()._perform(run, workflow, act, number)
        if kind == PUT:
            return self._put(workflow, number, *words), None
        said = f"{workflow.workflow_id}: {number}"
        if kind == SET:
            workflow.events.append(Event(number, words[0], said))
            return Step(number, "DBOS.setEvent"), None
        if kind == TELL:
            if words[0] not in self.workflows:
                return Step(number, "DBOS.send", Ending(error=MISSING)), None
            self.workflows[words[0]].messages.append(Message(words[1], said))
            return Step(number, "DBOS.send"), None
        if kind == RECV:
            return self._receive(workflow, number, words[0], float(words[1])), None
        assert kind == ASK
        value = self.events(words[0]).get(words[1])
        return self._heard(workflow, number, GOT, value, float(words[2])), None

    def _put(self, workflow: Workflow, number: int, queue: str, name: str, held: str | None = None) -> Step:
        child_id = f"{workflow.workflow_id}-{number}"
        try:
            self.enqueue(child_id, name, queue, deduplication_id=held, parent_id=workflow.workflow_id)
        except Refused as error:
            return Step(number, name, Ending(error=str(error)))
        return Step(number, name, child_id=child_id)

    def _receive(self, workflow: Workflow, number: int, topic: str, seconds: float) -> Step | None:
        unread = [each for each in workflow.messages if each.topic == topic and not each.is_taken]
        for message in unread[:1]:
            message.is_taken = True
        return self._heard(workflow, number, RECEIVED, unread[0].text if unread else None, seconds)

    def _heard(self, workflow: Workflow, number: int, name: str, value: str | None, seconds: float) -> Step | None:
        """The record of what was waited for; none as long as it may still come."""
        if value is None and seconds:
            sleep = next((each for each in workflow.steps if each.number == number + 1), None)
            if sleep is None:
                sleep = Step(number + 1, SLEEP, Ending((self.now_ms + int(seconds * 1000)) / 1000))
                self._record(workflow, sleep)
            if self.now_ms < int(sleep.ending.output * 1000):
                return None
        return Step(number, name, Ending(value))
