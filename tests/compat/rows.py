"""The database as another program sees it: by SQL, past the runtime."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, Row, create_engine, make_url, text

INTERNAL_QUEUE = "_dbos_internal_queue"
NO_ARGUMENTS = '{"positionalArgs":[],"namedArgs":{}}'


@functools.lru_cache(maxsize=64)
def engine_of(url: str) -> Engine:
    """One for each database: the first connection of an engine costs many questions. It keeps none open."""
    made = make_url(url)
    driver = "postgresql+psycopg" if made.get_backend_name() == "postgresql" else "sqlite"
    return create_engine(made.set(drivername=driver), poolclass=NullPool)


class Rows:
    """Reads and writes rows as they are stored."""

    def __init__(self, url: str) -> None:
        self.engine = engine_of(url)
        self.is_postgres = self.engine.dialect.name == "postgresql"
        self.prefix = "dbos." if self.is_postgres else ""
        self._kept: Connection | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Read through one connection inside the block, each statement in a transaction of its own."""
        with self.engine.connect() as conn:
            self._kept = conn
            try:
                yield
            finally:
                self._kept = None

    def run(self, sql: str, **values: Any) -> list[Row[Any]]:
        """Run a statement in which `{}` stands before the name of each table."""
        with self._connection() as conn, conn.begin():
            result = conn.execute(text(sql.replace("{}", self.prefix)), values)
            return list(result.all()) if result.returns_rows else []

    def _connection(self) -> AbstractContextManager[Connection]:
        return self.engine.connect() if self._kept is None else nullcontext(self._kept)

    def workflow(self, workflow_id: str) -> Row[Any]:
        (row,) = self.run("SELECT * FROM {}workflow_status WHERE workflow_uuid = :id", id=workflow_id)
        return row

    def steps(self, workflow_id: str) -> list[Row[Any]]:
        return self.run(
            "SELECT * FROM {}operation_outputs WHERE workflow_uuid = :id ORDER BY function_id", id=workflow_id
        )

    def change(self, workflow_id: str, **columns: Any) -> None:
        changes = ", ".join(f"{name} = :{name}" for name in columns)
        self.run(f"UPDATE {{}}workflow_status SET {changes} WHERE workflow_uuid = :id", id=workflow_id, **columns)

    def interrupt(self, workflow_id: str, **columns: Any) -> None:
        """Make it look as if its executor had died just before it wrote the outcome."""
        self.change(workflow_id, status="PENDING", output=None, error=None, owner_xid=None, **columns)

    def add(self, workflow_id: str, name: str, **columns: Any) -> None:
        """A workflow that another program started or enqueued."""
        columns = {
            "workflow_uuid": workflow_id,
            "name": name,
            "status": "ENQUEUED",
            "inputs": NO_ARGUMENTS,
            "serialization": "portable_json",
            "created_at": 1_000,
            "updated_at": 1_000,
            "recovery_attempts": 0,
            "priority": 0,
            **columns,
        }
        names, places = ", ".join(columns), ", ".join(f":{name}" for name in columns)
        self.run(f"INSERT INTO {{}}workflow_status ({names}) VALUES ({places})", **columns)
