"""Loading into a kernel, and leaving it as it was.

Before each cell the names of the notebook are noted, and after it the versions of all workflows are asked for
again: a helper may have changed. While a cell runs, the event loop ticks, so that the stop button is heard by a
cell that awaits.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from dbos import extension as runtime_extension
from dbos_notebook.cells import define, tracebacks, waiting
from dbos_notebook.cells.capture import Capture
from dbos_notebook.cells.code import Cells
from dbos_notebook.cells.observer import CellExtension
from dbos_notebook.session import Session, current

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

TICK_SECONDS = 0.05


class Loaded:
    """The extension while it is loaded into a shell."""

    def __init__(self, shell: InteractiveShell, session: Session) -> None:
        self.shell, self.session = shell, session
        session.attach(shell)
        self.cells = Cells(shell.user_ns)
        kept = runtime_extension.installed()
        # After a reload the same one goes on: it watches the runs of before.
        self.code = kept if isinstance(kept, CellExtension) else CellExtension(self.cells, self._launch)
        self.code.cells = self.cells
        runtime_extension.install(self.code)
        self.capture = Capture(self.code.printed)
        self._told: set[tuple[str | None, str, str | None]] = set()
        self._tick: asyncio.TimerHandle | None = None
        self._events = {"pre_run_cell": self.before_cell, "post_run_cell": self.after_cell}
        for name, act in self._events.items():
            shell.events.register(name, act)
        self._parts("register")
        self.cells.before = dict(shell.user_ns)

    def unload(self, *, is_reload: bool) -> None:
        """Undo everything; the runtime too, unless it is only loaded again."""
        for name, act in self._events.items():
            self.shell.events.unregister(name, act)
        self._stop_ticking()
        self._parts("unregister")
        self.session.close_views()
        self.capture.close()
        if not is_reload:
            self.session.end()
            self.code.announcer.close()
            runtime_extension.install(None)
        self.session.detach()

    def _parts(self, act: str) -> None:
        from dbos_notebook import magics  # beside IPython it needs all the rest: loaded when asked for
        from dbos_notebook.durable import magic as durable
        from dbos_notebook.views import handle

        for part in (define, tracebacks, magics, handle, durable):
            getattr(part, act)(self.shell)

    def _launch(self) -> None:
        self.session.launch()

    # -- around cells ------------------------------------------------------------------------------------------

    def before_cell(self, info: Any) -> None:
        """A cell is about to run."""
        self.cells.begin(_transformed(self.shell, info.raw_cell) if info.raw_cell else "")
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._keep_ticking()

    def _keep_ticking(self) -> None:
        self._tick = self._loop.call_later(TICK_SECONDS, self._keep_ticking)

    def _stop_ticking(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def after_cell(self, _: Any) -> None:
        """A cell has run: its definitions may be what runs wait for."""
        self._stop_ticking()
        while self.code.stopped:
            print(self.code.stopped.pop(0))  # noqa: T201 - to who pressed the button
        runtime_extension.review()
        if not self.session.is_launched:
            return
        for group in waiting.waiting(self.session.client):
            asked = (runtime_extension.launch_id(), group.name, group.version)
            if group.is_known and asked not in self._told:
                self._told.add(asked)
                print(waiting.on_change(group))  # noqa: T201 - to who reads the cell

    # -- the one line ------------------------------------------------------------------------------------------

    def greeting(self) -> str:
        """What is where, and what waits, in one line."""
        session = self.session
        if not session.exists:
            return f"dbos_notebook | {session.place} (new) | %dbos --help"
        session.launch()
        told = waiting.on_load(waiting.waiting(session.client))
        return f"dbos_notebook | {session.place} | kernel {session.executor_id} | {told or '%dbos --help'}"


_loaded: Loaded | None = None


def load(shell: InteractiveShell) -> None:
    """Load into this shell; a second time does nothing."""
    global _loaded  # noqa: PLW0603 - one in a kernel
    if _loaded is not None:
        return
    _loaded = Loaded(shell, current())
    print(_loaded.greeting())  # noqa: T201 - the one line that loading says


def unload() -> None:
    """Leave the shell as it was."""
    global _loaded
    loaded, _loaded = _loaded, None
    if loaded is not None:
        loaded.unload(is_reload=_is_reloading())


def _transformed(shell: InteractiveShell, text: str) -> str:
    transform: Any = shell.transform_cell
    return str(transform(text))


def _is_reloading() -> bool:
    """Whether this is the first half of `%reload_ext`, which IPython tells nobody."""
    frame: Any = sys._getframe()  # noqa: SLF001 - the way to see who calls
    while frame is not None:
        if frame.f_code.co_name == "reload_extension":
            return True
        frame = frame.f_back
    return False
