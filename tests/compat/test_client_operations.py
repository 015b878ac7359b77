"""What a client does to workflows and sees of them, as `DBOS` itself would; and a whole program that does so."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from dbos import DBOS, DBOSClient, Queue, SetWorkflowID
from dbos._faces.config import parsed
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSException,
    DBOSNonExistentWorkflowError,
    DBOSStreamTimeoutError,
)
from tests.compat.acts import step_names
from tests.compat.clients import Caller
from tests.compat.dashboard import WorkflowDashboard
from tests.conftest import App
from tests.hand import Hand, Held, Inside
from tests.waiting import Gate, eventually

# Only what belongs to the code of an application, or to the place in a workflow where it is called.
OF_DBOS_ALONE = {
    "asyncio_wait", "authenticated_roles", "authenticated_user", "application_version", "assumed_role", "close_stream",
    "executor_id", "fencing_token", "recv", "set_event", "sleep", "write_stream",
}  # fmt: skip


@pytest.fixture
def ask(database: str, hand: Hand) -> Iterator[Caller]:
    with DBOSClient(system_database_url=database) as client:
        yield Caller(hand, client)


class Steps:
    """A workflow of three steps, of which the last one fails as often as it is told to."""

    def __init__(self, hand: Hand) -> None:
        self.ran: list[int] = []
        self.failures = 0

        @hand.step(name="part")
        def part(number: int) -> int:
            self.ran.append(number)
            if number == 3 and self.failures:
                self.failures -= 1
                raise ValueError("three")
            return number

        @hand.workflow(name="parts")
        async def parts(do: Inside) -> list[int]:
            return [await do(part(number)) for number in (1, 2, 3)]


def test_it_sees_what_was_run(app: App, hand: Hand, ask: Caller) -> None:
    Steps(hand)
    app.launch()
    handle = ask.enqueue("parts", workflow_id="w-1")
    assert [1, 2, 3] == handle.result()

    found = ask("retrieve_workflow", "w-1")
    status = found.status()
    assert ("SUCCESS", [1, 2, 3], "v1") == (status.status, status.output, status.app_version)
    assert status.output == ask("get_workflow_status", "w-1").output == ask("get_result", "w-1")
    assert [(1, "part", 1), (2, "part", 2), (3, "part", 3)] == [
        (step["function_id"], step["function_name"], step["output"]) for step in ask("list_workflow_steps", "w-1")
    ]
    assert ["w-1"] == [each.workflow_id for each in ask("list_workflows", workflow_id_prefix="w-", name="parts")]
    assert [] == ask("list_workflows", status="ERROR")
    assert [] == ask("list_queued_workflows")
    assert [None] == [each.output for each in ask("list_workflows", load_input=False, load_output=False)]


def test_it_cancels_and_resumes(app: App, hand: Hand, ask: Caller) -> None:
    gate = Gate()
    ran: list[int] = []

    @hand.step(name="stop-here")
    def stop_here() -> None:
        ran.append(1)
        gate.pass_through()

    @hand.workflow(name="work")
    async def work(do: Inside) -> int:
        await do(stop_here())
        await do(stop_here())
        return 1

    app.launch()
    first, second = ask.enqueue("work", workflow_id="a"), ask.enqueue("work", workflow_id="b")
    gate.wait_reached(2)
    ask("cancel_workflow", "a")
    ask("cancel_workflows", ["a", "b"])
    gate.open()
    for handle in (first, second):
        with pytest.raises(DBOSAwaitedWorkflowCancelledError):
            handle.result()
    eventually(lambda: not DBOS.list_workflows(status=["PENDING", "ENQUEUED"]))

    assert 1 == ask("resume_workflow", "a").result()
    assert [1, 1] == [each.result() for each in ask("resume_workflows", ["a", "b"])]


def test_it_forks(app: App, hand: Hand, ask: Caller) -> None:
    steps = Steps(hand)
    steps.failures = 1
    app.launch()
    with pytest.raises(ValueError, match="three"):
        ask.enqueue("parts", workflow_id="w").result()
    steps.ran.clear()
    fork: Held = ask("fork_workflow", "w", 3)

    assert [1, 2, 3] == fork.result()
    assert [3] == steps.ran
    assert "w" == fork.status().forked_from
    assert ask("list_workflows", was_forked_from=True)[0].workflow_id == "w"
    other = ask("fork_workflow", workflow_id="w", start_step=1, application_version="v9", queue_name="nowhere")
    assert ("ENQUEUED", "v9", "nowhere") == (
        other.status().status,
        other.status().app_version,
        other.status().queue_name,
    )


def test_it_deletes(app: App, hand: Hand, ask: Caller) -> None:
    Steps(hand)
    app.launch()
    for workflow_id in ("a", "b", "c"):
        ask.enqueue("parts", workflow_id=workflow_id).result()
    ask("delete_workflow", "a")
    ask("delete_workflows", ["b", "nobody"])

    assert ["c"] == [each.workflow_id for each in ask("list_workflows")]
    assert [] == ask("list_workflow_steps", "a")


@pytest.mark.parametrize("hand", ["sync", "async"], indirect=True)
def test_it_forgets_transactions_elsewhere(app: App, tmp_path: Path, hand: Hand) -> None:
    """A workflow that is deleted and started again under its id does its transactions again."""
    apart = f"sqlite:///{tmp_path}/app.sqlite"
    engine = create_engine(apart)
    with engine.begin() as conn:
        conn.execute(text("CREATE TABLE mine (x INTEGER)"))

    @DBOS.transaction(name="insert")
    def insert() -> int:
        return DBOS.sql_session.execute(text("INSERT INTO mine VALUES (1)")).rowcount

    @DBOS.workflow(name="work")
    def work() -> int:
        return insert()

    app.launch(application_database_url=apart)
    with DBOSClient(system_database_url=app.database, application_database_url=apart) as client:
        ask = Caller(hand, client)
        for _ in range(2):
            assert 1 == ask.enqueue("work", workflow_id="w").result()
            ask("delete_workflow", "w")

    with engine.begin() as conn:
        assert [1, 1] == list(conn.execute(text("SELECT x FROM mine")).scalars())
        assert [] == list(conn.execute(text("SELECT * FROM transaction_outputs")))
    engine.dispose()


def test_it_waits_for_the_first(app: App, hand: Hand, ask: Caller) -> None:
    @hand.workflow(name="sleeps")
    async def sleeps(do: Inside, seconds: float) -> float:
        await do.sleep(seconds)
        return seconds

    app.launch()
    handles = [ask.enqueue("sleeps", seconds).handle for seconds in (3_600, 0.05, 3_600)]
    first = ask("wait_first", handles, polling_interval_sec=0.5)

    assert (handles[1].workflow_id, 0.05) == (first.workflow_id, first.result())
    with pytest.raises(ValueError, match="must not be empty"):
        ask("wait_first", [])
    with pytest.raises(ValueError, match="duplicate"):
        ask("wait_first", [handles[0], handles[0]])


def test_it_sends_and_sees_events(app: App, hand: Hand, ask: Caller) -> None:
    @hand.workflow(name="talks")
    async def talks(do: Inside) -> list[Any]:
        await do.set_event("ready", {"for": "mail"})
        return [await do.recv(topic, 60) for topic in ("a", "a", None)]

    app.launch()
    handle = ask.enqueue("talks", workflow_id="w")
    assert {"for": "mail"} == ask("get_event", "w", "ready", 20)
    for _ in range(2):
        ask("send", "w", 1, "a", "key")
    ask("send", destination_id="w", message=2, topic="a", idempotency_key="other")
    ask("send", "w", (3,))

    assert [1, 2, (3,)] == handle.result()
    assert {"ready": {"for": "mail"}} == ask("get_all_events", "w")
    assert ask("get_event", workflow_id="w", key="never", timeout_seconds=0) is None
    with pytest.raises(DBOSNonExistentWorkflowError, match="Non-existent `send` destination workflow ID: nobody"):
        ask("send", "nobody", 1)


def test_it_reads_streams_as_they_come(app: App, hand: Hand, ask: Caller) -> None:
    gate = Gate()

    @hand.step(name="wait")
    def wait() -> None:
        gate.pass_through()

    @hand.workflow(name="writes")
    async def writes(do: Inside) -> None:
        await do.write_stream("s", 1)
        await do(wait())
        await do.write_stream("s", None)
        await do.close_stream("s")

    app.launch()
    ask.enqueue("writes", workflow_id="w")
    assert 1 == ask("read_stream_offset", "w", "s", 0, timeout_seconds=20)
    with pytest.raises(DBOSStreamTimeoutError):
        ask("read_stream_offset", "w", "s", 1, timeout_seconds=0)
    gate.open()

    async def collect() -> list[Any]:
        return [value async for value in ask.client.read_stream_async("w", "s")]

    found = hand.wait(collect()) if hand.is_async else list(ask.client.read_stream("w", "s"))
    assert [1, None] == found


def test_it_keeps_schedules(app: App, hand: Hand, ask: Caller) -> None:
    @hand.workflow(name="backup")
    async def backup(do: Inside, moment: datetime, context: Any) -> Any:
        return moment.isoformat(), context

    app.launch()
    ask(
        "create_schedule",
        schedule_name="daily-backup",
        workflow_name="backup",
        schedule="0 0 2 * * *",
        context={"retention_days": 30},
    )
    assert {"retention_days": 30} == ask("get_schedule", "daily-backup")["context"]
    ask("pause_schedule", "daily-backup")
    assert ["daily-backup"] == [each["schedule_name"] for each in ask("list_schedules", status="PAUSED")]
    ask("resume_schedule", "daily-backup")
    assert {"retention_days": 30} == ask("trigger_schedule", "daily-backup").result()[1]
    start = datetime(2026, 1, 1, tzinfo=UTC)
    filled = ask("backfill_schedule", schedule_name="daily-backup", start=start, end=start + timedelta(days=2))
    assert ["2026-01-01T02:00:00+00:00", "2026-01-02T02:00:00+00:00"] == [each.result()[0] for each in filled]
    ask("apply_schedules", [{"schedule_name": "other", "workflow_name": "backup", "schedule": "* * * * *"}])
    ask("delete_schedule", "daily-backup")

    assert ["other"] == [each["schedule_name"] for each in ask("list_schedules")]


def test_it_knows_the_versions(app: App, ask: Caller) -> None:
    with pytest.raises(DBOSException, match="version"):
        ask("get_latest_application_version")
    app.launch()
    app.relaunch(application_version="v2")
    ask("set_latest_application_version", "v1")

    assert "v1" == ask("get_latest_application_version")["version_name"]
    assert ["v1", "v2"] == [each["version_name"] for each in ask("list_application_versions")]


def test_it_can_do_what_dbos_can() -> None:
    """Every operation that has two colours there has them here, under the same name and with the same arguments."""
    paired = {name for name in dir(DBOS) if hasattr(DBOS, f"{name}_async")} - {"run_step", "start_workflow"}
    missing = sorted(name for name in paired - OF_DBOS_ALONE if not hasattr(DBOSClient, f"{name}_async"))
    assert [] == [name for name in missing if "patch" not in name and "queue" not in name]

    for name in sorted(paired & set(dir(DBOSClient)) - {"create_schedule", "apply_schedules", "send"}):
        for each in (name, f"{name}_async"):
            theirs = list(inspect.signature(getattr(DBOS, each)).parameters)
            assert ["self", *theirs] == list(inspect.signature(getattr(DBOSClient, each)).parameters), each


def test_a_dashboard_runs_on_it(app: App, database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The program at the end of the guide to the client."""

    @DBOS.workflow(name="ok")
    def ok() -> int:
        return 1

    @DBOS.workflow(name="bad")
    def bad() -> None:
        raise ValueError("bad")

    Queue("slow-queue")
    DBOS.listen_queues(["other"])
    app.launch()
    with SetWorkflowID("ok"):
        ok()
    with SetWorkflowID("bad"), pytest.raises(ValueError, match="bad"):
        bad()
    dashboard = WorkflowDashboard(system_database_url=parsed(database).render_as_string(hide_password=False))
    dashboard.client.enqueue({"workflow_name": "ok", "queue_name": "slow-queue"})

    assert {"total": 3, "success": 1, "error": 1, "pending": 0, "cancelled": 0, "enqueued": 1} == dashboard.get_stats()
    assert ["ok"] == [each["workflow_id"] for each in dashboard.get_slow_workflows(threshold_seconds=-1)]
    assert [("bad", "bad")] == [(each["workflow_id"], str(each["error"])) for each in dashboard.get_failed_workflows(5)]
    assert {"slow-queue": {"total": 1, "by_status": {"ENQUEUED": 1}}} == dashboard.get_queue_stats()
    forked = dashboard.retry_failed_workflow("bad")
    with pytest.raises(ValueError, match="bad"):
        dashboard.client.retrieve_workflow(forked).get_result()
    dashboard.monitor_workflow("ok")
    dashboard.monitor_workflow(forked, poll_interval=0.01)
    dashboard.cleanup()
    printed = capsys.readouterr().out
    assert "Result: 1" in printed
    assert "Error: bad" in printed
    assert step_names("ok") == []
