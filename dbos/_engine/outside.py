"""The ground of a client: it looks in from outside.

It runs nothing, holds no lease, and makes no database and no table. It connects when it is asked something for
the first time, or before, to say at once what is wrong; it listens only from when somebody waits, so a client that
only lists has one connection and no thread. What it rings, it tells other processes in the commit itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect
from sqlalchemy.exc import OperationalError

from dbos._engine.ownership import database_now_ms
from dbos._kernel.bell import Bell
from dbos._kernel.codec import Codec
from dbos._kernel.ear import ear_for
from dbos._kernel.forks import file_of, refuse_file_of_parent
from dbos._kernel.herald import announcements
from dbos._kernel.job import Put
from dbos._kernel.migrate import is_complete
from dbos._kernel.plan import Effect, loop_is_running, perform
from dbos._kernel.scope import Ground
from dbos._kernel.store import PATIENCE_SECONDS, ReadOnly, Store
from dbos.error import DBOSException, DBOSInitializationError, DBOSSchemaError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dbos._engine.transaction import Application
    from dbos._kernel.bell import Channel, Look
    from dbos._kernel.clock import Clock
    from dbos._kernel.codec import Serializer
    from dbos._kernel.scope import Here
    from dbos._kernel.service import Service

# Another program may migrate the tables while we are idle: after so long they are looked at again.
LAYOUT_SECONDS = 10.0
ORDERLY_END_SECONDS = 2


class Outside(Ground):
    """The database as a client reaches it."""

    impatient = ("done", "stream_at")

    def __init__(
        self,
        engine: Engine,
        *,
        owns_engine: bool,
        schema: str,
        serializer: Serializer | None,
        clock: Clock,
        looks: Mapping[str, Look],
        make_application: Callable[[Store], Application | None] = lambda _: None,
        read_only: ReadOnly | None = None,
    ) -> None:
        bell = Bell()
        # Only here: the lane tells other processes by itself.
        store = Store(engine, schema, clock, bell.ring_here, owns_engine=owns_engine, read_only=read_only)
        super().__init__(store, bell, clock, Codec(serializer), executor_id="", app_version="")
        #: The database of the application's transactions, if we know it: to delete what it recorded of a workflow.
        self.application = make_application(store)
        if store.dialect.notifies:
            store.lane.announces = True
            bell.herald = self._tell
        for kind, look in looks.items():
            bell.add_look(kind, look)
        self._ear: Service | None = None
        self._lock = threading.RLock()
        self._is_open = self._is_closed = False
        self._looked_at = float("-inf")

    # -- the connection ----------------------------------------------------------------------------------------

    async def place(self) -> Here:
        """Where operations of the client are performed, connected: a plan."""
        if self.clock.monotonic() - self._looked_at > LAYOUT_SECONDS:
            await Connect(self)
        return self.here

    def connect(self) -> None:
        """Connect and see that the tables are there, or see what they look like now."""
        if self._is_closed:
            raise farewell(False)
        if self._is_open:
            self.store.refresh_layout()
        else:
            with self._lock:
                if not self._is_open:
                    self._open()
        self._looked_at = self.clock.monotonic()

    def _open(self) -> None:
        store = self.store
        url = store.engine.url
        refuse_file_of_parent(url)
        file = file_of(url)
        if file is not None and not file.exists():  # SQLite would make it
            raise DBOSInitializationError(
                f"There is no system database {str(file)!r}, and a client makes none. Launch the application once."
            )
        # By the engine, because a connection of ours would put a SQLite file of another kind into WAL mode.
        with _explained(file, is_reader=store.read_only is not None), store.engine.connect() as conn:
            if not inspect(conn).has_table("workflow_status", schema=store.tables.schema):
                where = f" in schema {store.schema!r}" if store.tables.schema else ""
                raise DBOSSchemaError(
                    f"The database {url.database!r} has no tables of DBOS{where}, and a client makes none. "
                    "Launch the application once, or call run_dbos_database_migrations()."
                )
        store.open()
        store.read(is_complete)
        store.refresh_layout()
        asked_ms = self.clock.now_ms()
        self.clock.align(asked_ms, store.read(database_now_ms))
        self._is_open = True

    def look_around(self) -> None:
        self.connect()

    def close(self) -> None:
        """Disconnect; whoever waits is told."""
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
        if was_closed:
            return
        if self._ear is not None:
            self._ear.stop()
            self._ear.join(ORDERLY_END_SECONDS)
        self._looked_at = float("-inf")
        self.store.close(farewell)
        if self.application is not None:
            self.application.close()
        self.bell.wake_all()

    # -- rings -------------------------------------------------------------------------------------------------

    def expect_rings(self, until_ms: int | None) -> None:
        if self._ear is None:
            with self._lock:
                if self._ear is None and not self._is_closed:
                    self._ear = ear_for(self)
                    self._ear.start()

    def _tell(self, channels: list[Channel]) -> None:
        """Tell others of rings that no write carried."""
        entries = tuple(announcements(channels))
        if not entries:
            return
        job = Put(self.store.lane, entries, (), PATIENCE_SECONDS)
        if loop_is_running():
            self.store.readers.submit(perform, job)
        else:
            perform(job)


@contextmanager
def _explained(file: Path | None, *, is_reader: bool) -> Iterator[None]:
    """Say what can be done about a SQLite file that cannot be opened for reading."""
    try:
        yield
    except OperationalError as error:
        if file is None or not is_reader:
            raise
        raise DBOSInitializationError(
            f"The file {str(file)!r} cannot be read: {error.orig}. A file in WAL mode is read through its neighbours "
            f"{file.name}-wal and {file.name}-shm, which are there while an application has it open, and otherwise made: "
            "get the right to read them, or to write into the folder; or copy the file with its -wal beside it and read "
            "the copy. If nobody writes to it at all, add ?immutable=1 to the URL."
        ) from None


class Connect(Effect[None]):
    """Connect a client that is not connected, or look again at what it is connected to."""

    __slots__ = ("ground",)

    def __init__(self, ground: Outside) -> None:
        self.ground = ground

    def block(self) -> None:
        self.ground.connect()

    async def wait(self) -> None:
        await self.ground.store.readers.call(self.ground.connect)


def farewell(_: bool) -> BaseException:
    """What is raised by what comes after `destroy()`."""
    return DBOSException("The DBOSClient was destroyed; make a new one")
