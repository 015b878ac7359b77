"""A moment of an earlier run: the arguments of a step, and every variable of the workflow just before its call.

The runtime plays the workflow on its record to get there; no step runs and no row is written. What is shown of the
values are previews, made here.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import linecache
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dbos import extension
from dbos_notebook.masking import NOTHING, Mask, places
from dbos_notebook.replay.veiled import veiled_error, veiled_prints
from dbos_notebook.views import words
from dbos_notebook.views.html import element, facts, fitting, fold, line, page, pre, table
from dbos_notebook.views.values import preview
from dbos_notebook.views.view import Shown, View

if TYPE_CHECKING:
    from dbos.extension import Sight, Stop
    from dbos_notebook.source import Source

VALUE_LIMIT, NAME_LIMIT = 200, 80
MOST_VARIABLES = 60
MARK = "> "
OURS = f"{Path(__file__).parents[1]}{os.sep}"
# Through these the user's code is called; further in they are part of what it does.
AROUND = f"{Path(asyncio.__file__).parent}{os.sep}"


@dataclass(frozen=True, slots=True, repr=False)
class Moment(Shown):
    """A run just before one of its steps. `call()` runs that step's function here on what it was given then."""

    stop: Stop
    #: The source of the workflow's function as the run ran it, the line of the call marked.
    source: str
    #: What nobody is shown of the values. The step's function is called on them as they were.
    mask: Mask = NOTHING

    @property
    def workflow_id(self) -> str:
        return self.stop.workflow_id

    @property
    def step(self) -> int:
        return self.stop.step_id

    @property
    def name(self) -> str:
        """What is called."""
        return self.stop.name

    @property
    def args(self) -> tuple[Any, ...]:
        return self.mask.arguments(self.stop.args, places(self.stop.fn))

    @property
    def kwargs(self) -> dict[str, Any]:
        return self.mask.fields(self.stop.kwargs)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by the names that the step has for them."""
        # Without names nothing but their places tells which of them are to be hidden.
        args = self.args if self.stop.fn is None else self.stop.args
        return self.mask.fields(named(self.stop.fn, args, self.stop.kwargs))

    @property
    def locals(self) -> dict[str, Any]:
        """The variables of the workflow's function."""
        return self.mask.fields(self.stop.locals)

    @property
    def frames(self) -> tuple[Sight, ...]:
        """Every function of the user that is at work, the workflow's own first."""
        return tuple(each._replace(locals=self.mask.fields(each.locals)) for each in self.stop.sights)

    def call(self) -> Any:
        """Run the step's function here on what it was given then. Nothing is recorded, and it cannot write."""
        if not self.mask:
            return self.stop.call()
        try:
            with veiled_prints(self.mask):
                return self.mask.value(self.stop.call())
        except Exception as error:  # noqa: BLE001 - it is raised below, veiled
            veiled = veiled_error(error, self.mask, own_frames)
        raise veiled

    @property
    def view(self) -> View:
        where = f"before step {self.step} {line(self.name, NAME_LIMIT)}"
        head = f"{line(self.stop.workflow, NAME_LIMIT)}  {words.short(self.workflow_id)}  {where}"
        state = "recorded" if self.stop.recorded is not None else "not run yet"
        rows = [(kind, *each) for kind, held in self._held() for each in shown_values(held, self.mask)]
        lines = [f"{head} ({state})", *(f"  {kind:<8}  {name} = {shown}" for kind, name, shown in rows)]
        marked = next((each for each in self.source.splitlines() if each.startswith(MARK)), "")
        parts = [
            element("div", element("b", head)),
            facts([("it is", state), ("line", line(marked.removeprefix(MARK).strip(), VALUE_LIMIT))]),
            table("what there was", ["what", "name", "value"], rows),
            fold("source", pre(self.source)) if self.source else None,
        ]
        return View(page(*parts), fitting([*lines, *([f"  {marked}"] if marked else [])]))

    def _held(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [("argument", self.arguments), ("variable", self.locals)]


def moment(source: Source, workflow_id: str, step: int | str | None = None) -> Moment:
    """The moment before a step, given by its number or name; without one, that which failed or else comes next."""
    found = source.run(workflow_id)
    stop = extension.stop_at(found.workflow_id, source.step_to_fork_from(found.workflow_id, step), source.records)
    return Moment(stop, _source(source, stop), source.mask)


def shown_values(held: Mapping[str, Any], mask: Mask = NOTHING) -> list[tuple[str, str]]:
    """The names and previews of variables, as many as one looks through."""
    # What is in an object that cannot be looked into is in its own words.
    rows = [(line(name, NAME_LIMIT), line(mask.text(preview(value)), VALUE_LIMIT)) for name, value in held.items()]
    more = len(rows) - MOST_VARIABLES
    return rows if more <= 0 else [*rows[:MOST_VARIABLES], ("...", f"{more} more")]


def named(fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by the names of their parameters; numbered where these are not known."""
    if fn is not None:
        try:
            bound = inspect.signature(fn).bind(*args, **kwargs)
        except (TypeError, ValueError):
            pass
        else:
            bound.apply_defaults()
            return dict(bound.arguments)
    return {**{f"arg{number}": value for number, value in enumerate(args, 1)}, **kwargs}


def own_frames(traceback: TracebackType | None) -> Iterator[TracebackType]:
    """The frames of the user's code: without those of the runtime, the notebook, and what they call it through."""
    is_inside = False
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        is_user = (
            not extension.is_ours(file) and not file.startswith(OURS) and (is_inside or not file.startswith(AROUND))
        )
        if is_user:
            is_inside = True
            yield traceback
        traceback = traceback.tb_next


# -- source --------------------------------------------------------------------------------------------------------


def _source(source: Source, stop: Stop) -> str:
    """The source of the workflow's function as the run ran it; else as it is here."""
    if not stop.sights:
        return ""
    sight = stop.sights[0]
    here = _lines_here(sight)
    ran = own_source(source, stop.workflow_id).splitlines() or source.mask.text("\n".join(here)).splitlines()
    place = sight.line - sight.first_line
    # The recorded text may be another than what was played: then no line of it is marked.
    fits = place < min(len(ran), len(here)) and ran[place].strip() == here[place].strip()
    return "\n".join(f"{MARK if fits and number == place else '  '}{text}" for number, text in enumerate(ran))


def _lines_here(sight: Sight) -> list[str]:
    lines = linecache.getlines(sight.file)[sight.first_line - 1 :]
    try:
        return [each.rstrip("\n") for each in inspect.getblock(lines)]
    except Exception:  # noqa: BLE001 - the file may be another by now, and then anything stands there
        return []


def own_source(source: Source, workflow_id: str) -> str:
    """The source of the workflow's own function that a run ran; empty where none was kept."""
    parts = kept_sources(source, workflow_id)
    return list(parts.values())[-1] if parts else ""


def kept_sources(source: Source, workflow_id: str) -> dict[str, str]:
    """The source that a run ran, by the names of its parts, the workflow's own function last."""
    notes = source.notes([workflow_id], ["code"])
    kept = source.client.list_sources([each.text for each in notes])
    if not kept:
        return {}
    try:
        parts = json.loads(kept[-1].text)
    except ValueError:
        return {}
    return {str(name): source.mask.text(str(text)) for name, text in parts.items()} if isinstance(parts, dict) else {}
