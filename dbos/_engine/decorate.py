"""Decorated functions: what a call of them does, depending on where it is made."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dbos._engine.registry import NAME_ATTRIBUTE, WorkflowSpec
from dbos._engine.roles import authorize, roles_of
from dbos._engine.start import call, invoke
from dbos._engine.step import StepSpec, perform_step
from dbos._engine.transaction import TransactionSpec, perform_transaction
from dbos._kernel.journal import refuse_in_transaction
from dbos._kernel.model import STEP_WORKFLOW_PREFIX
from dbos._kernel.plan import arun, in_its_colour, run
from dbos._kernel.scope import CALLER, HERE
from dbos.error import DBOSException, DBOSMisuseError

if TYPE_CHECKING:
    from dbos._engine.registry import Registry
    from dbos._engine.runtime import Runtime

# Who is the runtime, for a call made outside of any workflow: raises if there is none. Given the function's name.
Ambient = Callable[[str], "Runtime"]


def workflow(registry: Registry, ambient: Ambient, spec: WorkflowSpec) -> Callable[..., Any]:
    """The function as a workflow: calling it runs it durably and returns its result."""
    registry.add("workflow", spec)

    def plan(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        here = HERE.get()
        runtime: Any = ambient(spec.name) if here is None else here.ground
        return call(here or runtime.here, invoke(runtime, spec, args, kwargs))

    return _named(in_its_colour(spec.fn, spec.is_async, plan), spec.name)


def step(registry: Registry, spec: StepSpec, fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a step: recorded in a workflow's body, a plain call elsewhere."""
    is_async = inspect.iscoroutinefunction(fn)

    if is_async:

        @functools.wraps(fn)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            here = HERE.get()
            authorize(spec.name, roles_of(fn), CALLER.get())
            if here is None or not here.in_body:
                return await fn(*args, **kwargs)
            return await arun(perform_step(here, spec, fn, args, kwargs, is_async=True))

        decorated: Callable[..., Any] = call_async
    else:

        @functools.wraps(fn)
        def call_sync(*args: Any, **kwargs: Any) -> Any:
            here = HERE.get()
            authorize(spec.name, roles_of(fn), CALLER.get())
            if here is None or not here.in_body:
                return fn(*args, **kwargs)
            return run(perform_step(here, spec, fn, args, kwargs, is_async=False))

        decorated = call_sync
    # The hidden workflow that runs a step by itself, when it is started or enqueued, is the step itself: called in
    # that workflow's body.
    registry.add("step", WorkflowSpec(f"{STEP_WORKFLOW_PREFIX}{spec.name}", decorated, is_async))
    return _named(decorated, spec.name)


def transaction(
    registry: Registry, ambient: Ambient, spec: TransactionSpec, fn: Callable[..., Any]
) -> Callable[..., Any]:
    """The function as a transaction: a step of a workflow, and outside of any a workflow by itself."""
    if inspect.iscoroutinefunction(fn):
        raise DBOSException(f"The transaction {spec.name} is a coroutine function; transactions must not be async")

    @functools.wraps(fn)
    def call_sync(*args: Any, **kwargs: Any) -> Any:
        here = HERE.get()
        authorize(spec.name, roles_of(fn), CALLER.get())
        if here is None:
            runtime = ambient(spec.name)
            return run(call(runtime.here, invoke(runtime, alone, args, kwargs)))
        refuse_in_transaction(here, spec.name)
        if not here.in_body:
            raise DBOSMisuseError(
                f"Transactions must be called from within workflows, but {spec.name} is called in a step"
            )
        return run(perform_transaction(here, spec, fn, args, kwargs))

    alone = WorkflowSpec(f"{STEP_WORKFLOW_PREFIX}{spec.name}", call_sync, is_async=False)
    registry.add("transaction", alone)
    return _named(call_sync, spec.name)


def _named(decorated: Callable[..., Any], name: str) -> Callable[..., Any]:
    setattr(decorated, NAME_ATTRIBUTE, name)
    return decorated
