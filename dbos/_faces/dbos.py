"""`DBOS`: everything a program says to the runtime."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from dbos._engine.handle import WorkflowHandle
from dbos._engine.launch import Settings, launch
from dbos._engine.recovery import execute_now, recover
from dbos._faces import logs
from dbos._faces.ambient import (
    Instance,
    clock,
    instance,
    not_created,
    registry,
    runtime,
    set_instance,
    take_over_handles,
)
from dbos._faces.config import EXECUTOR_ID_VARIABLE, VERSION_VARIABLE, Config, DBOSConfig, parsed
from dbos._faces.decorators import Decorators
from dbos._faces.migration import empty_tables, run_dbos_database_migrations
from dbos._faces.operations import Operations
from dbos._faces.options import checked_user
from dbos._faces.parts import LOOKS, SERVICES
from dbos._faces.queue import Queue
from dbos._faces.scheduling import Scheduling
from dbos._features import versions
from dbos._hooks import telemetry
from dbos._hooks.fastapi import install as install_fastapi
from dbos._hooks.flask import install as install_flask
from dbos._hooks.logs import switch_on
from dbos._hooks.signals import drain_on
from dbos._kernel import trace
from dbos._kernel.extension import installed
from dbos._kernel.migrate import drop_database
from dbos._kernel.plan import run, running_loop
from dbos._kernel.scope import CALLER, HERE, StepStatus
from dbos._kernel.waiting import checked_timeout
from dbos.error import DBOSException, DBOSMisuseError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

T = TypeVar("T")

RELEASE = "0.1.0"


class classproperty(Generic[T]):  # noqa: N801 - used as a decorator, like property
    """A property of the class itself."""

    def __init__(self, read: Callable[[Any], T]) -> None:
        self.read = read
        self.__doc__ = read.__doc__

    def __get__(self, _: object, owner: type[DBOS]) -> T:
        return self.read(owner)


class DBOS(Decorators, Operations, Scheduling):
    """A durable-workflow runtime: `DBOS(config=...)`, then `DBOS.launch()`.

    There is one in a process; a second `DBOS(...)` returns the first, until `DBOS.destroy()`.
    """

    def __new__(
        cls,
        *,
        config: DBOSConfig,
        fastapi: Any = None,
        flask: Any = None,
        conductor_url: str | None = None,
        conductor_key: str | None = None,
    ) -> Self:
        """Check the configuration and get ready to launch. Opens nothing yet.

        With `fastapi`, that application launches it when it starts and ends it when it shuts down, on its event loop.
        With that or `flask`, an application sends back `x-request-id`, takes `dbos-idempotency-key` for the id of the
        first workflow that a handler starts, and makes a span of each request; see the extras `fastapi` and `flask`.

        `conductor_url` and `conductor_key` are accepted and not used: there is no external service to connect to.
        """
        made = instance()
        if made is None:
            checked = Config({"conductor_key": conductor_key, **config})
            logs.set_up(checked.log_level)
            made = Instance(super().__new__(cls), checked)
            if fastapi is not None:
                install_fastapi(fastapi, cls._launch_if_not, cls.destroy)
            if flask is not None:
                install_flask(flask)
            set_instance(made)
        return cast("Self", made.face)

    # -- lifecycle ---------------------------------------------------------------------------------------------

    @classmethod
    def _launch_if_not(cls) -> None:
        made = instance()
        if made is None or made.launched is None:
            cls.launch()

    @staticmethod
    def migrate(
        system_database_url: str, *, schema: str = "dbos", application_role: str | None = None, sharding: bool = False
    ) -> None:
        """Create the system database and its tables, or complete them: `run_dbos_database_migrations` under another name.

        There is no `sharding` here: it raises DBOSException.
        """
        if sharding:
            raise DBOSException("This runtime has one system database and no shards: call migrate without sharding")
        run_dbos_database_migrations(system_database_url, schema=schema, application_role=application_role)

    @staticmethod
    def launch() -> None:
        """Open the database, take up unfinished workflows and start serving.

        A launch that fails leaves nothing behind: mend the cause and launch again.
        """
        made = instance()
        if made is None:
            raise not_created()
        if made.launched is not None:
            logs.logger.warning("DBOS was already launched")
            return
        config = made.config
        settings = Settings(
            make_engine=config.make_engine,
            keeps_engine=config.engine is not None,
            migrates=config.migrates,
            make_application=config.make_application,
            schema=config.schema,
            executor_id=config.executor_id,
            app_id=config.app_id,
            app_version=config.version or registry.version(RELEASE),
            serializer=config.serializer,
            max_threads=config.max_threads,
            # Under an extension cells may hold the loop that runs here for long: async workflows have their own.
            main_loop=running_loop() if installed() is None else None,
            clock=clock(),
        )
        if config.telemetry is not None:
            ids = (settings.app_id, settings.app_version, settings.executor_id)
            made.farewells.append(switch_on(config.telemetry, *ids))
        try:
            made.launched = launch(settings, registry, LOOKS, SERVICES, config.make_services)
            is_latest = run(versions.enlist(made.launched.runtime.here, settings.app_version))
        except BaseException as error:
            url = config.system_url
            error.add_note(f"while DBOS was launched on the {url.get_backend_name()} database {url.database!r}")
            logs.logger.exception("DBOS failed to launch")
            launched, made.launched = made.launched, None
            if launched is not None:
                launched.end()
            made.say_farewell()
            raise
        take_over_handles(made)
        registry.review()
        if not is_latest:
            logs.logger.warning("Version %s of the application is not the latest one", settings.app_version)
        logs.logger.info(
            "DBOS launched! Executor %s, application version %s", settings.executor_id, settings.app_version
        )

    @staticmethod
    def listen_queues(queues: Sequence[Queue | str]) -> None:
        """Serve only these queues in this process (and the runtime's own), instead of all. Once, before launch.

        Anything may still be enqueued on others: whoever listens to those runs it.
        """
        made = instance()
        if made is not None and made.launched is not None:
            raise DBOSException("listen_queues called after DBOS is launched")
        if registry.listened is not None:
            raise DBOSException("listen_queues called more than once")
        registry.listened = frozenset(
            each if isinstance(each, str) else each.name for each in ([queues] if isinstance(queues, str) else queues)
        )

    @staticmethod
    def destroy(*, destroy_registry: bool = False, workflow_completion_timeout_sec: float = 0) -> None:
        """End the runtime: running workflows may finish for so long, the rest is handed over.

        Decorated functions stay registered unless `destroy_registry`. Does nothing when there is no runtime.
        """
        made = instance()
        set_instance(None)
        if made is not None and made.launched is not None:
            made.launched.end(workflow_completion_timeout_sec)
            made.say_farewell()
        if destroy_registry:
            registry.clear()

    @staticmethod
    def drain(timeout_seconds: float = 0) -> int:
        """Take no more work, let what runs finish for so long, and say how many workflows still run then.

        Nothing is claimed from queues and no schedule fires here any more, when this returns; other processes go on.
        Everything can still be read. Follow it with `DBOS.destroy()`, which hands over what is left.
        """
        runtime()  # raises where there is none
        made = instance()
        assert made is not None
        assert made.launched is not None
        return made.launched.drain(checked_timeout(timeout_seconds))

    @staticmethod
    def drain_on_signals(timeout_seconds: float = 30, signals: Sequence[signal.Signals] = (signal.SIGTERM,)) -> None:
        """End this program well when one of these signals comes: as `DBOS.destroy` with that timeout, then SystemExit.

        A second signal ends it at once. Call it once, in the main thread; a web server that handles signals itself
        calls `DBOS.destroy` when it shuts down instead.
        """
        checked_timeout(timeout_seconds)
        drain_on(lambda: DBOS.destroy(workflow_completion_timeout_sec=timeout_seconds), signals)

    @staticmethod
    def reset_system_database(
        *, system_database_url: str | None = None, schema: str | None = None, truncate: bool = False
    ) -> None:
        """Drop the system database with all workflows, before launch; the next launch makes it anew.

        It is the one that is configured, or that of `system_database_url`, for which no DBOS is needed. With `truncate`
        the tables of `schema` (default: as configured, or "dbos") are emptied instead, which takes fewer rights.
        """
        made = instance()
        if made is None and system_database_url is None:
            logs.logger.warning("There is no DBOS whose system database could be reset")
            return
        if made is not None and made.launched is not None:
            raise DBOSMisuseError("reset_system_database() must be called before DBOS.launch()")
        config = None if made is None else made.config
        url = config.system_url if system_database_url is None and config else parsed(system_database_url)
        if truncate:
            empty_tables(url, schema or (config.schema if config else "dbos"))
        else:
            drop_database(url)

    @staticmethod
    def recover_pending_workflows(executor_ids: list[str] | None = None) -> list[WorkflowHandle[Any]]:
        """Take up the unfinished workflows of these executors (default: "local") that nobody runs any more.

        Returns handles of all their unfinished workflows, also of those that are running.
        """
        ground = runtime()
        found = run(recover(ground.here, ground, ["local"] if executor_ids is None else list(executor_ids)))
        return [WorkflowHandle(ground, workflow_id) for workflow_id in found]

    _recover_pending_workflows = recover_pending_workflows

    @staticmethod
    def _execute_workflow_id(workflow_id: str) -> WorkflowHandle[Any]:
        """Run a stored workflow here and now, whatever its version, unless it runs or has ended."""
        ground = runtime()
        return run(execute_now(ground.here, ground, workflow_id)).handle()

    # -- where and who am I ------------------------------------------------------------------------------------

    #: The logger of the runtime, for programs to use too.
    logger: logging.Logger = logs.logger

    @classproperty
    def workflow_id(cls) -> str | None:  # noqa: N805 - a property of the class
        """The id of the workflow that this code is in; None outside."""
        place = HERE.get()
        return place.run.workflow_id if place is not None and place.run is not None else None

    @classproperty
    def step_id(cls) -> int | None:  # noqa: N805 - a property of the class
        """The id of the step that this code is in; None outside of steps."""
        status = _step()
        return None if status is None else status.step_id

    @classproperty
    def step_status(cls) -> StepStatus | None:  # noqa: N805 - a property of the class
        """The step that this code is in, with its attempts; None outside of steps."""
        return _step()

    @classproperty
    def span(cls) -> Any:  # noqa: N805 - a property of the class
        """The telemetry span that this code is in; None without telemetry."""
        return trace.current_span()

    @classproperty
    def tracer(cls) -> Any:  # noqa: N805 - a property of the class
        """The OpenTelemetry tracer of the runtime, for spans of the program's own; needs the extra `otel`."""
        return telemetry.tracer()

    @classproperty
    def fencing_token(cls) -> str | None:  # noqa: N805 - a property of the class
        """The right under which this run writes; no other run of the workflow ever has the same. None outside.

        Give it to a system that can refuse an older one, where a run that lost its workflow must do no harm.
        """
        place = HERE.get()
        return place.run.owner if place is not None and place.run is not None else None

    @classproperty
    def sql_session(cls) -> Session:  # noqa: N805 - a property of the class
        """The SQLAlchemy session of the transaction that this code is in; it commits when the function returns."""
        place = HERE.get()
        if place is None or place.session is None:
            raise DBOSMisuseError("DBOS.sql_session may only be used in a function decorated with @DBOS.transaction()")
        return place.session  # type: ignore[no-any-return]  # the kernel does not know SQLAlchemy's orm

    @classproperty
    def application_version(cls) -> str:  # noqa: N805 - a property of the class
        """The version of the application's code; before launch the configured one, or that of the environment."""
        made = instance()
        if made is None:
            return os.environ.get(VERSION_VARIABLE, "")
        return made.launched.runtime.app_version if made.launched is not None else made.config.version or ""

    @classproperty
    def executor_id(cls) -> str:  # noqa: N805 - a property of the class
        """The name of this process among the executors; without an instance that of the environment, or empty."""
        made = instance()
        return os.environ.get(EXECUTOR_ID_VARIABLE, "") if made is None else made.config.executor_id

    @classproperty
    def authenticated_user(cls) -> str | None:  # noqa: N805 - a property of the class
        """The user on whose behalf this code runs."""
        return CALLER.get().user

    @classproperty
    def authenticated_roles(cls) -> list[str] | None:  # noqa: N805 - a property of the class
        """All roles of that user."""
        roles = CALLER.get().roles
        return None if roles is None else list(roles)

    @classproperty
    def assumed_role(cls) -> str | None:  # noqa: N805 - a property of the class
        """The role in which this workflow runs."""
        return CALLER.get().assumed_role

    @staticmethod
    def set_authentication(authenticated_user: str | None, authenticated_roles: list[str] | None) -> None:
        """Set the user and roles of the current context, as a middleware does; see `DBOSContextEnsure`."""
        roles = None if authenticated_roles is None else tuple(authenticated_roles)
        CALLER.set(replace(CALLER.get(), user=checked_user(authenticated_user), roles=roles))


def _step() -> StepStatus | None:
    place = HERE.get()
    return None if place is None else place.step
