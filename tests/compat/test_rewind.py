"""Rewinding: a workflow that has ended goes on, under its own id, from an earlier step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dbos import DBOS, DBOSClient, SetWorkflowID, SQLAlchemyDatasource
from dbos.error import DBOSAwaitedWorkflowCancelledError, DBOSException, DBOSNonExistentWorkflowError
from dbos.testing import FakeClock
from tests.compat.acts import again, status_of, step_ids, step_names
from tests.compat.clients import Caller
from tests.compat.rows import INTERNAL_QUEUE, Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate


class Counted:
    """A workflow of five steps that knows how often each of them ran, and whose results change with every run."""

    def __init__(self, hand: Hand) -> None:
        self.ran: list[int] = []
        self.factor = 10

        @hand.step()
        def step(number: int) -> int:
            self.ran.append(number)
            return number * self.factor

        @hand.workflow()
        async def counted(do: Inside, last: int) -> list[int]:
            return [await do(step(number)) for number in range(1, last + 1)]

        self.workflow = counted


def run_original(app: App, hand: Hand) -> Counted:
    counted = Counted(hand)
    app.launch()
    with SetWorkflowID("w"):
        assert [10, 20, 30, 40, 50] == hand.call(counted.workflow, 5)
    counted.ran.clear()
    counted.factor = 100
    return counted


@pytest.mark.parametrize("cut", [None, 1, 2, 5, 6, 9])
def test_the_steps_from_the_cut_on_are_run_again(app: App, hand: Hand, cut: int | None) -> None:
    """With the same inputs and under the same id; those before it keep what they came to."""
    counted = run_original(app, hand)
    held = hand.do("rewind_workflow", "w", start_step=cut)

    first = cut or 1
    assert [number * (10 if number < first else 100) for number in range(1, 6)] == held.result()
    assert list(range(first, 6)) == counted.ran
    assert ("w", "SUCCESS") == (held.workflow_id, status_of("w"))
    assert [1, 2, 3, 4, 5] == step_ids("w")


def test_new_handles_have_the_new_outcome(app: App, hand: Hand) -> None:
    """Also where an older handle of the same process knows the old one."""
    counted = Counted(hand)
    app.launch()
    with SetWorkflowID("w"):
        started = hand.start(counted.workflow, 1)
    early = hand.do("retrieve_workflow", "w")
    assert [[10], [10]] == [started.result(), early.result()]
    counted.factor = 100
    hand.do("rewind_workflow", "w").result()

    assert [100] == hand.do("retrieve_workflow", "w").result()
    assert [100] == hand.do("get_result", "w")
    with SetWorkflowID("w"):
        assert [100] == hand.call(counted.workflow, 1)


@pytest.mark.parametrize("status", ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"])
def test_whatever_has_ended_can_be_rewound(app: App, hand: Hand, rows: Rows, status: str) -> None:
    """Its attempts are counted anew; its old outcome is forgotten at once."""

    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    rows.add("w", "work", status=status, output='"old"', recovery_attempts=50, application_version="gone")
    app.launch()
    held = hand.do("rewind_workflow", "w")

    assert 7 == held.result()
    found = held.status()
    assert (1, INTERNAL_QUEUE, "v1", 7) == (found.recovery_attempts, found.queue_name, found.app_version, found.output)


@pytest.mark.parametrize("status", ["PENDING", "ENQUEUED", "DELAYED"])
def test_what_has_not_ended_is_refused(app: App, hand: Hand, rows: Rows, status: str) -> None:
    rows.add("w", "nobody's", status=status, queue_name="served-by-nobody", executor_id="another")
    app.launch()
    before = rows.workflow("w")

    with pytest.raises(DBOSException, match="only a workflow in a terminal state"):
        hand.do("rewind_workflow", "w")
    assert before == rows.workflow("w")


def test_what_cannot_be_meant_is_refused(app: App, hand: Hand) -> None:
    run_original(app, hand)

    with pytest.raises(DBOSNonExistentWorkflowError):
        hand.do("rewind_workflow", "nobody")
    for step in (0, -1):
        with pytest.raises(ValueError, match="must be >= 1"):
            hand.do("rewind_workflow", "w", start_step=step)
    assert "SUCCESS" == status_of("w")


def test_a_place_and_a_version_can_be_named(app: App, hand: Hand, rows: Rows) -> None:
    run_original(app, hand)
    options = {"queue_name": "far", "queue_partition_key": "p", "application_version": "v9"}
    held = hand.do("rewind_workflow", "w", start_step=3, **options)

    found = held.status()
    assert ("ENQUEUED", "far", "p", "v9") == (
        found.status,
        found.queue_name,
        found.queue_partition_key,
        found.app_version,
    )
    assert (None, None, None, None) == (found.output, found.error, found.dequeued_at, rows.workflow("w").owner_xid)
    assert [1, 2] == step_ids("w")


def test_a_client_can_do_it(app: App, hand: Hand, database: str) -> None:
    counted = run_original(app, hand)
    with DBOSClient(system_database_url=database) as client:
        held = Caller(hand, client)("rewind_workflow", "w", start_step=5)
        assert [10, 20, 30, 40, 500] == held.result()
    assert [5] == counted.ran


# -- what the dropped steps left -------------------------------------------------------------------------------


def test_events_are_as_they_were_at_the_cut(app: App, hand: Hand) -> None:
    """While it waits to go on; what was set later is gone, or has its value of then."""

    @hand.workflow()
    async def work(do: Inside) -> None:
        for key, value in (("a", 1), ("b", 1), ("a", 2), ("c", 1), ("a", 3)):
            await do.set_event(key, value)

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    events = []
    for cut in (6, 5, 4, 2, 1):
        hand.do("rewind_workflow", "w", start_step=cut, queue_name="served-by-nobody")
        events.append(hand.do("get_all_events", "w"))
        hand.do("cancel_workflow", "w")

    assert [{"a": 3, "b": 1, "c": 1}, {"a": 2, "b": 1, "c": 1}, {"a": 2, "b": 1}, {"a": 1}, {}] == events
    hand.do("rewind_workflow", "w").result()
    assert {"a": 3, "b": 1, "c": 1} == hand.do("get_all_events", "w")


def test_messages_after_the_cut_are_gone(app: App, hand: Hand, rows: Rows, clock: FakeClock) -> None:
    """Received by dropped steps, or come since the first of them began; others are kept, and taken as they come."""
    received: list[Any] = []

    @hand.workflow()
    async def work(do: Inside) -> None:
        for _ in range(3):
            received.append(await do.recv("t", 0))

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    now, same = clock.now_ms(), "same"
    rows.run("DELETE FROM {}operation_outputs WHERE workflow_uuid = 'w'")
    for number, text, consumed, at in (
        (1, same, True, now - 5),
        (2, same, True, now - 4),
        (3, "unread, early", False, now - 3),
        (4, "unread, late", False, now + 1),
    ):
        rows.run(
            "INSERT INTO {}notifications (message_uuid, destination_uuid, topic, message, created_at_epoch_ms, "
            "serialization, consumed) VALUES (:id, 'w', 't', :text, :at, 'portable_json', :consumed)",
            id=f"m{number}",
            text=f'"{text}"',
            at=at,
            consumed=consumed,
        )
    for step in (1, 3):
        rows.run(
            "INSERT INTO {}operation_outputs (workflow_uuid, function_id, function_name, output, serialization, "
            "started_at_epoch_ms) VALUES ('w', :step, 'DBOS.recv', '\"same\"', 'portable_json', :at)",
            step=step,
            at=now,
        )
    received.clear()
    hand.do("rewind_workflow", "w", start_step=3).result()

    assert ["same", "unread, early", None] == received
    left = rows.run("SELECT message_uuid, consumed FROM {}notifications ORDER BY message_uuid")
    assert [("m1", True), ("m3", True)] == [(row[0], bool(row[1])) for row in left]


def test_a_workflow_that_begins_anew_has_no_messages(app: App, hand: Hand) -> None:
    received: list[Any] = []

    @hand.workflow()
    async def work(do: Inside) -> None:
        received.append(await do.recv("t", 0))

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    hand.do("send", "w", 1, "t")
    hand.do("rewind_workflow", "w").result()

    assert [None, None] == received


def test_with_all_steps_kept_messages_stay(app: App, hand: Hand) -> None:
    """They came for what is to come."""
    received: list[Any] = []
    wanted = 1

    @hand.workflow()
    async def work(do: Inside) -> None:
        received[:] = [await do.recv("t", 0) for _ in range(wanted)]

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    hand.do("send", "w", "more", "t")
    wanted = 2
    hand.do("rewind_workflow", "w", start_step=3).result()

    assert [None, "more"] == received


def test_streams_go_on(app: App, hand: Hand) -> None:
    """Their values stay, a later mark of their end goes."""

    @hand.workflow()
    async def work(do: Inside) -> None:
        await do.write_stream("s", 1)
        await do.close_stream("done")
        await do.write_stream("s", 2)
        await do.close_stream("s")

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    hand.do("rewind_workflow", "w", start_step=3).result()

    assert [1, 2, 2] == list(DBOS.read_stream("w", "s"))
    assert [] == list(DBOS.read_stream("w", "done"))


def test_children_are_found_again_and_not_run(app: App, hand: Hand) -> None:
    ran: list[str] = []

    @hand.workflow()
    async def child(do: Inside, x: int) -> int:
        ran.append("child")
        return x

    @hand.workflow()
    async def parent(do: Inside) -> list[int]:
        ran.append("parent")
        called = await do(child(1))
        handle = await do.start(child, 2)
        return [called, await do(handle.get_result())]

    app.launch()
    with SetWorkflowID("w"):
        assert [1, 2] == hand.call(parent)
    ran.clear()

    assert [1, 2] == hand.do("rewind_workflow", "w").result()
    assert ["parent"] == ran
    assert ["w-1", "w-1", "w-3", "w-3"] == [each["child_workflow_id"] for each in DBOS.list_workflow_steps("w")]


def test_transactions_after_the_cut_are_done_again(app: App, hand: Hand, tmp_path: Path) -> None:
    """Also where they are recorded beside the user's tables, in a database of their own."""

    @DBOS.transaction()
    def add(number: int) -> int:
        DBOS.sql_session.execute(sa.text("CREATE TABLE IF NOT EXISTS kept (number INTEGER)"))
        DBOS.sql_session.execute(sa.text("INSERT INTO kept VALUES (:number)"), {"number": number})
        return DBOS.sql_session.execute(sa.text("SELECT count(*) FROM kept")).scalar()

    @hand.workflow()
    async def work(do: Inside) -> list[int]:
        return [add(1), add(2)]

    apart = f"sqlite:///{tmp_path}/apart.sqlite"
    app.launch(application_database_url=apart)
    with SetWorkflowID("w"):
        assert [1, 2] == hand.call(work)

    assert [1, 3] == hand.do("rewind_workflow", "w", start_step=2).result()
    assert [4, 5] == hand.do("rewind_workflow", "w").result()
    with sa.create_engine(apart, poolclass=sa.NullPool).connect() as conn:
        assert 2 == conn.execute(sa.text("SELECT count(*) FROM transaction_outputs")).scalar()


def test_transactions_in_datasources_are_done_again(app: App, tmp_path: Path) -> None:
    """What a datasource keeps of the dropped steps would otherwise stand for them."""
    source = SQLAlchemyDatasource.create(f"sqlite:///{tmp_path}/source.sqlite")
    gate = Gate()
    ran: list[int] = []

    @source.transaction()
    def note(number: int) -> int:
        ran.append(number)
        return number

    @DBOS.workflow()
    def work() -> list[int]:
        done = [note(1), note(2)]
        gate.pass_through()
        DBOS.sleep(0.001)
        return done

    app.launch()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(work)
    gate.wait_reached()
    DBOS.cancel_workflow("w")
    gate.open()
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.get_result()

    assert [1, 2] == DBOS.rewind_workflow("w", start_step=2).get_result()
    assert [1, 2, 2] == ran
    source.close()


# -- from a workflow -------------------------------------------------------------------------------------------


def test_in_a_workflow_it_is_a_step(app: App, hand: Hand, rows: Rows) -> None:
    """Recorded with what it does, so that a replay does not do it again."""
    counted = run_original(app, hand)

    @hand.workflow()
    async def mender(do: Inside) -> Any:
        handle = await do.rewind_workflow("w", start_step=5)
        return await do(handle.get_result())

    with SetWorkflowID("m"):
        assert [10, 20, 30, 40, 500] == hand.call(mender)
    again(rows, "m").get_result()

    assert [5] == counted.ran
    assert ["DBOS.rewindWorkflow", "DBOS.getResult"] == step_names("m")


def test_in_a_workflow_a_refusal_is_recorded(app: App, hand: Hand, rows: Rows) -> None:
    said: list[str] = []

    @hand.workflow()
    async def mender(do: Inside) -> None:
        try:
            await do.rewind_workflow(DBOS.workflow_id)
        except DBOSException as error:
            said.append(str(error))

    app.launch()
    with SetWorkflowID("m"):
        hand.call(mender)
    again(rows, "m").get_result()

    assert 2 == len(said)
    assert 1 == len(set(said))
    assert "only a workflow in a terminal state" in said[0]
