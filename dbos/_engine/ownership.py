"""Leases: who is alive, and what becomes of the work of those who are not.

Each launch holds one row, renewed by its heart, under an id that is never given twice. Work is owned by a
launch, not by an executor id: two processes that are both called `local` do not touch each other's runs, and a
kernel that was restarted does not mistake its predecessor's work for its own.

A launch is gone when its lease has ended by the database's clock, or when it was on this machine and its process
is no more: a neighbour need not wait for the lease. Its work goes back on the queues in the transaction that
removes its lease, so it is done once, by whoever comes first. A launch that was only asleep finds its lease
gone and takes a new one; its old runs are refused at their next write.
"""

from __future__ import annotations

import logging
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, bindparam, delete, select, text, update

from dbos._engine.transitions import CANCEL_EXPIRED, REQUEUE_OWNED
from dbos._engine.workflow import DEADLINES
from dbos._kernel.bell import done, queued, stop
from dbos._kernel.job import Tx
from dbos._kernel.model import INTERNAL_QUEUE, UNRESPONSIVE
from dbos._kernel.plan import perform
from dbos._kernel.service import Service
from dbos._kernel.statement import statement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.sql.expression import Executable

    from dbos._engine.runtime import Runtime
    from dbos._kernel.bell import Channel
    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn, Row

logger = logging.getLogger("dbos")

LEASE_MS, HEARTBEAT_MS = 10_000, 3_000
# How long an orderly end waits for a database that is away; then others wait for the end of the lease.
RELEASE_PATIENCE_SECONDS = 5

# The launches of this process that have not ended; tests end one without a word to simulate a death.
living: set[str] = set()


@statement
def TAKE_LEASE(t: Tables) -> Executable:
    """Hold a lease; again, where the first answer was lost."""
    return t.dialect.insert(t.leases).on_conflict_do_nothing()  # type: ignore[no-any-return]  # as in `transitions`


@statement
def RENEW_LEASE(t: Tables) -> Executable:
    c = t.leases.c
    renewed = update(t.leases).values(expires_at=bindparam("until", type_=BigInteger()))
    return renewed.where(c.owner_id == bindparam("owner")).returning(c.owner_id)


@statement
def END_LEASE(t: Tables) -> Executable:
    return delete(t.leases).where(t.leases.c.owner_id == bindparam("owner")).returning(t.leases.c.owner_id)


@statement
def OTHER_LEASES(t: Tables) -> Executable:
    return select(t.leases).where(t.leases.c.owner_id != bindparam("owner"))


class Keeper(Service):
    """Takes the lease and gives it back, takes over from the dead, and cancels what is past its deadline."""

    name = "keeper"
    serves_to_the_end = True

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bell, runtime.clock)
        self.runtime = runtime
        self._next_check_ms = 0

    def channels(self) -> Sequence[Channel]:
        return [DEADLINES]

    def tick(self) -> int | None:
        now_ms = self.clock.now_ms()
        self.take_over()  # a neighbour that died is found within a second
        self.cancel_expired()
        if now_ms >= self._next_check_ms:
            self.runtime.store.refresh_layout()
            self._next_check_ms = now_ms + HEARTBEAT_MS
        # Whoever died may have left deadlines behind: look every second, and exactly at those of our own runs.
        ours = [run.deadline_ms for run in list(self.runtime.runs.values()) if run.deadline_ms is not None]
        return min([self.clock.now_ms() + 1000, *(max(each, now_ms + 1) for each in ours)])

    # -- the lease ---------------------------------------------------------------------------------------------

    def take_lease(self) -> None:
        """Become one of the living. Before anything is claimed."""
        runtime = self.runtime
        living.add(runtime.owner_id)

        def work(conn: Conn) -> None:
            now_ms = database_now_ms(conn) or self.clock.now_ms()
            conn.run(
                TAKE_LEASE,
                owner_id=runtime.owner_id,
                executor_id=runtime.executor_id,
                application_version=runtime.app_version,
                host=this_host(),
                process=this_process(),
                started_at=now_ms,
                expires_at=now_ms + LEASE_MS,
            )

        perform(Tx(runtime.store.lane, work))

    def release(self) -> None:
        """Leave in order: give the work back and end the lease, so that others need not wait for it."""
        living.discard(self.runtime.owner_id)
        self._bury(self.runtime.owner_id, RELEASE_PATIENCE_SECONDS)

    # -- the dead ----------------------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Put the work of launches that are gone back on the queues."""
        owner = self.runtime.owner_id
        now_ms, leases = self.runtime.store.read(
            lambda conn: (database_now_ms(conn) or self.clock.now_ms(), conn.run(OTHER_LEASES, owner=owner))
        )
        for lease in leases:
            if (lease.expires_at <= now_ms or is_dead(lease)) and self._bury(lease.owner_id):
                facts = {"executor_id": lease.executor_id, "application_version": lease.application_version}
                self.runtime.report(UNRESPONSIVE, lease.executor_id, host=lease.host.partition("|")[0], **facts)

    def _bury(self, owner: str, patience_seconds: float | None = None) -> bool:
        """End a lease and free what it held; False: somebody else was faster."""

        def work(conn: Conn) -> list[Row] | None:
            if not conn.run(END_LEASE, owner=owner):
                return None
            return conn.run(REQUEUE_OWNED, owner_id=owner, now=self.clock.now_ms())

        freed = perform(Tx(self.runtime.store.lane, work, patience_seconds=patience_seconds))
        if freed:
            logger.info("%d workflows of a process that is gone wait to be taken up", len(freed))
            self.bell.ring([queued(name or INTERNAL_QUEUE) for name in {row.queue_name for row in freed}])
        return freed is not None

    # -- deadlines ---------------------------------------------------------------------------------------------

    def cancel_expired(self) -> None:
        """Cancel every workflow past its deadline, whoever runs it or does not."""
        expired = perform(Tx(self.runtime.store.lane, lambda conn: conn.run(CANCEL_EXPIRED, now=self.clock.now_ms())))
        if expired:
            ids = [row.workflow_uuid for row in expired]
            logger.info("Cancelled at their deadline: %s", ", ".join(ids[:10]))
            freed = [queued(each.name) for each in self.runtime.queues().values() if each.is_freed_by_ends]
            self.bell.ring([*(channel(each) for each in ids for channel in (stop, done)), *freed])


class Heart(Service):
    """Renews the lease and does nothing else, so that nothing which others wait for can cost it.

    The keeper may stand behind a write that stalls, and where every statement takes half a second its round takes longer
    than a lease.
    """

    name = "heart"
    serves_to_the_end = True

    def __init__(self, keeper: Keeper) -> None:
        super().__init__(keeper.bell, keeper.clock)
        self.keeper, self.runtime = keeper, keeper.runtime

    def tick(self) -> int:
        runtime = self.runtime

        def work(conn: Conn) -> tuple[bool, int | None]:
            measured_ms = database_now_ms(conn)
            now_ms = measured_ms or self.clock.now_ms()
            return bool(conn.run(RENEW_LEASE, owner=runtime.owner_id, until=now_ms + LEASE_MS)), measured_ms

        asked_ms = self.clock.now_ms()
        held, measured_ms = runtime.store.aside(work)
        self.clock.align(asked_ms, measured_ms)
        if not held:
            logger.warning("The lease of this process ran out while it did not run; its workflows went to others")
            for run in list(runtime.runs.values()):
                run.doubt()
            self.keeper.take_lease()
        return asked_ms + HEARTBEAT_MS


def database_now_ms(conn: Conn) -> int | None:
    """The database's time; None where it is this machine's."""
    question = conn.dialect.now
    return int(conn.run_once(text(question))[0].now) if question else None


def this_host() -> str:
    """This machine, this boot, and this container's view of processes: where a process id has one meaning."""
    parts = [platform.node()]
    sources: tuple[Callable[[], str], ...] = (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: str(Path("/proc/self/ns/pid").readlink()),
    )
    for read in sources:
        try:
            parts.append(read())
        except OSError:
            continue
    return "|".join(parts)


def this_process() -> str:
    """This process: its id, and when it began, because ids are given again."""
    return f"{os.getpid()}|{_begun(os.getpid())}"


def is_dead(lease: Row) -> bool:
    """Whether the process that held a lease is known to be gone. Unknown is no."""
    if lease.host != this_host():
        return False
    pid, _, begun = lease.process.partition("|")
    if int(pid) == os.getpid():
        return lease.process != this_process() or lease.owner_id not in living
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return bool(begun) and _begun(int(pid)) != begun


def _begun(pid: int) -> str:
    """When a process began, in ticks since the machine did; empty for one that has ended, or where nobody tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
