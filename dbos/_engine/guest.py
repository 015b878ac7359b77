"""Operations inside a transaction of the user's own, on the system database: what they write is committed with it.

The same plans run: only their effects differ, which are performed at once, on the user's connection. Nothing is
repeated, because nobody but the user knows whether the transaction may be.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from dbos._kernel.herald import notify
from dbos._kernel.scope import Here
from dbos._kernel.statement import Conn, Entry
from dbos.error import DBOSException

if TYPE_CHECKING:
    from dbos._kernel.bell import Channel
    from dbos._kernel.scope import Ground

T = TypeVar("T")


class Done(Generic[T]):
    """An effect that has been performed."""

    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, T]:
        yield from ()
        return self._value


class Guest(Here):
    """In the user's transaction. Its rings are heard when that commits: by other processes, and by this one as by them."""

    __slots__ = ("conn",)

    def __init__(self, ground: Ground, place: Connection | Session) -> None:
        super().__init__(ground)
        connection = place.connection() if isinstance(place, Session) else place
        if not isinstance(connection, Connection):
            raise DBOSException(
                f"A SQLAlchemy Connection or Session is wanted, not {type(place).__name__}; of an async one, call this in "
                "its run_sync()."
            )
        store = ground.store
        if store.lane.refusal is not None:
            raise store.lane.refusal()  # it is a client that must not write, whatever the transaction may
        if connection.dialect.name != store.engine.dialect.name:
            raise DBOSException(
                f"The transaction is on {connection.dialect.name}, and the workflows are on {store.engine.dialect.name}: "
                "one commit can only cover one database."
            )
        if not connection.in_transaction():
            connection.begin()
        raw: Any = connection.connection.driver_connection
        store.dialect.join(raw)
        self.conn = Conn(raw, store.compiler)

    def put(self, *entries: Entry, rings: Iterable[Channel] = ()) -> Any:
        return self.tx(lambda conn: tuple(conn.add(each) for each in entries), rings)

    def tx(self, work: Callable[[Conn], T], rings: Iterable[Channel] = ()) -> Any:
        value = work(self.conn)
        if self.ground.store.dialect.notifies:
            notify(self.conn, rings)
        return Done(value)

    def read(self, work: Callable[[Conn], T]) -> Any:
        return Done(work(self.conn))
