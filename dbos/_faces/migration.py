"""Making the tables by themselves, for programs that may not make them when they launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from dbos._engine.transaction import Application
from dbos._faces.config import engine_for, parsed
from dbos._kernel.clock import Clock
from dbos._kernel.forks import file_of
from dbos._kernel.migrate import empty, ensure_database, migrate
from dbos._kernel.store import Store
from dbos.error import DBOSException

if TYPE_CHECKING:
    from sqlalchemy import URL


def run_dbos_database_migrations(
    system_database_url: str,
    *,
    app_database_url: str | None = None,
    schema: str = "dbos",
    application_role: str | None = None,
) -> None:
    """Create the databases and their tables, or complete them; several processes may do so at once.

    `application_role` is granted what an application needs and no more. An application that finds everything made
    runs no DDL at all.
    """
    url = parsed(system_database_url)
    engine = engine_for(url)
    ensure_database(engine)
    store = Store(engine, schema, Clock(), lambda _: None, owns_engine=True)
    try:
        store.open()
        migrate(store)
        if app_database_url is not None and parsed(app_database_url) != url:
            application = Application(engine_for(parsed(app_database_url)), store, is_system=False, owns_engine=True)
            try:
                application.prepare()
            finally:
                application.close()
        if application_role is not None and store.dialect.has_schemas:
            quote = engine.dialect.identifier_preparer.quote
            role, where = quote(application_role), quote(schema)
            with engine.begin() as conn:
                for grant in (
                    f"GRANT USAGE ON SCHEMA {where} TO {role}",
                    f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {where} TO {role}",
                    f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {where} TO {role}",
                ):
                    conn.execute(text(grant))
    finally:
        store.close(lambda _: DBOSException("The migration is done"))


def empty_tables(url: URL, schema: str) -> None:
    """Forget all workflows, schedules and queues, and leave the tables."""
    file = file_of(url)
    if file is not None and not file.exists():  # a connection would make it
        return
    store = Store(engine_for(url), schema, Clock(), lambda _: None, owns_engine=True)
    try:
        store.open()
        empty(store)
    finally:
        store.close(lambda _: DBOSException("The tables are empty"))
