"""Live views: outputs that follow the database until what they show has ended.

One thread writes all of them, each at most as often as its settings say and only when something changed; it lives
while something is shown live, no longer. After its end a view is never written again, so that a saved notebook holds
the final state. Whose output an update replaces is decided by its display id; it is sent on behalf of the cell that
runs now, because programs that execute notebooks listen to no other.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
import uuid
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from IPython.core.getipython import get_ipython
from IPython.display import display

from dbos_notebook.views.html import element, escape, fitting, page
from dbos_notebook.views.run import run_view, snapshot_of
from dbos_notebook.views.view import View

if TYPE_CHECKING:
    from dbos_notebook.source import Source
    from dbos_notebook.views.run import Snapshot

PAUSE_SECONDS = 0.25
# Reading may cost this part of the time: views of long runs look less often.
SHARE = 0.2
LONGEST_PAUSE_SECONDS = 10.0
STOP_SECONDS = 2.0
# A cell may be held up so long by each view.
QUICK_SECONDS = 0.1

log = logging.getLogger(__name__)


class Seen(NamedTuple):
    """What a look found: a mark that is another one after every change, and whether it is the last."""

    mark: Hashable
    is_final: bool


class Subject(Protocol):
    """What a live view shows."""

    def look(self) -> Seen:
        """Read the database."""

    def draw(self, *, is_live: bool) -> View:
        """Draw what the last look found."""


class Screen(Protocol):
    """Where a live view is put."""

    def put(self, view: View, *, is_first: bool) -> None:
        """Show a view, or replace what was shown."""


def publish(bundle: dict[str, str], **how: Any) -> None:
    """Show the forms of something in the cell."""
    display(bundle, raw=True, **how)  # type: ignore[no-untyped-call]  # IPython's


class CellOutput:
    """An output of a cell, replaced through its display id."""

    def __init__(self) -> None:
        self._id = f"dbos-{uuid.uuid4().hex}"

    def put(self, view: View, *, is_first: bool) -> None:
        publish(view.bundle(), display_id=self._id, update=not is_first)


def can_update() -> bool:
    """Whether outputs can be replaced here; a terminal would print each one below the other."""
    return getattr(get_ipython(), "kernel", None) is not None


class Live:
    """A view that follows its subject, from when it is first shown."""

    def __init__(self, subject: Subject, screen: Screen | None = None, pause_seconds: float = PAUSE_SECONDS) -> None:
        self.subject, self._screen, self._pause = subject, screen, pause_seconds
        #: Set when the view has its final state, and that is written.
        self.ended = threading.Event()
        #: When the writer looks again, on the monotonic clock.
        self.due = 0.0
        #: How long the last look took, in seconds.
        self.cost = 0.0
        self._lock = threading.RLock()
        self._mark: Hashable = object()
        self._view: View | None = None
        self._is_final = self._is_shown = False
        self._failures = 0

    def __repr__(self) -> str:
        return self.now().text

    def _ipython_display_(self) -> None:
        self.show()

    def now(self) -> View:
        """What it shows, read anew unless it has ended."""
        with self._lock:
            if self._view is None or not self.ended.is_set():
                self.subject.look()
                self._view = self.subject.draw(is_live=False)
            return self._view

    def show(self) -> Live:
        """Show it in the cell that runs now, and follow. Where outputs cannot be replaced it is shown once."""
        with self._lock:
            if self._screen is None and not can_update():
                publish(self.now().bundle())
                return self
            self._screen = self._screen or CellOutput()
            if not self.ended.is_set():
                self._read()
            assert self._view is not None
            self._screen.put(self._view, is_first=True)
            self._is_shown = True
            self._settle()
        self.follow()
        return self

    def follow(self) -> None:
        """Have the writer follow it, shown or not."""
        if not self.ended.is_set():
            WRITER.add(self)

    def tick(self) -> None:
        """Look once, and write if something changed. The writer calls it."""
        began = time.monotonic()
        with self._lock:
            if self.ended.is_set():
                return
            if self._read():
                self._put()
            self._settle()
        self.cost = time.monotonic() - began
        pause = max(self.cost / SHARE, float(self._failures), self._pause)
        self.due = time.monotonic() + min(pause, LONGEST_PAUSE_SECONDS)

    def stop(self) -> None:
        """End it with what is true now. Afterwards nothing writes to it."""
        with self._lock:
            if self.ended.is_set():
                return
            try:
                self.subject.look()
                self._view = self.subject.draw(is_live=False)
            except Exception as error:  # noqa: BLE001 - the last word of a view; it must not keep others from ending
                self._view = _failed(error, self._view)
            self._put()
            self.ended.set()

    def _read(self) -> bool:
        """Look; whether there is something new to show."""
        try:
            seen = self.subject.look()
            self._failures = 0
            if seen.mark == self._mark:
                return False
            self._view = self.subject.draw(is_live=not seen.is_final)
        except Exception as error:
            log.debug("a live view cannot be read", exc_info=True)
            self._failures += 1
            self._view, self._mark = _failed(error, self._view if self._failures == 1 else None), object()
            return self._failures == 1
        self._mark, self._is_final = seen.mark, seen.is_final
        return True

    def _settle(self) -> None:
        """The final state is written: only now say that it has ended."""
        if self._is_final:
            self.ended.set()

    def _put(self) -> None:
        if self._is_shown and self._screen is not None and self._view is not None:
            # In an empty context the kernel takes the request that it is at, not that of the cell of this view.
            contextvars.Context().run(self._screen.put, self._view, is_first=False)


def _failed(error: Exception, before: View | None) -> View:
    """What was shown last, and why it is not renewed."""
    words = f"cannot be read now: {type(error).__name__}: {error}"[:400]
    text = "" if before is None else before.text
    return View(page(element("div", escape(words)), element("pre", text)), fitting([words, *text.splitlines()]))


class Writer:
    """The one thread that writes live views."""

    def __init__(self) -> None:
        self._lives: list[Live] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._gone: threading.Event | None = None

    def add(self, live: Live) -> None:
        with self._lock:
            if live not in self._lives:
                live.due = time.monotonic() + PAUSE_SECONDS
                self._lives.append(live)
            if self._gone is None:
                self._gone = threading.Event()
                threading.Thread(target=self._run, args=(self._gone,), name="dbos-views", daemon=True).start()
        self._wake.set()

    def _run(self, gone: threading.Event) -> None:
        while True:
            with self._lock:
                self._lives = [each for each in self._lives if not each.ended.is_set()]
                if not self._lives:
                    self._gone = None
                    gone.set()
                    return
                lives = list(self._lives)
            for live in lives:
                if live.due <= time.monotonic():
                    self._tick(live)
            pause = min(each.due for each in lives) - time.monotonic()
            self._wake.wait(max(pause, 0.01))
            self._wake.clear()

    def _tick(self, live: Live) -> None:
        try:
            live.tick()
        except Exception:
            # What cannot be shown is not shown again and again: front ends differ in what they refuse.
            log.exception("a live view cannot be written")
            live.ended.set()

    def catch_up(self) -> None:
        """Look at every view now, but for those that take long."""
        with self._lock:
            lives = [each for each in self._lives if each.cost < QUICK_SECONDS]
        for live in lives:
            self._tick(live)

    def stop_all(self) -> None:
        """End every view with what is true now, and the thread."""
        with self._lock:
            lives, gone = list(self._lives), self._gone
        for live in lives:
            live.stop()
        self._wake.set()
        # Not a join: an interrupted join says for ever that the thread is dead.
        if gone is not None:
            gone.wait(STOP_SECONDS)


WRITER = Writer()


def catch_up(*_: Any) -> None:
    """Write what is true now. After a cell: who saves the notebook hears nothing that is said later."""
    WRITER.catch_up()


def stop_all() -> None:
    """End every live view with what is true now, and the thread that writes them."""
    WRITER.stop_all()


class RunSubject:
    """A run and its steps."""

    def __init__(self, source: Source, workflow_id: str) -> None:
        self._source, self._workflow_id = source, workflow_id
        self._found: Snapshot | None = None

    def look(self) -> Seen:
        found = self._found = snapshot_of(self._source, self._workflow_id)
        steps, children = found.steps, found.children
        told = steps[["status", "attempts", "printed", "completed"]].astype(str)
        mark = (
            tuple(found.run.iloc[0].astype(str)),
            len(steps),
            hash(tuple(told.to_numpy().ravel().tolist())),
            tuple(children["status"].astype(str)),
            tuple(found.between.values()),
        )
        return Seen(mark, found.is_finished)

    def draw(self, *, is_live: bool) -> View:
        assert self._found is not None
        return run_view(self._found, is_live=is_live)


class LiveRun(Live):
    """A live view of a run."""

    def __init__(self, source: Source, workflow_id: str, screen: Screen | None, pause_seconds: float) -> None:
        super().__init__(RunSubject(source, workflow_id), screen, pause_seconds)
        #: The run's id, so that this names the run to every command.
        self.workflow_id = workflow_id


def watch_run(
    source: Source, workflow_id: str, screen: Screen | None = None, pause_seconds: float = PAUSE_SECONDS
) -> LiveRun:
    """A live view of a run; it is followed from when it is shown."""
    return LiveRun(source, workflow_id, screen, pause_seconds)
