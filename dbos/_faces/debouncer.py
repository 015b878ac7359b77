"""`Debouncer` and `DebouncerClient`: workflows that wait for the end of a burst of calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from dbos._engine.handle import Reference, WorkflowHandle, WorkflowHandleAsync
from dbos._engine.order import EnqueueOptions, order_of
from dbos._engine.registry import NAME_ATTRIBUTE
from dbos._engine.row import Order
from dbos._engine.runtime import Runtime
from dbos._faces.ambient import here, registry
from dbos._faces.queue import Queue
from dbos._features.debounce import Pace, debounce
from dbos._kernel.model import INTERNAL_QUEUE
from dbos._kernel.naming import refuses_known_ids
from dbos._kernel.plan import arun, run
from dbos._kernel.scope import CALLER, OPTIONS
from dbos.error import DBOSException, DBOSWorkflowFunctionNotFoundError

if TYPE_CHECKING:
    from dbos._faces.client import DBOSClient

P = ParamSpec("P")
R = TypeVar("R")

# The calls of a burst mean one workflow, so its id is known to all but the first of them.
NEW_ID = "workflow_id_reuse_policy 'reject'"


class Debouncer(Generic[P, R]):
    """Runs a workflow when the calls have ended: so long after the last one, with the arguments of that one.

    Make one with `Debouncer.create`, or `Debouncer.create_async` for an async workflow; the constructor takes the name
    of a workflow instead. `debounce_timeout_sec` bounds how long after the first call the workflow starts; `queue` is
    where it is put then. Debouncers of one workflow and queue, in all processes, have their keys in common.
    """

    def __init__(
        self, workflow_name: str, *, debounce_timeout_sec: float | None = None, queue: Queue | str | None = None
    ) -> None:
        self.workflow_name, self.debounce_timeout_sec = workflow_name, debounce_timeout_sec
        self.queue_name = _queue_name(queue)
        Pace.of(0, debounce_timeout_sec)

    def __repr__(self) -> str:
        return f"<Debouncer {self.workflow_name}>"

    @staticmethod
    def create(
        workflow: Callable[P, R], *, debounce_timeout_sec: float | None = None, queue: Queue | str | None = None
    ) -> Debouncer[P, R]:
        """Make a debouncer of a workflow function. Raises TypeError for a method."""
        return Debouncer(_name_of(workflow), debounce_timeout_sec=debounce_timeout_sec, queue=queue)

    @staticmethod
    def create_async(
        workflow: Callable[P, Coroutine[Any, Any, R]],
        *,
        debounce_timeout_sec: float | None = None,
        queue: Queue | str | None = None,
    ) -> Debouncer[P, R]:
        """Make a debouncer of an async workflow function; use its `debounce_async`. Raises TypeError for a method."""
        return Debouncer(_name_of(workflow), debounce_timeout_sec=debounce_timeout_sec, queue=queue)

    def debounce(
        self, debounce_key: str, debounce_period_sec: float, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[R]:
        """Run the workflow with these arguments after that many seconds, unless another call with this key comes first.

        Returns the handle of the workflow, which all calls of a burst have in common. `SetWorkflowID` names it if the
        call begins a burst.
        """
        return run(self._debounce(debounce_key, debounce_period_sec, args, kwargs)).handle()

    async def debounce_async(
        self, debounce_key: str, debounce_period_sec: float, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandleAsync[R]:
        """Run the workflow with these arguments when the calls have ended; see `debounce`."""
        return (await arun(self._debounce(debounce_key, debounce_period_sec, args, kwargs))).handle_async()

    async def _debounce(self, key: str, seconds: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reference:
        place = here()
        ground = place.ground
        assert isinstance(ground, Runtime)
        spec = registry.workflows.get(self.workflow_name)
        queue = ground.queues().get(self.queue_name)
        if queue is not None and queue.each is not None:
            raise DBOSException(f"Cannot debounce workflows on queue {self.queue_name}, which is partitioned")
        options, caller = OPTIONS.get(), CALLER.get()
        _refuse(
            deduplication_id=options.deduplication_id,
            priority=options.priority,
            queue_partition_key=options.queue_partition_key,
            delay_seconds=options.delay_until_ms,
        )
        assigned = None
        if options.assigned is not None and not options.assigned.taken:
            _refuse(**{NEW_ID: options.assigned.is_new or None})
            assigned, options.assigned.taken = options.assigned.workflow_id, True
        order = Order(
            name=self.workflow_name,
            queue=self.queue_name,
            args=args,
            kwargs=kwargs,
            workflow_id=assigned,
            app_version=options.app_version or ground.app_version,
            timeout_ms=options.timeout_ms,
            user=caller.user,
            roles=caller.roles,
            format=None if spec is None else spec.format,
            attributes=options.attributes,
        )
        return await debounce.plan(place, order, key, Pace.of(seconds, self.debounce_timeout_sec))


class DebouncerClient:
    """Debounces a workflow of an application from another program; see `Debouncer`.

    `workflow_options` are those of `DBOSClient.enqueue`, without deduplication, priority, partition and delay.
    """

    def __init__(
        self,
        client: DBOSClient,
        workflow_options: EnqueueOptions,
        *,
        debounce_timeout_sec: float | None = None,
        queue: Queue | str | None = None,
    ) -> None:
        self.client, self.debounce_timeout_sec = client, debounce_timeout_sec
        self.workflow_options: dict[str, Any] = {"queue_name": INTERNAL_QUEUE, **workflow_options}
        if queue is not None:
            self.workflow_options["queue_name"] = _queue_name(queue)
        Pace.of(0, debounce_timeout_sec)
        refused = ("deduplication_id", "duplication_policy", "priority", "queue_partition_key", "delay_seconds")
        _refuse(**{name: self.workflow_options.get(name) for name in refused})
        _refuse(**{NEW_ID: refuses_known_ids(self.workflow_options.get("workflow_id_reuse_policy")) or None})

    def debounce(self, debounce_key: str, debounce_period_sec: float, *args: Any, **kwargs: Any) -> WorkflowHandle[Any]:
        """Run the workflow with these arguments after that many seconds, unless another call with this key comes first.

        Returns the handle of the workflow, which all calls of a burst have in common.
        """
        return run(self._debounce(debounce_key, debounce_period_sec, args, kwargs)).handle()

    async def debounce_async(
        self, debounce_key: str, debounce_period_sec: float, *args: Any, **kwargs: Any
    ) -> WorkflowHandleAsync[Any]:
        """Run the workflow with these arguments when the calls have ended; see `debounce`."""
        return (await arun(self._debounce(debounce_key, debounce_period_sec, args, kwargs))).handle_async()

    async def _debounce(self, key: str, seconds: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reference:
        place = await self.client._here()  # noqa: SLF001 - it offers this to other faces
        order = order_of(self.workflow_options, args, kwargs, place.ground.clock)
        return await debounce.plan(place, order, key, Pace.of(seconds, self.debounce_timeout_sec))


def _name_of(workflow: Callable[..., Any]) -> str:
    if inspect.ismethod(workflow):
        raise TypeError("Only workflow functions may be debounced, not methods")
    name = getattr(workflow, NAME_ATTRIBUTE, None)
    if name not in registry.workflows:
        raise DBOSWorkflowFunctionNotFoundError(
            f"{getattr(workflow, '__qualname__', workflow)!r} is not a registered workflow function. "
            "Decorate it with @DBOS.workflow()."
        )
    return str(name)


def _queue_name(queue: Queue | str | None) -> str:
    if queue is None:
        return INTERNAL_QUEUE
    return queue if isinstance(queue, str) else queue.name


def _refuse(**options: Any) -> None:
    """What has another meaning for a workflow that is put off again and again."""
    for name, value in options.items():
        if value is not None:
            raise DBOSException(f"Cannot debounce a workflow with {name}: it has no meaning there")
