"""Starting a workflow: insert its row, or attach to the one that is there.

The row is inserted with everything the run needs, and for a child together with the parent's record of having
started it, so a crash leaves both or neither. If the id is taken, the caller attaches: the first inputs win, a
finished workflow is not run again, and one whose last run was interrupted here is taken up.
"""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from dbos._engine.claim import Claimed, adopt
from dbos._engine.result import GET_RESULT, await_ending, ending_entry, record_ending
from dbos._engine.roles import authorize, in_role, roles_of
from dbos._engine.row import TAKEN, NewRow, conflict, find_holder, in_use, insert, place, rings_of, row_of
from dbos._engine.runtime import Runtime
from dbos._engine.transitions import RECORD_CHILD
from dbos._engine.workflow import Ending, execute, execute_claimed
from dbos._kernel.journal import (
    STANDING,
    answer,
    check_standing,
    commit,
    ensure_running,
    record,
    refuse_in_transaction,
    replay,
)
from dbos._kernel.model import DEAD_LETTER, DELAYED, ENQUEUED, PENDING
from dbos._kernel.naming import checked_id, new_id
from dbos._kernel.scope import CALLER, OPTIONS, Run
from dbos._kernel.slot import Slot
from dbos._kernel.statement import Entry
from dbos.error import (
    DBOSConflictingWorkflowError,
    DBOSException,
    DBOSMisuseError,
    DBOSQueueDeduplicatedError,
    MaxRecoveryAttemptsExceededError,
)

if TYPE_CHECKING:
    from dbos._engine.registry import WorkflowSpec
    from dbos._engine.row import Order
    from dbos._kernel.scope import Here, StartOptions
    from dbos._kernel.statement import Row

logger = logging.getLogger("dbos")


@dataclass(frozen=True, slots=True)
class Invocation:
    """A call of a workflow function: what is called, and what of it is stored."""

    spec: WorkflowSpec
    #: All arguments, with the instance or class a method is called on.
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    class_name: str | None
    config_name: str | None
    #: The arguments that are stored.
    stored_args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """A workflow that exists now, and by what it can be run here, if it is to be."""

    workflow_id: str
    run: Run | None = None
    claimed: Claimed | None = None


def invoke(runtime: Runtime, spec: WorkflowSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Invocation:
    """A call as it will be stored. Raises for a method of a class or instance that cannot be found again."""
    class_name, config_name, target = runtime.registry.split_target(spec, args)
    return Invocation(spec, args, kwargs, class_name, config_name, args if target is None else args[1:])


# -- the three ways to start -----------------------------------------------------------------------------------


async def call(here: Here, invocation: Invocation) -> Any:
    """Run a workflow here and return its result: what calling the decorated function does."""
    runtime, parent = _where(here, invocation)
    if parent is None:
        authorize(invocation.spec.name, roles_of(invocation.spec.fn), CALLER.get())
        started = await _begin(here, runtime, invocation, 0)
        ending, _ = await _run_here(runtime, invocation, started)
        return (ending or await await_ending(here, started.workflow_id)).unwrap()
    step_id, result_id = parent.next_step(), parent.next_step()
    begun_ms = runtime.clock.now_ms()
    started = await _begin(here, runtime, invocation, step_id)
    found = replay(parent, result_id, GET_RESULT)
    if found is not None:
        return answer(parent, found)
    entry = ending_entry(parent, result_id, started.workflow_id, begun_ms)
    ending, written = await _run_here(runtime, invocation, started, *(() if entry is None else (entry,)))
    if written == (True,):
        parent.confirm()
    else:
        ending = ending or await await_ending(here, started.workflow_id)
        await record_ending(here, result_id, started.workflow_id, ending, begun_ms)
    assert ending is not None
    return ending.unwrap()


async def background(here: Here, invocation: Invocation) -> Started:
    """Start a workflow beside: what `DBOS.start_workflow` does."""
    runtime, parent = _where(here, invocation)
    started = await _begin(here, runtime, invocation, parent.next_step() if parent is not None else 0)
    if started.run is not None:
        try:
            runtime.spawn(
                lambda: _run_here(runtime, invocation, started), is_async=invocation.spec.is_async, on_this_loop=True
            )
        except BaseException:
            runtime.leave(started.run)
            raise
    return started


async def enqueue(here: Here, invocation: Invocation, queue: str) -> Started:
    """Put a workflow on a queue."""
    runtime, parent = _where(here, invocation, queue)
    return await _begin(here, runtime, invocation, parent.next_step() if parent is not None else 0, queue)


def _where(here: Here, invocation: Invocation, queue: str | None = None) -> tuple[Runtime, Run | None]:
    """The runtime, and the workflow whose child this will be."""
    refuse_in_transaction(here, invocation.spec.name)
    if queue is None:
        _refuse_options(invocation)
    if here.run is not None and not here.in_body:
        raise DBOSMisuseError(
            f"The workflow {invocation.spec.name} cannot be started from inside a step. Start it from the workflow."
        )
    assert isinstance(here.ground, Runtime)
    return here.ground, here.run


def _refuse_options(invocation: Invocation) -> None:
    """What a `SetEnqueueOptions` block wants would be lost on a workflow that is started at once."""
    options = OPTIONS.get()
    for name, value in (
        ("deduplication_id", options.deduplication_id),
        ("priority", options.priority),
        ("queue_partition_key", options.queue_partition_key),
        ("delay_seconds", options.delay_until_ms),
    ):
        if value is not None:
            raise DBOSException(
                f"Workflow {invocation.spec.name} is not being enqueued, so {name} of SetEnqueueOptions has no meaning for "
                "it. Enqueue it, or start it outside of the block."
            )


async def _run_here(
    runtime: Runtime, invocation: Invocation, started: Started, *also: Entry
) -> tuple[Ending | None, tuple[bool, ...]]:
    if started.run is None:
        return None, ()
    try:
        if started.claimed is not None:
            return await execute_claimed(runtime, started.claimed, *also)
        return await execute(runtime, started.run, invocation.spec, lambda: (invocation.args, invocation.kwargs), *also)
    finally:
        runtime.leave(started.run)  # also after an interrupt that came before it really began


# -- the row ---------------------------------------------------------------------------------------------------


async def _begin(
    here: Here, runtime: Runtime, invocation: Invocation, step_id: int, queue: str | None = None
) -> Started:
    """Insert the row, or attach to the one that has its id."""
    parent, spec = here.run, invocation.spec
    if parent is not None:
        found = replay(parent, step_id, spec.name)
        if found is not None:
            if found.child_id is None:
                answer(parent, found)  # the start itself failed, and fails again
            return Started(found.child_id or "")
        await ensure_running(parent)
    options = OPTIONS.get()
    workflow_id, is_new = _id_for(parent, step_id, options)
    while True:
        started = await _try_to_begin(here, runtime, invocation, step_id, workflow_id, queue, options, is_new=is_new)
        if started is not None:
            return started


async def _try_to_begin(
    here: Here,
    runtime: Runtime,
    invocation: Invocation,
    step_id: int,
    workflow_id: str,
    queue: str | None,
    options: StartOptions,
    *,
    is_new: bool,
) -> Started | None:
    """Insert the row or attach. None: what was in the way was deleted, or ended, between our looks."""
    parent = here.run
    run = None if queue is not None else _new_run(runtime, invocation, workflow_id, options, parent)
    row = _row(runtime, invocation, workflow_id, run, queue, options, parent)
    with nullcontext() if run is None else runtime.new_rows(run.owner, run):
        if parent is None:
            rings = rings_of(queue, options.delay_until_ms)
            (created,) = await insert(here, row, attributes=options.attributes, rings=rings, is_new=is_new)
        else:
            child = Child(
                workflow_id,
                row,
                invocation.spec.name,
                invocation.class_name,
                invocation.config_name,
                queue,
                options.deduplication_id,
                options.returns_existing,
                options.delay_until_ms,
                options.attributes,
                is_new,
            )
            child_id, created = await _begin_child(here, parent, step_id, child)
            if child_id != workflow_id:
                return Started(child_id)
        if created:
            if run is not None:
                runtime.enter(run)
                run.confirm()
            return Started(workflow_id, run)
        attached = await _attach(here, runtime, invocation, workflow_id, queue, run, is_new=is_new)
    if attached is not None or queue is None or options.deduplication_id is None:
        return attached
    holder = await find_holder(here, queue, options.deduplication_id)
    if holder is None:
        return None
    if not options.returns_existing or holder.name != invocation.spec.name:
        raise DBOSQueueDeduplicatedError(workflow_id, queue, options.deduplication_id)
    return Started(holder.workflow_uuid)


class Child(NamedTuple):
    """A workflow that another one starts, and what says whether one that is there already is meant."""

    workflow_id: str
    row: Entry
    name: str
    class_name: str | None
    config_name: str | None
    queue: str | None
    deduplication_id: str | None
    returns_existing: bool
    delay_until_ms: int | None
    attributes: str | None
    #: None that is there already is meant.
    is_new: bool

    def link(self, parent: Run, step_id: int, child_id: str) -> Entry:
        """The parent's record of having started it, or the one that is there in its place."""
        columns = record(parent, step_id, self.name, child_id=child_id).row
        return Entry(RECORD_CHILD, (*columns, self.class_name, self.config_name))


async def _begin_child(here: Here, parent: Run, step_id: int, child: Child) -> tuple[str, bool]:
    """Insert a child's row with its parent's record; the id that is recorded, and whether the row is new.

    A start that fails is the parent's recorded error.
    """
    workflow_id = child.workflow_id
    link = child.link(parent, step_id, workflow_id)
    rings = rings_of(child.queue, child.delay_until_ms)
    linked, created = await insert(here, child.row, link, attributes=child.attributes, rings=rings, is_new=child.is_new)
    if linked:
        parent.confirm()
        return workflow_id, created
    standing = await here.read(lambda conn: conn.first(STANDING, workflow_id=parent.workflow_id, step_id=step_id))
    check_standing(parent, standing)
    assert standing is not None
    if standing.child_workflow_id == workflow_id:  # ours after all: the first answer was lost
        return workflow_id, created
    taken = await here.read(lambda conn: conn.first(TAKEN, workflow_id=workflow_id))
    error: Exception
    if taken is None:
        holder_id = await _join_holder(here, parent, step_id, child)
        if holder_id is not None:
            return holder_id, False
        error = DBOSQueueDeduplicatedError(workflow_id, child.queue or "", child.deduplication_id or "")
    elif child.is_new:
        error = in_use(workflow_id, taken)
    else:
        error = conflict(
            workflow_id, taken, child.name, child.class_name, child.config_name
        ) or DBOSConflictingWorkflowError(workflow_id, "changed meanwhile")
    serializer = here.ground.codec.default
    text = here.ground.codec.encode_error(error, serializer, Slot.step_error(parent.workflow_id, step_id))
    await commit(here, record(parent, step_id, child.name, error=text, serialization=serializer.name()))
    raise error


async def _join_holder(here: Here, parent: Run, step_id: int, child: Child) -> str | None:
    """Record as the child whoever holds the deduplication id, where that is wanted and of the same function."""
    if child.queue is None or child.deduplication_id is None or not child.returns_existing:
        return None
    holder = await find_holder(here, child.queue, child.deduplication_id)
    if holder is None or holder.name != child.name:
        return None
    holder_id = str(holder.workflow_uuid)
    await commit(here, child.link(parent, step_id, holder_id))
    return holder_id


async def enqueue_by_name(here: Here, order: Order) -> str:
    """Put a workflow on a queue whose function need not be here; a child, where that is done in a workflow's body."""
    refuse_in_transaction(here, order.name)
    parent = here.run
    if parent is None:
        return await place(here, _named(order, None, 0))
    if not here.in_body:
        raise DBOSMisuseError(
            f"The workflow {order.name} cannot be started from inside a step. Start it from the workflow."
        )
    step_id = parent.next_step()
    found = replay(parent, step_id, order.name)
    if found is not None:
        if found.child_id is None:
            answer(parent, found)
        return found.child_id or ""
    await ensure_running(parent)
    order = _named(order, parent, step_id)
    workflow_id = order.workflow_id or ""
    row = row_of(here.ground, order, workflow_id)._replace(
        guard_id=parent.workflow_id,
        guard_owner=parent.owner,
        parent_workflow_id=parent.workflow_id,
        workflow_deadline_epoch_ms=None if order.timeout_ms is not None else parent.deadline_ms,
    )
    child = Child(
        workflow_id,
        row.entry,
        order.name,
        order.class_name,
        order.config_name,
        order.queue,
        order.deduplication_id,
        order.returns_existing,
        order.delay_until_ms,
        order.attributes,
        order.is_new,
    )
    child_id, _ = await _begin_child(here, parent, step_id, child)
    return child_id


async def _attach(
    here: Here,
    runtime: Runtime,
    invocation: Invocation,
    workflow_id: str,
    queue: str | None,
    run: Run | None,
    *,
    is_new: bool,
) -> Started | None:
    """Join the workflow that has this id. None: there is none."""
    taken = await here.read(lambda conn: conn.first(TAKEN, workflow_id=workflow_id))
    if taken is None:
        return None
    if run is not None and taken.owner_xid == run.owner:  # ours after all: the first answer was lost
        runtime.enter(run)
        run.confirm()
        return Started(workflow_id, run)
    if is_new:
        raise in_use(workflow_id, taken)
    conflict = _conflict(invocation, workflow_id, taken)
    if conflict is not None:
        raise conflict
    if queue is not None and taken.queue_name not in (queue, None):
        logger.warning("Workflow %s is on queue %s already, not on %s", workflow_id, taken.queue_name, queue)
    if taken.status == DEAD_LETTER and here.run is None:
        raise MaxRecoveryAttemptsExceededError(workflow_id, invocation.spec.max_recovery_attempts or 0)
    left = taken.owner_xid is None or runtime.has_left(workflow_id, taken.owner_xid)
    if queue is None and taken.status == PENDING and left:
        claimed = await adopt(here, runtime, invocation.spec, workflow_id, taken.owner_xid)
        return Started(workflow_id, None if claimed is None else claimed.run, claimed)
    return Started(workflow_id)


def _conflict(invocation: Invocation, workflow_id: str, taken: Row) -> DBOSConflictingWorkflowError | None:
    return conflict(workflow_id, taken, invocation.spec.name, invocation.class_name, invocation.config_name)


def _id_for(parent: Run | None, step_id: int, options: StartOptions) -> tuple[str, bool]:
    """The id of a workflow that is started, and whether none may have it already."""
    assigned = options.assigned
    if assigned is not None:
        if not assigned.taken:
            assigned.taken = True
            return checked_id(assigned.workflow_id, "A workflow ID"), assigned.is_new
        logger.warning(
            "SetWorkflowID, or the idempotency key of a request, names one workflow; a second one gets an id of its own"
        )
    return new_id() if parent is None else f"{parent.workflow_id}-{step_id}", False


def _named(order: Order, parent: Run | None, step_id: int) -> Order:
    """The order with an id."""
    if order.workflow_id:
        return order
    workflow_id, is_new = _id_for(parent, step_id, OPTIONS.get())
    return replace(order, workflow_id=workflow_id, is_new=is_new or order.is_new)


def _new_run(
    runtime: Runtime, invocation: Invocation, workflow_id: str, options: StartOptions, parent: Run | None
) -> Run:
    run = Run(runtime, workflow_id, runtime.new_owner(), invocation.spec.name)
    run.caller = CALLER.get()
    run.format = runtime.codec.chosen(invocation.spec.format).name()
    if not options.has_timeout:
        run.deadline_ms = parent.deadline_ms if parent is not None else None
    elif options.timeout_ms is not None:
        run.deadline_ms = runtime.clock.now_ms() + options.timeout_ms
    return run


def _row(
    runtime: Runtime,
    invocation: Invocation,
    workflow_id: str,
    run: Run | None,
    queue: str | None,
    options: StartOptions,
    parent: Run | None,
) -> Entry:
    codec, spec = runtime.codec, invocation.spec
    caller = in_role(roles_of(spec.fn), CALLER.get())
    serializer = codec.chosen(spec.format)
    slot, what = Slot.inputs(workflow_id), f"the arguments of workflow {spec.name!r}"
    inputs = codec.encode_args(invocation.stored_args, invocation.kwargs, serializer, slot, what)
    if run is not None:
        status, deadline_ms = PENDING, run.deadline_ms
    else:
        status = ENQUEUED if options.delay_until_ms is None else DELAYED
        inherits = parent is not None and not options.has_timeout
        deadline_ms = parent.deadline_ms if parent is not None and inherits else None
    return NewRow(
        workflow_uuid=workflow_id,
        guard_id=None if parent is None else parent.workflow_id,
        guard_owner=None if parent is None else parent.owner,
        status=status,
        name=spec.name,
        class_name=invocation.class_name,
        config_name=invocation.config_name,
        inputs=inputs,
        serialization=serializer.name(),
        executor_id=runtime.executor_id,
        application_version=options.app_version or spec.version or runtime.app_version,
        application_id=runtime.app_id,
        queue_name=queue,
        deduplication_id=None if queue is None else options.deduplication_id,
        priority=(options.priority or 0) if queue is not None else 0,
        queue_partition_key=None if queue is None else options.queue_partition_key,
        workflow_timeout_ms=options.timeout_ms,
        workflow_deadline_epoch_ms=deadline_ms,
        delay_until_epoch_ms=None if queue is None else options.delay_until_ms,
        parent_workflow_id=None if parent is None else parent.workflow_id,
        authenticated_user=caller.user,
        assumed_role=caller.assumed_role,
        authenticated_roles=None if caller.roles is None else json.dumps(list(caller.roles)),
        owner_xid=None if run is None else run.owner,
        recovery_attempts=0 if run is None else 1,
        created_at=runtime.clock.now_ms(),
    ).entry
