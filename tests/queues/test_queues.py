"""Queues: what is enqueued runs, in order, once, in this process or another."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import DBOS, Queue, SetEnqueueOptions, SetWorkflowID, SetWorkflowTimeout
from dbos import error as dboserror
from dbos.testing import FakeClock, use_clock
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.queues.acts import put, put_inside
from tests.waiting import Gate, eventually


def test_what_is_enqueued_runs(app: App, hand: Hand) -> None:
    queue = Queue("work")

    @hand.step()
    def double(x: int) -> int:
        return 2 * x

    @hand.workflow()
    async def work(do: Inside, x: int) -> int:
        return await do(double(x)) + 1

    app.launch()
    handle = put(hand, queue, work, 20)
    assert handle.result() == 41
    status = handle.status()
    assert (status.status, status.name, status.queue_name) == ("SUCCESS", "work", "work")
    assert status.dequeued_at >= status.created_at
    assert status.recovery_attempts == 1


def test_a_step_is_enqueued_by_itself(app: App, hand: Hand) -> None:
    queue = Queue("steps")

    @hand.step()
    def double(x: int) -> int:
        return 2 * x

    app.launch()
    handle = put(hand, queue, double, 21)
    assert handle.result() == 42
    assert handle.status().name == "<temp>.double"
    assert [step["function_name"] for step in DBOS.list_workflow_steps(handle.workflow_id)] == ["double"]


def test_a_method_is_enqueued_with_its_instance(app: App) -> None:
    from dbos import DBOSConfiguredInstance

    queue = Queue("methods")

    @DBOS.dbos_class()
    class Adder(DBOSConfiguredInstance):
        def __init__(self, name: str, by: int) -> None:
            super().__init__(config_name=name)
            self.by = by

        @DBOS.workflow()
        def add(self, x: int) -> int:
            return x + self.by

        @staticmethod
        @DBOS.workflow()
        def twice(x: int) -> int:
            return 2 * x

    three = Adder("three", 3)
    app.launch()
    assert queue.enqueue(three.add, 4).get_result() == 7
    assert queue.enqueue(Adder.twice, 4).get_result() == 8


def test_a_failure_is_the_outcome(app: App, hand: Hand) -> None:
    queue = Queue("work")

    @hand.workflow()
    async def fails(do: Inside) -> None:
        raise ValueError("no")

    app.launch()
    handle = put(hand, queue, fails)
    with pytest.raises(ValueError, match="no"):
        handle.result()
    assert handle.status().status == "ERROR"


def test_one_at_a_time_in_the_order_of_enqueueing(app: App, hand: Hand) -> None:
    queue, order = Queue("serial", concurrency=1), []

    @hand.workflow()
    async def work(do: Inside, number: int) -> int:
        order.append(number)
        return number

    app.launch()
    handles = [put(hand, queue, work, number) for number in range(40)]
    assert [handle.result() for handle in handles] == list(range(40))
    assert order == list(range(40))


def test_a_queue_declared_after_launch_is_served(app: App) -> None:
    @DBOS.workflow()
    def work(x: int) -> int:
        return x

    app.launch()
    assert Queue("late").enqueue(work, 5).get_result() == 5


def test_what_nobody_serves_stays(app: App) -> None:
    ran = []

    @DBOS.workflow()
    def work(x: int) -> int:
        ran.append(x)
        return x

    DBOS.listen_queues(["other"])
    mine, other = Queue("mine"), Queue("other")
    app.launch()
    left = mine.enqueue(work, 1)
    assert other.enqueue(work, 2).get_result() == 2
    assert DBOS.start_workflow(work, 3).get_result() == 3
    assert DBOS.fork_workflow(left.workflow_id, 1).get_result() == 1  # on the queue of the runtime
    assert left.get_status().status == "ENQUEUED"
    assert sorted(ran) == [1, 2, 3]


def test_listening_is_chosen_once_and_before_launch(app: App) -> None:
    DBOS.listen_queues([Queue("mine")])
    with pytest.raises(dboserror.DBOSException, match="more than once"):
        DBOS.listen_queues(["mine"])
    app.launch()
    with pytest.raises(dboserror.DBOSException, match="after DBOS is launched"):
        DBOS.listen_queues(["mine"])


def test_work_of_another_version_waits_for_it(app: App) -> None:
    queue = Queue("work")

    @DBOS.workflow()
    def work() -> str:
        return DBOS.application_version

    app.launch()
    with SetEnqueueOptions(app_version="v2"):
        other = queue.enqueue(work)
    assert queue.enqueue(work).get_result() == "v1"
    assert other.get_status().status == "ENQUEUED"
    app.relaunch(application_version="v2")
    assert DBOS.get_result(other.workflow_id) == "v2"


def test_the_timeout_begins_when_the_work_is_taken(app: App) -> None:
    clock = FakeClock()
    use_clock(clock)
    queue, gate = Queue("serial", concurrency=1), Gate()

    @DBOS.workflow()
    def blocks() -> None:
        gate.pass_through()

    @DBOS.workflow()
    def sleeps() -> None:
        DBOS.sleep(100)

    app.launch()
    first = queue.enqueue(blocks)
    gate.wait_reached()
    with SetWorkflowTimeout(10):
        second = queue.enqueue(sleeps)
    clock.advance(60)
    assert second.get_status().workflow_deadline_epoch_ms is None
    gate.open()
    first.get_result()
    started = eventually(lambda: second.get_status().dequeued_at)
    assert second.get_status().workflow_deadline_epoch_ms == started + 10_000
    eventually(lambda: clock.advance(1) or second.get_status().status == "CANCELLED")
    with pytest.raises(dboserror.DBOSAwaitedWorkflowCancelledError):
        second.get_result()


def test_a_cancelled_one_takes_no_slot(app: App) -> None:
    queue, gate, ran = Queue("serial", concurrency=1), Gate(), []

    @DBOS.workflow()
    def work(number: int) -> int:
        ran.append(number)
        if number == 0:
            gate.pass_through()
        return number

    app.launch()
    handles = [queue.enqueue(work, number) for number in range(3)]
    gate.wait_reached()
    DBOS.cancel_workflow(handles[1].workflow_id)
    gate.open()
    assert handles[2].get_result() == 2
    assert ran == [0, 2]
    assert handles[1].get_status().queue_name is None


def test_cancelling_what_runs_frees_its_slot(app: App) -> None:
    queue = Queue("serial", concurrency=1)

    @DBOS.workflow()
    def waits(number: int) -> int:
        if number == 0:
            DBOS.sleep(3600)
        return number

    app.launch()
    first, second = (queue.enqueue(waits, number) for number in range(2))
    eventually(lambda: first.get_status().status == "PENDING")
    DBOS.cancel_workflow(first.workflow_id)
    assert second.get_result() == 1


def test_the_same_id_is_enqueued_once(app: App, hand: Hand) -> None:
    queue, ran = Queue("work"), []

    @hand.workflow()
    async def work(do: Inside, x: int) -> int:
        ran.append(x)
        return x

    app.launch()
    results = []
    for x in (1, 2):
        with SetWorkflowID("once"):
            results.append(put(hand, queue, work, x).result())
    assert results == [1, 1]
    assert ran == [1]


def test_children_are_enqueued_and_awaited(app: App, hand: Hand) -> None:
    parents, children = Queue("parents", concurrency=1), Queue("children", worker_concurrency=2)

    @hand.workflow()
    async def child(do: Inside, x: int) -> int:
        return x * x

    @hand.workflow()
    async def parent(do: Inside, count: int) -> int:
        handles = [await put_inside(do, children, child, x) for x in range(count)]
        return sum([await do(handle.get_result()) for handle in handles])

    app.launch()
    handle = put(hand, parents, parent, 5)
    assert handle.result() == 30
    steps = DBOS.list_workflow_steps(handle.workflow_id)
    assert [step["function_name"] for step in steps] == ["child"] * 5 + ["DBOS.getResult"] * 5
    assert [step["child_workflow_id"] for step in steps[:5]] == [f"{handle.workflow_id}-{n}" for n in range(1, 6)]
    assert {each.parent_workflow_id for each in DBOS.list_workflows(name="child")} == {handle.workflow_id}


def test_parents_that_wait_do_not_keep_their_children_from_running(app: App, hand: Hand) -> None:
    """On a queue without limits, many more parents than could run children beside them."""
    queue = Queue("family")

    @hand.workflow()
    async def child(do: Inside, x: int) -> int:
        return x

    @hand.workflow()
    async def parent(do: Inside, x: int) -> int:
        handle = await put_inside(do, queue, child, x)
        return int(await do(handle.get_result()))

    app.launch()
    handles = [put(hand, queue, parent, x) for x in range(60)]
    assert [handle.result() for handle in handles] == list(range(60))


def test_a_transaction_is_enqueued(app: App) -> None:
    import sqlalchemy as sa

    queue = Queue("work")

    @DBOS.transaction()
    def two() -> int:
        return int(DBOS.sql_session.execute(sa.text("SELECT 2")).scalar_one())

    app.launch()
    assert queue.enqueue(two).get_result() == 2


def test_enqueueing_in_a_step_is_refused(app: App) -> None:
    queue = Queue("work")

    @DBOS.workflow()
    def work() -> None:
        return None

    @DBOS.step()
    def step() -> None:
        queue.enqueue(work)

    @DBOS.workflow()
    def outer() -> None:
        step()

    app.launch()
    with pytest.raises(dboserror.DBOSMisuseError):
        outer()


def test_what_was_running_is_taken_up_after_a_crash(app: App) -> None:
    queue, gate, runs = Queue("work", concurrency=2), Gate(), []

    @DBOS.step()
    def once(number: int) -> int:
        runs.append(number)
        return number

    @DBOS.workflow()
    def work(number: int) -> int:
        value = once(number)
        gate.pass_through()
        return value

    app.launch()
    handles = [queue.enqueue(work, number) for number in range(5)]
    gate.wait_reached(2)
    app.crash()
    gate.open()
    app.launch()
    assert [DBOS.get_result(handle.workflow_id) for handle in handles] == list(range(5))
    assert sorted(runs) == list(range(5))
    assert DBOS.list_queued_workflows() == []


def test_recovering_twice_runs_what_runs_once(app: App) -> None:
    queue, gate = Queue("work", concurrency=1), Gate()

    @DBOS.workflow()
    def work() -> int:
        gate.pass_through()
        return 1

    app.launch()
    running, waiting = queue.enqueue(work), queue.enqueue(work)
    gate.wait_reached()
    for _ in range(2):
        found = DBOS._recover_pending_workflows()  # noqa: SLF001 - the name that such programs use
        assert [handle.workflow_id for handle in found] == [running.workflow_id]
    gate.open()
    assert (running.get_result(), waiting.get_result()) == (1, 1)
    assert gate.reached == 2


def test_bad_names_and_limits_are_refused() -> None:
    for arguments, message in (
        ({"name": ""}, "non-empty"),
        ({"name": "_dbos_mine"}, "is reserved"),
        ({"name": "a\0b"}, "control character"),
        ({"name": "q", "concurrency": -1}, "greater than or equal to"),
        ({"name": "q", "worker_concurrency": 1.5}, "greater than or equal to"),
        ({"name": "q", "concurrency": 1, "worker_concurrency": 2}, "worker_concurrency must be less than or equal to"),
        ({"name": "q", "limiter": {"limit": 1}}, "period"),
        ({"name": "q", "limiter": {"limit": 0, "period": 1}}, "at least 1"),
        ({"name": "q", "limiter": {"limit": 1, "period": 0}}, "positive"),
        ({"name": "q", "polling_interval_sec": 0}, "polling_interval_sec must be positive"),
    ):
        with pytest.raises(Exception, match=message):
            Queue(**arguments)  # type: ignore[arg-type]  # that is the point
    Queue("q")
    with pytest.raises(Exception, match="has already been declared"):
        Queue("q")


def test_a_long_polling_interval_is_kept(app: App) -> None:
    clock = FakeClock()
    use_clock(clock)
    slow, quick = Queue("slow", polling_interval_sec=60), Queue("quick")

    @DBOS.workflow()
    def work(x: int) -> int:
        return x

    app.launch()
    assert slow.polling_interval_sec == 60
    assert quick.enqueue(work, 0).get_result() == 0  # the dispatcher has been there
    late = slow.enqueue(work, 1)
    assert quick.enqueue(work, 2).get_result() == 2
    assert late.get_status().status == "ENQUEUED"
    clock.advance(61)
    assert late.get_result() == 1


def test_enqueue_by_the_name_of_the_queue(app: App, hand: Hand) -> None:
    Queue("named")

    @hand.workflow()
    async def work(do: Inside, x: int) -> int:
        return x

    app.launch()
    assert hand.do("enqueue_workflow", "named", work, 3).result() == 3
    with pytest.raises(dboserror.DBOSException, match="'nowhere' is not declared"):
        hand.do("enqueue_workflow", "nowhere", work, 3)


def test_enqueueing_before_launch_is_an_error(database: str) -> None:
    queue: Any = Queue("early")

    @DBOS.workflow()
    def work() -> None:
        return None

    with pytest.raises(dboserror.DBOSException):
        queue.enqueue(work)
