"""The database of one runtime or client: an engine, the lane that writes, and connections that read.

Everything that is written goes through `lane`; a read runs on its own connection and is repeated when that
connection turns out to be broken. The engine only makes connections: statements run on the driver.
"""

from __future__ import annotations

import functools
import logging
import queue
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy.pool import QueuePool

from dbos._kernel.forks import farewell_of_fork, leave_to_parent, refuse_file_of_parent, watch_forks
from dbos._kernel.job import Short
from dbos._kernel.lane import Farewell, Lane, Version
from dbos._kernel.layout import CLASSIC, Layout, layout_of
from dbos._kernel.plan import Effect
from dbos._kernel.pool import Pool
from dbos._kernel.schema import Tables
from dbos._kernel.statement import Compiler, Conn
from dbos.error import (
    DBOSDatabaseUnavailableError,
    DBOSInitializationError,
    DBOSQueryTimeoutError,
    DBOSReadOnlyError,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dbos._kernel.bell import Channel
    from dbos._kernel.clock import Clock
    from dbos._kernel.dialect import Dialect

T = TypeVar("T")

logger = logging.getLogger("dbos")

# So many connections read at once, at most, and are kept open: who comes then waits for one, which takes less than
# to open another.
MOST_READERS = 8
# Connections that are kept for good: the lane's, and the one that listens.
KEPT = 2
# How long a caller outside any workflow is kept waiting for a database that does not answer.
PATIENCE_SECONDS = 60.0


def dialect_of(engine: Engine) -> Dialect:
    """What we know about this engine's database."""
    return _dialect(engine.dialect.name)


@functools.cache
def _dialect(name: str) -> Dialect:
    # Imported by those who use it: a program on SQLite does not wait for the driver of Postgres.
    match name:
        case "sqlite":
            from dbos._kernel.sqlite import SQLite

            return SQLite()
        case "postgresql":
            from dbos._kernel.postgres import Postgres

            return Postgres()
        case _:
            raise DBOSInitializationError(
                f"The database {name!r} is not supported; use a sqlite:/// or postgresql:// URL."
            )


@functools.cache
def compiler_of(dialect: Dialect, schema: str, layout: Layout = CLASSIC) -> Compiler:
    """The statements for such a database: compiled once in a process, however often it launches."""
    return Compiler(Tables(dialect, schema, layout))


def _capacity(engine: Engine) -> int:
    """How many connections the engine gives at once."""
    pool = engine.pool
    if isinstance(pool, QueuePool):
        overflow = pool._max_overflow  # noqa: SLF001 - there is no other way to ask
        return pool.size() + overflow if overflow >= 0 and pool.size() else sys.maxsize
    return sys.maxsize


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """Nothing may be written, and no read may take longer than so many seconds (None: as long as it likes)."""

    seconds: float | None = None

    def refusal(self) -> BaseException:
        """What is raised by whoever would write."""
        return DBOSReadOnlyError(
            "This client only reads, so nothing was done. To act on these workflows connect with read_only=False; in a "
            "notebook: %dbos attach URL --actions"
        )

    def too_slow(self) -> BaseException:
        """What is raised by a read that takes too long."""
        return DBOSQueryTimeoutError(
            f"The database did not answer within {self.seconds:g} seconds, which is as long as this client lets a "
            "statement take. Ask for less, or connect with a longer statement_timeout_seconds"
        )


def _tokens(number: int) -> queue.SimpleQueue[None]:
    tokens: queue.SimpleQueue[None] = queue.SimpleQueue()
    for _ in range(number):
        tokens.put(None)
    return tokens


class Store:
    """Transactions on the system database."""

    def __init__(
        self,
        engine: Engine,
        schema: str,
        clock: Clock,
        ring: Callable[[Iterable[Channel]], None],
        *,
        owns_engine: bool,
        read_only: ReadOnly | None = None,
    ) -> None:
        self.engine, self.clock, self.owns_engine, self.read_only = engine, clock, owns_engine, read_only
        self.dialect = dialect_of(engine)
        self.schema = schema
        self.compiler = compiler_of(self.dialect, schema)
        self.lane = Lane(self.dialect, self.connect_writer, self.discard, ring, clock)
        self.lane.refusal = None if read_only is None else read_only.refusal
        self.readers = Pool("dbos-reader", MOST_READERS)
        # Readers wait here and not for the engine's pool: idle connections of ours are not in it.
        most_readers = _capacity(engine) - KEPT
        if most_readers < 1:
            raise DBOSInitializationError(
                f"The pool of the system database must hold at least {KEPT + 1} connections: one to write, one to "
                "listen, one to read"
            )
        # One token for each that may read: taking one costs a tenth of what a semaphore does.
        self._may_read = _tokens(min(MOST_READERS, most_readers))
        self._idle: list[Conn] = []
        self._pooled: dict[int, Any] = {}
        self._closed: Farewell | None = None
        #: The version of the database (see `Lane.version`) after which everything that is waited for was looked at.
        self.looked_at: Version | None = None
        watch_forks(self)

    def after_fork(self) -> None:
        self._closed, self._may_read = farewell_of_fork, _tokens(1)
        self.lane.after_fork()
        leave_to_parent(self.engine.url)

    @property
    def tables(self) -> Tables:
        return self.compiler.tables

    def open(self) -> None:
        """Connect once, so that a wrong address or password is an error now and not a wait later."""
        refuse_file_of_parent(self.engine.url)
        until = self.clock.patience() + PATIENCE_SECONDS
        while True:
            try:
                self._put_back(self.connect())
            except Exception as error:  # noqa: BLE001 - raised again below, unless it will pass
                # Several processes that open a new SQLite file at once get in each other's way for a moment.
                if not self.dialect.is_locked(error) or self.clock.patience() > until:
                    raise self.dialect.described(error) from None
                self.clock.pause(0.01)
            else:
                return

    # -- connections -------------------------------------------------------------------------------------------

    def connect(self, *prepare: Callable[[Any], None]) -> Conn:
        """A connection for somebody who keeps it; to be discarded."""
        pooled = self.engine.raw_connection()
        raw: Any = pooled.driver_connection
        try:
            if self.read_only is None:
                self.dialect.prepare(raw)
            else:
                self.dialect.prepare_reader(raw, self.read_only.seconds)
            for each in prepare:
                each(raw)
        except BaseException:
            pooled.invalidate()
            raise
        self._pooled[id(raw)] = pooled
        return Conn(raw, self.compiler)

    def connect_writer(self) -> Conn:
        """A connection for the lane."""
        return self.connect(self.dialect.prepare_writer)

    def discard(self, conn: Conn, *, broken: bool = False) -> None:
        """Give the connection back to the engine, or forget it where it is broken."""
        pooled = self._pooled.pop(id(conn.raw), None)
        if pooled is None:
            return
        if conn.wire is not None:
            conn.wire.close()
        # After the end, an engine of ours has no pool any more that would close what is given back to it.
        if broken or (self._closed is not None and self.owns_engine):
            pooled.invalidate()
            return
        try:
            hand_back = self.dialect.hand_back if self.read_only is None else self.dialect.hand_back_reader
            hand_back(conn.raw)
            pooled.close()
        except Exception as error:  # noqa: BLE001 - a broken connection may fail in any way while it is closed
            pooled.invalidate(error)

    def refresh_layout(self) -> None:
        """See what the shared tables look like now: another program may have migrated them."""
        self.adopt_layout(self.read(layout_of))

    def adopt_layout(self, layout: Layout) -> None:
        """Read and write this layout from now on."""
        if layout != self.tables.layout:
            logger.info("The system database is in layout %s", layout)
            self.compiler = compiler_of(self.dialect, self.schema, layout)
            self.lane.drop_connection()
            self._close_idle()

    def is_abreast(self, since: float) -> bool:
        """Whether all that others had written was looked at here, and nobody wrote more until that moment.

        By the monotonic clock. Only a database that tells by itself whether it changed lets us know.
        """
        version, seen_at = self.lane.version
        return version is not None and version == self.looked_at and seen_at > since

    # -- reading -----------------------------------------------------------------------------------------------

    def read(self, work: Callable[[Conn], T], patience_seconds: float | None = PATIENCE_SECONDS) -> T:
        """Run a work that only reads, on a connection of its own."""
        pause, until = 0.005, None
        while True:
            try:
                self._may_read.get()
                try:
                    return self._read_once(work, patience_seconds)
                finally:
                    self._may_read.put(None)
            except Exception as error:
                if self.read_only is not None and self.dialect.is_too_slow(error):
                    raise self.read_only.too_slow() from None
                if not self.dialect.is_transient(error):
                    raise self.dialect.described(error) from None
                now = self.clock.patience()
                if patience_seconds is not None:
                    until = until or now + patience_seconds
                    if now > until:
                        raise DBOSDatabaseUnavailableError(
                            f"The database did not answer for {patience_seconds:.0f} seconds: {error}"
                        ) from error
            self.clock.pause(pause)
            pause = min(pause * 2, 0.5)

    def _read_once(self, work: Callable[[Conn], T], patience_seconds: float | None) -> T:
        conn = self._take(patience_seconds)
        try:
            if self.read_only is not None and self.read_only.seconds is not None:
                self.dialect.allow(conn.raw, self.read_only.seconds)
            value = work(conn)
        except BaseException:
            self.discard(conn)  # it may be broken, or in the middle of a result
            raise
        self._put_back(conn)
        return value

    def aside(self, work: Callable[[Conn], T], *, transacts: bool = True) -> T:
        """A small transaction that does not queue behind others, where the database allows two writers.

        With `transacts` False, statements that need not be one transaction, and then are none where that costs more.
        """
        if self.read_only is not None:
            raise self.read_only.refusal()
        if self.dialect.single_writer:
            return Short(self.lane, work).block()
        if not transacts:
            return self.read(work, None)

        def in_transaction(conn: Conn) -> T:
            conn.say(self.dialect.begin)
            value = work(conn)
            conn.say("COMMIT")
            return value

        return self.read(in_transaction, None)

    def snapshot(self, work: Callable[[Conn], T]) -> T:
        """Run a work of several reads on one snapshot of the database."""

        def on_snapshot(conn: Conn) -> T:
            conn.say(self.dialect.begin_snapshot)
            value = work(conn)
            conn.say("COMMIT")
            return value

        return self.read(on_snapshot)

    def _take(self, patience_seconds: float | None) -> Conn:
        if self._closed is not None:
            raise self._closed(patience_seconds is None)
        try:
            return self._idle.pop()
        except IndexError:
            return self.connect()

    def _put_back(self, conn: Conn) -> None:
        if conn.compiler is not self.compiler:
            self.discard(conn)
            return
        self._idle.append(conn)
        if self._closed is not None:
            self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            try:
                self.discard(self._idle.pop())
            except IndexError:  # somebody else took the last
                return

    def close(self, farewell: Farewell) -> None:
        """Refuse everything from now on, with the error that `farewell` makes."""
        self._closed = farewell
        self.lane.close(farewell)
        self.readers.close()
        self._close_idle()
        if self.owns_engine:
            self.engine.dispose()


class Aside(Effect[T], Generic[T]):
    """Do a small transaction that does not queue behind others; see `Store.aside`."""

    __slots__ = ("store", "transacts", "work")

    def __init__(self, store: Store, work: Callable[[Conn], T], *, transacts: bool = True) -> None:
        self.store, self.work, self.transacts = store, work, transacts

    def block(self) -> T:
        return self.store.aside(self.work, transacts=self.transacts)

    async def wait(self) -> T:
        return await self.store.readers.call(self.store.aside, self.work, transacts=self.transacts)


class Blocking(Effect[T], Generic[T]):
    """Call what blocks: something long that reads and writes by itself, or asks another database."""

    __slots__ = ("call", "store")

    def __init__(self, store: Store, call: Callable[[], T]) -> None:
        self.store, self.call = store, call

    def block(self) -> T:
        return self.call()

    async def wait(self) -> T:
        return await self.store.readers.call(self.call)


class Read(Effect[T], Generic[T]):
    """Do a work that only reads."""

    __slots__ = ("patience_seconds", "store", "work")

    def __init__(
        self, store: Store, work: Callable[[Conn], T], patience_seconds: float | None = PATIENCE_SECONDS
    ) -> None:
        self.store, self.work, self.patience_seconds = store, work, patience_seconds

    def block(self) -> T:
        return self.store.read(self.work, self.patience_seconds)

    async def wait(self) -> T:
        return await self.store.readers.call(self.store.read, self.work, self.patience_seconds)
