"""Watching runs: each step's arguments, attempts, prints and errors, and the exact code that ran.

What is noted travels with the run's own records. Values become previews here, where they are at home, so that
nobody needs to unpickle them to look.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbos import DBOS, extension
from dbos.error import DBOSNonExistentWorkflowError
from dbos.extension import Note, Observed, Observer, Place
from dbos_notebook import door
from dbos_notebook.cells import crash
from dbos_notebook.cells.announcer import Announcer
from dbos_notebook.cells.capture import Printed
from dbos_notebook.cells.code import Cells, Code, hashed, held
from dbos_notebook.signs import STOPPED_AT
from dbos_notebook.views import words
from dbos_notebook.views.values import preview

if TYPE_CHECKING:
    from dbos_notebook.views.live import Live

# The version, in a notebook, of what is not told apart: steps that are enqueued by themselves.
GENERAL_VERSION = "notebook"

# How long the stop button may wait for the cancelled run to be written.
STOP_SECONDS = 2.0
MOST_TRACEBACK = 8_000
MOST_FRAMES = 4
# Where a kernel says that the code of a cell stands.
CELL_FILE = re.compile(r"ipykernel_\d+[/\\]\d+\.py$|^<ipython-input")
# A step that takes longer is told of while it runs.
MOMENT_MS = 200


@dataclass
class _Step:
    name: str = ""
    input: str = ""
    error: str = ""
    #: The variables of the frames that it failed in, if they are kept.
    locals: str = ""
    attempts: list[dict[str, Any]] = field(default_factory=list)
    #: How much of it was told while it runs.
    told: tuple[int, int] = (0, 0)


class RunObserver(Observer):
    """One run."""

    def __init__(self, run: Observed, code: str, forget: Callable[[str], None], stopped: list[str]) -> None:
        self._run, self._forget, self._stopped, self.write = run, forget, stopped, run.write
        self._steps: dict[int, _Step] = {}
        self._printed: dict[tuple[str, int], Printed] = {}
        self._lock, self.telling = threading.Lock(), threading.Lock()
        self._first: list[Note] = [Note(0, "code", code), Note(0, "input", arguments(run.fn, run.args, run.kwargs))]

    def printed(self, place: Place, text: str, by_thread: bool) -> bool:
        """Something was printed at that place, or by a thread that it started, for which the step must be under way."""
        if by_thread and place.step_id not in self._steps:
            return False
        key = ("printed_after", place.steps_taken) if place.step_id is None else ("printed", place.step_id)
        with self._lock:
            self._printed.setdefault(key, Printed()).add(text)
        return True

    def attempt(self, step_id: int, name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(fn):

            @functools.wraps(fn)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                with self._attempt(step_id, name, fn, args, kwargs):
                    return await fn(*args, **kwargs)

            return call_async

        @functools.wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._attempt(step_id, name, fn, args, kwargs):
                return fn(*args, **kwargs)

        return call

    @contextmanager
    def _attempt(
        self, step_id: int, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[None]:
        step = self._steps.setdefault(step_id, _Step(name, arguments(fn, args, kwargs)))
        attempt: dict[str, Any] = {"name": name, "started": _now_ms(), "ended": None, "error": None}
        step.attempts.append(attempt)
        try:
            yield
            crash.pass_by(name)
        except Exception as error:
            attempt["error"] = preview(error)
            step.error, step.locals = traceback_text(error), locals_text(error)
            raise
        finally:
            attempt["ended"] = _now_ms()

    def news(self) -> list[Note]:
        """What is to be told of steps that have been under way for a moment, and was not yet."""
        now, notes = _now_ms(), list[Note]()
        for step_id, step in list(self._steps.items()):
            printed = self._printed.get(("printed", step_id))
            known = (len(step.attempts), 0 if printed is None else printed.size)
            if known == step.told or not step.attempts or now - step.attempts[0]["started"] < MOMENT_MS:
                continue
            step.told = known
            notes += [Note(step_id, "input", step.input), Note(step_id, "attempts", json.dumps(step.attempts))]
            if printed is not None:
                notes.append(Note(step_id, "printed", printed.text))
        if notes:
            with self._lock:
                first, self._first = self._first, []
            notes = [*first, *notes]
        return notes

    def step_notes(self, step_id: int, value: Any, error: BaseException | None) -> Iterable[Note]:
        with self.telling:
            step = self._steps.pop(step_id, None)
        if step is not None:
            yield Note(step_id, "input", step.input)
            yield Note(step_id, "attempts", json.dumps(step.attempts))
            if error is not None:
                yield Note(step_id, "error", step.error)
                if step.locals:
                    yield Note(step_id, "locals", step.locals)
        if error is None:
            yield Note(step_id, "output", preview(value))
        yield from self._kept()

    def last_notes(self, value: Any, error: BaseException | None) -> Iterable[Note]:
        if error is None:
            yield Note(0, "output", preview(value))
        else:
            yield Note(0, "error", traceback_text(error))
            if kept := locals_text(error):
                yield Note(0, "locals", kept)
        yield from self._kept()

    def _kept(self) -> list[Note]:
        with self._lock:
            first, self._first = self._first, []
            # What was printed is told again with more of it, so it stays; and steps that run side by side still print.
            printed = [Note(step_id, kind, each.text) for (kind, step_id), each in self._printed.items()]
            taken = max((step_id for _, step_id in self._printed), default=0)
            self._printed = {
                key: each for key, each in self._printed.items() if key[1] >= taken or key[1] in self._steps
            }
        return [*first, *printed]

    def interrupted(self, interrupt: BaseException) -> None:
        """The stop button: the run is cancelled, which is a state that everybody knows and that can be resumed."""
        is_stop = isinstance(interrupt, (KeyboardInterrupt, asyncio.CancelledError))
        if not is_stop or threading.current_thread() is not threading.main_thread():
            return
        at = next((f" in step {step_id} {step.name}" for step_id, step in self._steps.items()), "")
        is_done = threading.Event()

        def stop() -> None:
            DBOS.cancel_workflow(self._run.workflow_id)
            DBOS.update_workflow_attributes(self._run.workflow_id, {STOPPED_AT: f"stopped{at}"}, merge=True)
            is_done.set()

        threading.Thread(target=stop, name="dbos-notebook-stop", daemon=True).start()
        if is_done.wait(STOP_SECONDS):
            short = words.short(self._run.workflow_id)
            self._stopped.append(
                f"{self._run.name} {short} was stopped{at} and is CANCELLED. %dbos resume {short} lets it go on."
            )

    def left(self) -> None:
        self._forget(self._run.workflow_id)


class CellExtension(extension.Extension):
    """What the notebook takes part in."""

    def __init__(self, cells: Cells, launch: Callable[[], None]) -> None:
        self.cells, self._launch = cells, launch
        self._observers: dict[str, RunObserver] = {}
        self.announcer = Announcer(lambda: list(self._observers.values()))
        #: The code whose source is kept, by the launch that keeps it: each may have another database.
        self._kept: set[tuple[str | None, str]] = set()
        #: What the stop button did, to be told after the cell.
        self.stopped: list[str] = []

    def version(self, name: str, fn: Callable[..., Any]) -> str | None:
        if extension.is_pinned() and DBOS.application_version != GENERAL_VERSION:
            return None  # who launched it says what the version is
        declared: str | None = getattr(fn, "version_of_code", None)
        if declared is not None:
            return declared
        return Code(self.cells, fn).version

    def earlier_code(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return held(fn, self.cells.before)

    def code(self, fn: Callable[..., Any], version: str | None) -> Callable[..., Any]:
        return held(fn, dict(fn.__globals__))

    def wanted(self) -> None:
        self._launch()

    def observe(self, run: Observed) -> RunObserver:
        text = Code(self.cells, run.fn).text
        code = hashed(text)
        asked = (extension.launch_id(), code)
        if asked not in self._kept:
            DBOS.keep_source(code, run.name, text)
            self._kept.add(asked)
        observer = self._observers[run.workflow_id] = RunObserver(run, code, self._forget, self.stopped)
        self.announcer.wake()
        return observer

    @contextmanager
    def waits(self, workflow_id: str) -> Iterator[None]:
        """A progress bar under the cell that awaits a handle."""
        live = guarded_progress(workflow_id)
        try:
            yield
        finally:
            if live is not None:
                live.stop()

    def printed(self, place: Place, text: str, by_thread: bool) -> bool:
        """What a workflow prints goes to its observer, if it is under way."""
        observer = self._observers.get(place.workflow_id)
        return observer is not None and observer.printed(place, text, by_thread)

    def _forget(self, workflow_id: str) -> None:
        self._observers.pop(workflow_id, None)


def guarded_progress(workflow_id: str) -> Live | None:
    """A progress bar; none for a workflow of another database."""
    from dbos_notebook.views import progress  # these views bring pandas, and loading the extension must be quick

    source = door.own_source_if_launched()
    try:
        return None if source is None else progress.begun(source, [workflow_id], is_shown=True)
    except DBOSNonExistentWorkflowError:
        return None


def arguments(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The arguments of a call as text, with their names."""
    try:
        given = dict(inspect.signature(fn).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):
        given = {**{f"arg{number}": value for number, value in enumerate(args)}, **kwargs}
    return ", ".join(f"{name}={preview(value)}" for name, value in given.items() if name not in {"self", "cls"})


def _is_users(file: str) -> bool:
    return not {"dbos", "dbos_notebook"} & set(file.replace("\\", "/").split("/"))


def locals_text(error: BaseException) -> str:
    """The variables of the user's functions that an error went through, the innermost first; empty unless they are kept."""
    if not door.settings().keep_locals:
        return ""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if _is_users(frame.f_code.co_filename)]
    parts = []
    for frame in reversed(frames[-MOST_FRAMES:]):
        values = [
            f"    {name} = {preview(value)}" for name, value in frame.f_locals.items() if not name.startswith("__")
        ]
        parts.append("\n".join([f"{frame.f_code.co_qualname}:", *values]))
    return "\n".join(parts)[:MOST_TRACEBACK]


def traceback_text(error: BaseException) -> str:
    """The traceback without the runtime's own frames: what the user wrote."""
    kept = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    for frame in kept:
        if CELL_FILE.search(frame.filename):  # a name that tells nobody anything, and the machine's folders
            frame.filename = "<cell>"
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(kept)] if kept else []
    text = "".join([*lines, *traceback.format_exception_only(error)])
    return text if len(text) <= MOST_TRACEBACK else f"{text[:MOST_TRACEBACK]}\n..."


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
