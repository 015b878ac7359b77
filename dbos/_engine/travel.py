"""Travel: a workflow's function is played on its record up to the call of one step, and stopped there.

What stops it is its journal, which knows when that step is asked for. What is seen is taken at that moment, from the
frames, before anything of the function is unwound: its `finally` blocks have not run yet. As in every rehearsal no
step runs and no row is written.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from dbos._engine.rehearsal import EndOfRecord, Journal, Performance, Stage, is_ours, outward, read
from dbos._engine.step import perform_step
from dbos._kernel.journal import replay
from dbos._kernel.model import Recorded
from dbos._kernel.scope import HERE, StepStatus
from dbos.error import DBOSException, DBOSNonExistentWorkflowError

if TYPE_CHECKING:
    from dbos._engine.rehearsal import Archive, Script
    from dbos._kernel.scope import Run

# Waited for in ticks, so that the stop button of a notebook is obeyed.
TICK_SECONDS = 0.1


class Sight(NamedTuple):
    """One of the user's functions, at the moment of a stop."""

    function: str
    file: str
    #: Where the function begins, and where it is.
    first_line: int
    line: int
    #: Without those of enclosing functions.
    locals: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stop:
    """A workflow just before it calls a step."""

    workflow_id: str
    workflow: str
    version: str | None
    step_id: int
    #: What is called, and what is recorded of it; None: nothing.
    name: str
    recorded: str | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    #: The functions of the user that are at work, the workflow's own first.
    sights: tuple[Sight, ...]
    #: The step's own function. None for what is no step: a child, a transaction, an operation.
    fn: Callable[..., Any] | None
    actor: Run = field(repr=False)

    @property
    def locals(self) -> dict[str, Any]:
        """The variables of the workflow's function."""
        return self.sights[0].locals if self.sights else {}

    def call(self) -> Any:
        """Call the step's function here as it was called then, once; nothing is recorded, and it cannot write either.

        An async function runs on an event loop in a thread of its own.
        """
        fn = self.fn
        if fn is None:
            raise DBOSException(f"Step {self.step_id} {self.name!r} is no step function, so it cannot be called alone.")
        context = contextvars.copy_context()
        context.run(HERE.set, self.actor.here.within(StepStatus(self.step_id)))
        try:
            if inspect.iscoroutinefunction(fn):
                return _aside(lambda: context.run(asyncio.run, fn(*self.args, **self.kwargs)))
            return context.run(fn, *self.args, **self.kwargs)
        except EndOfRecord as end:
            raise DBOSException(
                f"Step {self.name!r} would write or wait here, and a call of it writes nothing."
            ) from end


class Replayed(NamedTuple):
    """What a workflow comes to on its record alone."""

    #: What its code raised.
    error: BaseException | None
    #: The step whose recorded error that is; None: the code's own.
    step_id: int | None


class _Arrived(EndOfRecord):
    """The step is reached. Whatever is asked for after that is answered so too."""


def travel(archive: Archive, workflow_id: str, step_id: int) -> Stop:
    """Play a workflow up to the call of a step, recorded or next, with the code of its version if that is here.

    Raises DBOSException where the step cannot be reached, and says why.
    """
    if step_id < 1:
        raise DBOSException(f"Steps are numbered from 1, so there is no step {step_id}.")
    performance = _performance(archive, workflow_id)
    halt = _Halt(performance, step_id)
    performance.record = performance.actor.journal = halt
    performance.code = halt.watched(performance.code)
    _given(performance)
    if halt.stop is None:
        raise DBOSException(f"Workflow {workflow_id} cannot be followed to step {step_id}: {_obstacle(performance)}.")
    if halt.stop.recorded not in (None, halt.stop.name):
        raise DBOSException(
            f"Workflow {workflow_id} cannot be followed to step {step_id}: "
            f"its code calls {halt.stop.name!r} there, where {halt.stop.recorded!r} is recorded."
        )
    return halt.stop


def replayed(archive: Archive, workflow_id: str) -> Replayed:
    """Play a workflow on all that it has recorded. Raises DBOSException where code and record differ."""
    performance = _given(_performance(archive, workflow_id))
    said = performance.said
    if said.difference is not None:
        raise DBOSException(f"Workflow {workflow_id} cannot be replayed: {said.difference}.")
    end = performance.end
    if end is None or isinstance(end, EndOfRecord):
        return Replayed(None, None)
    return Replayed(end, _step_of(end))


def _performance(archive: Archive, workflow_id: str) -> Performance:
    script = read(archive, [workflow_id]).get(workflow_id)
    if script is None:
        raise DBOSNonExistentWorkflowError("target", workflow_id)
    return Performance(Stage(archive), script, _own_code(archive, script))


def _given(performance: Performance) -> Performance:
    try:
        return performance.give()
    finally:
        stage = performance.actor.ground
        assert isinstance(stage, Stage)
        stage.leave_threads()


def _own_code(archive: Archive, script: Script) -> Callable[..., Any] | None:
    """The code that the workflow began with, where that is told apart and still here; None: the present one."""
    spec = archive.registry.versions.get(script.row.application_version)
    return spec.fn if spec is not None and spec.name == script.row.name else None


def _obstacle(performance: Performance) -> str:
    said, end, taken = performance.said, performance.end, performance.actor.steps_taken
    if said.step_id is not None and said.found is not None and said.difference is not None:
        return said.difference
    if performance.is_endless:
        return f"its code {said.difference}"
    if isinstance(end, EndOfRecord):
        return f"the record ends before step {taken}"
    if end is not None:
        return f"its code raises {type(end).__name__} after step {taken}: {end}"
    return f"it ends after step {taken}"


# -- stopping --------------------------------------------------------------------------------------------------


class _Halt(Journal):
    """A journal that answers until one step is asked for."""

    def __init__(self, performance: Performance, step_id: int) -> None:
        super().__init__(performance.actor.workflow_id, performance.journal)
        self.performance, self.step_id = performance, step_id
        self.stop: Stop | None = None
        self.coroutine: Any = None

    def __bool__(self) -> bool:
        """Also without a record it is asked, for a step that is not recorded is reached too."""
        return True

    def reach(self, step_id: int) -> None:
        if step_id == self.step_id and self.stop is None:
            self.stop = self._seen(list(outward(sys._getframe(2))))  # noqa: SLF001 - the frames are what we came for
        if self.stop is not None:
            raise _Arrived(f"step {self.step_id}")

    def watched(self, code: Callable[..., Any]) -> Callable[..., Any]:
        """The code, held on to while it waits for tasks of its own: then its frame is on no stack."""
        if not inspect.iscoroutinefunction(code):
            return code

        async def watched(*args: Any, **kwargs: Any) -> Any:
            self.coroutine = code(*args, **kwargs)
            return await self.coroutine

        watched.__wrapped__ = code  # type: ignore[attr-defined]  # functions allow it
        return watched

    def _seen(self, frames: list[FrameType]) -> Stop:
        """What is to be seen from here, the innermost frame first."""
        performance, actor, found = self.performance, self.performance.actor, self.get(self.step_id)
        codes = {frame.f_code: frame for frame in reversed(frames)}
        asked = codes.get(replay.__code__)
        recorded_name = None if found is None else found.name
        name = recorded_name if asked is None else asked.f_locals["name"]
        step = codes.get(perform_step.__code__)
        if step is not None:
            fn, args, kwargs = (step.f_locals[each] for each in ("fn", "args", "kwargs"))
        else:
            fn, (args, kwargs) = None, _arguments(frames)
        return Stop(
            actor.workflow_id,
            performance.spec.name,
            performance.version,
            self.step_id,
            str(name),
            recorded_name,
            tuple(args),
            dict(kwargs),
            tuple(map(_sight, self._users(frames))),
            fn,
            actor,
        )

    def _users(self, frames: list[FrameType]) -> list[FrameType]:
        """The frames of the user from the workflow's function inward."""
        code: CodeType | None = getattr(inspect.unwrap(self.performance.code), "__code__", None)
        inward = frames[::-1]
        start = next((place for place, frame in enumerate(inward) if frame.f_code is code), None)
        if start is not None:
            return [frame for frame in inward[start:] if not is_ours(frame.f_code.co_filename)]
        return [frame for frame in _suspended(self.coroutine) if not is_ours(frame.f_code.co_filename)]


def _suspended(coroutine: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of what it awaits."""
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield frame
        coroutine = coroutine.cr_await


def _arguments(frames: list[FrameType]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the outermost function of ours was called with: the one that the user's code calls."""
    last = next(place for place, frame in enumerate(frames) if not is_ours(frame.f_code.co_filename))
    frame = frames[max(last - 1, 0)]
    code, held = frame.f_code, frame.f_locals
    names = code.co_varnames
    plain, keywords = code.co_argcount, code.co_kwonlyargcount
    args = [held[name] for name in names[:plain]]
    kwargs = {name: held[name] for name in names[plain : plain + keywords]}
    rest = list(names[plain + keywords :])
    if code.co_flags & inspect.CO_VARARGS:
        args += held[rest.pop(0)]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        kwargs |= held[rest.pop(0)]
    return tuple(args), kwargs


def _sight(frame: FrameType) -> Sight:
    code = frame.f_code
    own = {name: value for name, value in frame.f_locals.items() if name not in code.co_freevars}
    return Sight(code.co_qualname, code.co_filename, code.co_firstlineno, frame.f_lineno, own)


def _step_of(error: BaseException) -> int | None:
    """The step from whose record an error comes: it went through the code that answers from records."""
    found, trace = None, error.__traceback__
    while trace is not None:
        held = trace.tb_frame.f_locals
        if isinstance(held.get("found"), Recorded) and is_ours(trace.tb_frame.f_code.co_filename):
            # Of a child that was called, the start is one step and its result the next.
            found = held.get("result_id", held.get("step_id", found))
        trace = trace.tb_next
    return found


# -- calling ---------------------------------------------------------------------------------------------------


def _aside(act: Callable[[], Any]) -> Any:
    """Do it in a thread of its own, where no event loop runs."""
    done, held = threading.Event(), list[Any]()

    def work() -> None:
        try:
            held.append((act(), None))
        except BaseException as error:  # noqa: BLE001 - raised below, where it is asked for
            held.append((None, error))
        finally:
            done.set()

    threading.Thread(target=work, name="dbos-travel", daemon=True).start()
    while not done.wait(TICK_SECONDS):
        pass
    value, error = held[0]
    if error is not None:
        _reraise(error)
    return value


def _reraise(error: BaseException) -> NoReturn:
    raise error
