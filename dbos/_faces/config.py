"""The configuration: its keys, what they default to, and which combinations make no sense."""

from __future__ import annotations

import json
import logging
import os
import re
from typing import TYPE_CHECKING, Any, TypedDict

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from dbos._engine.transaction import Application
from dbos._features.alerts import Alarm, AlertRules, rules_of
from dbos._hooks import telemetry
from dbos._hooks.admin import AdminServer, AdminSettings, settings_of
from dbos._kernel.codec import Serializer
from dbos.error import DBOSInitializationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbos._engine.runtime import Runtime
    from dbos._kernel.service import Service
    from dbos._kernel.store import Store

# Names that fit every place a name is put: a file, a database, a service.
VALID_NAME = re.compile(r"[a-z0-9_-]{3,30}")
# How long we wait for a server that says nothing at all: seconds, and at last milliseconds. Where packets vanish a connection
# would look alive for hours by the defaults of the system. What the URL says goes before.
PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
# Keys whose values go to where nobody would say what they should have been.
TYPES: dict[str, tuple[type, str]] = {
    "dbos_system_schema": (str, "a text"),
    "application_version": (str, "a text"),
    "executor_id": (str, "a text"),
    "db_engine_kwargs": (dict, "a dictionary"),
    "system_database_engine": (Engine, "an Engine of SQLAlchemy"),
}
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "NOTSET")


class DBOSConfig(TypedDict, total=False):
    """What `DBOS(config=...)` takes. Only `name` is required; keys that are not listed here are ignored."""

    #: The application's name: 3 to 30 of a-z, 0-9, - and _.
    name: str
    #: Where workflows are stored: a sqlite:/// or postgresql:// URL. Default: `sqlite:///<name>.sqlite`.
    system_database_url: str | None
    #: Where `@DBOS.transaction` functions run. Default: the system database, if no URL is given at all.
    application_database_url: str | None
    #: An older name of `application_database_url`; it wins where both are given.
    database_url: str | None
    #: Connections to the system database, at most. Default: 20.
    sys_db_pool_size: int | None
    #: Passed to SQLAlchemy's create_engine for both databases.
    db_engine_kwargs: dict[str, Any] | None
    #: Whether a launch makes the tables that are missing; else it fails where some are. Default: True.
    run_migrations: bool | None
    #: The Postgres schema of the system tables. Default: "dbos".
    dbos_system_schema: str | None
    #: A SQLAlchemy engine to use for the system database; it stays open when DBOS is destroyed.
    system_database_engine: Engine | None
    #: Accepted for programs that set it: waiting never polls where the database can notify.
    use_listen_notify: bool | None
    notification_listener_polling_interval_sec: float | None
    scheduler_polling_interval_sec: float | None
    #: Threads for sync workflows, at most. One that waits for others keeps its thread, so let there be more threads than
    #: such workflows at once. Default: as many as there are workflows.
    max_executor_threads: int | None
    #: The version of the code, if not computed from its source.
    application_version: str | None
    #: The name of this process among others. Default: $DBOS__VMID or "local".
    executor_id: str | None
    #: Upgrade code by `DBOS.patch`: all versions are one.
    enable_patching: bool | None
    #: How values are stored. Default: pickle.
    serializer: Serializer | None
    #: How much is logged, from DEBUG to CRITICAL; for the console, and for collectors, where they differ. Default: INFO.
    log_level: str | None
    console_log_level: str | None
    otlp_log_level: str | None
    #: Make OpenTelemetry spans of workflows and steps, and give log records their ids. Default: False.
    enable_otlp: bool | None
    #: The OTLP collectors (over HTTP) that spans and log records are sent to. A provider of the program's own goes first.
    otlp_traces_endpoints: list[str] | None
    otlp_logs_endpoints: list[str] | None
    #: Attributes of all spans and log records.
    otlp_attributes: dict[str, str] | None
    #: Whether spans of what failed say what the error says, and not only its type. Default: True.
    otlp_error_messages: bool | None
    #: How attributes are named: "legacy" (`operationUUID`) or "semconv" (`dbos.operation.workflow_id`).
    otel_attribute_format: str | None
    #: Whether the runtime can be looked at and controlled over HTTP, from this machine. Default: True.
    run_admin_server: bool | None
    #: Where the admin server listens. Default: 3001; 0: any free port.
    admin_port: int | None
    #: The address on which it listens. Default: "127.0.0.1"; one that other machines reach needs a token.
    admin_host: str | None
    #: What its clients must send as `Authorization: Bearer ...`. Default: $DBOS_ADMIN_TOKEN.
    admin_token: str | None
    #: When to tell `@DBOS.alert_handler`, or the log: so many failures of one workflow within a minute (default 1), the
    #: next workflow of a queue waits for so many seconds (default 300), another process is gone (default True). 0 or
    #: False: never. Without a handler nothing is looked at unless one of these is set.
    alert_failures: int | None
    alert_queue_sec: float | None
    alert_unresponsive: bool | None
    #: Accepted, and not used: there is no external service to connect to.
    conductor_key: str | None
    conductor_url: str | None
    conductor_executor_metadata: dict[str, Any] | None


# The one version that all code has where patching is the way to change it.
PATCHING_VERSION = "PATCHING_ENABLED"
DEFAULT_POOL_SIZE = 20
# One connection writes, one listens, one reads; who asks for fewer gets these.
SMALLEST_POOL_SIZE = 3
VERSION_VARIABLE, EXECUTOR_ID_VARIABLE = "DBOS__APPVERSION", "DBOS__VMID"


class Config:
    """A checked configuration."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = {key: value for key, value in given.items() if value is not None}
        _check_types(self.given)
        self.name = self._name()
        self.system_url, self.application_url = self._urls()
        self.migrates = bool(self.given.get("run_migrations", True))
        self.schema: str = self.given.get("dbos_system_schema", "dbos")
        self.engine: Engine | None = self.given.get("system_database_engine")
        self.executor_id: str = self.given.get("executor_id") or os.environ.get(EXECUTOR_ID_VARIABLE) or "local"
        self.app_id: str = os.environ.get("DBOS__APPID", "")
        self.serializer: Serializer | None = self.given.get("serializer")
        self.max_threads: int | None = self.given.get("max_executor_threads")
        self.log_level: str = str(self.given.get("console_log_level") or self.given.get("log_level") or "INFO").upper()
        self.admin: AdminSettings | None = settings_of(self.given)
        self.alerts: AlertRules | None = rules_of(self.given)
        self.telemetry: telemetry.TelemetrySettings | None = telemetry.settings_of(self.given)
        self._check()

    def __repr__(self) -> str:
        return f"<Config {self.name} system={self.system_url!r} application={self.application_url!r}>"

    @property
    def version(self) -> str | None:
        """The version that is set and not computed."""
        chosen = self.given.get("application_version")
        if chosen is None and self.given.get("enable_patching"):
            chosen = PATCHING_VERSION
        return chosen or os.environ.get(VERSION_VARIABLE) or None

    def make_engine(self) -> Engine:
        """An engine for the system database."""
        if self.engine is not None:
            return self.engine
        return engine_for(self.system_url, self.given.get("db_engine_kwargs"), self.given.get("sys_db_pool_size"))

    def make_application(self, store: Store) -> Application:
        """The database of transactions: the configured one, else the system database."""
        extra = self.given.get("db_engine_kwargs")
        if self.application_url is not None and self.application_url != self.system_url:
            return Application(engine_for(self.application_url, extra), store, is_system=False, owns_engine=True)
        if self.engine is not None and not store.dialect.single_writer:
            return Application(self.engine, store, is_system=True, owns_engine=False)
        # SQLite needs an engine that begins transactions in another way than users' engines do.
        return Application(engine_for(self.system_url, extra), store, is_system=True, owns_engine=True)

    def make_services(self, runtime: Runtime) -> list[Service]:
        """What a runtime does by itself because this configuration asks for it."""
        made: list[Service] = [] if self.admin is None else [AdminServer(runtime, self.admin)]
        handler = runtime.registry.alert_handler
        if handler is not None or self.alerts is not None:
            made.append(Alarm(runtime, self.alerts or AlertRules(), handler))
        return made

    # -- reading -----------------------------------------------------------------------------------------------

    def _name(self) -> str:
        name = self.given.get("name")
        if not name:
            raise DBOSInitializationError(
                "The configuration must specify an application name, as in {'name': 'my-app'}"
            )
        if not isinstance(name, str) or not VALID_NAME.fullmatch(name):
            raise DBOSInitializationError(
                f"Invalid app name {name!r}: it must be 3 to 30 characters of a-z, 0-9, dashes and underscores"
            )
        return name

    def _urls(self) -> tuple[URL, URL | None]:
        system = self.given.get("system_database_url")
        application = self.given.get("database_url") or self.given.get("application_database_url")
        if system is None and application is None and "system_database_engine" in self.given:
            return self.given["system_database_engine"].url, None
        if system is None and application is None:
            own = parsed(f"sqlite:///{self.name.replace('-', '_')}.sqlite")
            return own, own
        return urls_of(system, application)

    def _check(self) -> None:
        if self.log_level not in LOG_LEVELS:
            raise DBOSInitializationError(
                f"Invalid log_level {self.log_level!r}: it must be one of {', '.join(LOG_LEVELS)}"
            )
        if self.serializer is not None and not isinstance(self.serializer, Serializer):
            raise DBOSInitializationError(
                f"serializer must be an instance of dbos.Serializer, not {type(self.serializer).__name__}"
            )
        for key in ("sys_db_pool_size", "max_executor_threads"):
            value = self.given.get(key)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise DBOSInitializationError(f"{key} must be a whole number of at least 1, not {value!r}")
        interval = self.given.get("notification_listener_polling_interval_sec")
        if interval is not None and not (isinstance(interval, int | float) and interval >= 0.001):
            raise DBOSInitializationError("notification_listener_polling_interval_sec must be at least 0.001")
        try:
            json.dumps(self.given.get("conductor_executor_metadata"))
        except (TypeError, ValueError) as error:
            raise DBOSInitializationError(f"conductor_executor_metadata must be JSON-serializable: {error}") from None
        if self.given.get("conductor_key"):
            logging.getLogger("dbos").warning("conductor_key is not used: this runtime connects to no external service")


def _check_types(given: Mapping[str, Any]) -> None:
    """Refuse what would fail later, in the words of somebody else."""
    for key, (kind, said) in TYPES.items():
        if key in given and not isinstance(given[key], kind):
            raise DBOSInitializationError(f"{key} must be {said}, not {type(given[key]).__name__}")


def urls_of(system: Any, application: Any) -> tuple[URL, URL | None]:
    """The system and the application database, of which at least one is given."""
    if application is None:
        return parsed(system), None
    application = parsed(application)
    if system is not None:
        return parsed(system), application
    if application.get_backend_name() == "sqlite":
        return application, application
    return application.set(database=f"{application.database}_dbos_sys"), application


def read_url(url: Any) -> URL:
    """The parts of a URL."""
    try:
        made = make_url(url)
    except (ArgumentError, AttributeError, TypeError, ValueError):  # and not what it says: it may hold a password
        raise DBOSInitializationError(
            "The database URL cannot be read; it looks like sqlite:///file or postgresql://..."
        ) from None
    if "@" in (made.host or ""):  # a part of the password, which would be looked for as a host, and shown
        raise DBOSInitializationError("The database URL has two @: in a user name or password, write %40 for one")
    return made


def parsed(url: Any) -> URL:
    """A URL that this package can connect to."""
    made = read_url(url)
    if made.get_backend_name() not in ("sqlite", "postgresql", "postgres"):
        raise DBOSInitializationError(
            f"The database {made.get_backend_name()!r} is not supported; use a sqlite:/// or postgresql:// URL."
        )
    if made.get_backend_name() == "sqlite" and made.host and made.database:
        raise DBOSInitializationError("The URL of a SQLite file names no host: write sqlite:/// before the file")
    if made.drivername == "postgres" or made.get_backend_name() == "postgresql":
        if not made.database:
            raise DBOSInitializationError("Database name must be specified in the connection URL")
        return made.set(drivername="postgresql+psycopg")
    if made.get_backend_name() == "sqlite" and made.database in (None, "", ":memory:"):
        raise DBOSInitializationError(
            "An in-memory database forgets everything with its process; give a file, as in sqlite:///my-app.sqlite"
        )
    return made


def engine_for(url: URL, extra: dict[str, Any] | None = None, pool_size: int | None = None) -> Engine:
    """An engine with our defaults under the user's."""
    options: dict[str, Any] = {"pool_size": DEFAULT_POOL_SIZE, "max_overflow": 0, "hide_parameters": True}
    if url.get_backend_name() == "postgresql":
        connect_args: dict[str, Any] = {"application_name": "dbos_transact"}
        connect_args |= {name: value for name, value in PATIENCE.items() if name not in url.query}
        options |= {"pool_timeout": 30, "pool_pre_ping": True, "connect_args": connect_args}
    extra = dict(extra or {})
    if "connect_args" in extra and "connect_args" in options:
        extra["connect_args"] = {**options["connect_args"], **extra["connect_args"]}
    options |= extra
    if pool_size is not None:
        options["pool_size"] = max(pool_size, SMALLEST_POOL_SIZE)
    if options.get("poolclass") is NullPool:
        for key in ("pool_size", "max_overflow", "pool_timeout"):
            options.pop(key, None)
    return create_engine(url, **options)
