"""What must hold whatever the reference says: laws over everything that was ever seen of the database.

They are apart from the reference so that no mistake in it can excuse a breach.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from tests.model.records import DEAD_LETTER, FINISHED, Workflow
from tests.model.scripts import SERIAL


class Laws:
    """What was seen once and must stay: endings, and the numbers of executions of recorded steps."""

    def __init__(self) -> None:
        self._ended: dict[str, Workflow] = {}
        self._recorded: dict[tuple[str, int], tuple[object, int]] = {}

    def check(self, seen: Iterable[Workflow], counts: dict[tuple[str, int], int]) -> None:
        """`counts` were read after what was seen."""
        for workflow in seen:
            self._outcome_is_final(workflow)
            for step in workflow.steps:
                key = workflow.workflow_id, step.number
                record = step, counts.get(key, 0)
                before = self._recorded.setdefault(key, record)
                assert before == record, f"step {key} changed its record, or ran again after it was recorded"

    def _outcome_is_final(self, workflow: Workflow) -> None:
        before = self._ended.get(workflow.workflow_id)
        assert before is None or (before.status, before.ending) == (workflow.status, workflow.ending), (
            f"{before} had ended, and then became {workflow}"
        )
        if workflow.status in (*FINISHED, "CANCELLED", DEAD_LETTER):
            self._ended[workflow.workflow_id] = workflow

    def allow_resuming(self, workflow_ids: Iterable[str]) -> None:
        """From here on these may go on, unless they have finished."""
        for each in workflow_ids:
            if each in self._ended and self._ended[each].status not in FINISHED:
                del self._ended[each]

    def forget(self, workflow_ids: Iterable[str]) -> None:
        """These are deleted; what comes under their ids is new."""
        gone = set(workflow_ids)
        self._ended = {each: workflow for each, workflow in self._ended.items() if each not in gone}
        self._recorded = {key: record for key, record in self._recorded.items() if key[0] not in gone}


class TalkingLaws(Laws):
    """What must hold of messages and of queues that run one workflow at a time."""

    def __init__(self) -> None:
        super().__init__()
        #: What was enqueued to start at once, in this order, for each queue, partition and priority.
        self._lines: dict[tuple[object, ...], list[str]] = defaultdict(list)

    def note_enqueued(self, workflow_id: str, *line: object) -> None:
        self._lines[line].append(workflow_id)

    def allow_resuming(self, workflow_ids: Iterable[str]) -> None:
        super().allow_resuming(workflow_ids)
        self._leave_lines(workflow_ids)

    def forget(self, workflow_ids: Iterable[str]) -> None:
        super().forget(workflow_ids)
        self._leave_lines(workflow_ids)

    def _leave_lines(self, workflow_ids: Iterable[str]) -> None:
        gone = set(workflow_ids)
        for line, members in self._lines.items():
            self._lines[line] = [each for each in members if each not in gone]

    def check(self, seen: Iterable[Workflow], counts: dict[tuple[str, int], int]) -> None:
        seen = list(seen)
        super().check(seen, counts)
        for workflow in seen:
            self._messages_are_taken_in_order_and_once(workflow)
        self._places_are_held_by_one(seen)
        self._nobody_is_overtaken({each.workflow_id: each for each in seen})

    def _messages_are_taken_in_order_and_once(self, workflow: Workflow) -> None:
        """Those that the machine sent have a topic and a number."""
        taken: dict[str, list[int]] = defaultdict(list)
        for step in workflow.steps:
            if step.name == "DBOS.recv" and step.ending.output is not None and step.ending.output[0] == "#":
                _, topic, number = step.ending.output.split()
                taken[topic].append(int(number))
        for topic, numbers in taken.items():
            assert numbers == sorted(set(numbers)), f"{workflow.workflow_id} took {numbers} of {topic}"

    def _places_are_held_by_one(self, seen: list[Workflow]) -> None:
        running = [(each.queue, each.partition) for each in seen if each.queue in SERIAL and each.status == "PENDING"]
        assert len(running) == len(set(running)), f"more than one runs: {running}"
        held = [(each.queue, each.deduplication_id) for each in seen if each.deduplication_id is not None]
        assert len(held) == len(set(held)), f"more than one holder: {held}"

    def _nobody_is_overtaken(self, seen: dict[str, Workflow]) -> None:
        for members in self._lines.values():
            there = [seen[each] for each in members if each in seen]
            waiting = [number for number, each in enumerate(there) if (each.status, each.attempts) == ("ENQUEUED", 0)]
            begun = [number for number, each in enumerate(there) if each.attempts]
            assert not waiting or not begun or begun[-1] < waiting[0], f"out of turn: {there}"
