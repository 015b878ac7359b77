"""Writing to Postgres through libpq itself, for the few statements that are written thousands of times a second.

A cursor costs four times what the statement costs on the wire. Here a statement is prepared once and then sent
by its name with its parameters as text; several go together in one pipeline, which is one transaction. Waiting is
on the socket and never inside libpq, so other threads run meanwhile and an interrupt is obeyed at once.
"""

from __future__ import annotations

import itertools
import selectors
from collections.abc import Iterator, Sequence
from typing import Any

from psycopg import errors, pq

Parameters = Sequence[str | int | None]

_INTEGERS = frozenset({20, 21, 23})
_GOOD = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)


class Returned:
    """The rows that a statement returned; read only when somebody wants more than their number."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def __len__(self) -> int:
        return int(self._result.ntuples)

    def __iter__(self) -> Iterator[tuple[str | int | None, ...]]:
        result = self._result
        columns = range(result.nfields)
        read = [int if result.ftype(column) in _INTEGERS else bytes.decode for column in columns]
        for row in range(result.ntuples):
            values = [result.get_value(row, column) for column in columns]
            yield tuple(None if value is None else make(value) for make, value in zip(read, values, strict=True))


# Over all connections: one that comes back from a pool may have statements of before.
_numbers = itertools.count()


class Wire:
    """The prepared statements of one connection."""

    def __init__(self, raw: Any) -> None:
        self._pg = raw.pgconn
        self._names: dict[str, bytes] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pg.socket, selectors.EVENT_READ)

    def transact(self, statements: Sequence[tuple[str, Parameters]]) -> list[Returned]:
        """Run the statements in one transaction and one round trip."""
        try:
            return self._transact(statements)
        except errors.InvalidSqlStatementName:
            # psycopg deallocates all prepared statements after a rollback, ours too. Nothing of this was done.
            self._names.clear()
            return self._transact(statements)

    def _transact(self, statements: Sequence[tuple[str, Parameters]]) -> list[Returned]:
        encoded = [_encoded(parameters) for _, parameters in statements]  # may fail: before anything is sent
        for sql, _ in statements:
            if sql not in self._names:
                self._prepare(sql)
        if len(statements) == 1:
            self._send(statements[0][0], encoded[0])
            return [Returned(self._result())]
        pg = self._pg
        pg.enter_pipeline_mode()
        for (sql, _), parameters in zip(statements, encoded, strict=True):
            self._send(sql, parameters)
        pg.pipeline_sync()
        returned, failure = [], None
        for _ in statements:
            try:
                returned.append(Returned(self._result()))
            except Exception as error:  # what follows a failed statement must be read all the same
                if pg.status != pq.ConnStatus.OK:  # nothing follows any more
                    raise
                failure = failure or error
        self._next()  # the answer to the synchronisation
        pg.exit_pipeline_mode()
        if failure is not None:
            raise failure
        return returned

    def _prepare(self, sql: str) -> None:
        name = b"notebook_%d" % next(_numbers)
        self._pg.send_prepare(name, sql.encode())
        self._result()
        self._names[sql] = name

    def _send(self, sql: str, parameters: list[bytes | None]) -> None:
        self._pg.send_query_prepared(self._names[sql], parameters)

    def _result(self) -> Any:
        """The result of the next statement; raises its error."""
        result = self._next()
        end = self._next()
        assert end is None  # a prepared statement has one result
        if result.status not in _GOOD:
            raise errors.error_from_result(result)
        return result

    def _next(self) -> Any:
        pg = self._pg
        if pg.flush():
            self._push()
        while pg.is_busy():
            self._selector.select()
            pg.consume_input()
        return pg.get_result()

    def _push(self) -> None:
        """Send what did not fit into the socket, reading meanwhile: the server may be waiting for that."""
        self._selector.modify(self._pg.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
        try:
            while self._pg.flush():
                self._selector.select()
                self._pg.consume_input()
        finally:
            self._selector.modify(self._pg.socket, selectors.EVENT_READ)

    def close(self) -> None:
        self._selector.close()


def _encoded(parameters: Parameters) -> list[bytes | None]:
    encoded = [None if value is None else str(value).encode() for value in parameters]
    # libpq would end the text there and say nothing.
    if any(value is not None and b"\0" in value for value in encoded):
        raise errors.DataError("PostgreSQL text cannot contain NUL (0x00) characters")
    return encoded
