"""A stream as it grows, and as a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbos_notebook.frames import UNFINISHED
from dbos_notebook.views import words
from dbos_notebook.views.html import element, fitting, line, page, pre
from dbos_notebook.views.live import Live, Seen
from dbos_notebook.views.view import View

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.source import Source

SHOWN, LINE_LIMIT = 40, 300


class Stream:
    """The values of one stream of a run."""

    def __init__(self, source: Source, workflow_id: str, key: str) -> None:
        self._source, self.workflow_id, self.key = source, workflow_id, key
        self._values: list[str] = []
        self._is_closed = self._has_ended = False

    def frame(self) -> pd.DataFrame:
        """The values so far."""
        found = self._source.streams(self.workflow_id)
        return found[(found["key"] == self.key) & ~found["closes"]].reset_index(drop=True)

    def look(self) -> Seen:
        # The state first: what was written before a run's end is then among the values.
        self._has_ended = self._source.run(self.workflow_id).status not in UNFINISHED
        found = self._source.streams(self.workflow_id)
        mine = found[found["key"] == self.key]
        self._is_closed = bool(mine["closes"].any())
        self._values = [words.text(each) for each in mine[~mine["closes"]]["value"].tolist()]
        return Seen((len(self._values), self._is_closed, self._has_ended), self._is_closed or self._has_ended)

    def draw(self, *, is_live: bool) -> View:
        state = "closed" if self._is_closed else "its run has ended" if self._has_ended else "open"
        live = " \u00b7 live" if is_live else ""
        title = f"stream {line(self.key, 80)} of {words.short(self.workflow_id)}"
        head = f"{title}: {words.count(len(self._values), 'value')} \u00b7 {state}{live}"
        hidden = len(self._values) - SHOWN
        shown = [f"... {hidden:,} before"] if hidden > 0 else []
        shown += [line(each, LINE_LIMIT) for each in self._values[-SHOWN:]]
        return View(
            page(element("div", head), pre("\n".join(shown))), fitting([head, *(f"  {each}" for each in shown)])
        )


class Tail(Live):
    """A live view of a stream."""

    def __init__(self, source: Source, workflow_id: str, key: str, pause_seconds: float) -> None:
        self._stream = Stream(source, workflow_id, key)
        super().__init__(self._stream, pause_seconds=pause_seconds)

    def frame(self) -> pd.DataFrame:
        """The values so far as a frame."""
        return self._stream.frame()
