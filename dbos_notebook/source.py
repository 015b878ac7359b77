"""`Source`: the only door to data. It wraps a client; its reads return frames, its actions change workflows.

No value is unpickled by a read, but by `value` and where `decode=True` asks for it. What is masked leaves here masked,
as a text or as a value; who plays code on records gets them as they are. Workflows are named by their id or
by the beginning of it, if that tells which one is meant: an action on a workflow that is not there is an error here,
while the runtime passes over it.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import dbos_notebook.accessor  # noqa: F401 - gives every frame its .dbos
from dbos import StoredValues, extension
from dbos.error import DBOSException
from dbos.extension import Slot
from dbos_notebook import frames
from dbos_notebook.masking import NOTHING, Mask, places
from dbos_notebook.naming import NotFoundError, named
from dbos_notebook.origin import ORIGIN, word_for
from dbos_notebook.signs import KERNEL, STOPPED_AT
from dbos_notebook.stored import LONGEST_STORED, decoded, unpickled

if TYPE_CHECKING:
    from dbos import DBOSClient, StoredStep, WorkflowNote, WorkflowStatus
    from dbos_notebook.failures import Triage

# So many ids go into one question: databases bound the number of parameters.
CHUNK = 5_000
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# The kinds of notes that are shown of a workflow, and of its steps.
RUN_KINDS = ["code", "error", "input", "output"]
STEP_KINDS = ["attempts", "error", "input", "output", "printed"]
LIMITS = ("concurrency", "worker_concurrency")


class Source:
    """The workflows of one database, as frames, and what can be done to them."""

    def __init__(
        self,
        client: DBOSClient,
        declared: Callable[[], Mapping[str, tuple[Any, ...]]] = dict,
        *,
        mask: Mask = NOTHING,
        is_of_runtime: bool = False,
    ) -> None:
        self.client, self.mask = client, mask
        #: Whose records code is played on: of the runtime of this process where it is its database.
        self.records = extension.Records(None if is_of_runtime else client, unpickled)
        #: The triage that was shown last: a group is known by its number there.
        self.triaged: Triage | None = None
        #: The queues that only code knows, with their limits.
        self._declared = declared
        #: The names of parameters by the version of the code that has them, for the mask.
        self._signatures: dict[str, tuple[str, ...] | None] = {}
        self._word = word_for(self)

    def __repr__(self) -> str:
        return f"<Source {self.client!r}>"

    # -- reads: workflows --------------------------------------------------------------------------------------

    def runs(
        self, *, since: timedelta | str | None = None, values: bool = True, decode: bool = False, **filters: Any
    ) -> pd.DataFrame:
        """Workflows that match every condition of `DBOS.list_workflows`, the newest first; see `WorkflowFilter`.

        `since` is how far back to look, such as "24h" or a timedelta. Without `values` the previews of inputs and
        outcomes are left out, which is faster. With `decode` the columns `input`, `output` and `error` hold the
        values themselves, which are unpickled for that.
        """
        wanted = {"sort_desc": True, **filters, "load_input": False, "load_output": False}
        if since is not None:
            if wanted.get("start_time") is not None:
                raise ValueError("give since or start_time, not both")
            wanted["start_time"] = (datetime.now(UTC) - span_of(since)).isoformat()
        for bound in ("start_time", "end_time"):
            if isinstance(wanted.get(bound), datetime):
                wanted[bound] = wanted[bound].isoformat()
        return self._runs_frame(self.client.list_workflows(**wanted), values=values, decode=decode)

    def _runs_frame(self, found: list[WorkflowStatus], *, values: bool, decode: bool = False) -> pd.DataFrame:
        ids = [each.workflow_id for each in found]
        stored, notes = {}, frames.Notes()
        if values:
            notes = self._notes(ids, RUN_KINDS)
            stored = {
                each.workflow_id: each
                for part in _chunks(ids)
                for each in self.client.list_values(part, longest=LONGEST_STORED)
            }
        made = frames.runs_frame(found, stored, notes, self.mask, _parameters)
        if decode:
            held = [self._held(each, run.name) for each, run in zip(self._values(ids), found, strict=True)]
            for place, name in enumerate(("input", "output", "error")):
                made[name] = _objects(made.index, [each[place] for each in held])
        return self._mine(made)

    def _values(self, ids: list[str]) -> list[StoredValues]:
        of = {each.workflow_id: each for part in _chunks(ids) for each in self.client.list_values(part)}
        return [of.get(each) or StoredValues(each, None, None, None, None) for each in ids]

    def _held(self, each: StoredValues, name: str) -> tuple[Any, Any, Any]:
        """The input, output and error of a workflow of that name, decoded."""
        return (
            self._input(each, name),
            self._decoded(each.output, each.serialization, Slot.output(each.workflow_id)),
            self._decoded(each.error, each.serialization, Slot.error(each.workflow_id), is_error=True),
        )

    def _input(self, each: StoredValues, name: str) -> Any:
        slot = Slot.inputs(each.workflow_id)
        if not self.mask:
            return self._decoded(each.input, each.serialization, slot)
        value = decoded(each.input, each.serialization, partial(self.records.value, slot=slot))
        if isinstance(value, dict) and isinstance(value.get("args"), tuple | list):
            names = self._recorded_parameters(each.workflow_id) or _parameters(name)
            value = {**value, "args": self.mask.arguments(value["args"], names)}
        return self.mask.value(value)

    def _recorded_parameters(self, workflow_id: str) -> tuple[str, ...] | None:
        """The names of the parameters of the function as the run ran it, where its source was kept."""
        (code,) = [each.text for each in self.notes([workflow_id], ["code"])] or [""]
        if code not in self._signatures:
            kept = self.client.list_sources([code]) if code else []
            self._signatures[code] = parameters_in(kept[-1].text) if kept else None
        return self._signatures[code]

    def _decoded(self, text: str | None, serialization: str | None, slot: Slot, *, is_error: bool = False) -> Any:
        decode = self.records.error if is_error else self.records.value
        return decoded(text, serialization, partial(decode, slot=slot), self.mask)

    def run(self, workflow_id: str) -> WorkflowStatus:
        """One workflow, its values not loaded; `workflow_id` may be the beginning of its id."""
        (found,) = self._found([workflow_id])
        return found

    def family(self, *workflow_ids: str) -> pd.DataFrame:
        """Workflows with everything related: who started them, what they started, and all forks of these."""
        known = {each.workflow_id: each for each in self._found(workflow_ids)}
        fresh = list(known.values())
        while fresh:
            ids = [each.workflow_id for each in fresh]
            above = {above for each in fresh for above in (each.parent_workflow_id, each.forked_from) if above}
            related = [*self._listed(workflow_ids=sorted(above - known.keys()))]
            for relation in ("parent_workflow_id", "forked_from"):
                related += self._listed(**{relation: ids})
            fresh = list({each.workflow_id: each for each in related if each.workflow_id not in known}.values())
            known |= {each.workflow_id: each for each in fresh}
        ordered = sorted(known.values(), key=lambda each: (each.created_at or 0, each.workflow_id))
        return self._runs_frame(ordered, values=False)

    def steps(self, *workflow_ids: str, decode: bool = False) -> pd.DataFrame:
        """The steps of these workflows, also those that a running one has begun. For `decode` see `runs`."""
        found = self._found(workflow_ids)
        ids = [each.workflow_id for each in found]
        listed = [each for part in _chunks(ids) for each in self.client.list_steps(part, longest=LONGEST_STORED)]
        running = [each.workflow_id for each in found if each.status in frames.UNFINISHED]
        made = frames.steps_frame(listed, self._notes(ids, STEP_KINDS), running, self.mask)
        if decode:
            of = {
                (each.workflow_id, each.step_id): each for part in _chunks(ids) for each in self.client.list_steps(part)
            }
            for name in ("output", "error"):
                column = [self._came_to(of.get(key), name) for key in made.index]
                made[name] = _objects(made.index, column)
        return self._mine(made)

    def _came_to(self, step: StoredStep | None, name: str) -> Any:
        if step is None:
            return None
        is_error = name == "error"
        slot = (Slot.step_error if is_error else Slot.step_output)(step.workflow_id, step.step_id)
        return self._decoded(getattr(step, name), step.serialization, slot, is_error=is_error)

    def value(self, workflow_id: str, step: int | None = None) -> Any:
        """The one value that a step returned, or the workflow itself; an error that was raised is returned.

        It is unpickled, which may run code: only ask for values of programs you trust.
        """
        found = self.run(workflow_id)
        if step is None:
            (stored,) = self._values([found.workflow_id])
            _, output, error = self._held(stored, found.name)
            return output if error is None else error
        for recorded in self.client.list_steps([found.workflow_id], step_id=int(step)):
            return self._came_to(recorded, "error" if recorded.failed else "output")
        raise NotFoundError(f"workflow {found.workflow_id} has no record of step {step}")

    def arguments(self, workflow_id: str) -> Any:
        """The arguments of a workflow as `{"args": ..., "kwargs": ...}`; unpickled, see `value`."""
        found = self.run(workflow_id)
        (stored,) = self._values([found.workflow_id])
        return self._input(stored, found.name)

    # -- reads: what belongs to workflows ----------------------------------------------------------------------

    def events(self, *workflow_ids: str) -> pd.DataFrame:
        """The events of these workflows, with their present values."""
        ids = self._ids(workflow_ids)
        return self._mine(frames.events_frame(self.client.list_events(ids, longest=LONGEST_STORED), self.mask))

    def messages(self, *workflow_ids: str) -> pd.DataFrame:
        """What was sent to these workflows, received or not."""
        ids = self._ids(workflow_ids)
        return self._mine(frames.messages_frame(self.client.list_messages(ids, longest=LONGEST_STORED), self.mask))

    def streams(self, *workflow_ids: str) -> pd.DataFrame:
        """What the streams of these workflows hold; the mark that closes a stream has `closes`."""
        ids = self._ids(workflow_ids)
        return self._mine(frames.streams_frame(self.client.list_stream_entries(ids, longest=LONGEST_STORED), self.mask))

    def printed(self, workflow_id: str) -> pd.DataFrame:
        """What a workflow and its steps printed, in the order of the steps."""
        ids = self._ids([workflow_id])
        return self._mine(frames.prints_frame(self.notes(ids, ["printed", "printed_after"])))

    def tracebacks(self, workflow_id: str) -> dict[int, str]:
        """The tracebacks of a workflow's steps that failed, by their numbers; its own at 0."""
        return {each.step_id: each.text for each in self.notes([workflow_id], ["error"])}

    def notes(self, workflow_ids: list[str], kinds: list[str]) -> list[WorkflowNote]:
        """What the notebook kept of these workflows and their steps, as texts; `kinds` chooses."""
        found = [each for part in _chunks(workflow_ids) for each in self.client.list_notes(part, kinds)]
        return [each._replace(text=self._shown(each)) for each in found] if self.mask else found

    def _shown(self, note: WorkflowNote) -> str:
        if note.kind == "code":
            return note.text
        # Names of its own stand in the JSON of the attempts.
        return frames.masked_tries(note.text, self.mask) if note.kind == "attempts" else self.mask.text(note.text)

    # -- reads: what belongs to the database -------------------------------------------------------------------

    def queues(self) -> pd.DataFrame:
        """Queues that are registered, declared or not empty, with what waits and runs."""
        settings = dict(self._declared())
        for each in self.client.list_queues():
            limiter = each.limiter or {}
            limits = [getattr(each, name) for name in LIMITS]
            rate = (limiter.get("limit"), limiter.get("period"))
            settings[each.name] = (*limits, *rate, each.priority_enabled, each.partition_queue)
        return self._mine(frames.queues_frame(settings, self.client.list_backlogs()))

    def schedules(self, upcoming: int = 10) -> pd.DataFrame:
        """Schedules; so many of the next moments of each are in `.attrs["next_fires"]`, in its zone."""
        fires = self.client.list_fire_times(number=upcoming)
        return self._mine(frames.schedules_frame(self.client.list_schedules(), fires))

    def versions(self) -> pd.DataFrame:
        """Versions of the application, the latest first, and how many workflows there are of each."""
        listed, counts = self.client.list_application_versions(), self.client.count_by_version()
        return self._mine(frames.versions_frame(listed, counts))

    def sources(self, versions: str | Sequence[str]) -> pd.DataFrame:
        """The source of these versions of workflows (the column `code` of runs), as far as it was kept."""
        wanted = [versions] if isinstance(versions, str) else [each for each in versions if isinstance(each, str)]
        found = self.client.list_sources(wanted)
        return self._mine(frames.sources_frame(each._replace(text=self.mask.text(each.text)) for each in found))

    # -- actions -----------------------------------------------------------------------------------------------

    def cancel(self, *workflow_ids: str) -> list[str]:
        """Cancel workflows, and return their ids. Those that have ended stay as they are."""
        ids = self._ids(workflow_ids)
        self.client.cancel_workflows(ids)
        return ids

    def resume(self, *workflow_ids: str, new_code: bool = False) -> list[str]:
        """Let workflows go on at their first incomplete step, and return their ids.

        With `new_code` by the code that is defined now, whatever they began with.
        """
        found = self._found(workflow_ids)
        for each in found:
            if each.status == "PENDING" and (each.executor_id or "").startswith(KERNEL):
                raise ValueError(
                    f"{each.workflow_id} is running, in kernel {each.executor_id}: cancel it first to resume it"
                )
        ids = [each.workflow_id for each in found]
        if new_code:
            self.client.assign_application_version(ids, None)
        self.client.resume_workflows(ids)
        for each in found:  # where it was stopped is no news of what goes on
            if STOPPED_AT in (each.attributes or {}):
                left = {name: value for name, value in (each.attributes or {}).items() if name != STOPPED_AT}
                self.client.update_workflow_attributes(each.workflow_id, left or None)
        return ids

    def fork(
        self,
        workflow_id: str,
        step: int | str | None = None,
        *,
        version: str | None = None,
        outputs: dict[int, Any] | None = None,
    ) -> str:
        """Start a new workflow that keeps the steps before `step` and runs the rest anew; return its id.

        `step` is a number, or the name of a step, whose first one is meant. Without it, it is the step that failed, else
        the first that is not complete. `version` names the code that may run it, and `outputs` what kept steps shall
        have returned instead.
        """
        found = self.run(workflow_id)
        cut = self.step_to_fork_from(found.workflow_id, step)
        forked = self.client.fork_workflow(
            found.workflow_id, cut, application_version=version, replacement_outputs=outputs
        )
        return forked.workflow_id

    def step_to_fork_from(self, workflow_id: str, step: int | str | None = None) -> int:
        """The number of a step that is given by its name; without one, of the step that failed or else comes next."""
        return cut_at(workflow_id, self.client.list_steps([workflow_id], longest=0), step)

    def delete(self, *workflow_ids: str) -> list[str]:
        """Delete workflows with everything that belongs to them, and return their ids."""
        ids = self._ids(workflow_ids)
        self.client.delete_workflows(ids)
        return ids

    def send(self, workflow_id: str, message: Any, topic: str | None = None) -> None:
        """Send a message to a workflow."""
        self.client.send(self.run(workflow_id).workflow_id, message, topic)

    def trigger(self, schedule: str) -> str:
        """Start the workflow of a schedule now, and return its id."""
        return self.client.trigger_schedule(self.schedule_named(schedule)).workflow_id

    def backfill(self, schedule: str, start: datetime, end: datetime) -> list[str]:
        """Start what a schedule would have started between two moments, and return the ids of all of it."""
        name = self.schedule_named(schedule)
        return [each.workflow_id for each in self.client.backfill_schedule(name, start, end)]

    def pause(self, schedule: str) -> None:
        """Let a schedule not fire until it is unpaused."""
        self.client.pause_schedule(self.schedule_named(schedule))

    def unpause(self, schedule: str) -> None:
        """Let a paused schedule fire again, from now on."""
        self.client.resume_schedule(self.schedule_named(schedule))

    # -- finding -----------------------------------------------------------------------------------------------

    def schedule_named(self, name: str) -> str:
        """The name of a schedule that is there, or NotFoundError."""
        found = self.client.get_schedule(name)
        if found is None:
            names = ", ".join(each["schedule_name"] for each in self.client.list_schedules()) or "none"
            raise NotFoundError(f"there is no schedule {name!r}; there are: {names}")
        return found["schedule_name"]

    def _ids(self, workflow_ids: Iterable[str]) -> list[str]:
        return [each.workflow_id for each in self._found(workflow_ids)]

    def _found(self, workflow_ids: Iterable[str]) -> list[WorkflowStatus]:
        """The workflows of these ids or beginnings of ids, each once."""
        asked = list(dict.fromkeys(_checked(each) for each in workflow_ids))
        of = {each.workflow_id: each for each in self._listed(workflow_ids=asked)}
        found = (of.get(each) or named(self._listed, each) for each in asked)
        return list({each.workflow_id: each for each in found}.values())

    def _listed(self, **filters: Any) -> list[WorkflowStatus]:
        """Workflows without their values; a long list of words is asked for in parts."""
        long = next((name for name, words in filters.items() if isinstance(words, list)), None)
        parts = [filters] if long is None else [{**filters, long: part} for part in _chunks(filters[long])]
        return [
            each for part in parts for each in self.client.list_workflows(load_input=False, load_output=False, **part)
        ]

    def _notes(self, ids: list[str], kinds: list[str]) -> frames.Notes:
        return frames.Notes(self.notes(ids, kinds))

    def _mine(self, made: pd.DataFrame) -> pd.DataFrame:
        made.attrs[ORIGIN] = self._word
        return made


def span_of(text: timedelta | str) -> timedelta:
    """How long "90s", "30m", "24h", "7d" or "1d12h" is."""
    if isinstance(text, timedelta):
        return text
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhdw])", text)
    if not parts or re.sub(r"(\d+(?:\.\d+)?)\s*[smhdw]\s*", "", text).strip():
        raise ValueError(f"{text!r} is no span of time; write one such as 90s, 30m, 24h, 7d or 1d12h")
    return sum((timedelta(**{UNITS[unit]: float(number)}) for number, unit in parts), timedelta())


def parameters_in(source: str) -> tuple[str, ...] | None:
    """The names of the parameters of a workflow's function by its recorded source, of which it is the last part."""
    try:
        parts = json.loads(source)
        tree = ast.parse(textwrap.dedent(list(parts.values())[-1]))
    except (ValueError, SyntaxError, AttributeError, IndexError, TypeError):
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            listed = [*given.posonlyargs, *given.args, *([given.vararg] if given.vararg else [])]
            return _without_self(tuple(each.arg for each in listed))
    return None


def _parameters(workflow: str) -> tuple[str, ...] | None:
    """The names of the parameters of a workflow's function, where that is defined here."""
    try:
        names = places(extension.function_of(workflow))
    except DBOSException:
        return None
    return None if names is None else _without_self(names)


def _without_self(names: tuple[str, ...]) -> tuple[str, ...]:
    return names[1:] if names[:1] in {("self",), ("cls",)} else names


def _checked(workflow_id: object) -> str:
    if not isinstance(workflow_id, str):
        raise TypeError(f"the id of a workflow is a text, not {workflow_id!r}")
    return workflow_id


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))


def _objects(index: pd.Index, values: list[Any]) -> pd.Series:
    """A column of any values, whatever pandas would make of them."""
    column = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        column[place] = value
    return pd.Series(column, index=index, dtype=object)


def cut_at(workflow_id: str, steps: Sequence[StoredStep], step: int | str | None = None) -> int:
    """The number of a step that is given by its number or name; without one, of the step that failed or else comes next."""
    following = max((each.step_id for each in steps), default=0) + 1
    if step is None:
        return next((each.step_id for each in reversed(steps) if each.failed), following)
    if isinstance(step, str):
        for each in steps:
            if each.name == step:
                return each.step_id
        known = ", ".join(dict.fromkeys(each.name for each in steps)) or "none"
        raise NotFoundError(f"workflow {workflow_id} has no step {step!r}; its steps: {known}")
    number = int(step)  # frames have no ints
    if not 1 <= number <= following:
        raise NotFoundError(f"workflow {workflow_id} has no step {number}; say one from 1 to {following}")
    return number
