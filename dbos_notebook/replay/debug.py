"""Post-mortem: why a run failed, made to happen again here, so that `%debug` opens the frames where it did.

The failure is looked for where it began: in the step that raised, of the deepest child that failed. That step's
function is called here on what it was given then; a failure of the workflow's own code happens again by replaying it.
Nothing is recorded, and nothing can be written to the database of the run. But what a step does elsewhere it does again:
so it is said before what is called, and nothing is where only the record is asked for.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from dbos import extension
from dbos.error import DBOSException, DBOSMaxStepRetriesExceeded
from dbos_notebook.frames import tries_of
from dbos_notebook.masking import NOTHING, Mask
from dbos_notebook.replay.travel import Moment, moment, own_frames, shown_values
from dbos_notebook.replay.veiled import veiled_error
from dbos_notebook.views import errors, words
from dbos_notebook.views.html import element, facts, fitting, fold, line, page, pre, table
from dbos_notebook.views.view import Shown, View

if TYPE_CHECKING:
    from dbos import StoredStep
    from dbos_notebook.source import Source

NAME_LIMIT, MESSAGE_LIMIT = 80, 600
RECORD_ALONE = "only what is recorded was asked for"
FAILED, RETRIED = "ERROR", DBOSMaxStepRetriesExceeded.__name__


class Failure(NamedTuple):
    """Where a run's failure began."""

    workflow_id: str
    workflow: str
    #: None: in the code of the workflow itself.
    step: int | None
    name: str


@dataclass(frozen=True, slots=True, repr=False)
class PostMortem(Shown):
    """A failure as it was recorded, and as it happened again here; after it `%debug` opens its frames."""

    failure: Failure
    #: The recorded traceback, or the error alone where none was kept.
    recorded: str
    attempts: int
    #: What happened here; None: nothing did.
    error: BaseException | None
    #: Why it could not be tried here.
    obstacle: str
    #: The moment before the step, where it was a step.
    moment: Moment | None
    #: What nobody is shown, also not in the frames that %debug opens.
    mask: Mask = NOTHING
    #: The variables of the frames when it failed, where %dbos config keep_locals=True kept them.
    recorded_locals: str = ""
    #: The call that was made here, in words; empty: none was.
    called: str = ""

    @property
    def is_reproduced(self) -> bool:
        """Whether the same kind of error happened here."""
        # A step that was retried is called once here: it raises what its attempts did.
        return self.error is not None and errors.told(self.recorded).kind in {type(self.error).__name__, RETRIED}

    @property
    def locals(self) -> dict[str, Any]:
        """The variables of the function that raised."""
        frames = list(own_frames(None if self.error is None else self.error.__traceback__))
        return self.mask.fields(frames[-1].tb_frame.f_locals) if frames else {}

    @property
    def view(self) -> View:
        told, where, here = errors.told(self.recorded), self._where(), self._here()
        rows = shown_values(self.locals, self.mask)
        place = self._place()
        parts = [
            errors.error_markup(self.recorded, where),
            facts([("called", self.called), ("here", here), ("at", place)]),
            table("variables of the function that raised", ["name", "value"], rows) if rows else None,
            fold("variables when it failed", pre(self.recorded_locals)) if self.recorded_locals else None,
        ]
        lines = [f"{line(told.headline, MESSAGE_LIMIT)}   {where}", *([f"> {place}"] if place else [])]
        lines += [f"  called here: {self.called}"] if self.called else []
        lines += [f"    {name} = {value}" for name, value in rows]
        if self.recorded_locals:
            lines += ["variables when it failed:", *(f"  {each}" for each in self.recorded_locals.splitlines())]
        return View(page(*parts, element("div", self._next())), fitting([*lines, here, self._next()]))

    def _where(self) -> str:
        found = self.failure
        step = (
            f"step {found.step} {line(found.name, NAME_LIMIT)}" if found.step is not None else "the workflow's own code"
        )
        tries = f", {words.count(self.attempts, 'attempt')}" if self.attempts > 1 else ""
        return f"{step}{tries} of {line(found.workflow, NAME_LIMIT)} {words.short(found.workflow_id)}"

    def _here(self) -> str:
        if self.obstacle:
            return f"not tried here: {line(self.mask.text(self.obstacle), MESSAGE_LIMIT)}"
        if self.error is None:
            return "not reproduced: here it does not fail"
        if self.is_reproduced:
            return "reproduced here"
        return f"here it fails otherwise: {line(self.mask.text(f'{type(self.error).__name__}: {self.error}'), MESSAGE_LIMIT)}"

    def _place(self) -> str:
        frames = list(own_frames(None if self.error is None else self.error.__traceback__))
        if not frames:
            return ""
        code, number = frames[-1].tb_frame.f_code, frames[-1].tb_lineno
        written = line(self.mask.text(linecache.getline(code.co_filename, number).strip()), NAME_LIMIT)
        return f"{code.co_qualname}, line {number}" + (f": {written}" if written else "")

    def _next(self) -> str:
        short, step = words.short(self.failure.workflow_id), self.failure.step
        live = "%debug opens its frames" if self._place() else ""
        look = f"%dbos at {short} {step} looks around before it" if step is not None else ""
        return "; ".join(each for each in (live, look) if each)


def debug(source: Source, workflow_id: str, *, call: bool = True, say: Callable[[str], None]) -> PostMortem:
    """Find where a run failed, and let it happen again here. Raises ValueError if nothing in it failed.

    What step is called is told to `say` before; without `call` none is.
    """
    failure = failure_of(source, source.run(workflow_id).workflow_id)
    then, obstacle, error, called = None, "", None, ""
    try:
        if failure.step is None:
            error = extension.replay(failure.workflow_id, source.records).error
        else:
            then = moment(source, failure.workflow_id, failure.step)
            if then.stop.fn is None:
                obstacle = f"{failure.name} is no step function"
            elif not call:
                obstacle = RECORD_ALONE
            else:
                called = _call_in_words(then)
                say(f"Calling {called} here, as step {then.step} of {words.short(failure.workflow_id)} did.")
                error = raised_by(then.call)
    except DBOSException as why:
        obstacle = str(why)
    if error is not None and source.mask:
        error = veiled_error(error, source.mask, own_frames)
    if error is not None and own_traceback(error.__traceback__) is not None:
        keep_for_debug(error)
    recorded, attempts, kept = _recorded(source, failure)
    return PostMortem(failure, recorded, attempts, error, obstacle, then, source.mask, kept, called)


# -- finding -------------------------------------------------------------------------------------------------------


def failure_of(source: Source, workflow_id: str) -> Failure:
    """Where the failure of a run began: in one of its steps, its own code, or a child of which that is true."""
    seen: set[str] = set()
    while True:
        seen.add(workflow_id)
        run = source.run(workflow_id)
        steps = {each.step_id: each for each in source.client.list_steps([workflow_id], longest=0)}
        step_id = _failed_step(source, workflow_id, steps)
        if step_id is None:
            if run.status != FAILED:
                raise ValueError(f"nothing failed in {run.name} {words.short(workflow_id)}, which is {run.status}")
            return Failure(workflow_id, run.name, None, run.name)
        step = steps[step_id]
        child = _child_of(step, steps)
        if child is None or child in seen or not _has_failed(source, child):
            return Failure(workflow_id, run.name, step_id, step.name)
        workflow_id = child


def _failed_step(source: Source, workflow_id: str, steps: dict[int, StoredStep]) -> int | None:
    failed = [each.step_id for each in steps.values() if each.failed]
    try:
        replayed = extension.replay(workflow_id, source.records)
    except Exception:  # noqa: BLE001 - its code is not here, or does not fit: the record alone tells then
        return failed[-1] if failed else None
    if replayed.error is None:  # it has not failed, or goes on: what was caught is the best there is
        return failed[-1] if failed else None
    return replayed.step_id


def _child_of(step: StoredStep, steps: dict[int, StoredStep]) -> str | None:
    """The child whose failure a step is: the step that awaited it may not name it, the one that started it does."""
    before = steps.get(step.step_id - 1)
    return step.child_workflow_id or (before.child_workflow_id if before is not None and not before.failed else None)


def _has_failed(source: Source, workflow_id: str) -> bool:
    found = source.client.list_workflows(workflow_ids=[workflow_id], load_input=False, load_output=False)
    return bool(found) and found[0].status == FAILED


def _recorded(source: Source, failure: Failure) -> tuple[str, int, str]:
    """The text of the recorded error, with its traceback where one was kept, how often it was tried, and the variables."""
    at = failure.step or 0
    notes = {
        each.kind: each.text
        for each in source.notes([failure.workflow_id], ["error", "attempts", "locals"])
        if each.step_id == at
    }
    text = notes.get("error")
    if text is None and failure.step is not None:
        text = words.text(source.steps(failure.workflow_id).loc[(failure.workflow_id, failure.step), "error"])
    elif text is None:
        text = words.text(source.runs(workflow_ids=[failure.workflow_id])["error"].iloc[0])
    return text or "Error", len(tries_of(notes.get("attempts"))), notes.get("locals", "")


# -- reproducing ---------------------------------------------------------------------------------------------------


def _call_in_words(then: Moment) -> str:
    given = ", ".join(f"{name}={value}" for name, value in shown_values(then.arguments, then.mask))
    return line(f"{then.name}({given})", MESSAGE_LIMIT)


def raised_by(act: Callable[[], Any]) -> Exception | None:
    """What an act raises, if it does."""
    try:
        act()
    except DBOSException as error:
        if not list(own_frames(error.__traceback__)):
            raise  # ours: it could not be called
        return error
    except Exception as error:  # noqa: BLE001 - it is what we are after
        return error
    return None


def keep_for_debug(error: BaseException) -> None:
    """Make it the last error of this interpreter, which is what `%debug` opens: with the user's frames alone."""
    error.__traceback__ = own_traceback(error.__traceback__)
    kept = {"exc": error, "type": type(error), "value": error, "traceback": error.__traceback__}
    for name, value in kept.items():
        setattr(sys, f"last_{name}", value)


def own_traceback(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of the runtime, the notebook, and what they call the user's code through."""
    made: TracebackType | None = None
    for each in reversed(list(own_frames(traceback))):
        made = TracebackType(made, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return made
