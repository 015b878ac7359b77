"""Frames: their columns and dtypes are the same for no row as for many, whatever the rows are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from dbos import (
    QueueBacklog,
    StoredEvent,
    StoredMessage,
    StoredStep,
    StoredStreamEntry,
    StoredValues,
    WorkflowStatus,
)
from dbos_notebook import frames

SHAPES = {name: getattr(frames, name) for name in ("RUNS", "STEPS", "EVENTS", "MESSAGES", "STREAMS", "QUEUES", "SCHEDULES", "VERSIONS", "SOURCES", "PRINTS")}  # fmt: skip
VALUES: dict[str, Any] = {
    "moment": 1_795_000_000_123,
    "span": 1_500,
    "number": 3,
    "real": 1.5,
    "text": "x",
    "flag": True,
    "maybe": True,
    "status": "ERROR",
}
MISSING = {"moment", "span", "number", "real", "text", "maybe", "status"}


@pytest.mark.parametrize("name", SHAPES)
def test_dtypes_are_those_of_an_empty_frame(name: str) -> None:
    """Also where everything is missing that may be."""
    columns = SHAPES[name]
    full = [VALUES[kind] for kind in columns.values()]
    bare = [None if kind in MISSING else VALUES[kind] for kind in columns.values()]

    frame_of = [frames.frame(columns, rows, 0) for rows in ([], [full], [bare], [full, bare])]

    assert all(frame_of[0].dtypes.equals(each.dtypes) for each in frame_of)
    assert [0, 1, 1, 2] == [len(each) for each in frame_of]


@pytest.mark.parametrize("rows", [0, 1])
def test_indexes_have_fixed_dtypes_too(rows: int) -> None:
    runs = frames.runs_frame([WorkflowStatus("w", "SUCCESS", "work")] * rows)
    steps = frames.steps_frame([StoredStep("w", 1, "a", None, None, False, None, 1, 2, None)] * rows)

    assert frames.TEXT == runs.index.dtype
    assert [frames.TEXT, pd.Int64Dtype()] == list(steps.index.dtypes)
    assert ["workflow_id", "step"] == list(steps.index.names)


def test_times_are_utc_to_the_microsecond() -> None:
    runs = frames.runs_frame(
        [WorkflowStatus("w", "SUCCESS", "work", created_at=1_795_000_000_123, updated_at=1_795_000_001_123)]
    )

    assert {"datetime64[us, UTC]"} == {
        str(runs[name].dtype) for name in ("created", "started", "completed", "deadline")
    }
    assert "timedelta64[us]" == str(runs["duration"].dtype)
    assert pd.Timestamp("2026-11-18 11:06:40.123", tz="UTC") == runs["created"].iloc[0]
    assert pd.Timedelta("1s") == runs["duration"].iloc[0]


def test_statuses_are_ordered_from_waiting_to_done() -> None:
    runs = frames.runs_frame(
        WorkflowStatus(status, status, "work") for status in ("SUCCESS", "DELAYED", "ERROR", "PENDING")
    )

    assert ["DELAYED", "PENDING", "ERROR", "SUCCESS"] == list(runs.sort_values("status").index)
    assert ["DELAYED", "PENDING"] == sorted(runs.index[runs["status"] < "CANCELLED"])


def test_a_status_of_later_programs_is_missing() -> None:
    assert frames.runs_frame([WorkflowStatus("w", "PAUSED", "work")])["status"].isna().all()


def test_moments_beyond_the_calendar_are_missing() -> None:
    runs = frames.runs_frame([WorkflowStatus("w", "DELAYED", "work", created_at=1, delay_until_epoch_ms=2**62)])

    assert pd.isna(runs["delayed_until"].iloc[0])
    assert not pd.isna(runs["created"].iloc[0])


@pytest.mark.parametrize(
    ("row", "started", "completed"),
    [
        ({"status": "PENDING"}, 10, None),
        ({"status": "SUCCESS"}, 10, 30),
        ({"status": "SUCCESS", "completed_at": 25}, 10, 25),
        ({"status": "ENQUEUED", "queue_name": "q"}, None, None),
        ({"status": "PENDING", "queue_name": "q", "dequeued_at": 15}, 15, None),
        ({"status": "CANCELLED", "queue_name": "q"}, None, 30),
        ({"status": "DELAYED"}, None, None),
    ],
)
def test_runs_begin_when_they_are_taken_and_end_when_they_changed_last(
    row: dict[str, Any], started: int | None, completed: int | None
) -> None:
    """What was started directly has begun when it was made."""
    made = frames.runs_frame([WorkflowStatus("w", name="n", created_at=10, updated_at=30, **row)]).iloc[0]

    expected = [pd.NaT if each is None else pd.Timestamp(each, unit="ms", tz="UTC") for each in (started, completed)]
    assert [str(each) for each in expected] == [str(made["started"]), str(made["completed"])]


def test_kept_previews_go_before_stored_values() -> None:
    notes = frames.Notes(
        [("w", 0, "input", "day=1"), ("w", 0, "error", "Traceback\n  x\nValueError: bad\n"), ("w", 0, "code", "v3")]
    )
    values = {"w": StoredValues("w", '{"positionalArgs":[2],"namedArgs":{}}', "7", None, "portable_json")}
    status = WorkflowStatus("w", "ERROR", "work")

    kept = frames.runs_frame([status], values, notes).iloc[0]
    stored = frames.runs_frame([status], values).iloc[0]

    assert ("day=1", "ValueError: bad", "v3", "7") == tuple(kept[["input", "error", "code", "output"]])
    assert ("2", "7") == tuple(stored[["input", "output"]])
    assert pd.isna(stored["error"])


def test_steps_tell_their_attempts_and_prints() -> None:
    tries = '[{"started": 1, "ended": 2, "error": "no"}, {"started": 3, "ended": 4, "error": null}]'
    notes = frames.Notes([("w", 1, "attempts", tries), ("w", 1, "printed", "hello\n"), ("w", 1, "input", "1")])

    row = frames.steps_frame([StoredStep("w", 1, "a", "7", None, False, None, 1, 4, "portable_json")], notes).iloc[0]

    assert (2, "hello\n", "1", "7", tries) == tuple(row[["attempts", "printed", "input", "output", "tries"]])
    assert [(1, 2, "no"), (3, 4, None)] == frames.tries_of(tries)


@pytest.mark.parametrize("text", [None, "", "{", "3", "[1]", float("nan")])
def test_strange_attempts_are_none(text: Any) -> None:
    assert [] == frames.tries_of(text)


def test_a_step_that_runs_is_shown_before_it_is_recorded() -> None:
    """Of a workflow that still runs, if anything is known of the step."""
    notes = frames.Notes([("w", 2, "attempts", '[{"started": 5, "ended": null, "error": null}]')])
    recorded = [StoredStep("w", 1, "a", None, None, False, None, 1, 4, None)]

    assert ["SUCCESS", "PENDING"] == list(frames.steps_frame(recorded, notes, ["w"])["status"])
    assert ["SUCCESS"] == list(frames.steps_frame(recorded, notes)["status"])


def test_what_belongs_to_workflows_is_listed() -> None:
    events = frames.events_frame([StoredEvent("w", "k", "[1]", 3, "portable_json")])
    messages = frames.messages_frame([StoredMessage("w", None, '"m"', 1_000, True, "portable_json")])
    streams = frames.streams_frame(
        [
            StoredStreamEntry("w", "s", 0, "1", 2, "portable_json"),
            StoredStreamEntry("w", "s", 1, '"__DBOS_STREAM_CLOSED__"', 3, "portable_json"),
        ]
    )

    assert [("w", "k", "[1]", 3)] == list(events.itertuples(index=False, name=None))
    assert [True] == list(messages["consumed"])
    assert [False, True] == list(streams["closes"])


def test_queues_are_those_that_are_registered_or_not_empty() -> None:
    made = frames.queues_frame({"a": (2, None, 10, 1.5, True, False)}, [QueueBacklog("b", 3, 1, 2, 5_000)])

    assert ["a", "b"] == list(made.index)
    assert [0, 3] == list(made["waiting"])
    assert (2, 1.5, True) == tuple(made.loc["a", ["concurrency", "period", "priority"]])
    assert made.loc["b", ["concurrency", "priority"]].isna().all()


def test_schedules_tell_when_they_fire_next() -> None:
    schedule: Any = {
        "schedule_name": "s", "workflow_name": "w", "schedule": "0 2 * * *", "cron_timezone": "Europe/Berlin",
        "status": "ACTIVE", "last_fired_at": "2026-11-18T01:00:00+00:00", "queue_name": None, "automatic_backfill": True,
    }  # fmt: skip
    fires = {"s": [datetime(2026, 11, 19, 1, tzinfo=UTC)], "paused": []}

    made = frames.schedules_frame([schedule, {**schedule, "schedule_name": "paused", "last_fired_at": "?"}], fires)

    assert pd.Timestamp("2026-11-19 01:00", tz="UTC") == made.loc["s", "next_fire"]
    assert made.loc["paused", ["next_fire", "last_fired"]].isna().all()
    assert {"s": ["2026-11-19T01:00:00+00:00"], "paused": []} == made.attrs["next_fires"]


def test_versions_that_are_not_listed_follow() -> None:
    listed: Any = [{"version_name": name, "created_at": 1_000} for name in ("new", "old")]

    made = frames.versions_frame(listed, {"old": 4, "gone": 2, None: 1})

    assert [("new", True, 0), ("old", False, 4), ("gone", False, 2)] == list(
        made[["latest", "runs"]].itertuples(name=None)
    )
