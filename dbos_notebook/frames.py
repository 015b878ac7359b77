"""Records as pandas frames: fixed columns and dtypes, the same for no row as for many.

Times are UTC to the microsecond, statuses ordered from waiting to done, numbers that may be missing `Int64`, texts
pandas' own `str` (before pandas 3: `string`). Values are short texts: the previews that were kept of them, else what
can be read of the stored text without running anything.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from dbos_notebook.masking import NOTHING, Mask
from dbos_notebook.stored import cut, is_closing_mark, preview, preview_error, preview_input
from dbos_notebook.veiling import HIDDEN

if TYPE_CHECKING:
    from dbos import (
        QueueBacklog,
        StoredEvent,
        StoredMessage,
        StoredStep,
        StoredStreamEntry,
        StoredValues,
        VersionInfo,
        WorkflowSchedule,
        WorkflowStatus,
    )

    Kind = Literal["moment", "span", "number", "real", "text", "flag", "maybe", "status"]

STATUSES = (
    "DELAYED",
    "ENQUEUED",
    "PENDING",
    "CANCELLED",
    "ERROR",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
    "SUCCESS",
)
WAITING = frozenset({"DELAYED", "ENQUEUED"})
UNFINISHED = frozenset({*WAITING, "PENDING"})
STATUS = pd.CategoricalDtype(STATUSES, ordered=True)
# A status that later programs may have is missing here.
CODES = {status: code for code, status in enumerate(STATUSES)}
# Stored by Python, also where pyarrow is there: that refuses halves of characters, and such a text must break no view.
TEXT = pd.StringDtype("python", na_value=np.nan) if pd.__version__ >= "3" else pd.StringDtype("python")

# The columns of each frame; the first ones, as many as `index` says, are its index.
RUNS: dict[str, Kind] = {
    "workflow_id": "text", "name": "text", "status": "status", "created": "moment", "started": "moment",
    "completed": "moment", "duration": "span", "queue": "text", "priority": "number", "attempts": "number",
    "executor": "text", "version": "text", "code": "text", "parent": "text", "forked_from": "text",
    "class_name": "text", "instance": "text", "user": "text", "error": "text", "input": "text", "output": "text",
    "deadline": "moment", "delayed_until": "moment", "deduplication_id": "text", "partition": "text",
    "attributes": "text",
}  # fmt: skip
STEPS: dict[str, Kind] = {
    "workflow_id": "text", "step": "number", "name": "text", "status": "status", "started": "moment",
    "completed": "moment", "duration": "span", "attempts": "number", "child": "text", "input": "text",
    "output": "text", "error": "text", "printed": "text", "tries": "text",
}  # fmt: skip
EVENTS: dict[str, Kind] = {"workflow_id": "text", "key": "text", "value": "text", "step": "number"}
MESSAGES: dict[str, Kind] = {
    "workflow_id": "text", "topic": "text", "message": "text", "sent": "moment", "consumed": "flag",
}  # fmt: skip
STREAMS: dict[str, Kind] = {
    "workflow_id": "text", "key": "text", "offset": "number", "value": "text", "step": "number", "closes": "flag",
}  # fmt: skip
QUEUES: dict[str, Kind] = {
    "queue": "text", "waiting": "number", "delayed": "number", "running": "number", "concurrency": "number",
    "worker_concurrency": "number", "limit": "number", "period": "real", "priority": "maybe", "partitioned": "maybe",
    "oldest": "moment",
}  # fmt: skip
SCHEDULES: dict[str, Kind] = {
    "schedule": "text", "workflow": "text", "cron": "text", "zone": "text", "status": "text", "last_fired": "moment",
    "next_fire": "moment", "queue": "text", "backfills": "flag",
}  # fmt: skip
VERSIONS: dict[str, Kind] = {"version": "text", "created": "moment", "latest": "flag", "runs": "number"}
SOURCES: dict[str, Kind] = {"version": "text", "workflow": "text", "text": "text", "created": "moment"}
TRIAGE: dict[str, Kind] = {
    "group": "number", "runs": "number", "following": "number", "first": "moment", "last": "moment", "workflow": "text",
    "step": "text", "error": "text", "versions": "text", "suggestion": "text", "fingerprint": "text",
}  # fmt: skip
PRINTS: dict[str, Kind] = {"step": "number", "after": "flag", "text": "text"}

# Later moments are not times but mistakes: pandas has no year 10000.
LAST_MS = 253_402_300_799_000
NOT_A_TIME = np.iinfo(np.int64).min


# -- columns ---------------------------------------------------------------------------------------------------


def _ticks(values: Iterable[int | None], most: int) -> Any:
    known = (value is not None and -most <= value <= most for value in values)
    return np.array(
        [value * 1000 if is_known else NOT_A_TIME for value, is_known in zip(values, known, strict=True)],  # type: ignore[operator]  # None is not known
        dtype=np.int64,
    )


def moments(values: Sequence[int | None]) -> Any:
    """Epoch milliseconds as times."""
    return pd.DatetimeIndex(_ticks(values, LAST_MS).view("datetime64[us]")).tz_localize("UTC")


def spans(values: Sequence[int | None]) -> Any:
    """Milliseconds as durations."""
    return pd.TimedeltaIndex(_ticks(values, LAST_MS).view("timedelta64[us]"))


def _column(kind: Kind, values: Sequence[Any]) -> Any:
    match kind:
        case "moment":
            return moments(values)
        case "span":
            return spans(values)
        case "number":
            return pd.array(values, dtype="Int64")
        case "real":
            return pd.array(values, dtype="Float64")
        case "text":
            return pd.array(values, dtype=TEXT)
        case "flag":
            return np.array(values, dtype=bool)
        case "maybe":
            return pd.array(values, dtype="boolean")
        case "status":
            return pd.Categorical.from_codes([CODES.get(value, -1) for value in values], dtype=STATUS)


def frame(columns: Mapping[str, Kind], rows: Iterable[Sequence[Any]], index: int = 1) -> pd.DataFrame:
    """Rows as a frame, whose first columns are its index."""
    listed = list(rows)
    data = list(zip(*listed, strict=True)) if listed else [()] * len(columns)
    made = {name: pd.Series(_column(kind, values)) for (name, kind), values in zip(columns.items(), data, strict=True)}
    whole = pd.DataFrame(made)
    return whole.set_index(list(columns)[:index]) if index else whole


def words(column: Any) -> list[str | None]:
    """The texts of a column or index, None where one is missing."""
    return [value if isinstance(value, str) else None for value in column]


# -- notes -----------------------------------------------------------------------------------------------------


class Notes:
    """What was kept of steps, by workflow, step and kind. Step 0 is the workflow itself."""

    def __init__(self, notes: Iterable[Any] = ()) -> None:
        self._texts: dict[str, dict[int, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
        for workflow_id, step_id, kind, text in notes:
            self._texts[workflow_id][step_id][kind] = text

    def of(self, workflow_id: str, step_id: int = 0) -> Mapping[str, str]:
        steps = self._texts.get(workflow_id)
        return {} if steps is None else steps.get(step_id, {})

    def steps_of(self, workflow_id: str) -> dict[int, dict[str, str]]:
        return self._texts.get(workflow_id, {})


def _kept(notes: Mapping[str, str], kind: str) -> str | None:
    text = notes.get(kind)
    return None if text is None else cut(text)


def _last_line(text: str | None) -> str | None:
    """What a traceback ends with, which is the error."""
    lines = [line for line in (text or "").splitlines() if line.strip()]
    return cut(lines[-1]) if lines else None


def _difference(start: int | None, end: int | None) -> int | None:
    return None if start is None or end is None else end - start


# -- frames ----------------------------------------------------------------------------------------------------


def runs_frame(
    runs: Iterable[WorkflowStatus],
    values: Mapping[str, StoredValues] | None = None,
    notes: Notes | None = None,
    mask: Mask = NOTHING,
    parameters: Callable[[str], Sequence[str] | None] = lambda _: None,
) -> pd.DataFrame:
    """Workflows, one row each, in the order given; `parameters` knows those of a workflow's function, for the mask."""
    found, kept = values or {}, notes or Notes()
    rows = (
        _run(each, found.get(each.workflow_id), kept.of(each.workflow_id), mask, parameters if mask else None)
        for each in runs
    )
    return frame(RUNS, rows)


def _run(
    run: WorkflowStatus,
    stored: StoredValues | None,
    notes: Mapping[str, str],
    mask: Mask,
    parameters: Callable[[str], Sequence[str] | None] | None,
) -> tuple[Any, ...]:
    is_over = run.status not in UNFINISHED
    completed = (run.completed_at or run.updated_at) if is_over else None
    # What was started directly was never taken from a queue: it ran from the beginning.
    is_direct = run.queue_name is None and run.status not in WAITING
    started = run.dequeued_at or (run.created_at if is_direct else None)
    text, form = (stored, stored.serialization) if stored else (None, None)
    return (
        run.workflow_id,
        run.name,
        run.status,
        run.created_at,
        started,
        completed,
        _difference(started, completed),
        run.queue_name,
        run.priority,
        run.recovery_attempts,
        run.executor_id,
        run.app_version,
        notes.get("code"),
        run.parent_workflow_id,
        run.forked_from,
        run.class_name,
        run.config_name,
        run.authenticated_user,
        _last_line(notes.get("error")) or (preview_error(text.error, form, mask) if text else None),
        _kept(notes, "input")
        or (preview_input(text.input, form, mask, parameters and parameters(run.name)) if text else None),
        _kept(notes, "output") or (preview(text.output, form, mask) if text else None),
        run.workflow_deadline_epoch_ms,
        run.delay_until_epoch_ms,
        run.deduplication_id,
        run.queue_partition_key,
        None if run.attributes is None else json.dumps(mask.value(run.attributes), ensure_ascii=False),
    )


def steps_frame(
    steps: Iterable[StoredStep], notes: Notes | None = None, running: Iterable[str] = (), mask: Mask = NOTHING
) -> pd.DataFrame:
    """Steps, one row each; of the workflows that are `running` also those that were begun and not recorded yet."""
    kept = notes or Notes()
    rows = []
    known: dict[str, set[int]] = defaultdict(set)
    for each in steps:
        known[each.workflow_id].add(each.step_id)
        rows.append(_step(each, kept.of(each.workflow_id, each.step_id), mask))
    begun = (
        _begun_step(workflow_id, step_id, texts)
        for workflow_id in running
        for step_id, texts in kept.steps_of(workflow_id).items()
        if step_id not in known[workflow_id] and step_id > 0 and {"attempts", "input", "printed"} & texts.keys()
    )
    return frame(STEPS, sorted([*rows, *begun], key=itemgetter(0, 1)), index=2)


def _step(step: StoredStep, notes: Mapping[str, str], mask: Mask) -> tuple[Any, ...]:
    return (
        step.workflow_id,
        step.step_id,
        step.name,
        "ERROR" if step.failed else "SUCCESS",
        step.started_at,
        step.completed_at,
        _difference(step.started_at, step.completed_at),
        _number_of(notes.get("attempts")),
        step.child_workflow_id,
        _kept(notes, "input"),
        _kept(notes, "output") or preview(step.output, step.serialization, mask),
        (_last_line(notes.get("error")) or preview_error(step.error, step.serialization, mask))
        if step.failed
        else None,
        notes.get("printed"),
        notes.get("attempts"),
    )


def _begun_step(workflow_id: str, step_id: int, notes: Mapping[str, str]) -> tuple[Any, ...]:
    tries = tries_of(notes.get("attempts"))
    started = tries[0][0] if tries else None
    taken = (_number_of(notes.get("attempts")), None, _kept(notes, "input"))
    printed = (notes.get("printed"), notes.get("attempts"))
    return (
        workflow_id,
        step_id,
        _name_of(notes.get("attempts")),
        "PENDING",
        started,
        None,
        None,
        *taken,
        None,
        None,
        *printed,
    )


def _name_of(text: Any) -> str:
    """The name of a step that is under way: it is told with its attempts."""
    try:
        return str(json.loads(text)[0]["name"])
    except (ValueError, LookupError, TypeError):
        return ""


def tries_of(text: Any) -> list[tuple[int | None, int | None, str | None]]:
    """The attempts of a step: when each began and ended, in milliseconds, and its error."""
    try:
        listed = json.loads(text) if isinstance(text, str) else []
        return [(each.get("started"), each.get("ended"), each.get("error")) for each in listed]
    except (ValueError, AttributeError, TypeError):
        return []


def masked_tries(text: str, mask: Mask) -> str:
    """The attempts of a step with what is masked hidden in their errors."""
    try:
        return json.dumps([{**each, "error": mask.value(each.get("error"))} for each in json.loads(text)])
    except (ValueError, AttributeError, TypeError):
        return ""


def _number_of(text: str | None) -> int | None:
    return len(tries_of(text)) or None


def events_frame(events: Iterable[StoredEvent], mask: Mask = NOTHING) -> pd.DataFrame:
    rows = ((e.workflow_id, e.key, _under(e.key, e, e.value, mask), e.step_id) for e in events)
    return frame(EVENTS, rows, 0)


def messages_frame(messages: Iterable[StoredMessage], mask: Mask = NOTHING) -> pd.DataFrame:
    rows = ((m.workflow_id, m.topic, _under(m.topic, m, m.message, mask), m.sent_at, m.consumed) for m in messages)
    return frame(MESSAGES, rows, 0)


def _under(name: str | None, each: Any, text: str | None, mask: Mask) -> str | None:
    """What is stored under a name, which may be one that is masked."""
    return HIDDEN if mask.hides(name) else preview(text, each.serialization, mask)


def streams_frame(entries: Iterable[StoredStreamEntry], mask: Mask = NOTHING) -> pd.DataFrame:
    rows = (
        (e.workflow_id, e.key, e.offset, _under(e.key, e, e.value, mask), e.step_id or None, closes)
        for e in entries
        for closes in (is_closing_mark(e.value, e.serialization),)
    )
    return frame(STREAMS, rows, 0)


def queues_frame(settings: Mapping[str, tuple[Any, ...]], backlogs: Iterable[QueueBacklog]) -> pd.DataFrame:
    """Queues that are registered or not empty; what is declared in code only has no limits here."""
    of = {each.queue_name: each for each in backlogs}
    rows = []
    for name in sorted({*settings, *of}):
        filled, limits = of.get(name), settings.get(name, (None,) * 6)
        counts = (filled.waiting, filled.delayed, filled.running) if filled else (0, 0, 0)
        rows.append((name, *counts, *limits, filled.oldest_at if filled else None))
    return frame(QUEUES, rows)


def schedules_frame(schedules: Iterable[WorkflowSchedule], fires: Mapping[str, list[datetime]]) -> pd.DataFrame:
    """Schedules; the moments that come next are in `.attrs["next_fires"]` as ISO texts in the schedule's zone."""
    rows = []
    for each in schedules:
        coming = fires.get(each["schedule_name"]) or ()
        rows.append((
            each["schedule_name"], each["workflow_name"], each["schedule"], each["cron_timezone"] or "UTC",
            each["status"], _ms(each["last_fired_at"]), _ms(next(iter(coming), None)), each["queue_name"],
            each["automatic_backfill"],
        ))  # fmt: skip
    made = frame(SCHEDULES, rows)
    made.attrs["next_fires"] = {name: [moment.isoformat() for moment in coming] for name, coming in fires.items()}
    return made


def _ms(moment: datetime | str | None) -> int | None:
    if not moment:
        return None
    try:
        made = pd.Timestamp(moment)
    except ValueError:
        return None
    made = made.tz_localize("UTC") if made.tzinfo is None else made
    return int(made.timestamp() * 1000)


def versions_frame(versions: Sequence[VersionInfo], counts: Mapping[str | None, int]) -> pd.DataFrame:
    """Versions, the latest first, and what is not listed but was run after them."""
    listed = {each["version_name"] for each in versions}
    rows: list[tuple[Any, ...]] = [
        (each["version_name"], each["created_at"], place == 0, counts.get(each["version_name"], 0))
        for place, each in enumerate(versions)
    ]
    rows += [(name, None, False, number) for name, number in counts.items() if name and name not in listed]
    return frame(VERSIONS, rows)


def sources_frame(sources: Iterable[Any]) -> pd.DataFrame:
    return frame(SOURCES, ((each.version, each.workflow, each.text, each.created_at) for each in sources))


def prints_frame(notes: Iterable[Any]) -> pd.DataFrame:
    """What a run printed, in the order of its steps: in a step, and `after` it by the workflow's own body."""
    kinds = {"printed": False, "printed_after": True}
    rows = [(each.step_id, kinds[each.kind], each.text) for each in notes if each.kind in kinds]
    return frame(PRINTS, sorted(rows, key=itemgetter(0, 1)), 0)
