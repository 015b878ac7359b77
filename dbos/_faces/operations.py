"""What `DBOS` does to workflows: one line per operation, which makes the method and its `_async` twin."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from typing import Any, ParamSpec, TypeVar

from dbos._engine import handle, status
from dbos._engine.handle import Reference, WorkflowHandle, WorkflowHandleAsync
from dbos._engine.order import EnqueueOptions
from dbos._engine.runtime import Runtime
from dbos._engine.start import background, invoke
from dbos._engine.step import StepOptions, perform_step, step_options
from dbos._faces import repair
from dbos._faces.ambient import here, patching_here, registry
from dbos._faces.queue import all_registered, enqueued, enqueued_by_name, registered, registered_if_any
from dbos._faces.reservation import reserve_step
from dbos._features import (
    aggregates,
    archive,
    attributes,
    control,
    events,
    fork,
    gather,
    inspection,
    listing,
    messages,
    notes,
    patches,
    queues,
    retention,
    rewind,
    sleep,
    streams,
    versions,
)
from dbos._kernel.plan import arun, loop_is_running, refuse_to_block, run
from dbos._kernel.scope import HERE, Here

P = ParamSpec("P")
R = TypeVar("R")


def _handle(found: Reference) -> WorkflowHandle[Any]:
    return found.handle()


def _handle_async(found: Reference) -> WorkflowHandleAsync[Any]:
    return found.handle_async()


def _handles(found: list[Reference]) -> list[WorkflowHandle[Any]]:
    return [each.handle() for each in found]


def _handles_async(found: list[Reference]) -> list[WorkflowHandleAsync[Any]]:
    return [each.handle_async() for each in found]


async def _place() -> Here:
    return here()


class Operations:
    """The operations of `DBOS`."""

    # Results and statuses
    get_result, get_result_async = handle.get_result.pair(here)
    get_workflow_status, get_workflow_status_async = status.get_workflow_status.pair(here)
    retrieve_workflow, retrieve_workflow_async = handle.retrieve_workflow.pair_as(here, _handle, _handle_async)
    list_workflows, list_workflows_async = listing.list_workflows.pair(here)
    list_queued_workflows, list_queued_workflows_async = listing.list_queued_workflows.pair(here)
    list_workflow_steps, list_workflow_steps_async = listing.list_workflow_steps.pair(here)

    # Control
    cancel_workflow, cancel_workflow_async = control.cancel_workflow.pair(here)
    cancel_workflows, cancel_workflows_async = control.cancel_workflows.pair(here)
    resume_workflow, resume_workflow_async = control.resume_workflow.pair_as(here, _handle, _handle_async)
    resume_workflows, resume_workflows_async = control.resume_workflows.pair_as(here, _handles, _handles_async)
    fork_workflow, fork_workflow_async = fork.fork_workflow.pair_as(here, _handle, _handle_async)
    fork_from_failure, fork_from_failure_async = fork.fork_from_failure.pair_as(here, _handle, _handle_async)
    repair_workflows, repair_workflows_async = repair.repair_workflows.pair(here)
    delete_workflow, delete_workflow_async = control.delete_workflow.pair(here)
    delete_workflows, delete_workflows_async = control.delete_workflows.pair(here)
    set_workflow_delay, set_workflow_delay_async = control.set_workflow_delay.pair(here)
    rewind_workflow, rewind_workflow_async = rewind.rewind_workflow.pair_as(here, _handle, _handle_async)
    update_workflow_attributes, update_workflow_attributes_async = attributes.update_workflow_attributes.pair(here)

    # Messages, events and streams
    send, send_async = messages.send.pair(here)
    send_bulk, send_bulk_async = messages.send_bulk.pair(here)
    recv, recv_async = messages.recv.pair(here)
    set_event, set_event_async = events.set_event.pair(here)
    get_event, get_event_async = events.get_event.pair(here)
    get_all_events, get_all_events_async = events.get_all_events.pair(here)
    write_stream, write_stream_async = streams.write_stream.pair(here)
    close_stream, close_stream_async = streams.close_stream.pair(here)
    read_stream_offset, read_stream_offset_async = streams.read_stream_offset.pair(here)

    # Queues
    register_queue, register_queue_async = queues.register_queue.pair_as(here, registered, registered)
    retrieve_queue, retrieve_queue_async = queues.retrieve_queue.pair_as(here, registered_if_any, registered_if_any)
    list_queues, list_queues_async = queues.list_queues.pair_as(here, all_registered, all_registered)
    delete_queue, delete_queue_async = queues.delete_queue.pair(here)

    # Changes of code
    patch, patch_async = patches.patch.pair(patching_here)
    deprecate_patch, deprecate_patch_async = patches.deprecate_patch.pair(patching_here)

    # Time and versions
    sleep, sleep_async = sleep.sleep.pair(here)
    list_application_versions, list_application_versions_async = versions.list_application_versions.pair(here)
    get_latest_application_version, get_latest_application_version_async = versions.get_latest_application_version.pair(
        here
    )
    set_latest_application_version, set_latest_application_version_async = versions.set_latest_application_version.pair(
        here
    )

    # What programs that look on read: many rows at once, no value decoded
    list_values, list_values_async = inspection.list_values.pair(here)
    list_steps, list_steps_async = inspection.list_steps.pair(here)
    get_step, get_step_async = inspection.get_step.pair(here)
    list_messages, list_messages_async = inspection.list_messages.pair(here)
    list_events, list_events_async = inspection.list_events.pair(here)
    list_stream_entries, list_stream_entries_async = inspection.list_stream_entries.pair(here)
    list_backlogs, list_backlogs_async = inspection.list_backlogs.pair(here)
    count_by_version, count_by_version_async = inspection.count_by_version.pair(here)
    list_fire_times, list_fire_times_async = inspection.list_fire_times.pair(here)

    assign_application_version, assign_application_version_async = versions.assign_application_version.pair(here)

    # Counting
    get_workflow_aggregates, get_workflow_aggregates_async = aggregates.get_workflow_aggregates.pair(here)
    get_metrics, get_metrics_async = aggregates.get_metrics.pair(here)
    get_workflow_rates, get_workflow_rates_async = aggregates.get_workflow_rates.pair(here)

    # Keeping and tidying up
    export_workflows, export_workflows_async = archive.export_workflows.pair(here)
    import_workflows, import_workflows_async = archive.import_workflows.pair(here)
    garbage_collect, garbage_collect_async = retention.garbage_collect.pair(here)
    global_timeout, global_timeout_async = retention.global_timeout.pair(here)

    # What an extension keeps of runs
    list_notes, list_notes_async = notes.list_notes.pair(here)
    list_sources, list_sources_async = notes.list_sources.pair(here)
    keep_source, keep_source_async = notes.keep_source.pair(here)

    # What takes a function or handles, and so has a type of its own

    @staticmethod
    def start_workflow(func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[Any]:
        """Start a workflow beside, and return its handle once it is stored; from then on it is run to its end."""
        return run(_start(func, args, kwargs)).handle()

    @staticmethod
    async def start_workflow_async(
        func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandleAsync[Any]:
        """Start a workflow beside, an async one on this event loop, and return its handle once it is stored."""
        return (await arun(_start(func, args, kwargs))).handle_async()

    @staticmethod
    def enqueue_workflow(
        queue_name: str, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[Any]:
        """Put a workflow, a step or a transaction on the queue of that name, and return its handle once it is stored.

        Raises DBOSException if the queue is neither declared in this process nor registered in the database.
        """
        refuse_to_block("enqueue_workflow")
        return run(enqueued(queue_name, func, args, kwargs)).handle()

    @staticmethod
    async def enqueue_workflow_async(
        queue_name: str, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandleAsync[Any]:
        """Put a workflow, a step or a transaction on the queue of that name; see `enqueue_workflow`."""
        return (await arun(enqueued(queue_name, func, args, kwargs))).handle_async()

    @staticmethod
    def enqueue_workflow_with_options(options: EnqueueOptions, *args: Any, **kwargs: Any) -> WorkflowHandle[Any]:
        """Put a workflow on a queue by its name, as `DBOSClient.enqueue` does; the function need not be here.

        In a workflow it is a child. What `with` blocks say of queues has no meaning for it; their id, user and attributes
        count where the options name none.
        """
        refuse_to_block("enqueue_workflow_with_options")
        return run(enqueued_by_name(options, args, kwargs)).handle()

    @staticmethod
    async def enqueue_workflow_with_options_async(
        options: EnqueueOptions, *args: Any, **kwargs: Any
    ) -> WorkflowHandleAsync[Any]:
        """Put a workflow on a queue by its name; see `enqueue_workflow_with_options`."""
        return (await arun(enqueued_by_name(options, args, kwargs))).handle_async()

    @staticmethod
    def wait_first(handles: list[WorkflowHandle[Any]], *, polling_interval_sec: float = 1.0) -> WorkflowHandle[Any]:
        """Wait for the first of these workflows to end, in any way, and return its handle.

        Raises ValueError if there are none, or one twice. Nothing is polled, whatever the interval.
        """
        refuse_to_block("wait_first")
        return run(handle.first_done(here(), handles))

    @staticmethod
    async def wait_first_async(
        handles: list[WorkflowHandleAsync[Any]], *, polling_interval_sec: float = 1.0
    ) -> WorkflowHandleAsync[Any]:
        """Wait for the first of these workflows to end; see `wait_first`."""
        return await arun(handle.first_done(here(), handles))

    @staticmethod
    async def asyncio_wait(
        fs: list[Awaitable[Any]],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of asyncio.wait
        return_when: str = asyncio.ALL_COMPLETED,
    ) -> gather.Split:
        """Wait for awaitables like `asyncio.wait`; in a workflow, which were done is recorded for its replay."""
        return await gather.asyncio_wait(HERE.get(), fs, timeout=timeout, return_when=return_when)

    @staticmethod
    def read_stream(
        workflow_id: str,
        key: str,
        *,
        offset: int = 0,
        timeout_seconds: float | None = None,
        polling_interval_sec: float | None = None,
    ) -> Generator[Any, None, None]:
        """Yield the values of a stream in their order, as they come, until it is closed or its workflow ends.

        It begins at `offset`, counted from 0. Raises DBOSStreamTimeoutError when the next value takes longer than
        `timeout_seconds`, and DBOSNonExistentWorkflowError for an unknown workflow. In a workflow every value is a
        recorded step. Nothing is polled, whatever the interval.
        """
        refuse_to_block("read_stream")
        reading = streams.Reading(workflow_id, key, offset, timeout_seconds, polling_interval_sec)
        yield from streams.values(_place, reading)

    @staticmethod
    async def read_stream_async(
        workflow_id: str,
        key: str,
        *,
        offset: int = 0,
        timeout_seconds: float | None = None,
        polling_interval_sec: float | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Yield the values of a stream in their order, as they come; see `read_stream`."""
        reading = streams.Reading(workflow_id, key, offset, timeout_seconds, polling_interval_sec)
        async for value in streams.values_async(_place, reading):
            yield value

    reserve_step = staticmethod(reserve_step)

    @staticmethod
    def run_step(dbos_step_options: StepOptions | None, func: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run any function as a step of the workflow; outside of one, just call it.

        A coroutine function is run to its end on an event loop of the runtime.
        """
        refuse_to_block("run_step")
        place = HERE.get()
        if place is None or not place.in_body:
            return func(*args, **kwargs)
        spec = step_options(dbos_step_options, func)
        return run(perform_step(place, spec, func, args, kwargs, is_async=False))  # type: ignore[no-any-return]

    @staticmethod
    async def run_step_async(
        dbos_step_options: StepOptions | None,
        func: Callable[P, Coroutine[Any, Any, R]] | Callable[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Run any function as a step of the workflow; outside of one, just call it. A sync one runs in a thread."""
        if not loop_is_running():
            raise RuntimeError(
                "run_step_async() was called but an event loop is not running. Use run_step(...) instead."
            )
        place = HERE.get()
        if place is None or not place.in_body:
            value = func(*args, **kwargs)
            return await value if inspect.iscoroutine(value) else value  # type: ignore[return-value]  # mypy keeps the coroutine
        spec = step_options(dbos_step_options, func)
        return await arun(perform_step(place, spec, func, args, kwargs, is_async=spec.is_awaited(func)))


async def _start(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reference:
    # Not the runtime of this process: a workflow may run before a launch is over, and while the runtime ends.
    place = here()
    ground = place.ground
    assert isinstance(ground, Runtime)
    spec = registry.spec_of(func)
    receiver = getattr(func, "__self__", None)
    invocation = invoke(ground, spec, args if receiver is None else (receiver, *args), kwargs)
    started = await background(place, invocation)
    return Reference(ground, started.workflow_id, started.run or ground.running(started.workflow_id))
