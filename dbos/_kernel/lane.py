"""The one door through which everything is written, and the group commit behind it.

Whoever finds the door open writes at once, in its own thread: a lone caller pays for nothing but its commit.
Whoever finds it shut leaves its job to the committer, which takes all that is waiting into one transaction, so
that under load one fsync carries many steps. Jobs of one batch are of callers that all still wait, so none can
depend on another: their rows may be written in any order, kind by kind.

A job is done again after a transient error (only the committer does so), and alone after its batch failed, so
what it does must bear doing twice: rows are keyed, and a work is a function of the connection.

Interrupts: a KeyboardInterrupt may strike between any two bytecodes of the main thread. The door is a lock that
knows its owner, nobody's job but the caller's own is written by a caller, and who enters first sweeps up a
transaction that an interrupted predecessor left open.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from _thread import allocate_lock
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dbos._kernel.forks import farewell_of_fork
from dbos._kernel.herald import announcements, notify
from dbos._kernel.job import Job, Short
from dbos.error import DBOSDatabaseUnavailableError

if TYPE_CHECKING:
    from dbos._kernel.bell import Channel
    from dbos._kernel.clock import Clock
    from dbos._kernel.dialect import Dialect
    from dbos._kernel.statement import Conn, Entry, Kind

# Makes the error for whoever comes too late: for a workflow (True) control flow that it cannot swallow, for any other
# caller an ordinary error. A new one each time, because each is raised in a thread of its own.
Farewell = Callable[[bool], BaseException]

# Which connection asked, and what it was told: each of them counts from a number of its own.
Version = tuple[int, int]

logger = logging.getLogger("dbos")


# Waits of the committer between two tries: from the first to the last, doubling.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.001, 0.5
# So many jobs make one commit: more would keep the first of them waiting for nothing.
LARGEST_BATCH = 500
# From so many waiting jobs on the lane is busy.
MANY_WAITING = 8


class Lane:
    """Writes jobs through one connection, one transaction at a time."""

    def __init__(
        self,
        dialect: Dialect,
        connect: Callable[[], Conn],
        discard: Callable[[Conn], None],
        ring: Callable[[Iterable[Channel]], None],
        clock: Clock,
    ) -> None:
        self._dialect, self._connect, self._discard, self._ring, self._clock = dialect, connect, discard, ring, clock
        self._conn: Conn | None = None
        self._door = threading.RLock()
        self._waiting: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._closed: Farewell | None = None
        #: Why nothing may be written at all, where that is so.
        self.refusal: Callable[[], BaseException] | None = None
        #: Whether other processes are told of rings in the same commit: by who has nobody else to tell them.
        self.announces = False
        #: What others have written, as numbers that their commits change, and when they were read last.
        self.version: tuple[Version | None, float] = (None, 0.0)
        self._connections = 0
        #: Why the last batch failed.
        self._trouble: BaseException | None = None
        self._stopping = allocate_lock()
        self._stopping.acquire()
        self._committer: threading.Thread | None = None
        self._starting = threading.Lock()

    # -- the two ways in ---------------------------------------------------------------------------------------

    def write(self, job: Job[Any]) -> Any:
        """Do the job, in this thread or the committer's, and return its result when it is committed."""
        self.leave(job)
        return self.settle(job)

    async def write_async(self, job: Job[Any]) -> Any:
        """Leave the job to the committer and await its result."""
        self.hand_over(job)
        return await self.settle_async(job)

    def leave(self, job: Job[Any]) -> None:
        """Do the job in this thread if the door is open; else leave it to the committer."""
        served = False
        try:
            if (job.behind is None or job.behind.done) and self._door.acquire(blocking=False):
                self._check_open(job)
                served = self._serve([job])
        finally:
            # Asked of the lock and not of a variable: an interrupt may come between taking it and noting so.
            if self._door._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 - what Condition asks too
                self._door.release()
        if not served:
            self.hand_over(job)

    def settle(self, job: Job[Any]) -> Any:
        """Wait for a job in this thread; its result when it is committed."""
        if not job.done:
            lock = job.expect()
            until = None if job.patience_seconds is None else self._clock.patience() + job.patience_seconds
            # Asked again after the lock is there: it may have been done between the two looks.
            while not job.done and not lock.acquire(True, 1.0):
                if until is not None and self._clock.patience() > until:
                    raise _given_up(job)
        if job.error is not None:
            raise job.error
        return job.result

    async def settle_async(self, job: Job[Any]) -> Any:
        """Await a job that was handed over; its result when it is committed."""
        future = job.expect_async()
        if job.done:
            future.set_result(None)
        if job.patience_seconds is None:
            await future
        else:
            try:
                await asyncio.wait_for(asyncio.shield(future), job.patience_seconds)
            except TimeoutError:
                raise _given_up(job) from None
        if job.error is not None:
            raise job.error
        return job.result

    @property
    def is_busy(self) -> bool:
        """Whether so many wait already that one more had better not."""
        return self._waiting.qsize() >= MANY_WAITING

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Nobody writes through this lane inside the block."""
        with self._door:
            self._check_open()
            yield

    def glance(self) -> Version | None:
        """The version of what others have written; where the lane is busy writing, as it read it a moment ago."""
        if self._door.acquire(blocking=False):
            try:
                if self._closed is None:
                    self._observe(self._ready())
            finally:
                self._door.release()
        return self.version[0]

    def close(self, farewell: Farewell) -> None:
        """Refuse everything from now on, with the error that `farewell` makes; what waits is refused too."""
        with self._door:
            if self._closed is None:
                self._closed = farewell
                self._stopping.release()
                self._waiting.put(None)
            self.drop_connection()

    def after_fork(self) -> None:
        self._closed, self._door, self._starting = farewell_of_fork, threading.RLock(), threading.Lock()

    def _check_open(self, job: Job[Any] | None = None) -> None:
        if self.refusal is not None:
            raise self.refusal()
        if self._closed is not None:
            raise self._closed(job is not None and job.patience_seconds is None)

    def hand_over(self, job: Job[Any]) -> None:
        """Leave a job to the committer."""
        self._check_open(job)
        if self._committer is None:
            with self._starting:
                if self._committer is None:
                    self._committer = threading.Thread(target=self._commit_forever, name="dbos-committer", daemon=True)
                    self._committer.start()
        self._waiting.put(job)
        if self._closed is not None:  # closed meanwhile: nobody may come to look at the queue again
            self._refuse_waiting()

    # -- the committer -----------------------------------------------------------------------------------------

    def _commit_forever(self) -> None:
        while True:
            batch = self._take_waiting(self._waiting.get())
            with self._door:
                # The door stays shut while jobs come: who finds it open writes alone, and makes the others wait.
                while batch and self._closed is None and self._serve(batch):
                    batch = self._take_waiting(None)
            if self._closed is None:
                self._insist([job for job in batch if not job.done])
            if self._closed is not None:
                self._refuse([job for job in batch if not job.done])
                self._refuse_waiting()
                return

    def _take_waiting(self, first: Job[Any] | None) -> list[Job[Any]]:
        batch = [] if first is None else [first]
        try:
            while len(batch) < LARGEST_BATCH:
                job = self._waiting.get_nowait()
                if job is not None:
                    batch.append(job)
        except queue.Empty:
            pass
        return batch

    def _insist(self, batch: list[Job[Any]]) -> None:
        """Serve the batch, however long the database takes to come back."""
        pause, complained = FIRST_RETRY_SECONDS, False
        while batch:
            with self._door:
                if self._closed is not None:
                    self._refuse(batch)
                    return
                if self._serve(batch):
                    break
            batch = [job for job in batch if not job.done and not job.abandoned]
            if pause >= LAST_RETRY_SECONDS and not complained:
                complained = True
                logger.warning("The database is busy or away; %d writes wait for it: %s", len(batch), self._trouble)
            if self._stopping.acquire(True, pause):
                self._stopping.release()
            pause = min(pause * 2, LAST_RETRY_SECONDS)
            batch += self._take_waiting(None)  # what fails for one row, such as a full disk, may not for the next
        if complained:
            logger.warning("The database is back")

    def _refuse_waiting(self) -> None:
        is_told = False
        try:
            while True:
                job = self._waiting.get_nowait()
                if job is None:
                    is_told = True
                else:
                    self._refuse([job])
        except queue.Empty:
            if is_told:  # the word to end is the committer's, which would wait for it for ever
                self._waiting.put(None)

    def _refuse(self, jobs: list[Job[Any]]) -> None:
        for job in jobs:
            if self._closed is not None:
                job.error = self._closed(job.patience_seconds is None)
        self._deliver(jobs)

    # -- behind the door ---------------------------------------------------------------------------------------

    def _serve(self, jobs: list[Job[Any]]) -> bool:
        """Write the rows of all jobs in one transaction, then each work in its own. False: try again later."""
        joins = self._dialect.single_writer  # elsewhere rows go without waiting for an answer, and works do not
        rows = [job for job in jobs if job.work is None]
        short = [job for job in jobs if joins and type(job) is Short]
        works = [job for job in jobs if job.work is not None and not (joins and type(job) is Short)]
        together = self._write_together if short else self._write_rows
        done = self._attempt([*rows, *short], together) if rows or short else True
        for job in works:
            done = self._attempt([job], self._do_work) and done
        if done and self._conn is not None:
            self._observe(self._conn)
        return done

    def _observe(self, conn: Conn) -> None:
        # On this connection, for which our own commits do not count as changes. The time before the look.
        now, number = self._clock.monotonic(), self._dialect.version(conn)
        self.version = (None if number is None else (self._connections, number), now)

    def _attempt(self, jobs: list[Job[Any]], act: Callable[[Conn, list[Job[Any]]], None]) -> bool:
        behind = jobs[0].behind
        if len(jobs) == 1 and behind is not None and not behind.done:
            return False  # what it must not overtake failed for now
        try:
            act(self._ready(), jobs)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the jobs
            self._sweep(error)
            self._trouble = error
            # Where the disk is full there may still be room for the others.
            if self._dialect.is_transient(error) and not (len(jobs) > 1 and self._dialect.is_full(error)):
                return False
            if len(jobs) > 1:
                return all([self._attempt([job], act) for job in jobs])  # noqa: C419 - each, also after a refusal
            jobs[0].error = self._dialect.described(error)
        except BaseException as interrupt:
            self._sweep(interrupt)
            if threading.current_thread() is not self._committer:
                raise
            for job in jobs:  # whose it is; without a committer everybody would wait for ever
                job.error = interrupt
        self._deliver(jobs)
        return True

    def _write_together(self, conn: Conn, jobs: list[Job[Any]]) -> None:
        """Write rows and do short works in one transaction. A work that fails takes nobody with it."""
        conn.say(self._dialect.begin)
        rows = [job for job in jobs if job.work is None]
        if rows:
            self._write_rows(conn, rows, begun=True)
        for job in jobs:
            if job.work is not None:
                self._do_within(conn, job)
        conn.say("COMMIT")

    def _do_within(self, conn: Conn, job: Job[Any]) -> None:
        job.error = None
        conn.say("SAVEPOINT work")
        try:
            job.result = job.work(conn) if job.work else None
        except Exception as error:
            if self._dialect.is_transient(error) or not self._dialect.in_transaction(conn.raw):
                raise
            conn.say("ROLLBACK TO work")
            job.error = self._dialect.described(error)
        conn.say("RELEASE work")

    def _write_rows(self, conn: Conn, jobs: list[Job[Any]], *, begun: bool = False) -> None:
        groups: dict[Kind, list[Entry]] = {}
        for job in jobs:
            for entry in job.entries:
                groups.setdefault(entry.kind, []).append(entry)
        if self.announces:
            told = announcements(channel for job in jobs for channel in job.rings)
            if told:
                groups[told[0].kind] = told
        kinds = sorted(groups, key=_rank)
        verdicts = conn.write([groups[kind] for kind in kinds], begun=begun)
        # Each kind's verdicts are in the order in which its entries were met above.
        answers = {kind: iter(each) for kind, each in zip(kinds, verdicts, strict=True)}
        for job in jobs:
            job.result = tuple(next(answers[entry.kind]) for entry in job.entries)

    def _do_work(self, conn: Conn, jobs: list[Job[Any]]) -> None:
        (job,) = jobs
        conn.say(self._dialect.begin)
        job.result = job.work(conn) if job.work else None
        if self.announces:
            notify(conn, job.rings)
        conn.say("COMMIT")

    def _deliver(self, jobs: list[Job[Any]]) -> None:
        rings = [channel for job in jobs if job.error is None for channel in job.rings]
        loops: dict[asyncio.AbstractEventLoop, list[Job[Any]]] = {}
        for job in jobs:
            loop = job.settle()
            if loop is not None:
                loops.setdefault(loop, []).append(job)
        for loop, waiting in loops.items():
            try:
                loop.call_soon_threadsafe(_settle_all, waiting)  # one wake-up for all of them
            except RuntimeError:  # the loop is closed: nobody is left to be told
                logger.debug("An event loop closed before its writes were done")
        if rings:
            self._ring(rings)

    def _ready(self) -> Conn:
        if self._conn is None:
            self._conn = self._connect()
            self._connections += 1
        elif self._dialect.in_transaction(self._conn.raw):  # an interrupted predecessor left it
            self._conn.say("ROLLBACK")
        return self._conn

    def _sweep(self, error: BaseException) -> None:
        """Leave no transaction open after an error, and no connection that is of no more use."""
        conn = self._conn
        if conn is None:
            return
        try:
            if self._dialect.is_disconnect(error, conn.raw):
                self.drop_connection()
            elif self._dialect.in_transaction(conn.raw):
                conn.say("ROLLBACK")
        except self._dialect.driver_error:
            self.drop_connection()

    def drop_connection(self) -> None:
        """Connect afresh next time."""
        with self._door:
            conn, self._conn = self._conn, None
            if conn is not None:
                self._discard(conn)


def _given_up(job: Job[Any]) -> BaseException:
    job.abandoned = True
    return DBOSDatabaseUnavailableError(
        f"The database did not answer for {job.patience_seconds:.0f} seconds. What was asked for may not have happened; "
        "ask again with the same workflow id or idempotency key when it is back."
    )


def _settle_all(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        job.settle_on_loop()


def _rank(kind: Kind) -> int:
    return kind.rank
