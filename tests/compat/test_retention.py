"""Retention: what is old and over is forgotten with all it owns, and nothing else ever is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from dbos import DBOS, DBOSClient, SetWorkflowID
from dbos._features import retention
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate

STATUSES = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "PENDING", "ENQUEUED", "DELAYED")
OVER = STATUSES[:4]


@pytest.fixture
def many(app: App, rows: Rows) -> App:
    """A workflow in each status, for each of four seconds."""
    app.launch()
    for second in range(1, 5):
        for status in STATUSES:
            # Of an executor and a version that nobody here recovers.
            rows.add(
                f"{status}-{second}",
                "unknown",
                status=status,
                executor_id="x",
                application_version="old",
                created_at=1000 * second,
                queue_name="nowhere" if status in ("ENQUEUED", "DELAYED") else None,
                delay_until_epoch_ms=9_000_000_000_000 if status == "DELAYED" else None,
            )
    return app


def left() -> set[str]:
    return {each.workflow_id for each in DBOS.list_workflows()}


@pytest.mark.parametrize(
    ("wanted", "seconds"),
    [
        ({}, 0),
        ({"cutoff_epoch_timestamp_ms": 3000}, 2),
        ({"cutoff_epoch_timestamp_ms": 0}, 0),
        ({"rows_threshold": 7}, 3),
        ({"rows_threshold": 8}, 2),
        ({"rows_threshold": 28}, 0),
        ({"rows_threshold": 1000}, 0),
        ({"rows_threshold": 0}, 4),
        ({"rows_threshold": 7, "cutoff_epoch_timestamp_ms": 2000}, 3),
        ({"rows_threshold": 20, "cutoff_epoch_timestamp_ms": 4000}, 3),
    ],
)
def test_what_is_over_goes_if_it_is_before_the_later_cutoff(
    many: App, hand: Hand, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, int], seconds: int
) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    before = left()
    gone = {f"{status}-{second}" for status in OVER for second in range(1, seconds + 1)}

    assert len(gone) == hand.do("garbage_collect", **wanted, dry_run=True)
    assert before == left()
    assert len(gone) == hand.do("garbage_collect", **wanted)
    assert before - gone == left()


def test_all_that_a_workflow_owned_goes_with_it(app: App, hand: Hand, rows: Rows) -> None:
    app.launch()

    @hand.workflow(name="owner")
    async def owner(do: Inside) -> None:
        await do.set_event("e", 1)
        await do.write_stream("s", 1)
        await do.sleep(0)

    with SetWorkflowID("w"):
        hand.call(owner)
    hand.do("send", "w", "m")

    assert 1 == hand.do("garbage_collect", rows_threshold=0)

    for table in ("operation_outputs", "workflow_events", "workflow_events_history", "streams", "notifications"):
        assert [] == rows.run(f"SELECT * FROM {{}}{table}"), table


def test_records_of_transactions_go_too_and_so_do_those_of_nobody(app: App, tmp_path: Path, rows: Rows) -> None:
    url = f"sqlite:///{tmp_path}/app.sqlite"
    app.launch(application_database_url=url)
    other = Rows(url)

    @DBOS.transaction()
    def write() -> int:
        return 1

    @DBOS.workflow(name="writes")
    def writes() -> int:
        return write()

    for each in ("old", "new"):
        with SetWorkflowID(each):
            writes()
    rows.change("old", created_at=1000)
    for name, created_at in (("lost", 1000), ("lost-lately", 9_000_000_000_000)):
        other.run(
            "INSERT INTO transaction_outputs (workflow_uuid, function_id, function_name, created_at)"
            " VALUES (:id, 1, 'f', :at)",
            id=name,
            at=created_at,
        )

    assert 1 == DBOS.garbage_collect(cutoff_epoch_timestamp_ms=2000)

    recorded = {row.workflow_uuid for row in other.run("SELECT workflow_uuid FROM transaction_outputs")}
    assert {"new", "lost-lately"} == recorded


def test_what_is_resumed_meanwhile_stays(many: App, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the deletion of a batch somebody wants one of them after all."""
    from dbos._engine import many as acts

    real = acts.remove_ended

    def resumed_first(conn: Any, workflow_ids: list[str]) -> list[str]:
        rows_of = conn.run_once(
            text(
                f"UPDATE {'dbos.' if rows.is_postgres else ''}workflow_status SET status = 'PENDING' "
                "WHERE workflow_uuid = 'CANCELLED-1' RETURNING workflow_uuid"
            )
        )
        assert rows_of
        return real(conn, workflow_ids)

    monkeypatch.setattr(retention, "remove_ended", resumed_first)

    assert 3 == DBOS.garbage_collect(cutoff_epoch_timestamp_ms=2000)
    assert "CANCELLED-1" in left()


@pytest.mark.parametrize(
    "wanted",
    [{"rows_threshold": -1}, {"cutoff_epoch_timestamp_ms": -5}, {"rows_threshold": 1.5}, {"rows_threshold": True}],
)
def test_a_bound_that_makes_no_sense_is_refused(app: App, hand: Hand, wanted: dict[str, Any]) -> None:
    app.launch()
    with pytest.raises(ValueError, match=next(iter(wanted))):
        hand.do("garbage_collect", **wanted)


def test_a_client_tidies_up_too(many: App) -> None:
    with DBOSClient(system_database_url=many.database) as client:
        assert 4 == client.garbage_collect(cutoff_epoch_timestamp_ms=2000)
        assert 3 == client.global_timeout(2000)


def test_tidying_up_is_a_step_of_a_workflow(many: App, hand: Hand) -> None:
    @hand.workflow(name="tidies")
    async def tidies(do: Inside) -> int:
        return await do.garbage_collect(cutoff_epoch_timestamp_ms=2000)

    with SetWorkflowID("tidy"):
        assert 4 == hand.call(tidies)
    assert ["DBOS.garbageCollect"] == [each["function_name"] for each in DBOS.list_workflow_steps("tidy")]


def test_a_global_timeout_cancels_what_has_not_ended(many: App, hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)

    assert 6 == hand.do("global_timeout", 3000)

    status = {each.workflow_id: each.status for each in DBOS.list_workflows()}
    for each in STATUSES:
        for second in range(1, 5):
            changed = second < 3 and each not in OVER
            assert ("CANCELLED" if changed else each) == status[f"{each}-{second}"]


def test_a_global_timeout_stops_what_runs_here(app: App, hand: Hand) -> None:
    app.launch()
    gate = Gate()

    @hand.step(name="waits")
    def waits() -> None:
        gate.pass_through()

    @hand.workflow(name="long")
    async def long(do: Inside) -> None:
        await do(waits())
        await do(waits())

    handle = hand.start(long)
    gate.wait_reached()
    assert 1 == hand.do("global_timeout", 9_000_000_000_000)
    gate.open()
    with pytest.raises(Exception, match="cancelled"):
        handle.result()
    assert 1 == gate.reached
