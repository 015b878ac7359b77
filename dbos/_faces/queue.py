"""`Queue`: where workflows wait until they may run, and how many of them may."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dbos._engine.handle import Reference, WorkflowHandle, WorkflowHandleAsync
from dbos._engine.order import order_of
from dbos._engine.queue import DEFAULT_INTERVAL_SECONDS, QueueRateLimit, QueueSpec, check_place, declared
from dbos._engine.runtime import Runtime
from dbos._engine.start import enqueue, enqueue_by_name, invoke
from dbos._faces.ambient import here, registry
from dbos._features import queues
from dbos._kernel.plan import Plan, arun, run
from dbos._kernel.scope import CALLER, OPTIONS
from dbos.error import DBOSException

if TYPE_CHECKING:
    from dbos._engine.order import EnqueueOptions
    from dbos._features.queues import QueueSettings
    from dbos._kernel.scope import Here

P = ParamSpec("P")
R = TypeVar("R")


class Queue:
    """A queue that is declared in code: every process that declares it, and does not listen to others only, serves it.

    At most `concurrency` of its workflows run at once in all processes together, at most `worker_concurrency` in each
    (0: none), and at most `limiter["limit"]` are started in any `limiter["period"]` seconds. With `priority_enabled`
    the more urgent go first; within one priority the order is that of enqueueing. With `partition_queue` every
    partition is a queue by itself, to which the limits apply; what a client put there without a key is one more, whose
    turn comes when nothing with a key waits. Nothing is polled: only an interval longer than a second is taken for the
    wish to be looked at so seldom.

    A workflow that waits keeps its place. So what a workflow of a limited queue waits for must not be on the same
    queue: when all places are taken by those who wait, none is left for what they wait for (a warning says so).
    """

    def __init__(
        self,
        name: str,
        concurrency: int | None = None,
        limiter: QueueRateLimit | None = None,
        *,
        worker_concurrency: int | None = None,
        priority_enabled: bool = False,
        partition_queue: bool = False,
        polling_interval_sec: float = DEFAULT_INTERVAL_SECONDS,
    ) -> None:
        spec = declared(
            name,
            concurrency=concurrency,
            limiter=limiter,
            worker_concurrency=worker_concurrency,
            priority_enabled=priority_enabled,
            partition_queue=partition_queue,
            polling_interval_sec=polling_interval_sec,
        )
        self.name = name
        self.concurrency, self.worker_concurrency, self.limiter = concurrency, worker_concurrency, limiter
        self.priority_enabled, self.partition_queue = priority_enabled, partition_queue
        self.polling_interval_sec = polling_interval_sec
        registry.add_queue(spec)

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"

    def enqueue(self, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[Any]:
        """Put a workflow, a step or a transaction on the queue and return its handle once that is stored."""
        return run(enqueued(self.name, func, args, kwargs)).handle()

    async def enqueue_async(
        self, func: Callable[P, Coroutine[Any, Any, R]] | Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandleAsync[Any]:
        """Put a workflow, a step or a transaction on the queue and return its handle once that is stored."""
        return (await arun(enqueued(self.name, func, args, kwargs))).handle_async()


async def enqueued(queue: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reference:
    """Put a function that is registered here on a queue."""
    place = here()
    ground = place.ground
    assert isinstance(ground, Runtime)
    options = OPTIONS.get()
    check_place(
        await known(place, ground, queue),
        deduplication_id=options.deduplication_id,
        priority=options.priority,
        partition_key=options.queue_partition_key,
    )
    receiver = getattr(func, "__self__", None)
    spec = registry.spec_of(func)
    invocation = invoke(ground, spec, args if receiver is None else (receiver, *args), kwargs)
    started = await enqueue(place, invocation, queue)
    return Reference(ground, started.workflow_id, ground.expect(started.workflow_id))


async def enqueued_by_name(options: EnqueueOptions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reference:
    """Put a workflow on a queue whose function need not be registered here."""
    place = here()
    ground = place.ground
    assert isinstance(ground, Runtime)
    order = order_of(options, args, kwargs, ground.clock)
    spec = ground.queues().get(order.queue)
    if spec is not None:
        check_place(
            spec,
            deduplication_id=order.deduplication_id,
            priority=order.priority or None,
            partition_key=order.partition_key,
        )
    if order.user is None and order.roles is None:
        caller = CALLER.get()
        order = replace(order, user=caller.user, roles=caller.roles)
    if order.attributes is None:
        order = replace(order, attributes=OPTIONS.get().attributes)
    workflow_id = await enqueue_by_name(place, order)
    return Reference(ground, workflow_id, ground.expect(workflow_id))


async def known(place: Here, runtime: Runtime, name: str) -> QueueSpec:
    """The queue of that name, declared in code or registered in the database."""
    spec = runtime.queues().get(name)
    if spec is None:
        settings = await queues.retrieve_queue.plan(place, name)
        if settings is None:
            raise DBOSException(f"Queue {name!r} is not declared in this process and not registered in the database")
        spec = settings.spec()
    return spec


def _setting(name: str) -> tuple[Any, Any, Any, Any]:
    """A property of a registered queue, its async reader, and its setter in both colours."""

    def read(self: RegisteredQueue) -> Any:
        return run(self._read(name))

    async def read_async(self: RegisteredQueue) -> Any:
        return await arun(self._read(name))

    def change(self: RegisteredQueue, value: Any) -> None:
        run(self._change(name, value))

    async def change_async(self: RegisteredQueue, value: Any) -> None:
        await arun(self._change(name, value))

    read.__doc__ = f"The `{name}` of the queue, as the database has it now."
    read_async.__doc__ = f"Return the `{name}` of the queue, as the database has it now."
    change.__doc__ = change_async.__doc__ = f"Set the `{name}` of the queue, for all processes at once."
    return property(read), read_async, change, change_async


class RegisteredQueue(Queue):
    """A queue that is registered in the database: what it is set to is read from there, and set there for everybody."""

    priority_enabled = True

    def __init__(self, place: Callable[[], Plan[Here]], name: str, *, of_client: bool = False) -> None:
        self.name = name
        self._place, self._of_client = place, of_client

    global_concurrency, get_global_concurrency_async, set_global_concurrency, set_global_concurrency_async = _setting(
        "global_concurrency"
    )
    # An older name of the same.
    concurrency, get_concurrency_async, set_concurrency, set_concurrency_async = _setting("global_concurrency")
    worker_concurrency, get_worker_concurrency_async, set_worker_concurrency, set_worker_concurrency_async = _setting(
        "worker_concurrency"
    )
    limiter, get_limiter_async, set_limiter, set_limiter_async = _setting("limiter")
    (
        partition_concurrency,
        get_partition_concurrency_async,
        set_partition_concurrency,
        set_partition_concurrency_async,
    ) = _setting("partition_concurrency")
    (
        partition_worker_concurrency,
        get_partition_worker_concurrency_async,
        set_partition_worker_concurrency,
        set_partition_worker_concurrency_async,
    ) = _setting("partition_worker_concurrency")
    partition_limiter, get_partition_limiter_async, set_partition_limiter, set_partition_limiter_async = _setting(
        "partition_limiter"
    )
    polling_interval_sec, get_polling_interval_sec_async, set_polling_interval_sec, set_polling_interval_sec_async = (
        _setting("polling_interval_sec")
    )
    partition_queue, get_partition_queue_async, _, _ = _setting("is_partitioned")

    def enqueue(self, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[Any]:
        """Put a workflow, a step or a transaction on the queue and return its handle once that is stored."""
        self._refuse_client()
        return super().enqueue(func, *args, **kwargs)

    async def enqueue_async(
        self, func: Callable[P, Coroutine[Any, Any, R]] | Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandleAsync[Any]:
        """Put a workflow, a step or a transaction on the queue and return its handle once that is stored."""
        self._refuse_client()
        return await super().enqueue_async(func, *args, **kwargs)

    def _refuse_client(self) -> None:
        if self._of_client:
            raise DBOSException(f"A client has no functions to put on queue {self.name}; use DBOSClient.enqueue")

    async def _read(self, name: str) -> Any:
        settings = await queues.retrieve_queue.plan(await self._place(), self.name)
        if settings is None:
            raise DBOSException(f"Queue {self.name!r} is not registered in the database; it may have been deleted")
        return getattr(settings, name)

    async def _change(self, name: str, value: Any) -> None:
        await queues.change_queue(await self._place(), self.name, **{name: value})


async def ambient_place() -> Here:
    """Where the caller is: for queues of the runtime of this process."""
    return here()


def registered(settings: QueueSettings) -> RegisteredQueue:
    """The queue of this process's runtime that has these settings."""
    return RegisteredQueue(ambient_place, settings.name)


def registered_if_any(settings: QueueSettings | None) -> RegisteredQueue | None:
    return None if settings is None else registered(settings)


def all_registered(found: list[QueueSettings]) -> list[RegisteredQueue]:
    return [registered(each) for each in found]
