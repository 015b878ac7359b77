"""What dbos's own objects show as the last line of a cell: handles, statuses, queues, errors.

The classes of dbos stay as they are: IPython is told how to show them, and told to forget it at the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from dbos import PortableWorkflowError, Queue, WorkflowHandle, WorkflowHandleAsync, WorkflowStatus
from dbos.error import DBOSBaseException, DBOSException
from dbos_notebook import door
from dbos_notebook.views import errors, words
from dbos_notebook.views.html import element, facts, fitting, line, page, pre, status_mark, status_text, table
from dbos_notebook.views.live import catch_up, publish, watch_run
from dbos_notebook.views.run import run_view, snapshot_of
from dbos_notebook.views.steps import records
from dbos_notebook.views.values import preview
from dbos_notebook.views.view import View

if TYPE_CHECKING:
    import pandas as pd
    from IPython.core.interactiveshell import InteractiveShell

    from dbos_notebook.source import Source

VALUE_LIMIT = 300
CELL_HAS_RUN = "post_run_cell"
Handle = WorkflowHandle[Any] | WorkflowHandleAsync[Any]

log = logging.getLogger(__name__)


def status_view(status: WorkflowStatus) -> View:
    """A record that the user holds already: its values are shown by previews of what is in hand."""
    name, state = line(status.name or "?", 120), status.status
    shown = [
        ("id", line(status.workflow_id, 120)),
        ("created", _of_ms(status.created_at)),
        ("updated", _of_ms(status.updated_at)),
        ("completed", _of_ms(status.completed_at)),
        ("queue", line(status.queue_name or "", 60)),
        ("version", line(status.app_version or "", 40)),
    ]
    values = [
        (kind, preview(getattr(status, kind), VALUE_LIMIT))
        for kind in ("input", "output")
        if getattr(status, kind) is not None
    ]
    failed = preview(status.error, VALUE_LIMIT) if status.error is not None else ""
    head = element("div", [element("b", name), " ", status_mark(state)])
    parts = [head, facts(shown), *(facts([pair]) for pair in values), facts([("error", failed)])]
    lines = [f"{name}  {words.short(status.workflow_id)}  {status_text(state)}"]
    lines += [f"  {key}: {value}" for key, value in [*shown, *values, ("error", failed)] if value]
    return View(page(*parts), fitting(lines))


def _of_ms(moment_ms: int | None) -> str:
    if moment_ms is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment_ms / 1000))


def queue_view(name: str, frame: pd.DataFrame) -> View:
    """A queue with its backlog; `frame` is that of all queues."""
    found = frame[frame.index == name]
    if found.empty:
        text = f"queue {line(name, 120)}: not known to the database yet"
        return View(page(element("div", text)), text)
    row = records(found)[0]
    shown = [(key, line(words.text(value), 60)) for key, value in row.items()]
    title = f"queue {line(name, 120)}"
    return View(
        page(element("div", element("b", title)), facts(shown)),
        fitting([title, *(f"  {k}: {v}" for k, v in shown if v)]),
    )


def facts_view(title: str, pairs: Iterable[tuple[str, str]]) -> View:
    """Named facts, one below the other."""
    rows = [(name, line(value, 200)) for name, value in pairs if value]
    return View(page(table(title, ["what", "value"], rows)), fitting([title, *(f"  {k}: {v}" for k, v in rows)]))


def text_view(text: str) -> View:
    """Text whose lines count, such as help, a log or source."""
    shown = fitting(text.splitlines())
    return View(page(pre(shown)), shown)


# -- what dbos's own objects show ----------------------------------------------------------------------------------


def _handle_view(handle: Handle) -> View | None:
    """The run of a handle; None where it cannot be read, and IPython shows the handle's own words."""
    return _read(lambda source: run_view(snapshot_of(source, handle.workflow_id)))


def _queue_view(queue: Queue) -> View | None:
    return _read(lambda source: queue_view(queue.name, source.queues()))


def _read(draw: Callable[[Source], View]) -> View | None:
    """A view from the database; showing something launches nothing, and never fails."""
    try:
        source = door.own_source_if_launched()
        return None if source is None else draw(source)
    except Exception:
        log.debug("an object cannot be shown", exc_info=True)
        return None


def _show_handle(handle: Handle) -> None:
    """A handle in a notebook: followed while its run goes on."""
    source = door.own_source_if_launched()
    if source is None or _handle_view(handle) is None:
        publish({"text/plain": repr(handle)})
        return
    settings = door.settings()
    live = watch_run(source, handle.workflow_id, pause_seconds=settings.refresh_seconds)
    if settings.live:
        live.show()
    else:
        publish(live.now().bundle())


def _error_view(error: BaseException) -> View:
    return errors.error_view(f"{type(error).__name__}: {error}")


Maker = Callable[[Any], View | None]
SHOWN: dict[type, Maker] = {
    WorkflowHandle: _handle_view,
    WorkflowHandleAsync: _handle_view,
    WorkflowStatus: status_view,
    Queue: _queue_view,
    DBOSException: _error_view,
    DBOSBaseException: _error_view,
    PortableWorkflowError: _error_view,
}
HANDLES = (WorkflowHandle, WorkflowHandleAsync)
_before: dict[tuple[Any, type], Any] = {}


def _html(make: Maker) -> Callable[[Any], str | None]:
    def html(value: Any) -> str | None:
        view = make(value)
        return None if view is None else str(view.html)

    return html


def _plain(make: Maker) -> Callable[[Any, Any, bool], None]:
    def plain(value: Any, printer: Any, cycle: bool) -> None:
        # In a list each would ask the database: there it says its own words.
        view = make(value) if len(printer.stack) <= 1 and not cycle else None
        printer.text(_brief(value) if view is None else view.text)

    return plain


def _brief(value: Any) -> str:
    if isinstance(value, WorkflowStatus):
        return f"<{line(value.name or '?', 80)} {words.short(value.workflow_id)} {status_text(value.status)}>"
    return line(preview(value, 300), 300) if isinstance(value, BaseException) else repr(value)


def register(shell: InteractiveShell) -> None:
    """Tell IPython how to show dbos's objects."""
    for (formatter, kind), shown in _shown(shell).items():
        # What was registered before; IPython keeps deferred names apart, and none is of ours.
        _before.setdefault((formatter, kind), formatter.type_printers.get(kind))
        formatter.for_type(kind, shown)
    unregister_event(shell)
    shell.events.register(CELL_HAS_RUN, catch_up)


def unregister_event(shell: InteractiveShell) -> None:
    """Not to be called after cells any more."""
    if catch_up in shell.events.callbacks[CELL_HAS_RUN]:
        shell.events.unregister(CELL_HAS_RUN, catch_up)


def unregister(shell: InteractiveShell) -> None:
    """Show them as before."""
    for (formatter, kind), before in _before.items():
        if before is None:
            formatter.pop(kind, None)
        else:
            formatter.for_type(kind, before)
    _before.clear()
    unregister_event(shell)


def _shown(shell: InteractiveShell) -> dict[tuple[Any, type], Any]:
    """What shows which class, by formatter."""
    display_formatter: Any = shell.display_formatter
    made = {
        (display_formatter.formatters[mime], kind): wrap(make)
        for mime, wrap in (("text/html", _html), ("text/plain", _plain))
        for kind, make in SHOWN.items()
    }
    # Only an output that can be replaced is followed; it then shows itself.
    if getattr(shell, "kernel", None) is not None:
        made |= {(display_formatter.ipython_display_formatter, kind): _show_handle for kind in HANDLES}
    return made
