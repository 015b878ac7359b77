"""What must hold whatever the reference says: laws over everything that was ever seen of the database.

They are apart from the reference so that no mistake in it can excuse a breach.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.model.records import DEAD_LETTER, FINISHED, Workflow


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
