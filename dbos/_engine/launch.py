"""Launching and ending a runtime: the one place that puts all parts together.

A launch that fails leaves nothing behind: each part is taken down again in reverse order, and the next launch in
the same process starts from nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from dbos._engine import dispatch
from dbos._engine.dispatch import REGISTERED, Dispatcher, Promoter
from dbos._engine.ownership import Heart, Keeper, living
from dbos._engine.recovery import recover
from dbos._engine.runtime import Runtime
from dbos._engine.watch import LoopWatch
from dbos._kernel.bell import Bell
from dbos._kernel.codec import Codec
from dbos._kernel.ear import ear_for
from dbos._kernel.migrate import ensure_database, migrate, verify, verify_database
from dbos._kernel.model import PENDING
from dbos._kernel.plan import run
from dbos._kernel.statement import has_status, statement
from dbos._kernel.store import Store
from dbos.error import DBOSException, DBOSRuntimeEndedError

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.sql.expression import Executable

    from dbos._engine.registry import Registry
    from dbos._engine.transaction import Application
    from dbos._kernel.bell import Look
    from dbos._kernel.clock import Clock
    from dbos._kernel.codec import Serializer
    from dbos._kernel.lane import Farewell
    from dbos._kernel.schema import Tables
    from dbos._kernel.service import Service
    from dbos._kernel.statement import Conn

logger = logging.getLogger("dbos")


@dataclass(frozen=True)
class Settings:
    """What a runtime is launched with."""

    make_engine: Callable[[], Engine]
    #: The engine was given by the user and stays open.
    keeps_engine: bool
    #: Tables that are missing are made; else they must be there.
    migrates: bool
    #: The database of transactions.
    make_application: Callable[[Store], Application]
    schema: str
    executor_id: str
    app_id: str
    app_version: str
    serializer: Serializer | None
    max_threads: int | None
    #: The event loop for async workflows that nobody calls from a loop of theirs; None: one of our own.
    main_loop: asyncio.AbstractEventLoop | None
    clock: Clock


# How long the services may take to end before everything is taken from them.
ORDERLY_END_SECONDS = 2


class Launched:
    """A runtime with its services."""

    def __init__(self, runtime: Runtime, registry: Registry, services: list[Service], keeper: Keeper) -> None:
        self.runtime, self.registry, self.services, self.keeper = runtime, registry, services, keeper
        # Free until somebody takes it down; another thread may do so while this one launches or ends it.
        self._standing = threading.Lock()

    def _on_change(self) -> None:
        self.runtime.bell.ring_here([REGISTERED])

    def drain(self, seconds: float) -> int:
        """Claim nothing more, let runs finish for so long, and say how many are left.

        The listener still hears who is cancelled and what is awaited, and the heart keeps the lease.
        """
        claiming = [service for service in self.services if not service.serves_to_the_end]
        for service in claiming:
            service.stop()
        # One may be in the middle of a claim, and what it took is among the runs then; but not where the database is away.
        until = self.runtime.clock.patience() + ORDERLY_END_SECONDS
        for service in claiming:
            service.join(max(0.0, until - self.runtime.clock.patience()))
        return self._let_finish(seconds)

    def end(self, completion_timeout_seconds: float = 0) -> None:
        """End in order: let runs finish, hand over what does not, and take everything down."""
        if self.drain(completion_timeout_seconds):
            logger.warning("%d workflows are still running and are handed over", len(self.runtime.runs))
        self._take_down(self.keeper.release)

    def kill(self, farewell: Farewell) -> None:
        """End without a word, as a process does that is killed: nothing more is written. For tests."""
        living.discard(self.runtime.owner_id)
        for service in self.services:
            service.stop()
        self.runtime.close(farewell)
        self._take_down(lambda: None)

    def _let_finish(self, seconds: float) -> int:
        runtime = self.runtime
        until_ms = runtime.clock.now_ms() + int(seconds * 1000)
        while runtime.runs and runtime.clock.now_ms() < until_ms:
            with runtime.bell.listening(*(("done", workflow_id) for workflow_id in list(runtime.runs))) as waiter:
                if runtime.runs:
                    waiter.block(runtime.clock, until_ms)
        return len(runtime.runs)

    def _take_down(self, last_word: Callable[[], None]) -> None:
        if not self._standing.acquire(blocking=False):
            return
        self.registry.on_change.remove(self._on_change)
        for service in self.services:
            service.stop()
        for service in self.services:
            service.join(ORDERLY_END_SECONDS)  # longer only where the database is away; then closing helps
        try:
            last_word()
        except Exception as error:  # noqa: BLE001 - the database may be gone; others take over after the lease
            logger.warning("The lease could not be returned: %s", error)
        finally:
            living.discard(self.runtime.owner_id)
            self.runtime.close(farewell_of_destroy(self.runtime.store))
        for service in self.services:
            if not service.join(10):
                logger.warning("The %s does not end", service.name)


def farewell_of_destroy(store: Store) -> Farewell:
    """What is raised by what comes after `DBOS.destroy()`."""
    place = f"{store.engine.url.get_backend_name()} database {store.engine.url.database!r}"

    def farewell(inside: bool) -> BaseException:
        if inside:
            return DBOSRuntimeEndedError("DBOS was destroyed; the workflow is handed over")
        return DBOSException(f"DBOS was destroyed; launch it again on the {place} before you use what comes from there")

    return farewell


def launch(
    settings: Settings,
    registry: Registry,
    looks: Mapping[str, Look],
    more_services: Sequence[Callable[[Runtime], Service]] = (),
    make_services: Callable[[Runtime], Sequence[Service]] = lambda _: (),
) -> Launched:
    """Open the database, become one of the living, take up unfinished work, and start the services.

    `looks` and `more_services` are what the features add, `make_services` what a configuration asks for.
    """
    with ExitStack() as undo:
        runtime = _open(settings, registry, undo)
        for kind, look in looks.items():
            runtime.bell.add_look(kind, look)
        keeper, dispatcher = Keeper(runtime), Dispatcher(runtime)
        keeper.take_lease()
        undo.callback(keeper.release)
        services = [ear_for(runtime), Heart(keeper), keeper, dispatcher, Promoter(runtime), LoopWatch(runtime)]
        services += [*(make(runtime) for make in more_services), *make_services(runtime)]
        launched = Launched(runtime, registry, services, keeper)
        registry.on_change.append(launched._on_change)  # noqa: SLF001 - its own
        undo.callback(registry.on_change.remove, launched._on_change)  # noqa: SLF001 - its own
        keeper.take_over()
        run(recover(runtime.here, runtime, [runtime.executor_id]))
        for service in services:
            undo.callback(service.join, 10)
            undo.callback(service.stop)
            service.start()
        undo.pop_all()
        return launched


def _open(settings: Settings, registry: Registry, undo: ExitStack) -> Runtime:
    engine = settings.make_engine()
    if not settings.keeps_engine:
        undo.callback(engine.dispose)
        (ensure_database if settings.migrates else verify_database)(engine)
    bell = Bell()
    store = Store(engine, settings.schema, settings.clock, bell.ring, owns_engine=not settings.keeps_engine)
    undo.callback(store.close, farewell_of_destroy(store))
    store.open()
    (migrate if settings.migrates else verify)(store)
    runtime = Runtime(
        store,
        bell,
        settings.clock,
        Codec(settings.serializer),
        registry,
        executor_id=settings.executor_id,
        app_version=settings.app_version,
        app_id=settings.app_id,
        max_threads=settings.max_threads,
        main_loop=settings.main_loop,
    )
    runtime.application = settings.make_application(store)
    undo.callback(runtime.application.close)
    if settings.migrates:
        runtime.application.prepare()
    else:
        runtime.application.check()
    bell.add_look("stop", lambda conn, ids: look_for_stop(runtime, conn, ids))
    for kind, look in dispatch.looks(runtime).items():
        bell.add_look(kind, look)
    return runtime


@statement
def OWNERS(t: Tables) -> Executable:
    """Who runs these workflows."""
    c = t.status.c
    return select(c.workflow_uuid, c.owner_xid).where(
        t.dialect.among(c.workflow_uuid, "workflow_ids"), has_status(t, PENDING)
    )


def look_for_stop(runtime: Runtime, conn: Conn, workflow_ids: list[str]) -> list[str]:
    """The runs of ours that were cancelled or taken over."""
    owners = {row.workflow_uuid: row.owner_xid for row in conn.run(OWNERS, workflow_ids=workflow_ids)}
    ours = [(workflow_id, runtime.running(workflow_id)) for workflow_id in workflow_ids]
    return [workflow_id for workflow_id, run in ours if run is not None and owners.get(workflow_id) != run.owner]
