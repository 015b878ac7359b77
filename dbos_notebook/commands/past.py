"""What looks into the past: a step's arguments and variables, why a run failed, whether code fits, how two runs differ.

All but `diff` play the code that is defined here, on what was recorded. They run no step but where that is said.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from dbos_notebook import door
from dbos_notebook.commands.targets import Target, id_of
from dbos_notebook.replay import check as checking
from dbos_notebook.replay import debug as debugging
from dbos_notebook.replay import diff as diffing
from dbos_notebook.replay.travel import Moment, moment
from dbos_notebook.views import words
from dbos_notebook.views.handle import text_view

if TYPE_CHECKING:
    from dbos_notebook.replay.check import Check
    from dbos_notebook.replay.debug import PostMortem
    from dbos_notebook.replay.diff import Diff
    from dbos_notebook.source import Source
    from dbos_notebook.views.view import View


def at(target: Target, step: int | str | None = None) -> Moment:
    """The moment of a run before a step (its number or name), by default that which failed or else comes next."""
    here = door.source()
    return moment(here, id_of(here, target), step)


def enter(target: Target, step: int | str | None = None, *, into: MutableMapping[str, Any] | None = None) -> View:
    """Put the variables of a run and the arguments of a step into the notebook, as they were before that step."""
    then = at(target, step)
    shell = door.session().shell
    if into is None:
        into = {} if shell is None else shell.user_ns
    held = {**then.locals, **then.arguments}
    replaced = sorted(name for name in held if name in into)
    into.update(held)
    told = f"As before step {then.step} {then.name} of {then.stop.workflow} {words.short(then.workflow_id)}: "
    told += ", ".join(held) or "there were no variables"
    return text_view(told + (f"\nThese were yours and are replaced: {', '.join(replaced)}" if replaced else ""))


def check(workflow: str, last: int = checking.LAST) -> Check:
    """Whether the newest runs of a workflow, ended or in flight, fit its code as it is now; runs no step."""
    return checking.check(door.source(), workflow, last)


def debug(target: Target, *, call: bool = True) -> PostMortem:
    """Why a run failed: the step that did is called here on what it was given then; `%debug` opens its frames.

    What the step does outside it does again: which is called, and with what, is printed before. Without `call` no step is
    called, and only what is recorded is shown.
    """
    here = door.source()
    found = debugging.debug(here, id_of(here, target), call=call, say=lambda words: print(words, flush=True))  # noqa: T201
    shell: Any = door.session().shell
    if shell is not None and found.error is not None:
        # What the shell itself showed last goes before what the interpreter knows.
        shell.InteractiveTB.tb = None
    return found


def diff(one: Target, other: Target, *, decode: bool = False, at: Source | None = None) -> Diff:
    """How two runs differ: in steps, values, durations and code. With `decode` differing values are compared whole."""
    here = at or door.source()
    return diffing.diff(here, id_of(here, one), id_of(here, other), decode=decode)
