"""Patching: which runs fit the code as it is now, the guard that lets the others fit, and going on with those that do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbos import extension
from dbos_notebook import door
from dbos_notebook.frames import UNFINISHED
from dbos_notebook.replay import check as checking
from dbos_notebook.replay.guarding import guard_for
from dbos_notebook.views import words
from dbos_notebook.views.html import element, fitting, page, pre
from dbos_notebook.views.view import Shown, View

if TYPE_CHECKING:
    from dbos_notebook.replay.check import Check


@dataclass(frozen=True, slots=True, repr=False)
class Patch(Shown):
    """What was found: the check, the workflow's source with a guard (None: none is needed, or it cannot be guessed), and
    the runs that go on with the new code.
    """

    check: Check
    source: str | None
    resumed: tuple[str, ...]

    @property
    def view(self) -> View:
        told = []
        if self.source is not None:
            told.append("A cell with the guard is put below: look at it, run it, and ask again.")
        if self.resumed:
            told.append(f"{words.count(len(self.resumed), 'run')} go on with the code as it is now.")
        html = [element("div", each) for each in told]
        shown = [] if self.source is None else [pre(self.source)]
        text = [self.check.view.text, *told, *([] if self.source is None else [self.source])]
        return View(page(self.check.view.html, html, shown), fitting("\n".join(text).splitlines()))


def patch(workflow: str, *, resume: bool = False) -> Patch:
    """Say which runs of a workflow fit its code as it is now, and put a cell with a guard below where some do not.

    With `resume`, those in flight that fit go on with the code as it is now, whatever they began with.
    """
    source = door.source()
    found = checking.check(source, workflow)
    text = None if found.fits else guard_for(source, workflow, found.groups[0].ids[0])
    shell: Any = door.session().shell
    if text is not None and shell is not None:
        shell.set_next_input(text)
    frame = found.frame
    waiting = frame[frame["fits"] & frame["status"].isin(sorted(UNFINISHED)) & (frame["version"] != found.version)]
    ids = [str(each) for each in waiting.index if each not in extension.running()] if resume else []
    return Patch(found, text, tuple(source.resume(*ids, new_code=True)) if ids else ())
