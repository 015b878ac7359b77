"""`DBOSClient`: the workflows of an application, from another program."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar

from dbos._engine import handle, status
from dbos._engine.handle import Reference, WorkflowHandle, WorkflowHandleAsync
from dbos._engine.outside import Outside
from dbos._engine.transaction import Application
from dbos._faces import repair
from dbos._faces.ambient import clock
from dbos._faces.config import engine_for, urls_of
from dbos._faces.joining import Joining
from dbos._faces.parts import LOOKS
from dbos._faces.queue import RegisteredQueue
from dbos._features import (
    aggregates,
    archive,
    attributes,
    control,
    enqueue,
    events,
    failures,
    fork,
    inspection,
    listing,
    messages,
    notes,
    queues,
    retention,
    rewind,
    schedules,
    streams,
    versions,
)
from dbos._kernel.codec import WorkflowSerializationFormat
from dbos._kernel.plan import Methods, Op, arun, run
from dbos._kernel.store import ReadOnly
from dbos.error import DBOSInitializationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from types import TracebackType

    from sqlalchemy import URL, Engine

    from dbos._features.queues import QueueSettings
    from dbos._kernel.codec import Serializer
    from dbos._kernel.scope import Here
    from dbos._kernel.store import Store

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")

DEFAULT_POOL_SIZE = 5


def _handle(found: Reference) -> WorkflowHandle[Any]:
    return found.handle()


def _handle_async(found: Reference) -> WorkflowHandleAsync[Any]:
    return found.handle_async()


def _handles(found: list[Reference]) -> list[WorkflowHandle[Any]]:
    return [each.handle() for each in found]


def _handles_async(found: list[Reference]) -> list[WorkflowHandleAsync[Any]]:
    return [each.handle_async() for each in found]


def _queue(client: DBOSClient, settings: QueueSettings) -> RegisteredQueue:
    return RegisteredQueue(client._here, settings.name, of_client=True)  # noqa: SLF001 - the client's own face


def _queue_if_any(client: DBOSClient, settings: QueueSettings | None) -> RegisteredQueue | None:
    return None if settings is None else _queue(client, settings)


def _all_queues(client: DBOSClient, found: list[QueueSettings]) -> list[RegisteredQueue]:
    return [_queue(client, each) for each in found]


def _with_client(
    operation: Op[Here, P, R],
    place: Callable[[DBOSClient], Coroutine[Any, Any, Here]],
    wrap: Callable[[DBOSClient, R], A],
) -> Methods[DBOSClient, P, A, A]:
    """The methods of an operation whose result goes on asking the client."""
    plain, plain_async = operation.methods(place)

    @functools.wraps(plain)
    def method(self: DBOSClient, /, *args: P.args, **kwargs: P.kwargs) -> A:
        return wrap(self, plain(self, *args, **kwargs))

    @functools.wraps(plain_async)
    async def method_async(self: DBOSClient, /, *args: P.args, **kwargs: P.kwargs) -> A:
        return wrap(self, await plain_async(self, *args, **kwargs))

    return method, method_async


class DBOSClient(Joining):
    """The workflows of an application, from a program that runs none of them.

    It connects to the system database and makes nothing there: that is the application's business. Everything has a
    sync and an `_async` form; a sync one blocks, also in an event loop. Inside a workflow a client is outside all the
    same: nothing it does is recorded. Call `destroy()` at the end, or use it in a `with` or `async with` block.
    """

    def __init__(
        self,
        database_url: str | None = None,
        *,
        system_database_url: str | None = None,
        system_database_engine: Engine | None = None,
        application_database_url: str | None = None,
        dbos_system_schema: str | None = "dbos",
        serializer: Serializer | None = None,
        system_database_pool_size: int | None = None,
        lazy: bool = False,
        use_listen_notify: bool | None = None,
        retry_connection_errors: bool = True,
        system_database_polling_concurrency: int | None = None,
        observability_query_timeout_sec: float | None = None,
        sys_db_idle_transaction_timeout_sec: float | None = None,
        read_only: bool = False,
        statement_timeout_seconds: float | None = None,
    ) -> None:
        """Connect, or with `lazy` at the first call: an error of the address or the database is raised then.

        With `read_only` the database itself is asked to refuse whatever writes (a SQLite file is opened for reading, a
        role that may only SELECT suffices on Postgres), and operations that would write raise DBOSReadOnlyError before
        they reach it. Then a statement that takes longer than `statement_timeout_seconds` raises DBOSQueryTimeoutError.

        Give `application_database_url` where the application's transactions run in a database of their own, so that
        `delete_workflow` forgets those too. `database_url` is an older name of it. Those between `lazy` and
        `read_only` are accepted for programs that give them: a client listens when it waits, and polls nothing.
        """
        if database_url is not None:
            warnings.warn(
                "DBOSClient(database_url) is deprecated; give system_database_url", DeprecationWarning, stacklevel=2
            )
        self._read_only = _limits(read_only, statement_timeout_seconds)
        application = database_url or application_database_url
        self._url, application_url = _addresses(system_database_url, system_database_engine, application)

        def make_application(store: Store) -> Application | None:
            if application_url is None or application_url == self._url:
                return None
            return Application(engine_for(existing(application_url)), store, is_system=False, owns_engine=True)

        pool_size = system_database_pool_size or DEFAULT_POOL_SIZE
        self._ground = Outside(
            system_database_engine or engine_for(existing(self._url, "ro" if read_only else "rw"), pool_size=pool_size),
            owns_engine=system_database_engine is None,
            schema=dbos_system_schema or "dbos",
            serializer=serializer,
            clock=clock(),
            looks=LOOKS,
            make_application=make_application,
            read_only=self._read_only,
        )
        if not lazy:
            try:
                self._ground.connect()
            except BaseException:
                self.destroy()
                raise

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._url!r}>"

    async def _here(self) -> Here:
        """The place where operations of this client are performed, connected if it was not.

        A plan, as `Op.methods` takes it; other faces on a client use it too: `await client._here()` in a plan.
        """
        return await self._ground.place()

    @property
    def is_read_only(self) -> bool:
        """Whether this client refuses to write."""
        return self._read_only is not None

    def refuse_if_read_only(self) -> None:
        """Raise what an operation that writes would raise, before the first of several such operations."""
        if self._read_only is not None:
            raise self._read_only.refusal()

    # -- the end -----------------------------------------------------------------------------------------------

    def destroy(self) -> None:
        """Disconnect. Whoever still waits is told; a second call does nothing."""
        self._ground.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.destroy()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._ground.store.readers.call(self.destroy)

    def check_connection(self) -> None:
        """Connect if that was put off, and see that the database answers; raises what is wrong."""
        self._ground.connect()

    # -- operations --------------------------------------------------------------------------------------------

    # Enqueueing
    enqueue, enqueue_async = enqueue.enqueue.methods_as(_here, _handle, _handle_async)

    # Results and statuses
    retrieve_workflow, retrieve_workflow_async = handle.retrieve_workflow.methods_as(_here, _handle, _handle_async)
    get_result, get_result_async = handle.get_result.methods(_here)
    get_workflow_status, get_workflow_status_async = status.get_workflow_status.methods(_here)
    list_workflows, list_workflows_async = listing.list_workflows.methods(_here)
    list_queued_workflows, list_queued_workflows_async = listing.list_queued_workflows.methods(_here)
    list_workflow_steps, list_workflow_steps_async = listing.list_workflow_steps.methods(_here)

    # Control
    cancel_workflow, cancel_workflow_async = control.cancel_workflow.methods(_here)
    cancel_workflows, cancel_workflows_async = control.cancel_workflows.methods(_here)
    resume_workflow, resume_workflow_async = control.resume_workflow.methods_as(_here, _handle, _handle_async)
    resume_workflows, resume_workflows_async = control.resume_workflows.methods_as(_here, _handles, _handles_async)
    fork_workflow, fork_workflow_async = fork.fork_workflow.methods_as(_here, _handle, _handle_async)
    fork_from_failure, fork_from_failure_async = fork.fork_from_failure.methods_as(_here, _handle, _handle_async)
    repair_workflows, repair_workflows_async = repair.repair_workflows.methods(_here)
    delete_workflow, delete_workflow_async = control.delete_workflow.methods(_here)
    delete_workflows, delete_workflows_async = control.delete_workflows.methods(_here)
    set_workflow_delay, set_workflow_delay_async = control.set_workflow_delay.methods(_here)

    rewind_workflow, rewind_workflow_async = rewind.rewind_workflow.methods_as(_here, _handle, _handle_async)
    update_workflow_attributes, update_workflow_attributes_async = attributes.update_workflow_attributes.methods(_here)

    # Messages, events and streams
    send_bulk, send_bulk_async = messages.send_bulk.methods(_here)
    get_event, get_event_async = events.get_event.methods(_here)
    get_all_events, get_all_events_async = events.get_all_events.methods(_here)
    read_stream_offset, read_stream_offset_async = streams.read_stream_offset.methods(_here)

    # Queues
    register_queue, register_queue_async = _with_client(queues.register_queue, _here, _queue)
    retrieve_queue, retrieve_queue_async = _with_client(queues.retrieve_queue, _here, _queue_if_any)
    list_queues, list_queues_async = _with_client(queues.list_queues, _here, _all_queues)
    delete_queue, delete_queue_async = queues.delete_queue.methods(_here)

    # Schedules
    create_schedule, create_schedule_async = schedules.create_schedule.methods(_here)
    apply_schedules, apply_schedules_async = schedules.apply_schedules.methods(_here)
    list_schedules, list_schedules_async = schedules.list_schedules.methods(_here)
    get_schedule, get_schedule_async = schedules.get_schedule.methods(_here)
    pause_schedule, pause_schedule_async = schedules.pause_schedule.methods(_here)
    resume_schedule, resume_schedule_async = schedules.resume_schedule.methods(_here)
    delete_schedule, delete_schedule_async = schedules.delete_schedule.methods(_here)
    backfill_schedule, backfill_schedule_async = schedules.backfill_schedule.methods_as(_here, _handles, _handles_async)
    trigger_schedule, trigger_schedule_async = schedules.trigger_schedule.methods_as(_here, _handle, _handle_async)

    # Versions
    list_application_versions, list_application_versions_async = versions.list_application_versions.methods(_here)
    get_latest_application_version, get_latest_application_version_async = (
        versions.get_latest_application_version.methods(_here)
    )
    set_latest_application_version, set_latest_application_version_async = (
        versions.set_latest_application_version.methods(_here)
    )

    # What programs that look on read: many rows at once, no value decoded
    list_values, list_values_async = inspection.list_values.methods(_here)
    list_steps, list_steps_async = inspection.list_steps.methods(_here)
    get_step, get_step_async = inspection.get_step.methods(_here)
    list_messages, list_messages_async = inspection.list_messages.methods(_here)
    list_events, list_events_async = inspection.list_events.methods(_here)
    list_stream_entries, list_stream_entries_async = inspection.list_stream_entries.methods(_here)
    list_failures, list_failures_async = failures.list_failures.methods(_here)
    list_backlogs, list_backlogs_async = inspection.list_backlogs.methods(_here)
    count_by_version, count_by_version_async = inspection.count_by_version.methods(_here)
    list_fire_times, list_fire_times_async = inspection.list_fire_times.methods(_here)

    assign_application_version, assign_application_version_async = versions.assign_application_version.methods(_here)

    # Counting
    get_workflow_aggregates, get_workflow_aggregates_async = aggregates.get_workflow_aggregates.methods(_here)
    get_metrics, get_metrics_async = aggregates.get_metrics.methods(_here)
    get_workflow_rates, get_workflow_rates_async = aggregates.get_workflow_rates.methods(_here)

    # Keeping and tidying up
    export_workflows, export_workflows_async = archive.export_workflows.methods(_here)
    import_workflows, import_workflows_async = archive.import_workflows.methods(_here)
    garbage_collect, garbage_collect_async = retention.garbage_collect.methods(_here)
    global_timeout, global_timeout_async = retention.global_timeout.methods(_here)

    # What an extension keeps of runs
    list_notes, list_notes_async = notes.list_notes.methods(_here)
    list_sources, list_sources_async = notes.list_sources.methods(_here)
    keep_source, keep_source_async = notes.keep_source.methods(_here)

    # What has another form here than elsewhere: a key that may be given by position, generators, handles

    def send(
        self,
        destination_id: str,
        message: Any,
        topic: str | None = None,
        idempotency_key: str | None = None,
        *,
        serialization_type: WorkflowSerializationFormat | None = WorkflowSerializationFormat.DEFAULT,
        send_to_forks: bool = False,
    ) -> None:
        """Send a message to a workflow, which takes it with `recv`, now or later.

        It is sent once, however often it is sent with the same `idempotency_key` to the same workflow.
        `send_to_forks` sends it to all forks of the workflow too. Raises DBOSNonExistentWorkflowError if there is no
        such workflow.
        """
        run(self._send(destination_id, message, topic, idempotency_key, serialization_type, send_to_forks))

    async def send_async(
        self,
        destination_id: str,
        message: Any,
        topic: str | None = None,
        idempotency_key: str | None = None,
        *,
        serialization_type: WorkflowSerializationFormat | None = WorkflowSerializationFormat.DEFAULT,
        send_to_forks: bool = False,
    ) -> None:
        """Send a message to a workflow; see `send`."""
        await arun(self._send(destination_id, message, topic, idempotency_key, serialization_type, send_to_forks))

    async def _send(
        self,
        destination_id: str,
        message: Any,
        topic: str | None,
        idempotency_key: str | None,
        serialization_type: WorkflowSerializationFormat | None,
        send_to_forks: bool,
    ) -> None:
        await messages.send.plan(
            await self._here(),
            destination_id,
            message,
            topic,
            idempotency_key=idempotency_key,
            serialization_type=serialization_type,
            send_to_forks=send_to_forks,
        )

    def read_stream(
        self,
        workflow_id: str,
        key: str,
        *,
        offset: int = 0,
        timeout_seconds: float | None = None,
        polling_interval_sec: float | None = None,
    ) -> Generator[Any, None, None]:
        """Yield the values of a stream in their order, as they come, until it is closed or its workflow ends.

        It begins at `offset`, counted from 0. Raises DBOSStreamTimeoutError when the next value takes longer than
        `timeout_seconds`, and DBOSNonExistentWorkflowError for an unknown workflow. Nothing is polled, whatever the
        interval.
        """
        reading = streams.Reading(workflow_id, key, offset, timeout_seconds, polling_interval_sec)
        yield from streams.values(self._here, reading)

    async def read_stream_async(
        self,
        workflow_id: str,
        key: str,
        *,
        offset: int = 0,
        timeout_seconds: float | None = None,
        polling_interval_sec: float | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Yield the values of a stream in their order, as they come; see `read_stream`."""
        reading = streams.Reading(workflow_id, key, offset, timeout_seconds, polling_interval_sec)
        async for value in streams.values_async(self._here, reading):
            yield value

    def wait_first(
        self, handles: list[WorkflowHandle[Any]], *, polling_interval_sec: float = 1.0
    ) -> WorkflowHandle[Any]:
        """Wait for the first of these workflows to end, in any way, and return its handle.

        Raises ValueError if there are none, or one twice. Nothing is polled, whatever the interval.
        """

        async def first() -> WorkflowHandle[Any]:
            return await handle.first_done(await self._here(), handles)

        return run(first())

    async def wait_first_async(
        self, handles: list[WorkflowHandleAsync[Any]], *, polling_interval_sec: float = 1.0
    ) -> WorkflowHandleAsync[Any]:
        """Wait for the first of these workflows to end; see `wait_first`."""

        async def first() -> WorkflowHandleAsync[Any]:
            return await handle.first_done(await self._here(), handles)

        return await arun(first())


def _limits(read_only: bool, statement_timeout_seconds: float | None) -> ReadOnly | None:
    """What a client is kept from, if it is."""
    if statement_timeout_seconds is not None and not (read_only and statement_timeout_seconds > 0):
        raise DBOSInitializationError(
            "statement_timeout_seconds is a number above 0, for a client with read_only=True: a write that was given up "
            "may have happened"
        )
    return ReadOnly(statement_timeout_seconds) if read_only else None


def _addresses(system: str | None, engine: Engine | None, application: str | None) -> tuple[URL, URL | None]:
    """The addresses of the system database and, if it is known, of that of the application's transactions."""
    if system is not None or (application is not None and engine is None):
        return urls_of(system, application)
    if engine is None:
        raise DBOSInitializationError("DBOSClient needs the address of a database: give system_database_url")
    return engine.url, None if application is None else urls_of(engine.url, application)[1]


def existing(url: URL, mode: Literal["ro", "rw"] = "rw") -> URL:
    """The URL of a database that is not to be made: SQLite makes any file that it is not told to find."""
    if url.get_backend_name() != "sqlite" or url.database is None or url.database.startswith("file:"):
        return url
    return url.set(database=Path(url.database).absolute().as_uri(), query={**url.query, "mode": mode, "uri": "true"})
