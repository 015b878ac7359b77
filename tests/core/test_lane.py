"""The door: jobs that meet in one commit, and each of them gets what is its own."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from dbos._kernel.job import Tx
from dbos._kernel.statement import Conn
from dbos._kernel.store import Store
from dbos.error import DBOSDatabaseUnavailableError, DBOSException, DBOSRuntimeEndedError
from tests.compat.acts import beside
from tests.core.conftest import farewell
from tests.core.door import Door, begun, ended, stepped
from tests.waiting import LIMIT_SECONDS, eventually

# -- verdicts --------------------------------------------------------------------------------------------------


def test_jobs_of_one_batch_get_each_its_own_verdict(door: Door) -> None:
    """Forty records, every third of a stranger, are one statement; each job hears of its own row only."""
    door.write(*(begun(f"w-{number}") for number in range(40)))
    jobs = [door.put(stepped(f"w-{number}", 1, "me" if number % 3 else "stranger")) for number in range(40)]

    door.meet(*jobs)

    assert [1] == door.transactions
    assert [(number % 3 != 0,) for number in range(40)] == [job.result for job in jobs]
    assert {f"w-{number}" for number in range(40) if number % 3} == {workflow_id for workflow_id, _ in door.steps()}


def test_a_refused_row_alone_in_its_batch_is_the_only_one_refused(door: Door) -> None:
    """Whether it comes first, in the middle or last."""
    door.write(*(begun(f"w-{number}") for number in range(9)))
    for step_id, refused in enumerate((0, 4, 8), 1):
        jobs = [door.put(stepped(f"w-{each}", step_id, "stranger" if each == refused else "me")) for each in range(9)]
        door.meet(*jobs)

        assert [each != refused for each in range(9)] == [job.result[0] for job in jobs]


def test_kinds_that_meet_are_written_by_rank(door: Door) -> None:
    """A start, a record and an outcome of one workflow, handed over in the wrong order, are all accepted."""
    jobs = [door.put(ended("w")), door.put(stepped("w", 1)), door.put(begun("w")), door.put(begun("v"))]

    door.meet(*jobs)

    assert [3] == door.transactions
    assert [(True,)] * 4 == [job.result for job in jobs]
    assert {"v": "PENDING", "w": "SUCCESS"} == door.statuses()
    assert [("w", 1)] == door.steps()


def test_a_job_of_several_rows_gets_their_verdicts_in_its_own_order(door: Door) -> None:
    door.write(begun("w"), begun("taken"))
    first = door.put(stepped("w", 1), begun("taken"), ended("w", "stranger"))
    second = door.put(begun("new"), stepped("w", 2), stepped("w", 3, "stranger"))

    door.meet(first, second)

    assert (True, False, False) == first.result
    assert (True, True, False) == second.result


@pytest.mark.parametrize("owners", [("stranger", "me"), ("me", "stranger")])
def test_two_rows_with_one_key_get_each_its_own_verdict(door: Door, owners: tuple[str, str]) -> None:
    """Two executions of one workflow record the same step in one commit: only the owner's is accepted."""
    door.write(begun("w"), begun("other"))
    twins = [door.put(stepped("w", 1, owner, output=owner)) for owner in owners]
    bystander = door.put(stepped("other", 1, output="other"))

    door.meet(twins[0], bystander, twins[1])

    assert [(owner == "me",) for owner in owners] == [job.result for job in twins]
    assert (True,) == bystander.result
    assert {"w": "me", "other": "other"} == door.outputs()


@pytest.mark.parametrize("owners", [("stranger", "me"), ("me", "stranger")])
def test_two_outcomes_of_one_workflow_get_each_its_own_verdict(door: Door, owners: tuple[str, str]) -> None:
    door.write(begun("w"))
    jobs = [door.put(ended("w", owner)) for owner in owners]

    door.meet(*jobs)

    assert [(owner == "me",) for owner in owners] == [job.result for job in jobs]


def test_two_starts_under_one_id_in_one_batch_are_one(door: Door) -> None:
    """The first that came is the one that counts."""
    jobs = [door.put(begun("w", owner)) for owner in ("first", "second", "third")]

    door.meet(*jobs)

    assert [(True,), (False,), (False,)] == [job.result for job in jobs]
    assert (True,) == door.write(stepped("w", 1, "first"))


def test_what_comes_while_the_lane_is_stopped_is_written_afterwards(store: Store, door: Door) -> None:
    """Threads that find the door shut wait, and write nothing before it opens."""
    door.write(*(begun(f"w-{number}") for number in range(12)))
    with store.lane.stopped():
        jobs = [door.put(stepped(f"w-{number}", 1)) for number in range(12)]
        waiting = [beside(job.block) for job in jobs]
        eventually(lambda: all(job._lock is not None for job in jobs))  # each found the door shut
        assert [] == door.steps()

    assert [(True,)] * 12 == [each.result(20) for each in waiting]
    assert 12 == len(door.steps())


# -- what fails ------------------------------------------------------------------------------------------------


def test_a_poisonous_row_harms_no_other(door: Door) -> None:
    """A row that the database cannot store fails alone; the others of its batch are written."""
    door.write(*(begun(f"w-{number}") for number in range(7)))
    jobs = [door.put(stepped(f"w-{each}", 1, function_name=None if each == 3 else "step")) for each in range(7)]

    door.meet(*jobs)

    assert isinstance(jobs[3].error, IntegrityError)
    assert [True] * 6 == [job.result[0] for job in jobs if job is not jobs[3]]
    assert 6 == len(door.steps())
    assert door.is_idle()


def test_a_poisonous_row_takes_the_others_of_its_own_job_with_it(door: Door) -> None:
    """What belongs to one job is written together or not at all."""
    door.write(begun("w"), begun("v"))
    poisoned = door.put(stepped("w", 1), stepped("w", 2, function_name=None))
    healthy = door.put(stepped("v", 1))

    door.meet(poisoned, healthy)

    assert isinstance(poisoned.error, IntegrityError)
    assert (True,) == healthy.result
    assert [("v", 1)] == door.steps()


def test_a_work_that_fails_is_undone_alone(store: Store, door: Door) -> None:
    """Rows and works of one batch: the error of one work is its caller's, and nothing of it stays."""
    door.write(begun("w"), begun("v"))

    def write_and_fail(conn: Conn) -> None:
        conn.say(f"UPDATE {door.prefix}workflow_status SET status = 'ERROR' WHERE workflow_uuid = 'w'")
        raise ValueError("no")

    rows, failing, counting = door.put(stepped("v", 1)), Tx(store.lane, write_and_fail), Tx(store.lane, lambda _: 7)
    door.meet(failing, rows, counting)

    assert isinstance(failing.error, ValueError)
    assert ((True,), 7) == (rows.result, counting.result)
    assert {"v": "PENDING", "w": "PENDING"} == door.statuses()


def test_a_batch_that_meets_trouble_is_written_when_it_is_over(
    door: Door, failing: Callable[[int], list[BaseException]]
) -> None:
    """The database is away three times: nobody hears of it, and every verdict is right."""
    door.write(*(begun(f"w-{number}") for number in range(5)))
    jobs = [door.put(stepped(f"w-{number}", 1, "me" if number else "stranger")) for number in range(5)]
    failing(3)

    door.meet(*jobs)

    assert [1, 1, 1, 1] == door.transactions
    assert [number > 0 for number in range(5)] == [job.result[0] for job in jobs]


def test_a_caller_outside_gives_up_when_its_patience_ends(
    door: Door, failing: Callable[[int], list[BaseException]]
) -> None:
    """It is told; the lane goes on, and serves the next one."""
    door.write(begun("w"))
    trouble = failing(10**6)

    with pytest.raises(DBOSDatabaseUnavailableError):
        door.put(stepped("w", 1), patience_seconds=0.01).block()
    trouble.clear()

    assert (True,) == door.write(stepped("w", 2))


@pytest.fixture
def failing(door: Door) -> Callable[[int], list[BaseException]]:
    """Make so many transactions of rows fail as they do when the database is away or busy."""

    def fail(times: int) -> list[BaseException]:
        door.troubles.extend([door.trouble()] * times)
        return door.troubles

    return fail


# -- interrupts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_work_leaves_no_transaction(store: Store, door: Door, interrupt: type[BaseException]) -> None:
    door.write(begun("w"))

    def write_and_stop(conn: Conn) -> None:
        conn.say(f"UPDATE {door.prefix}workflow_status SET status = 'ERROR' WHERE workflow_uuid = 'w'")
        raise interrupt

    with pytest.raises(interrupt):
        Tx(store.lane, write_and_stop).block()

    assert door.is_idle()
    assert (True,) == door.write(stepped("w", 1))
    assert {"w": "PENDING"} == door.statuses()


def test_an_interrupt_in_the_committer_is_its_callers_and_ends_nobody(store: Store, door: Door) -> None:
    """The committer's thread serves whoever comes next."""
    door.write(begun("w"))

    def stop(_: Conn) -> None:
        raise KeyboardInterrupt

    interrupted, after = Tx(store.lane, stop), door.put(stepped("w", 1))
    door.meet(interrupted)
    door.meet(after)

    assert isinstance(interrupted.error, KeyboardInterrupt)
    assert (True,) == after.result


def test_a_transaction_that_was_left_open_is_swept_up(store: Store, door: Door) -> None:
    """An interrupt between two statements of a predecessor: what it had written is undone, the next job works."""
    door.write(begun("w"))
    assert store.lane._conn is not None
    store.lane._conn.say(store.dialect.begin)
    store.lane._conn.say(f"UPDATE {door.prefix}workflow_status SET status = 'ERROR'")

    assert (True,) == door.write(stepped("w", 1))
    assert {"w": "PENDING"} == door.statuses()


def test_a_task_that_is_cancelled_while_it_waits_harms_no_other(door: Door) -> None:
    """Two tasks wait for one commit; one is cancelled: the other gets its verdict, and both rows are written."""
    door.write(begun("w"), begun("v"))

    async def both() -> tuple[bool, ...]:
        tasks = [asyncio.ensure_future(door.put(stepped(each, 1)).wait()) for each in ("w", "v")]
        await asyncio.sleep(0)
        tasks[0].cancel()
        return await tasks[1]

    with door.busy():
        result = beside(asyncio.run, both())
        eventually(lambda: door.store.lane._waiting.qsize() == 2)

    assert (True,) == result.result(20)
    eventually(lambda: [("v", 1), ("w", 1)] == door.steps())


# -- the end ---------------------------------------------------------------------------------------------------


def test_a_job_that_comes_too_late_gets_the_farewell(store: Store, door: Door) -> None:
    """For a workflow it is control flow, for a caller outside an error; in both colours, with rows and with works."""
    store.close(farewell)

    for patience, error in ((None, DBOSRuntimeEndedError), (60.0, DBOSException)):
        for job in (door.put(begun("w"), patience_seconds=patience), Tx(store.lane, lambda _: 1, (), patience)):
            with pytest.raises(error):
                job.block()
            with pytest.raises(error):
                asyncio.run(_awaited(job))


def test_a_job_that_waits_when_the_lane_closes_gets_the_farewell(
    store: Store, door: Door, new_store: Callable[[], Store]
) -> None:
    """Nobody is left waiting, and nothing is written after the close."""
    with store.lane.stopped():
        jobs = [door.put(begun(f"w-{number}")) for number in range(5)]
        waiting = [beside(job.block) for job in jobs]
        eventually(lambda: all(job._lock is not None for job in jobs))
        store.close(farewell)

    assert [DBOSRuntimeEndedError] * 5 == [type(each.exception(20)) for each in waiting]
    assert {} == Door(new_store()).statuses()


def test_a_lane_closes_while_the_database_is_away(
    store: Store, door: Door, failing: Callable[[int], list[BaseException]]
) -> None:
    """Whoever waits for the database gets the farewell, and the committer ends."""
    door.write(begun("w"))
    failing(10**6)
    jobs = [door.put(stepped("w", number)) for number in range(4)]
    waiting = [beside(job.block) for job in jobs]
    eventually(lambda: all(job._lock is not None for job in jobs) and len(door.transactions) > 5)
    store.close(farewell)

    assert [DBOSRuntimeEndedError] * 4 == [type(each.exception(20)) for each in waiting]
    committer = store.lane._committer
    assert committer is not None
    eventually(lambda: not committer.is_alive())


class HeldBack(queue.SimpleQueue[Any]):
    """Keeps from the committer what waits, until it may have it; and closes the lane when the second job comes."""

    def __init__(self, close: Callable[[], None]) -> None:
        self.close, self.may_take, self.jobs = close, threading.Event(), 0

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        assert self.may_take.wait(LIMIT_SECONDS)
        return super().get(block, timeout)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        self.jobs += item is not None
        if item is not None and self.jobs == 2:
            self.close()
        super().put(item)


def test_the_committer_ends_also_where_another_thread_empties_the_queue(store: Store, door: Door) -> None:
    """Who hands a job over while the lane closes refuses what waits, and finds the committer's word to end there."""
    store.lane._waiting = held = HeldBack(lambda: store.close(farewell))
    for number in range(2):
        store.lane.hand_over(door.put(begun(f"w-{number}")))

    held.may_take.set()

    committer = store.lane._committer
    assert committer is not None
    eventually(lambda: not committer.is_alive())


async def _awaited(job: object) -> object:
    return await job.wait()  # type: ignore[attr-defined]
