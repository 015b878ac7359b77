"""Tracebacks of cells show the user's code: what stands between a call and the function it runs is left out.

`%dbos config short_errors=False` shows all of it. Nothing is changed where somebody else shows errors already.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import dbos
from dbos_notebook import door

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

FOLDERS = (str(Path(dbos.__file__).parent), str(Path(__file__).parents[1]))


# What the stop button raises is none of the first.
SHOWN = (Exception, KeyboardInterrupt, asyncio.CancelledError)


def register(shell: InteractiveShell) -> None:
    """Show errors of this shell without our frames."""
    if not shell.custom_exceptions:
        setting: Any = shell.set_custom_exc
        setting(SHOWN, show)


def unregister(shell: InteractiveShell) -> None:
    """Show them as before."""
    if shell.custom_exceptions == SHOWN:
        shell.custom_exceptions = ()


def show(
    shell: Any,
    kind: type[BaseException],
    error: BaseException,
    traceback: TracebackType | None,
    tb_offset: int | None = None,
) -> None:
    """Show an error that ended a cell."""
    if door.settings().short_errors:
        shorten(error, set())
        traceback = error.__traceback__
    shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)


def shorten(error: BaseException, seen: set[int]) -> None:
    """Leave our frames out of an error, and of those that led to it."""
    if id(error) in seen:
        return
    seen.add(id(error))
    error.__traceback__ = _without_ours(error.__traceback__)
    for earlier in (error.__cause__, error.__context__):
        if earlier is not None:
            shorten(earlier, seen)


def _without_ours(traceback: TracebackType | None) -> TracebackType | None:
    frames = []
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(FOLDERS):
            frames.append(traceback)
        traceback = traceback.tb_next
    made: TracebackType | None = None
    for each in reversed(frames):
        made = TracebackType(made, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return made
