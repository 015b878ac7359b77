"""Where a value is stored: what a signature binds it to.

A slot is the sort of the value, whose it is, and which of several. What nobody knows when the value is written is not
part of it, such as a stream's offset: so of the messages of one topic to one workflow, of the values of one stream, and
of those that one event had, each can stand for the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Slot(NamedTuple):
    """The place of one value in a database. No two places have the same three parts, whatever ids look like."""

    sort: str
    #: The workflow; of a schedule's context its name.
    owner: str
    #: The step, the topic or the key.
    part: int | str | None = None

    def __str__(self) -> str:
        of = "" if self.part is None else f" {self.part}"
        return f"{self.sort}{of} of {self.owner}" if self.owner else "no place"

    @staticmethod
    def inputs(workflow_id: str) -> Slot:
        return Slot("inputs", workflow_id)

    @staticmethod
    def output(workflow_id: str) -> Slot:
        return Slot("output", workflow_id)

    @staticmethod
    def error(workflow_id: str) -> Slot:
        return Slot("error", workflow_id)

    @staticmethod
    def step_output(workflow_id: str, step_id: int) -> Slot:
        return Slot("output of step", workflow_id, step_id)

    @staticmethod
    def step_error(workflow_id: str, step_id: int) -> Slot:
        return Slot("error of step", workflow_id, step_id)

    @staticmethod
    def message(workflow_id: str, topic: str | None) -> Slot:
        return Slot("message on", workflow_id, topic)

    @staticmethod
    def event(workflow_id: str, key: str) -> Slot:
        return Slot("event", workflow_id, key)

    @staticmethod
    def stream(workflow_id: str, key: str) -> Slot:
        return Slot("stream", workflow_id, key)

    @staticmethod
    def context(schedule_name: str) -> Slot:
        return Slot("context of schedule", schedule_name)


# Of a value that is stored nowhere yet.
NOWHERE = Slot("", "")


def slots_in(table: str, row: Mapping[str, Any]) -> dict[str, Slot]:
    """The slots of the values in a row, by their columns."""
    if table == "notifications":
        return {"message": Slot.message(row["destination_uuid"], row.get("topic"))}
    owner = row["workflow_uuid"]
    match table:
        case "workflow_status":
            return {"inputs": Slot.inputs(owner), "output": Slot.output(owner), "error": Slot.error(owner)}
        case "operation_outputs":
            step_id = row["function_id"]
            return {"output": Slot.step_output(owner, step_id), "error": Slot.step_error(owner, step_id)}
        case "workflow_events" | "workflow_events_history":
            return {"value": Slot.event(owner, row["key"])}
        case "streams":
            return {"value": Slot.stream(owner, row["key"])}
        case _:
            return {}
