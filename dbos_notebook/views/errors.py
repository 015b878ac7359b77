"""The error of a run or a step, shown short: its type and message first, the traceback folded.

It reads the text that the executing process stored; nothing is unpickled, nothing of the user's is imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dbos_notebook.views.html import Markup, clean, cut, element, escape, fitting, fold, line, page, pre, status_mark
from dbos_notebook.views.view import View

MESSAGE_LIMIT, TRACEBACK_LIMIT = 600, 12_000
# A group's traceback has a gutter, and the tracebacks of its members after its own last line.
GROUP = re.compile(r"^ *\| ((?:\w+\.)*\w*ExceptionGroup: .*)$", re.MULTILINE)
NAMED = re.compile(r"^(?P<kind>[A-Za-z_][\w.]*)(?:: ?(?P<message>.*))?$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Told:
    """What an error's text says."""

    kind: str
    message: str
    traceback: str = ""

    @property
    def headline(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


def told(text: str) -> Told:
    """Read a traceback, or the one line of an error that has none."""
    # A text of megabytes has its message at the end.
    text = text if len(text) <= 200_000 else text[:20_000] + "\n...\n" + text[-20_000:]
    group = GROUP.search(text)
    if group is not None:
        return _named(group[1], text.strip())
    lines = text.strip().splitlines()
    frames = [place for place, each in enumerate(lines) if each.startswith('  File "')]
    if not frames:
        return _named("\n".join(lines))
    last = frames[-1] + 1
    while last < len(lines) and lines[last].startswith("    "):
        last += 1
    return _named("\n".join(lines[last:]), "\n".join(lines))


def _named(text: str, traceback: str = "") -> Told:
    match = NAMED.match(text)
    if match is None:
        return Told("Error", text, traceback)
    return Told(match["kind"].rpartition(".")[2], match["message"] or "", traceback)


def error_markup(text: str, where: str = "") -> Markup:
    """An error in HTML; `where` names the run or the step it comes from."""
    found = told(text)
    head = [
        status_mark("ERROR"),
        " ",
        element("b", line(found.kind, 120)),
        f": {cut(clean(found.message[:8_000]), MESSAGE_LIMIT)}" if found.message else "",
    ]
    place = element("div", where) if where else None
    return element("div", element("div", head), place, _folded(found))


def _folded(found: Told) -> Markup:
    if not found.traceback:
        return escape(None)
    # The end of a traceback is where the user's code stands.
    shown = found.traceback[-TRACEBACK_LIMIT:]
    more = len(found.traceback) - len(shown)
    return fold("traceback", pre((f"... {more:,} characters before\n" if more else "") + shown))


def error_lines(text: str, where: str = "") -> list[str]:
    """An error in plain text."""
    found = told(text)
    return [f"{line(found.headline, MESSAGE_LIMIT)}{f'   ({where})' if where else ''}"]


def error_view(text: str, where: str = "") -> View:
    """An error as a displayable."""
    shown = [*error_lines(text, where), *told(text).traceback[-4_000:].splitlines()]
    return View(page(error_markup(text, where)), fitting(shown))
