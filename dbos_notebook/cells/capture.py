"""Prints belong to their step: what a workflow prints is kept with the step that printed it, in every front end.

What runs beside the notebook prints nowhere else, for there is no cell that it belongs to. A workflow that is called
in a cell prints there too, as one expects. A thread that a step starts prints for that step, while it lasts.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

from dbos import extension
from dbos.extension import Place

# Of one step, or of the body between two steps, no more is kept.
MOST_TEXT = 64_000

# Takes what was printed at a place, or by a thread that was started there; False if that has ended.
Sink = Callable[[Place, str, bool], bool]


class Starter(NamedTuple):
    """The step that started a thread, and whether it runs in a cell."""

    place: Place
    is_shown: bool


STARTER = "_dbos_notebook_starter"


class Printed:
    """What one place has printed, up to a limit that is named where it is met."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self.size = 0
        self._left_out = 0

    def add(self, text: str) -> None:
        room = MOST_TEXT - self.size
        if room > 0:
            self._parts.append(text[:room])
        self.size += len(text)
        self._left_out += max(len(text) - max(room, 0), 0)

    @property
    def text(self) -> str:
        end = f"\n... {self._left_out:,} more characters were printed and not kept" if self._left_out else ""
        return "".join(self._parts) + end


class Tap:
    """Stands in for a stream: what a workflow writes goes to its step, everything else where it went before."""

    def __init__(self, stream: TextIO, sink: Sink) -> None:
        self.stream, self._sink = stream, sink

    def write(self, text: str) -> int:
        place = extension.place()
        if place is not None:
            self._sink(place, text, False)
            is_shown = threading.current_thread() is threading.main_thread()
        else:
            starter: Starter | None = getattr(threading.current_thread(), STARTER, None)
            is_shown = starter is None or not self._sink(starter.place, text, True) or starter.is_shown
        if is_shown:
            self.stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Capture:
    """The taps on this process's streams, for as long as the extension is loaded; it also sees who starts threads."""

    def __init__(self, sink: Sink) -> None:
        self._threads = _Threads()
        self._taps = {name: Tap(getattr(sys, name), sink) for name in ("stdout", "stderr")}
        for name, tap in self._taps.items():
            setattr(sys, name, tap)

    def close(self) -> None:
        """Put the streams back, unless somebody else stands in for them now."""
        self._threads.close()
        for name, tap in self._taps.items():
            if getattr(sys, name) is tap:
                setattr(sys, name, tap.stream)


class _Threads:
    """Marks each thread with the step that starts it: a new thread knows nothing of its starter's context."""

    def __init__(self) -> None:
        before = threading.Thread.start

        @functools.wraps(before)
        def start(thread: threading.Thread) -> None:
            starter, place = getattr(threading.current_thread(), STARTER, None), extension.place()
            if place is not None:
                is_main = threading.current_thread() is threading.main_thread()
                starter = None if place.step_id is None else Starter(place, is_main)
            if starter is not None:
                setattr(thread, STARTER, starter)
            before(thread)

        self._before, self._start = before, start
        setattr(threading.Thread, "start", start)  # noqa: B010 - a method, which mypy lets nobody assign

    def close(self) -> None:
        if threading.Thread.start is self._start:
            setattr(threading.Thread, "start", self._before)  # noqa: B010 - as above
