"""Debouncing: a burst of calls is one run, of the last call, when the burst is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSClient,
    Debouncer,
    DebouncerClient,
    Queue,
    SetEnqueueOptions,
    SetWorkflowID,
    SetWorkflowTimeout,
)
from dbos.error import DBOSException, DBOSQueueDeduplicatedError
from dbos.testing import FakeClock
from tests.compat.acts import again, beside, status_of, step_names
from tests.compat.rows import INTERNAL_QUEUE, Rows
from tests.conftest import App
from tests.hand import Hand, Held, Inside
from tests.waiting import eventually


class Work:
    """A workflow to be debounced, and what it was called with."""

    def __init__(self, hand: Hand) -> None:
        self.hand = hand
        self.given: list[Any] = []

        @hand.workflow(name="work")
        async def work(do: Inside, *args: Any, **kwargs: Any) -> Any:
            self.given.append((args, kwargs))
            return args[0] if args else None

        self.workflow = work

    def debouncer(self, **options: Any) -> Debouncer[..., Any]:
        return (Debouncer.create_async if self.hand.is_async else Debouncer.create)(self.workflow, **options)

    def debounce(self, debouncer: Any, *args: Any, **kwargs: Any) -> Held:
        method = debouncer.debounce_async if self.hand.is_async else debouncer.debounce
        return Held(self.hand, self.hand.call(method, *args, **kwargs))


def wait_until(clock: FakeClock, seconds_from_now: float) -> None:
    """Let so much time pass, once the promoter waits for just that moment."""
    clock.wait_for_sleeper(clock.now_ms() + int(seconds_from_now * 1000))
    clock.advance(seconds_from_now)


def test_a_burst_is_one_run_of_the_last_call(app: App, hand: Hand, clock: FakeClock) -> None:
    work = Work(hand)
    app.launch()
    debouncer = work.debouncer()
    handles = [work.debounce(debouncer, "key", 10, number, more=number) for number in range(5)]

    assert 1 == len({each.workflow_id for each in handles})
    status = handles[0].status()
    assert ("DELAYED", "work", INTERNAL_QUEUE, "work-key") == (
        status.status,
        status.name,
        status.queue_name,
        status.deduplication_id,
    )
    wait_until(clock, 10)
    assert [4] * 5 == [each.result() for each in handles]
    assert [((4,), {"more": 4})] == work.given


def test_each_call_puts_it_off(app: App, hand: Hand, clock: FakeClock) -> None:
    work = Work(hand)
    app.launch()
    debouncer = work.debouncer()
    start = clock.now_ms()
    for _ in range(4):
        handle = work.debounce(debouncer, "key", 10, "x")
        assert clock.now_ms() + 10_000 == handle.status().delay_until_epoch_ms
        clock.advance(9)
    assert "DELAYED" == handle.status().status
    wait_until(clock, 1)

    assert "x" == handle.result()
    assert start + 37_000 == clock.now_ms()


def test_but_not_beyond_the_timeout(app: App, hand: Hand, clock: FakeClock) -> None:
    """Counted from the first call of the burst."""
    work = Work(hand)
    app.launch()
    debouncer = work.debouncer(debounce_timeout_sec=15)
    start = clock.now_ms()
    work.debounce(debouncer, "key", 10, 1)
    clock.advance(9)
    handle = work.debounce(debouncer, "key", 10, 2)

    assert start + 15_000 == handle.status().delay_until_epoch_ms
    wait_until(clock, 6)
    assert 2 == handle.result()
    assert (
        start + 20_000
        == work.debounce(work.debouncer(debounce_timeout_sec=5), "key", 10, 3).status().delay_until_epoch_ms
    )


def test_the_next_burst_is_another_run(app: App, hand: Hand, clock: FakeClock) -> None:
    """Also while the first one still runs, or has not begun."""
    work = Work(hand)
    app.launch()
    debouncer = work.debouncer(queue="nobody-serves-it")
    first = work.debounce(debouncer, "key", 1, 1)
    wait_until(clock, 1)
    eventually(lambda: first.status().status == "ENQUEUED")
    assert first.status().deduplication_id is None
    second = work.debounce(debouncer, "key", 1, 2)

    assert first.workflow_id != second.workflow_id
    assert second.workflow_id == work.debounce(debouncer, "key", 1, 3).workflow_id


def test_keys_and_workflows_do_not_mix(app: App, hand: Hand, clock: FakeClock) -> None:
    work = Work(hand)

    @hand.workflow(name="other")
    async def other(do: Inside, x: Any) -> Any:
        return ("other", x)

    app.launch()
    one, same = work.debouncer(), Debouncer("work")
    another = (Debouncer.create_async if hand.is_async else Debouncer.create)(other)
    handles = [work.debounce(one, "a", 5, 1), work.debounce(one, "b", 5, 2), work.debounce(another, "a", 5, 3)]
    shared = work.debounce(same, "a", 5, 4)
    wait_until(clock, 5)

    assert [4, 2, ("other", 3)] == [each.result() for each in handles]
    assert shared.workflow_id == handles[0].workflow_id


def test_a_queue_takes_it_over(app: App, hand: Hand, clock: FakeClock) -> None:
    work, queue = Work(hand), Queue("slow", concurrency=1)
    app.launch()
    for given in (queue, "slow"):
        handle = work.debounce(work.debouncer(queue=given), "key", 1, 1)
        assert "slow" == handle.status().queue_name
    wait_until(clock, 1)
    assert 1 == handle.result()


def test_what_the_context_says_goes_to_the_workflow(app: App, hand: Hand, clock: FakeClock) -> None:
    work = Work(hand)
    app.launch()
    with SetWorkflowID("mine"), SetWorkflowTimeout(30), SetEnqueueOptions(app_version="v7"):
        handle = work.debounce(work.debouncer(), "key", 1, 1)
    with SetWorkflowID("unused"):
        assert "mine" == work.debounce(work.debouncer(), "key", 1, 2).workflow_id

    status = handle.status()
    assert ("mine", 30_000, "v7") == (status.workflow_id, status.workflow_timeout_ms, status.app_version)
    assert status_of("unused") is None


def test_an_assigned_id_is_one_run(app: App, hand: Hand, clock: FakeClock) -> None:
    work = Work(hand)
    app.launch()
    for number in (1, 2):
        with SetWorkflowID("once"):
            handle = work.debounce(work.debouncer(), "key", 1, number)
        if number == 1:
            wait_until(clock, 1)
            handle.result()

    assert 1 == handle.result()


@pytest.mark.parametrize(
    "options", [{"deduplication_id": "x"}, {"priority": 1}, {"queue_partition_key": "x"}, {"delay_seconds": 1}]
)
def test_what_has_no_meaning_is_refused(app: App, hand: Hand, options: dict[str, Any]) -> None:
    work = Work(hand)
    app.launch()
    with SetEnqueueOptions(**options), pytest.raises(DBOSException, match=f"Cannot debounce.*{next(iter(options))}"):
        work.debounce(work.debouncer(), "key", 1)
    assert [] == DBOS.list_workflows()


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1"])
def test_a_period_is_a_number_of_seconds(app: App, hand: Hand, seconds: Any) -> None:
    work = Work(hand)
    app.launch()
    with pytest.raises(DBOSException, match="debounce_period_sec"):
        work.debounce(work.debouncer(), "key", seconds)
    with pytest.raises(DBOSException, match="debounce_timeout_sec"):
        work.debouncer(debounce_timeout_sec=seconds)


def test_only_workflow_functions_are_debounced(hand: Hand) -> None:
    @DBOS.dbos_class()
    class Tools:
        @DBOS.workflow()
        def method(self) -> None: ...

        @classmethod
        @DBOS.workflow()
        def class_method(cls) -> None: ...

    @DBOS.step()
    def step() -> None: ...

    for method in (Tools().method, Tools.class_method):
        with pytest.raises(TypeError, match="Only workflow functions may be debounced, not methods"):
            Debouncer.create(method)
    for other in (step, print):
        with pytest.raises(DBOSException, match="not a registered workflow"):
            Debouncer.create(other)


def test_somebody_else_holds_the_deduplication_id(app: App, hand: Hand, clock: FakeClock) -> None:
    work, queue = Work(hand), Queue("q", worker_concurrency=0)
    app.launch()
    with SetEnqueueOptions(deduplication_id="work-key", delay_seconds=5):
        holder = (
            queue.enqueue(work.workflow, 1) if not hand.is_async else hand.call(queue.enqueue_async, work.workflow, 1)
        )

    with pytest.raises(DBOSQueueDeduplicatedError) as raised:
        work.debounce(work.debouncer(queue=queue), "key", 1, 2)
    assert ("q", "work-key") == (raised.value.queue_name, raised.value.deduplication_id)
    assert [holder.workflow_id] == [each.workflow_id for each in DBOS.list_workflows()]


@pytest.mark.parametrize("act", ["cancel_workflow", "resume_workflow", "delete_workflow"])
def test_a_workflow_that_is_taken_out_of_its_burst(app: App, hand: Hand, clock: FakeClock, act: str) -> None:
    """The next call begins another."""
    work = Work(hand)
    app.launch()
    first = work.debounce(work.debouncer(), "key", 5, 1)
    hand.do(act, first.workflow_id)
    second = work.debounce(work.debouncer(), "key", 5, 2)
    wait_until(clock, 5)

    assert 2 == second.result()
    assert first.workflow_id != second.workflow_id


def test_another_program_made_it_ready(app: App, hand: Hand, clock: FakeClock, rows: Rows) -> None:
    """One that knows nothing of our table, and leaves the deduplication id with it."""
    work = Work(hand)
    app.launch()
    debouncer = work.debouncer(queue="nobody-serves-it")
    first = work.debounce(debouncer, "key", 5, 1)
    rows.change(first.workflow_id, status="ENQUEUED")

    assert first.workflow_id != work.debounce(debouncer, "key", 5, 2).workflow_id


def test_many_calls_at_once(app: App, hand: Hand, clock: FakeClock) -> None:
    """However they meet, they agree on one workflow."""
    work = Work(hand)
    app.launch()
    debouncer = work.debouncer()
    if hand.is_async:

        async def burst() -> list[Any]:
            return await asyncio.gather(*(debouncer.debounce_async("key", 5, number) for number in range(20)))

        handles = hand.wait(burst())
    else:
        handles = [each.result() for each in [beside(debouncer.debounce, "key", 5, number) for number in range(20)]]
    wait_until(clock, 5)

    assert 1 == len({each.workflow_id for each in handles})
    eventually(lambda: work.given)
    assert 1 == len(work.given)


def test_no_call_is_lost_where_one_burst_meets_the_next(app: App, hand: Hand) -> None:
    """In real time: every call is either the last of its burst, or followed by one of the same workflow."""
    work = Work(hand)
    app.launch()
    debouncer = work.debouncer()
    calls = [(work.debounce(debouncer, "key", 0.002, number).workflow_id, number) for number in range(60)]
    last = dict(calls)

    for workflow_id, number in last.items():
        assert number == DBOS.retrieve_workflow(workflow_id).get_result()
    assert len(last) == len(work.given)


# -- in a workflow ---------------------------------------------------------------------------------------------


@pytest.fixture
def debounces(hand: Hand) -> tuple[Work, Callable[..., Any]]:
    work = Work(hand)
    debouncer = work.debouncer()

    @hand.workflow(name="debounces")
    async def workflow(do: Inside, *numbers: int) -> list[str]:
        found = []
        for number in numbers:
            method = debouncer.debounce_async if do.is_async else debouncer.debounce
            found.append((await do(method("key", 5, number))).workflow_id)
        return found

    return work, workflow


def test_a_workflow_records_what_it_debounced(
    app: App, hand: Hand, clock: FakeClock, rows: Rows, debounces: tuple[Work, Callable[..., Any]]
) -> None:
    """One step each; its replay finds the same workflow, and puts nothing off."""
    work, workflow = debounces
    app.launch()
    with SetWorkflowID("w"):
        found = hand.call(workflow, 1, 2)
    assert ["w-1", "w-1"] == found
    assert ["DBOS.debounce_delayed_workflow"] * 2 == step_names("w")
    assert [("w-1", "w-1")] * 2 == [
        (each["output"], each["child_workflow_id"]) for each in DBOS.list_workflow_steps("w")
    ]
    assert "w" == DBOS.get_workflow_status("w-1").parent_workflow_id
    wait_until(clock, 5)
    assert 2 == DBOS.retrieve_workflow("w-1").get_result()

    assert found == again(rows, "w").get_result()
    assert 1 == len(work.given)


def test_an_error_is_on_record(
    app: App, hand: Hand, clock: FakeClock, rows: Rows, debounces: tuple[Work, Callable[..., Any]]
) -> None:
    app.launch()
    rows.add("holder", "else", queue_name=INTERNAL_QUEUE, deduplication_id="work-key")
    with SetWorkflowID("w"), pytest.raises(DBOSQueueDeduplicatedError):
        hand.call(debounces[1], 1)
    rows.run("DELETE FROM {}workflow_status WHERE workflow_uuid = 'holder'")

    with pytest.raises(DBOSQueueDeduplicatedError):
        again(rows, "w").get_result()
    assert status_of("w-1") is None


def test_a_cancelled_workflow_debounces_nothing(
    app: App, hand: Hand, clock: FakeClock, rows: Rows, debounces: tuple[Work, Callable[..., Any]]
) -> None:
    """Not even a workflow of others: what it did in the same moment is taken back."""
    work, _ = debounces
    tried: list[BaseException] = []

    @hand.workflow(name="cancelled")
    async def cancelled(do: Inside) -> None:
        rows.change("c", status="CANCELLED")  # past the runtime, which does not hear of it
        debouncer = work.debouncer()
        try:
            await do((debouncer.debounce_async if do.is_async else debouncer.debounce)("key", 99, "late"))
        except BaseException as error:
            tried.append(error)
            raise

    app.launch()
    handle = work.debounce(work.debouncer(), "key", 5, "kept")
    before = handle.status().delay_until_epoch_ms
    with SetWorkflowID("c"):
        held = hand.start(cancelled)
    eventually(lambda: tried)

    assert "DBOSWorkflowCancelledError" == type(tried[0]).__name__
    assert before == handle.status().delay_until_epoch_ms
    assert "c" == held.workflow_id


# -- by a client -----------------------------------------------------------------------------------------------


def test_a_client_shares_the_keys_of_the_application(app: App, hand: Hand, clock: FakeClock, database: str) -> None:
    work = Work(hand)
    app.launch()
    own = work.debounce(work.debouncer(), "key", 5, 1)
    with DBOSClient(system_database_url=database) as client:
        remote = DebouncerClient(client, {"workflow_name": "work", "queue_name": INTERNAL_QUEUE, "app_version": "v1"})
        handle = work.debounce(remote, "key", 5, 2)
        assert own.workflow_id == handle.workflow_id
        other = work.debounce(remote, "other", 5, 3)
        wait_until(clock, 5)

        # By handles of the application, because a client listens by the clock, which stands still here.
        assert [2, 3] == [DBOS.retrieve_workflow(each.workflow_id).get_result() for each in (handle, other)]


def test_what_a_client_asks_for(app: App, hand: Hand, clock: FakeClock, database: str) -> None:
    work = Work(hand)
    app.launch()
    options: Any = {"workflow_name": "work", "queue_name": "q", "workflow_id": "given", "workflow_timeout": 9}
    with DBOSClient(system_database_url=database) as client:
        handle = work.debounce(DebouncerClient(client, options, debounce_timeout_sec=3), "key", 5, 1)
        status = handle.status()
        assert ("given", "q", 9000, None) == (
            status.workflow_id,
            status.queue_name,
            status.workflow_timeout_ms,
            status.app_version,
        )
        assert clock.now_ms() + 3000 == status.delay_until_epoch_ms
        elsewhere = work.debounce(DebouncerClient(client, {**options, "workflow_id": None}, queue="r"), "key", 5)
        assert "r" == elsewhere.status().queue_name
        for refused in ({"deduplication_id": "x"}, {"priority": 3}, {"delay_seconds": 3}, {"queue_partition_key": "x"}):
            with pytest.raises(DBOSException, match="Cannot debounce"):
                DebouncerClient(client, {**options, **refused})
