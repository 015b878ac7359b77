"""A living explorer: its three threads, and its end.

One thread owns the state: it takes messages one after the other and draws, and never waits for the database. One
performs actions in their order, and one reads; both post what came of it. All are daemons in the context of the cell
that made them, so that what they write belongs to it and no kernel waits for them. Whoever clicks only hands in a
message, in whatever thread that is.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable, Collection, MutableMapping
from typing import TYPE_CHECKING, Any

from dbos import extension
from dbos_notebook import door
from dbos_notebook.explore.actions import Action, Bench
from dbos_notebook.explore.layout import Layout
from dbos_notebook.explore.parts import Desk, reason_of
from dbos_notebook.explore.reading import Fits, Reader
from dbos_notebook.explore.state import (
    LIVE,
    Command,
    Did,
    Failed,
    KernelBusy,
    Message,
    Perform,
    Read,
    State,
    Unread,
    update,
)

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from dbos_notebook.source import Source

REFRESH_SECONDS = 0.25
# Where nothing runs that could change by itself.
QUIET_SECONDS = 1.0
# A cell of so long is noticed by who waits for a click.
BUSY_SECONDS = 0.5
# A reading takes at most this part of the time: a slow database is not asked all the time.
READING_PART = 0.25
# An action that still goes on at the end is not waited for longer than this.
LAST_SECONDS = 2.0


class Explorer:
    """One explorer on a page. It reads and acts until it is closed."""

    def __init__(
        self,
        source: Source,
        variables: MutableMapping[str, Any],
        *,
        newest: Callable[[str], str | None] | None = None,
        fits: Fits | None = None,
        shell: InteractiveShell | None = None,
        refresh_seconds: float = REFRESH_SECONDS,
        cell: str = "",
    ) -> None:
        self._source, self._variables, self._shell = source, variables, shell
        self._newest = _newest if newest is None else newest
        self._reader = Reader(source, self._newest, fits)
        self._refresh_seconds = max(refresh_seconds, REFRESH_SECONDS)
        self._inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._actions: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._wake, self._is_closed = threading.Event(), threading.Event()
        self._busy_since: float | None = None
        self.state = State()
        self.layout = Layout(Desk(self.post), cell)
        self._first_paint()
        loops = {"explorer": self._work, "explorer-actor": self._act, "explorer-reader": self._watch}
        self._threads = [self._thread(name, loop) for name, loop in loops.items()]
        if shell is not None:
            shell.events.register("pre_run_cell", self._cell_begins)
            shell.events.register("post_run_cell", self._cell_ends)

    def _first_paint(self) -> None:
        """Show the first page with the explorer itself, and not as a change to it."""
        try:
            seen: Message = self._reader.read(self.state.look, time.monotonic())
        except Exception as error:  # noqa: BLE001 - a database that is away must not keep the explorer from opening
            seen = Unread(reason_of(error))
        self.state, _ = update(self.state, seen)
        self.layout.draw(self.state)

    def _thread(self, name: str, run: Callable[[], None]) -> threading.Thread:
        made = threading.Thread(target=contextvars.copy_context().run, args=(run,), name=f"dbos-{name}", daemon=True)
        made.start()
        return made

    def __repr__(self) -> str:
        return "Explorer of runs, for a page with widgets; as text: %dbos runs, %dbos show ID"

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, Any]:
        bundle = self.layout.root._repr_mimebundle_()
        return {**(bundle or {}), "text/plain": repr(self)}

    # -- in any thread -----------------------------------------------------------------------------------------

    def post(self, message: Message) -> None:
        """Hand in a message."""
        self._inbox.put(message)

    def close(self) -> None:
        """Stop reading and take the controls off the page. A second call does nothing."""
        if self._is_closed.is_set():
            return
        self._is_closed.set()
        self._inbox.put(None)
        self._actions.put(None)
        self._wake.set()
        if self._shell is not None:
            self._shell.events.unregister("pre_run_cell", self._cell_begins)
            self._shell.events.unregister("post_run_cell", self._cell_ends)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=LAST_SECONDS)
        self.layout.close()
        _explorers.forget(self)

    def _cell_begins(self, *_: Any) -> None:
        self._busy_since = time.monotonic()

    def _cell_ends(self, *_: Any) -> None:
        self._busy_since = None

    # -- in the thread that owns the state ---------------------------------------------------------------------

    def _work(self) -> None:
        while (message := self._inbox.get()) is not None and not self._is_closed.is_set():
            try:
                self._take(message)
            except Exception as error:  # noqa: BLE001 - a service loop: it says so and goes on
                self.state, _ = update(self.state, Failed(reason_of(error)))
                self.layout.draw(self.state)

    def _take(self, message: Message) -> None:
        before = self.state
        self.state, commands = update(before, message)
        if self.state is not before:
            self.layout.draw(self.state)
        for command in commands:
            self._obey(command)

    def _obey(self, command: Command) -> None:
        match command:
            case Read():
                self._wake.set()
            case Perform(action):
                self._actions.put(action)

    # -- in the thread that acts -------------------------------------------------------------------------------

    def _act(self) -> None:
        while (action := self._actions.get()) is not None and not self._is_closed.is_set():
            self.post(self._performed(action))

    def _performed(self, action: Action) -> Message:
        bench = Bench(self._source, self._variables, self._newest)
        try:
            return Did(action.perform(bench))
        except Exception as error:  # noqa: BLE001 - users see why it did not go
            return Failed(f"{action.verb}: {reason_of(error)}", was_action=True)

    # -- in the thread that reads ------------------------------------------------------------------------------

    def _watch(self) -> None:
        is_busy, pause = False, self._refresh_seconds
        while not self._is_closed.is_set():
            self._wake.wait(pause)
            self._wake.clear()
            if self._is_closed.is_set():
                return
            began = time.monotonic()
            self._read(began)
            since = self._busy_since
            if is_busy != (since is not None and began - since > BUSY_SECONDS):
                is_busy = not is_busy
                self.post(KernelBusy(is_busy))
            pause = max(self._pause(), (time.monotonic() - began) / READING_PART)

    def _read(self, now: float) -> None:
        try:
            self.post(self._reader.read(self.state.look, now))
        except Exception as error:  # noqa: BLE001 - a service loop: it says so and goes on
            if not self._is_closed.is_set():
                self.post(Unread(reason_of(error)))

    def _pause(self) -> float:
        state = self.state
        statuses = {row.status for row in state.rows} | ({state.detail.run.status} if state.detail else set())
        return self._refresh_seconds if statuses & LIVE or self._busy_since else QUIET_SECONDS


class _Explorers:
    """Those that are open, by the cell that shows them: run again, a cell shows a new one and ends the old."""

    def __init__(self) -> None:
        self._open: dict[str, Explorer] = {}
        self._lock = threading.Lock()

    def keep(self, cell: str, made: Explorer) -> None:
        with self._lock:
            old, self._open[cell] = self._open.get(cell), made
        if old is not None:
            old.close()

    def forget(self, closed: Explorer) -> None:
        with self._lock:
            self._open = {cell: each for cell, each in self._open.items() if each is not closed}

    def close(self) -> None:
        for each in list(self._open.values()):
            each.close()


_explorers = _Explorers()


def explorer(source: Source | None = None, *, fits: Fits | None = None) -> Explorer:
    """Open the explorer on this kernel's session, or on another source. `%dbos` alone does the same."""
    session = door.session()
    shell = session.shell
    cell = _cell_of(shell)
    made = Explorer(
        session.source if source is None else source,
        {} if shell is None else shell.user_ns,
        fits=fits,
        shell=shell,
        refresh_seconds=session.settings.refresh_seconds,
        cell=cell,
    )
    _explorers.keep(cell, made)
    return made


def close_all() -> None:
    """Close every explorer of this kernel."""
    _explorers.close()


def _newest(name: str) -> str | None:
    """The version of a workflow's code as this process has defined it."""
    return extension.defined_versions().get(name)


def _cell_of(shell: InteractiveShell | None) -> str:
    parent = getattr(shell, "parent_header", None) or {}
    return str(parent.get("metadata", {}).get("cellId") or f"cell {time.monotonic_ns()}")
