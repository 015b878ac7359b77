"""The line to the database: every commit that goes over it is counted, and it breaks at one of them.

Broken means what a driver meets in the world. On Postgres the socket is shut, and whatever is raised then is raised
by psycopg itself. SQLite has no line: there the file is said to be busy, the one error after which it is tried again.
"""

from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal
from unittest.mock import patch

import psycopg

from dbos._engine.transaction import Application
from dbos._kernel.dialect import Dialect
from dbos._kernel.postgres import Postgres
from dbos._kernel.sqlite import SQLite
from dbos._kernel.statement import Conn

# The commit is done and its answer lost, or it never got there.
Moment = Literal["answer lost", "never sent"]


class Line:
    """Counts commits, and breaks at the one of that number."""

    def __init__(self, number: int | None = None, moment: Moment = "answer lost") -> None:
        self.number, self.moment = number, moment
        self.seen = 0
        #: The commit at which it broke.
        self.broke_at = ""
        self._lock = threading.Lock()

    @contextmanager
    def laid(self) -> Iterator[None]:
        """In the block every commit of this process goes over this line."""
        say, prepare = Conn.say, Application.prepare

        def spoken(conn: Conn, sql: str) -> None:
            if sql == "COMMIT":
                self._carry("work", conn.raw, lambda: say(conn, sql))
            else:
                say(conn, sql)

        def prepared(application: Application) -> None:
            prepare(application)
            application.engine.dialect.do_commit = lambda pooled: self._carry(  # type: ignore[method-assign]
                "transaction", pooled.driver_connection, pooled.commit
            )

        with (
            patch.object(Conn, "say", spoken),
            patch.object(Application, "prepare", prepared),
            patch.object(SQLite, "transact", self._over(SQLite.transact)),
            patch.object(Postgres, "transact", self._over(Postgres.transact)),
        ):
            yield

    def _over(self, transact: Callable[..., Any]) -> Callable[..., Any]:
        def transacted(dialect: Dialect, conn: Conn, statements: Sequence[tuple[str, Any]], *, begun: bool) -> Any:
            if begun or (dialect.single_writer and len(statements) > 1):
                return transact(dialect, conn, statements, begun=begun)  # COMMIT will be said
            what = " + ".join(" ".join(text.split()[:3]) for text, _ in statements)
            return self._carry(what, conn.raw, lambda: transact(dialect, conn, statements, begun=begun))

        return transacted

    def _carry(self, what: str, raw: Any, commit: Callable[[], Any]) -> Any:
        with self._lock:
            self.seen += 1
            breaks = self.seen == self.number
        if not breaks:
            return commit()
        self.broke_at = what
        if self.moment == "answer lost":
            commit()
        if isinstance(raw, sqlite3.Connection):
            raise busy()
        cut(raw)
        return commit() if self.moment == "never sent" else raw.execute("SELECT 'is anybody there?'")


def cut(raw: Any) -> None:
    """Break the line of a Postgres connection, for both ends."""
    with socket.fromfd(raw.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.shutdown(socket.SHUT_RDWR)


def busy() -> sqlite3.OperationalError:
    """What SQLite raises while another program holds the file."""
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_BUSY, "SQLITE_BUSY"
    return error


class Terminator:
    """Counts statements of every kind, and has the server end the connection just before the one of that number."""

    def __init__(self, admin: psycopg.Connection[Any], number: int | None = None) -> None:
        self.admin, self.number = admin, number
        self.seen = 0
        #: The statement before which it struck.
        self.struck_at = ""
        self._lock = threading.Lock()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """In the block every statement of this process is counted."""
        say, execute, transact, prepare = Conn.say, Postgres.execute, Postgres.transact, Application.prepare
        raw_execute = psycopg.Connection.execute

        def spoken(conn: Conn, sql: str) -> None:
            self._count(conn.raw, sql)
            say(conn, sql)

        def raw_executed(raw: psycopg.Connection[Any], sql: Any, *rest: Any, **more: Any) -> Any:
            if raw is not self.admin:
                self._count(raw, sql)
            return raw_execute(raw, sql, *rest, **more)

        def executed(dialect: Postgres, cursor: Any, sql: str, parameters: Any) -> Any:
            self._count(cursor.connection, sql)
            return execute(dialect, cursor, sql, parameters)

        def transacted(dialect: Postgres, conn: Conn, statements: Sequence[tuple[str, Any]], *, begun: bool) -> Any:
            self._count(conn.raw, " + ".join(sql for sql, _ in statements))
            return transact(dialect, conn, statements, begun=begun)

        def prepared(application: Application) -> None:
            prepare(application)
            dialect = application.engine.dialect
            do_execute = dialect.do_execute

            def do(cursor: Any, statement: str, *rest: Any) -> None:
                self._count(cursor.connection, statement)
                do_execute(cursor, statement, *rest)

            dialect.do_execute = do  # type: ignore[method-assign]

        with (
            patch.object(Conn, "say", spoken),
            patch.object(psycopg.Connection, "execute", raw_executed),
            patch.object(Postgres, "execute", executed),
            patch.object(Postgres, "transact", transacted),
            patch.object(Application, "prepare", prepared),
        ):
            yield

    def _count(self, raw: Any, sql: str) -> None:
        with self._lock:
            self.seen += 1
            strikes = self.seen == self.number
        if strikes:
            self.struck_at = " ".join(sql.split()[:6])
            terminate(self.admin, raw.info.backend_pid)


def terminate(admin: psycopg.Connection[Any], *pids: int) -> None:
    """Have the server end these connections, and wait until it has."""
    for pid in pids:
        admin.execute("SELECT pg_terminate_backend(%s, 20000)", (pid,))
