"""How long a reader waits for a database that does not answer."""

from __future__ import annotations

import sqlite3

import pytest

from dbos._kernel.statement import Conn
from dbos._kernel.store import Store
from dbos.error import DBOSDatabaseUnavailableError
from dbos.testing import FakeClock


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_patience_ends_where_time_stands_still(store: Store) -> None:
    store.clock = FakeClock()

    def fail(conn: Conn) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    with pytest.raises(DBOSDatabaseUnavailableError):
        store.read(fail, 0.05)
