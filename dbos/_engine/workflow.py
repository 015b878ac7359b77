"""Running a workflow: call its function, replay what is recorded, write the outcome once.

A run ends in one of three ways. It writes its outcome. Or it is refused, because the workflow was cancelled or
belongs to another run now: then whoever waits for it waits for what becomes of the row. Or it is interrupted
(KeyboardInterrupt, a cancelled task, the end of the process): then the row stays PENDING and can be taken up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from dbos._engine.roles import authorize, roles_of
from dbos._engine.runtime import Call
from dbos._engine.transitions import FINISH
from dbos._kernel.bell import done
from dbos._kernel.extension import Observed, guarded, installed, notes_of
from dbos._kernel.journal import noted, settle
from dbos._kernel.model import ERROR, SUCCESS, WORKFLOW_FAILURE
from dbos._kernel.plan import perform
from dbos._kernel.scope import CALLER, NO_OPTIONS, OPTIONS, Run
from dbos._kernel.slot import Slot
from dbos._kernel.statement import Entry
from dbos._kernel.trace import failed, span
from dbos.error import (
    DBOSRuntimeEndedError,
    DBOSWorkflowCancelledError,
    DBOSWorkflowConflictIDError,
)

if TYPE_CHECKING:
    from dbos._engine.claim import Claimed
    from dbos._engine.registry import WorkflowSpec
    from dbos._engine.runtime import Runtime
    from dbos._kernel.extension import Note, Observer

logger = logging.getLogger("dbos")

# The note of what is to be done with its id when a run has written its outcome; nothing may depend on that.
AFTERWARDS = "afterwards"

Arguments = Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]


# What tells a run that it is over, and not its workflow.
REFUSALS = (DBOSWorkflowCancelledError, DBOSWorkflowConflictIDError, DBOSRuntimeEndedError)


class Ending(NamedTuple):
    """How a workflow ended."""

    result: Any
    failure: BaseException | None

    def unwrap(self) -> Any:
        if self.failure is not None:
            raise self.failure
        return self.result


async def execute(
    runtime: Runtime, run: Run, spec: WorkflowSpec, arguments: Arguments, *also: Entry
) -> tuple[Ending | None, tuple[bool, ...]]:
    """Run a workflow to its end. No ending means that it was refused; `also` is written with the outcome."""
    runtime.enter(run)
    if run.deadline_ms is not None:
        runtime.bell.ring_here([DEADLINES])
    try:
        with span(run.name, "workflow", run):
            ending = await _perform(run, spec, arguments)
            if ending is None:
                return None, ()
            ending, written = await _finish(run, ending, also)
            if ending is not None:
                if ending.failure is not None:
                    failed(ending.failure)
                    _report(runtime, run, ending.failure)
                runtime.tell(run)
                for act in run.notes.get(AFTERWARDS, ()):
                    runtime.pool.submit(act, run.workflow_id)
            return ending, written
    finally:
        runtime.leave(run)
        if run.observer is not None:
            guarded("An observer of ends", run.observer.left)
        # Whoever waits in this process waits for this ring, also when the run was refused or interrupted.
        runtime.bell.ring([done(run.workflow_id), *run.frees])


def _report(runtime: Runtime, run: Run, failure: BaseException) -> None:
    # What an error says may be secret; what it is called is not.
    told = {"workflow_name": run.name, "workflow_id": run.workflow_id, "error": type(failure).__qualname__}
    runtime.report(WORKFLOW_FAILURE, run.name, **told)


async def execute_claimed(runtime: Runtime, claimed: Claimed, *also: Entry) -> tuple[Ending | None, tuple[bool, ...]]:
    """Run a workflow that was taken from the database."""

    def arguments() -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = runtime.codec.decode_args(
            claimed.inputs, claimed.serialization, Slot.inputs(claimed.run.workflow_id)
        )
        if claimed.spec.validate is not None:
            args, kwargs = claimed.spec.validate(args, kwargs)
        target = runtime.registry.target(claimed.class_name, claimed.config_name)
        return (args if target is None else (target, *args)), kwargs

    return await execute(runtime, claimed.run, claimed.spec, arguments, *also)


# Rung when a run begins that has a deadline.
DEADLINES = ("deadlines", "")


async def _perform(run: Run, spec: WorkflowSpec, arguments: Arguments) -> Ending | None:
    """Call the function. No ending: another run has the workflow, or it was cancelled."""
    options, caller = OPTIONS.set(NO_OPTIONS), CALLER.set(run.caller)
    try:
        args, kwargs = arguments()
        run.caller = authorize(spec.name, roles_of(spec.fn), run.caller)
        CALLER.set(run.caller)
        value = await Call(run.here, _code(run, spec, args, kwargs), args, kwargs, is_async=spec.is_async)
    except REFUSALS as refusal:
        if isinstance(refusal, Exception):  # the program's own mistake under such a name
            return Ending(None, refusal)
        logger.info("%s", refusal)
        return None
    except Exception as error:  # noqa: BLE001 - whatever user code raises is the workflow's outcome
        return Ending(None, error)
    except BaseException as interrupt:
        logger.warning(
            "Workflow %s was interrupted by %s. It is still PENDING and can be taken up again.",
            run.workflow_id,
            repr(interrupt),
        )
        _tell_of(interrupt, run.observer)
        raise
    else:
        return Ending(value, None)
    finally:
        OPTIONS.reset(options)
        CALLER.reset(caller)


def _tell_of(interrupt: BaseException, observer: Observer | None) -> None:
    if observer is not None:
        guarded("An observer of interrupts", lambda: observer.interrupted(interrupt))


def _code(run: Run, spec: WorkflowSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any]:
    """The function that this run calls, and who watches it."""
    extension = installed()
    if extension is None:
        return spec.fn

    def write(notes: Iterable[Note]) -> None:
        perform(run.here.put(*noted(run, notes)))

    seen = Observed(run.workflow_id, spec.name, spec.version, spec.fn, args, kwargs, run.is_recovered, write)
    run.observer = guarded("An observer of runs", lambda: extension.observe(seen))
    return guarded("An extension", lambda: extension.code(spec.fn, spec.version), spec.fn)  # type: ignore[no-any-return]  # it has the type of `otherwise`


async def _finish(run: Run, ending: Ending, also: tuple[Entry, ...]) -> tuple[Ending | None, tuple[bool, ...]]:
    """Write the outcome, unless the workflow is not ours any more."""
    codec = run.ground.codec
    # Steps are written before an outcome of the same commit, and what was copied from other outcomes after it.
    if any(promise.job.entries[0].kind.rank > FINISH.rank for promise in run.unsettled):
        try:
            await settle(run)
        except REFUSALS as refusal:
            logger.info("%s", refusal)
            return None, ()
        except Exception as error:  # noqa: BLE001 - a record that cannot be written is the outcome
            ending = Ending(None, error)
    notes = noted(run, notes_of(run, lambda observer: observer.last_notes(*ending)))
    try:
        serializer = codec.writing(run.format)
        if ending.failure is None:
            slot, what = Slot.output(run.workflow_id), f"the output of workflow {run.name!r}"
            output = codec.encode(ending.result, serializer, slot, what)
            outcome = _outcome(run, SUCCESS, output, None)
        else:
            outcome = _outcome(
                run, ERROR, None, codec.encode_error(ending.failure, serializer, Slot.error(run.workflow_id))
            )
        job = run.here.put(outcome, *also, *notes)
        if run.unsettled:
            job.behind = run.unsettled[-1].job
        finished, *rest = await job
    except Exception as error:  # noqa: BLE001 - the value cannot be stored, by the serializer or by the database
        logger.warning("The outcome of workflow %s cannot be stored: %s", run.workflow_id, error)
        ending = Ending(None, error)
        text = codec.encode_error(error, codec.writing(run.format), Slot.error(run.workflow_id))
        finished, *rest = await run.here.put(_outcome(run, ERROR, None, text), *also)
    if not finished:
        return None, ()
    run.result, run.failure, run.is_over = ending.result, ending.failure, True
    return ending, tuple(rest[: len(also)])


def _outcome(run: Run, status: str, output: str | None, error: str | None) -> Entry:
    return Entry(FINISH, (run.workflow_id, run.owner, status, output, error, run.ground.clock.now_ms()))
