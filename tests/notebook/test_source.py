"""The door to data: what it reads of a real database, and what it does there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dbos import DBOS, DBOSClient, Queue, SetWorkflowAttributes, SetWorkflowID
from dbos.error import DBOSException
from dbos_notebook import frames
from dbos_notebook.naming import NotFoundError
from dbos_notebook.source import Source, span_of
from dbos_notebook.views import words
from tests.compat.rows import Rows
from tests.conftest import App


class Note:
    """A value whose class says when it is unpickled."""

    read = 0

    def __init__(self, text: str) -> None:
        self.text = text

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).read += 1
        self.__dict__.update(state)


class Flows:
    """Workflows that succeed and fail."""

    def __init__(self) -> None:
        self.broken = True
        self.ran: list[str] = []

        @DBOS.step(name="load")
        def load(number: int) -> int:
            self.ran.append("load")
            return number * 10

        @DBOS.step(name="fit")
        def fit(number: int) -> int:
            self.ran.append("fit")
            if self.broken:
                raise ValueError("cannot fit <b>")
            return number + 1

        @DBOS.workflow(name="child")
        def child(number: int) -> int:
            return load(number)

        @DBOS.workflow(name="main")
        def main(number: int) -> int:
            DBOS.set_event("progress", {"at": number})
            DBOS.write_stream("log", "begun")
            print("never seen here")
            return fit(child(number))

        @DBOS.workflow(name="notes")
        def notes(note: Note) -> Note:
            return note

        @DBOS.workflow(name="tick")
        def tick(moment: datetime, context: Any) -> None: ...

        self.main, self.notes = main, notes


@pytest.fixture
def rows(database: str) -> Rows:
    return Rows(database)


@pytest.fixture
def flows(app: App) -> Flows:
    made = Flows()
    app.launch()
    return made


@pytest.fixture
def source(flows: Flows, database: str) -> Iterator[Source]:
    with DBOSClient(system_database_url=database) as client:
        yield Source(client)


@pytest.fixture
def failed(flows: Flows) -> str:
    with SetWorkflowID("main-1"), pytest.raises(ValueError, match="cannot fit"):
        flows.main(3)
    return "main-1"


# -- runs ------------------------------------------------------------------------------------------------------


def test_runs_come_with_the_newest_first(failed: str, source: Source) -> None:
    runs = source.runs()

    assert ["child", "main"] == list(runs["name"])
    assert ["SUCCESS", "ERROR"] == list(runs["status"])
    assert [failed] == list(runs["parent"].dropna())
    assert ("ValueError: cannot fit <b>", "3") == tuple(runs.loc[failed, ["error", "input"]])
    assert ["30"] == list(runs["output"].dropna())
    assert (runs["duration"] >= pd.Timedelta(0)).all()


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"status": "ERROR"}, ["main-1"]),
        ({"status": ["ERROR", "CANCELLED"], "name": "main"}, ["main-1"]),
        ({"name": "child"}, 1),
        ({"parent_workflow_id": "main-1"}, 1),
        ({"has_parent": False}, ["main-1"]),
        ({"workflow_ids": ["main-1", "none"]}, ["main-1"]),
        ({"workflow_ids": []}, []),
        ({"workflow_id_prefix": "main"}, 2),
        ({"app_version": "v0"}, []),
        ({"user": "me"}, []),
        ({"queue_name": "q"}, []),
        ({"forked_from": "main-1"}, []),
        ({"was_forked_from": True}, []),
        ({"executor_id": "none"}, []),
        ({"queues_only": True}, []),
        ({"attributes": {"team": "red"}}, []),
        ({"limit": 1, "sort_desc": False}, ["main-1"]),
        ({"limit": 5, "offset": 2}, []),
        ({"since": "1h"}, 2),
        ({"since": timedelta(hours=1)}, 2),
        ({"end_time": datetime(2020, 1, 1, tzinfo=UTC)}, []),
        ({"start_time": datetime(2020, 1, 1, tzinfo=UTC)}, 2),
        ({"start_time": "2020-01-01T00:00:00+00:00"}, 2),
    ],
    ids=str,
)
def test_every_condition_of_listings_holds(
    failed: str, source: Source, filters: dict[str, Any], expected: int | list[str]
) -> None:
    """And the columns have the same dtypes, however many rows there are."""
    runs = source.runs(**filters)

    assert expected == (len(runs) if isinstance(expected, int) else list(runs.index))
    assert runs.dtypes.equals(frames.frame(frames.RUNS, []).dtypes)


def test_conditions_that_mean_nothing_are_refused(source: Source) -> None:
    with pytest.raises(TypeError, match="no such condition: nme"):
        source.runs(nme="x")
    with pytest.raises(ValueError, match="no status FAILED"):
        source.runs(status="FAILED")
    with pytest.raises(ValueError, match="not both"):
        source.runs(since="1h", start_time="2020-01-01")


def test_attributes_are_shown_as_json(flows: Flows, source: Source) -> None:
    flows.broken = False
    with SetWorkflowAttributes({"team": "red"}):
        flows.main(1)

    assert '{"team": "red"}' == source.runs(attributes={"team": "red"}, name="main")["attributes"].iloc[0]


def test_nothing_is_unpickled_unless_asked(flows: Flows, source: Source) -> None:
    with SetWorkflowID("n"):
        flows.notes(Note("dear"))
    Note.read = 0

    runs = source.runs()
    source.steps("n"), source.events("n"), source.messages("n"), source.streams("n"), source.family("n")
    assert 0 == Note.read
    assert ("Note(text='dear')", "Note(text='dear')") == tuple(runs.loc["n", ["input", "output"]])

    assert "dear" == source.value("n").text
    assert "dear" == source.arguments("n")["args"][0].text
    assert "dear" == source.runs(decode=True).loc["n", "output"].text
    assert Note.read >= 3


def test_values_can_be_left_out(failed: str, source: Source) -> None:
    assert source.runs(values=False)[["input", "output", "error"]].isna().all(axis=None)


# -- steps and what belongs to a run ---------------------------------------------------------------------------


def test_steps_of_many_runs_are_one_frame(failed: str, flows: Flows, source: Source) -> None:
    flows.broken = False
    with SetWorkflowID("main-2"):
        flows.main(4)

    steps = source.steps("main-1", "main-2")

    assert ["main-1", "main-2"] == list(steps.index.unique("workflow_id"))
    fit = steps[steps["name"] == "fit"]
    assert ["ERROR", "SUCCESS"] == list(fit["status"])
    assert ("ValueError: cannot fit <b>", "41") == (fit["error"].iloc[0], fit["output"].iloc[1])
    assert 2 == len(steps["child"].dropna().unique())
    assert steps.dtypes.equals(source.steps().dtypes)


def test_one_value_is_decoded_when_asked_for(failed: str, source: Source) -> None:
    last = source.steps(failed).index[-1][1]

    assert "cannot fit <b>" == str(source.value(failed, last)) == str(source.value(failed))
    assert "cannot fit <b>" == str(source.steps(failed, decode=True)["error"].iloc[-1])
    with pytest.raises(NotFoundError, match="no record of step 99"):
        source.value(failed, 99)


def test_events_streams_and_messages_are_listed(failed: str, source: Source) -> None:
    source.send(failed, {"hello": 1}, "mail")

    assert [("progress", "{'at': 3}")] == list(
        source.events(failed)[["key", "value"]].itertuples(index=False, name=None)
    )
    assert ["'begun'"] == list(source.streams(failed)["value"])
    assert [("mail", "{'hello': 1}", False)] == list(
        source.messages(failed)[["topic", "message", "consumed"]].itertuples(index=False, name=None)
    )
    assert source.printed(failed).empty


def test_a_family_is_found_from_each_of_its_members(failed: str, source: Source) -> None:
    fork = source.fork(failed)
    with pytest.raises(ValueError, match="cannot fit"):
        DBOS.retrieve_workflow(fork).get_result()
    family = source.family(failed)

    assert 3 == len(family)
    for each in family.index:
        assert list(family.index) == list(source.family(each).index)


# -- queues, schedules, versions -------------------------------------------------------------------------------


def test_queues_tell_limits_and_backlog(flows: Flows, source: Source, rows: Rows) -> None:
    DBOS.register_queue("q", global_concurrency=3, limiter={"limit": 5, "period": 2.5})
    for number, status in enumerate(("ENQUEUED", "ENQUEUED", "DELAYED")):
        rows.add(f"w-{number}", "any", status=status, queue_name="other", created_at=5_000 + number)
    rows.run("UPDATE {}workflow_status SET delay_until_epoch_ms = 9000000000000 WHERE status = 'DELAYED'")

    queues = source.queues()

    assert (3, 5, 2.5, 0) == tuple(queues.loc["q", ["concurrency", "limit", "period", "waiting"]])
    assert (2, 1, 0) == tuple(queues.loc["other", ["waiting", "delayed", "running"]])
    assert pd.Timestamp(5_000, unit="ms", tz="UTC") == queues.loc["other", "oldest"]
    assert queues.dtypes.equals(frames.frame(frames.QUEUES, []).dtypes)


def test_schedules_are_paused_triggered_and_caught_up(flows: Flows, source: Source) -> None:
    source.client.create_schedule(
        schedule_name="s", workflow_name="tick", schedule="0 2 * * *", cron_timezone="Europe/Berlin"
    )

    made = source.schedules(upcoming=3)
    assert ("0 2 * * *", "Europe/Berlin") == tuple(made.loc["s", ["cron", "zone"]])
    assert 2 == made.loc["s", "next_fire"].tz_convert("Europe/Berlin").hour
    assert 3 == len(made.attrs["next_fires"]["s"])

    source.pause("s")
    assert pd.isna(source.schedules().loc["s", "next_fire"])
    source.unpause("s")
    assert not pd.isna(source.schedules().loc["s", "next_fire"])

    start = datetime(2026, 1, 1, tzinfo=UTC)
    ids = [source.trigger("s"), *source.backfill("s", start, start + timedelta(days=2))]
    assert [None] * 3 == [DBOS.retrieve_workflow(each).get_result() for each in ids]


@pytest.mark.parametrize("action", ["trigger", "pause", "unpause"])
def test_an_unknown_schedule_is_an_error(source: Source, action: str) -> None:
    with pytest.raises(NotFoundError, match="no schedule 'x'; there are: none"):
        getattr(source, action)("x")


def test_versions_are_counted(failed: str, source: Source, rows: Rows) -> None:
    rows.add("old", "any", status="SUCCESS", application_version="v0")

    versions = source.versions()

    assert [("v1", True, 2), ("v0", False, 1)] == list(versions[["latest", "runs"]].itertuples(name=None))


def test_sources_of_versions_are_found(source: Source) -> None:
    source.client.keep_source("abc", "main", "def main(): ...")

    assert [("abc", "main", "def main(): ...")] == list(
        source.sources("abc")[["workflow", "text"]].itertuples(name=None)
    )
    assert source.sources([]).empty


# -- actions ---------------------------------------------------------------------------------------------------


def test_a_failed_run_is_forked_from_the_step_that_failed(failed: str, flows: Flows, source: Source) -> None:
    flows.ran.clear()
    flows.broken = False

    fork = source.fork(failed)

    assert 31 == DBOS.retrieve_workflow(fork).get_result()
    assert ["fit"] == flows.ran


def test_a_fork_begins_at_a_step_of_that_name_with_other_outputs(failed: str, flows: Flows, source: Source) -> None:
    flows.broken = False
    steps = source.steps(failed).reset_index("step")
    result = int(steps.loc[steps["name"] == "DBOS.getResult", "step"].iloc[0])

    fork = source.fork(failed, "fit", outputs={result: 100})

    assert 101 == DBOS.retrieve_workflow(fork).get_result()
    with pytest.raises(NotFoundError, match="has no step 'none'; its steps: .*fit"):
        source.fork(failed, "none")


def test_a_run_without_failure_is_forked_at_what_comes_next(flows: Flows, source: Source) -> None:
    flows.broken = False
    with SetWorkflowID("w"):
        flows.main(1)

    assert len(source.steps("w")) + 1 == source.step_to_fork_from("w")


def test_runs_are_cancelled_resumed_and_deleted(flows: Flows, source: Source, rows: Rows) -> None:
    Queue("slow")
    flows.broken = False
    source.client.enqueue({"workflow_name": "main", "queue_name": "nobody", "workflow_id": "waits-1"}, 1)

    assert ["waits-1"] == source.cancel("waits")
    assert "CANCELLED" == source.run("waits-1").status
    assert ["waits-1"] == source.resume("waits-1")
    assert 11 == DBOS.retrieve_workflow("waits-1").get_result()
    assert ["waits-1"] == source.delete("waits-1")
    with pytest.raises(NotFoundError):  # its child is there still, and is not meant
        source.run("waits-1")


def test_a_message_reaches_its_run(failed: str, source: Source) -> None:
    source.send("main-1", 5)

    assert ["5"] == list(source.messages(failed)["message"])
    with pytest.raises(NotFoundError):
        source.send("nobody", 5)


# -- names -----------------------------------------------------------------------------------------------------


def test_the_beginning_of_an_id_is_enough(source: Source, rows: Rows) -> None:
    for each in ("abc-1", "abd-1", "ab", "100%"):
        rows.add(each, "any", status="SUCCESS")

    rows.add("abc-1-2", "any", status="SUCCESS", parent_workflow_id="abc-1")

    assert "abc-1" == source.run("abc").workflow_id
    assert "abc-1-2" == source.run("abc-1-").workflow_id
    assert "ab" == source.run("ab").workflow_id
    assert "100%" == source.run("100").workflow_id
    for unclear, reason in (
        ("a", "several workflows .* write more"),
        ("x", "no workflow 'x'"),
        ("", "no workflow"),
        ("%", "no"),
    ):
        with pytest.raises(NotFoundError, match=reason):
            source.run(unclear)
    with pytest.raises(TypeError, match="is a text, not 3"):
        source.run(3)  # type: ignore[arg-type]


def test_an_id_in_short_is_enough(source: Source, rows: Rows) -> None:
    """What views tell of a run names it to a command, also where its id begins with that of another."""
    parent, other = "3f2a8a51-5a0e-4d39-9d2c-1f6f3f7d0c11", "report-of-the-night-2026-11-22-europe"
    ids = [parent, f"{parent}-2", f"{parent}-2-2", f"{parent}-12", other, f"{other}-1"]
    for each in ids:
        above = each.rpartition("-")[0]
        rows.add(each, "any", status="SUCCESS", parent_workflow_id=above if above in ids else None)
    rows.add(f"{parent}-5e1f", "any", status="SUCCESS", forked_from=parent)

    short = [words.short(each) for each in ids]

    assert ids == [source.run(each).workflow_id for each in short]
    assert ["3f2a8a51", "3f2a8a51…-2", "3f2a8a51…-2-2", "3f2a8a51…-12"] == short[:4]
    assert parent == source.run("3f2a").workflow_id
    assert "nightly-2026-11-22" == words.short("nightly-2026-11-22")
    with pytest.raises(NotFoundError):
        source.run("3f2a8a51…-9")


def test_one_of_many_that_is_missing_stops_the_action(failed: str, source: Source) -> None:
    """Before anything is done."""
    with pytest.raises(NotFoundError):
        source.delete(failed, "nobody")

    assert failed == source.run(failed).workflow_id


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1_800),
        ("24h", 86_400),
        ("7d", 604_800),
        ("1w", 604_800),
        ("1d 12h", 129_600),
        ("1.5h", 5_400),
    ],
)
def test_spans_are_written_shortly(text: str, seconds: int) -> None:
    assert timedelta(seconds=seconds) == span_of(text) == span_of(timedelta(seconds=seconds))


@pytest.mark.parametrize("text", ["", "24", "h", "24x", "1h and 2", "-1h"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no span of time"):
        span_of(text)


def test_a_database_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DBOSException):
        DBOSClient(system_database_url=f"sqlite:///{tmp_path}/none.sqlite")
