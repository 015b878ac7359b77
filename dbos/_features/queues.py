"""Queues that are registered in the database: one truth for all processes, changed while they run.

They stand in a table of their own with the columns that later DBOS releases use, or in theirs where the database
has it. A change rings everybody; each process reads the table again and serves what it finds.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sqlalchemy import BigInteger, Float, Integer, Text, bindparam, delete, desc, literal, select, update

from dbos._engine.dispatch import REGISTERED
from dbos._engine.queue import (
    DEFAULT_INTERVAL_SECONDS,
    QueueRateLimit,
    QueueSpec,
    checked_interval,
    checked_queue_name,
    limits_of,
)
from dbos._kernel.journal import refuse_in_transaction
from dbos._kernel.naming import new_id, sought
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.service import Service
from dbos._kernel.statement import statement
from dbos.error import DBOSException, DBOSSchemaError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.sql.expression import Executable
    from sqlalchemy.types import TypeEngine

    from dbos._engine.runtime import Runtime
    from dbos._kernel.bell import Channel
    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn, Row

logger = logging.getLogger("dbos")

# Rung when a registered queue changes.
QUEUES = ("queues", "")

OnConflict = Literal["update_if_latest_version", "always_update", "never_update"]
POLICIES = ("update_if_latest_version", "always_update", "never_update")


class QueueSettings(NamedTuple):
    """A registered queue: what may run at once and start, as a whole and in each partition."""

    name: str
    global_concurrency: int | None = None
    worker_concurrency: int | None = None
    limiter: QueueRateLimit | None = None
    partition_concurrency: int | None = None
    partition_worker_concurrency: int | None = None
    partition_limiter: QueueRateLimit | None = None
    polling_interval_sec: float = DEFAULT_INTERVAL_SECONDS

    @property
    def is_partitioned(self) -> bool:
        return any(
            each is not None
            for each in (self.partition_concurrency, self.partition_worker_concurrency, self.partition_limiter)
        )

    def spec(self) -> QueueSpec:
        """The queue as it is served; raises ValueError for limits that contradict each other."""
        whole = limits_of("", self.global_concurrency, self.worker_concurrency, self.limiter)
        each = limits_of(
            "partition_", self.partition_concurrency, self.partition_worker_concurrency, self.partition_limiter
        )
        for what, part, of, limit in (
            ("partition_concurrency", each.concurrency, "global_concurrency", whole.concurrency),
            ("partition_worker_concurrency", each.worker_concurrency, "worker_concurrency", whole.worker_concurrency),
        ):
            if part is not None and part < 1:
                raise ValueError(f"{what} must be at least 1, not {part}")
            if part is not None and limit is not None and part > limit:
                raise ValueError(f"{what} must be less than or equal to {of}")
        return QueueSpec(
            self.name, whole, each if self.is_partitioned else None, True, checked_interval(self.polling_interval_sec)
        )

    def columns(self) -> dict[str, Any]:
        """What is stored."""
        limiter: Mapping[str, Any] = self.limiter or {}
        partition_limiter: Mapping[str, Any] = self.partition_limiter or {}
        return {
            "concurrency": self.global_concurrency,
            "worker_concurrency": self.worker_concurrency,
            "rate_limit_max": limiter.get("limit"),
            "rate_limit_period_sec": limiter.get("period"),
            "partition_concurrency": self.partition_concurrency,
            "partition_worker_concurrency": self.partition_worker_concurrency,
            "partition_rate_limit_max": partition_limiter.get("limit"),
            "partition_rate_limit_period_sec": partition_limiter.get("period"),
            "polling_interval_sec": self.polling_interval_sec,
        }


def settings_of(row: Row) -> QueueSettings:
    return QueueSettings(
        row.name,
        row.concurrency,
        row.worker_concurrency,
        _limiter(row.rate_limit_max, row.rate_limit_period_sec),
        row.partition_concurrency,
        row.partition_worker_concurrency,
        _limiter(row.partition_rate_limit_max, row.partition_rate_limit_period_sec),
        row.polling_interval_sec,
    )


def _limiter(limit: int | None, period: float | None) -> QueueRateLimit | None:
    return None if limit is None or period is None else QueueRateLimit(limit=limit, period=period)


# -- statements ------------------------------------------------------------------------------------------------

NAME: Any = bindparam("name", type_=Text())
NOW: Any = bindparam("now", type_=BigInteger())
STORED: dict[str, TypeEngine[Any]] = {
    "concurrency": Integer(),
    "worker_concurrency": Integer(),
    "rate_limit_max": Integer(),
    "rate_limit_period_sec": Float(),
    "partition_concurrency": Integer(),
    "partition_worker_concurrency": Integer(),
    "partition_rate_limit_max": Integer(),
    "partition_rate_limit_period_sec": Float(),
    "polling_interval_sec": Float(),
}


def _given() -> dict[str, Any]:
    return {name: bindparam(name, type_=type_) for name, type_ in STORED.items()}


@statement
def ADD_QUEUE(t: Tables) -> Executable:
    """Register a queue, unless there is one of that name."""
    values = {
        "queue_id": bindparam("queue_id", type_=Text()),
        "name": NAME,
        "priority_enabled": literal(True),
        "partition_queue": bindparam("partitioned"),
        "created_at": NOW,
        "updated_at": NOW,
        **_given(),
    }
    return t.dialect.insert(t.queues).values(values).on_conflict_do_nothing().returning(t.queues.c.name)  # type: ignore[no-any-return]  # as in `transitions`


@statement
def CHANGE_QUEUE(t: Tables) -> Executable:
    changed = update(t.queues).values(partition_queue=bindparam("partitioned"), updated_at=NOW, **_given())
    return changed.where(t.queues.c.name == NAME)


@statement
def REGISTERED_QUEUES(t: Tables) -> Executable:
    """All registered queues, by name."""
    columns = [t.queues.c[name] for name in ("name", "application_name", *STORED)]
    return select(*columns).order_by(t.queues.c.name)


@statement
def REGISTERED_QUEUE(t: Tables) -> Executable:
    return select(*(t.queues.c[name] for name in ("name", *STORED))).where(t.queues.c.name == NAME)


@statement
def FORGET_QUEUE(t: Tables) -> Executable:
    return delete(t.queues).where(t.queues.c.name == NAME)


@statement
def LATEST_VERSION(t: Tables) -> Executable:
    c = t.versions.c
    return select(c.version_name).order_by(desc(c.version_timestamp), desc(c.created_at), c.version_name).limit(1)


def look_for_changes(conn: Conn, _: list[str]) -> list[str]:
    """Whether there is anything to be read again."""
    return [""] if conn.run(REGISTERED_QUEUES) else []


# -- operations ------------------------------------------------------------------------------------------------


@op("DBOS.registerQueue")
async def register_queue(
    here: Here,
    name: str,
    *,
    worker_concurrency: int | None = None,
    global_concurrency: int | None = None,
    partition_concurrency: int | None = None,
    partition_worker_concurrency: int | None = None,
    partition_limiter: QueueRateLimit | None = None,
    limiter: QueueRateLimit | None = None,
    polling_interval_sec: float = DEFAULT_INTERVAL_SECONDS,
    on_conflict: OnConflict | None = None,
    concurrency: int | None = None,
) -> QueueSettings:
    """Register a queue in the database, for all processes, or change the one of that name.

    `global_concurrency` (`concurrency` is an older name of it) and `worker_concurrency` bound what runs at once in all
    processes and in each, `limiter` what starts; with any of the `partition_` limits the queue has partitions, and these
    hold in each. `on_conflict` says what happens to an existing one: "update_if_latest_version" (the default: changed
    only by the latest version of the application), "always_update" (a client's default) or "never_update".
    """
    refuse_in_transaction(here, "DBOS.registerQueue")
    if concurrency is not None and global_concurrency is not None:
        raise ValueError("Give only one of concurrency and global_concurrency: they are the same")
    policy = on_conflict or ("update_if_latest_version" if here.ground.app_version else "always_update")
    if policy not in POLICIES:
        raise ValueError(f"on_conflict must be one of {', '.join(POLICIES)}, not {policy!r}")
    wanted = QueueSettings(
        checked_queue_name(name),
        concurrency if global_concurrency is None else global_concurrency,
        worker_concurrency,
        limiter,
        partition_concurrency,
        partition_worker_concurrency,
        partition_limiter,
        polling_interval_sec,
    )
    wanted.spec()

    def work(conn: Conn) -> QueueSettings:
        if not has_queues(conn):
            raise DBOSSchemaError("The database has no place for queues yet: launch the application once")
        now = here.ground.clock.now_ms()
        values = {"name": name, "partitioned": wanted.is_partitioned, "now": now, **wanted.columns()}
        if conn.run(ADD_QUEUE, queue_id=new_id(), **values):
            return wanted
        found = settings_of(conn.run(REGISTERED_QUEUE, name=name)[0])
        if policy == "never_update":
            return found
        if policy == "update_if_latest_version" and conn.run(LATEST_VERSION)[0].version_name != here.ground.app_version:
            return found
        conn.run(CHANGE_QUEUE, **values)
        return wanted

    registered: QueueSettings = await here.tx(work, rings=[QUEUES])
    return registered


def has_queues(conn: Conn) -> bool:
    """Whether queues can be registered in this database: it is ours, or of a later release."""
    return conn.tables.layout.own or conn.tables.layout.split


@op("DBOS.retrieveQueue")
async def retrieve_queue(here: Here, name: str) -> QueueSettings | None:
    """Return the registered queue of that name, or None."""
    refuse_in_transaction(here, "DBOS.retrieveQueue")
    row = await here.read(
        lambda conn: conn.first(REGISTERED_QUEUE, name=sought(name, "A queue name")) if has_queues(conn) else None
    )
    return None if row is None else settings_of(row)


@op("DBOS.listQueues")
async def list_queues(here: Here, *, application_name: str | None = None) -> list[QueueSettings]:
    """Return the registered queues by name; with `application_name` those of that application only."""
    refuse_in_transaction(here, "DBOS.listQueues")
    rows = await here.read(lambda conn: conn.run(REGISTERED_QUEUES) if has_queues(conn) else [])
    return [settings_of(row) for row in rows if application_name is None or row.application_name == application_name]


@op("DBOS.deleteQueue")
async def delete_queue(here: Here, name: str) -> None:
    """Take a queue out of the database: nobody serves it any more, and what waits on it stays. Unknown: nothing."""
    refuse_in_transaction(here, "DBOS.deleteQueue")
    await here.tx(lambda conn: conn.run(FORGET_QUEUE, name=name) if has_queues(conn) else None, rings=[QUEUES])


async def change_queue(here: Here, name: str, **changes: Any) -> None:
    """Change some settings of a registered queue; the others stay."""

    def work(conn: Conn) -> None:
        row = conn.first(REGISTERED_QUEUE, name=name)
        if row is None:
            raise DBOSException(f"Queue {name!r} is not registered in the database; it may have been deleted")
        changed = settings_of(row)._replace(**changes)
        changed.spec()
        values = {"name": name, "partitioned": changed.is_partitioned, **changed.columns()}
        conn.run(CHANGE_QUEUE, now=here.ground.clock.now_ms(), **values)

    await here.tx(work, rings=[QUEUES])


class QueueWatcher(Service):
    """Keeps what this process knows of the registered queues up to date."""

    name = "queue-watcher"

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bell, runtime.clock)
        self.runtime = runtime

    def channels(self) -> Sequence[Channel]:
        return [QUEUES]

    def tick(self) -> None:
        found: dict[str, QueueSpec] = {}
        for row in self.runtime.store.read(lambda conn: conn.run(REGISTERED_QUEUES)):
            try:
                found[row.name] = settings_of(row).spec()
            except ValueError as error:
                logger.warning("The registered queue %s is not served: %s", row.name, error)
        if found != self.runtime.registered_queues:
            self.runtime.registered_queues = found
            self.bell.ring_here([REGISTERED])
