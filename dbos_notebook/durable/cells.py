"""A cell that is a step: its function, what it is made of, and the records of it.

Each record is a small workflow of one step. Its id is made of the notebook, the cell, and a hash of the code, the
functions it calls and its inputs; so a cell whose code and inputs are unchanged finds its record, in this kernel or
the next, and any other cell does not. An input that another such cell gave is stored as a reference to its record.
"""

from __future__ import annotations

import copy
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from IPython.core.error import UsageError

from dbos import DBOS, extension
from dbos_notebook.cells.code import Cells, Code, hashed, normalised
from dbos_notebook.durable.around import names_around
from dbos_notebook.durable.reading import LAST, Reading
from dbos_notebook.durable.shown import Bundle, bundle_of, kept, kept_one, watched
from dbos_notebook.durable.values import CannotBeKeptError, fingerprint, kept_all

Values = dict[str, Any]
# What a cell may name and is no data: it is part of the code.
CODE_KINDS = (type, type(os))
# Beside the values by their names, which cannot be like this.
OF_CELL = "<cell>"


class Reference(NamedTuple):
    """A value that a recorded cell gave."""

    run: str
    name: str

    def __repr__(self) -> str:
        return f"<{self.name} of {self.run}>"


class Given(NamedTuple):
    """A name of the notebook as a cell gave it."""

    reference: Reference
    value: Any
    #: Of the value when it was given: somebody may have changed it in place since.
    print: str | None

    def is_still(self, value: Any) -> bool:
        return value is self.value and (self.print is None or fingerprint(value) == self.print)


@dataclass(frozen=True, repr=False)
class Past:
    """What a record knows of its cell beside the values: what it showed, and the code that ran, by the names of its parts."""

    displayed: list[Bundle] = field(default_factory=list)
    #: Of its last line.
    last: Bundle | None = None
    code: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "<what it showed>" if self.displayed or self.last else "<it showed nothing>"


@dataclass
class StepCell:
    """One cell under `%%step`."""

    name: str
    text: str
    reading: Reading
    needs: tuple[str, ...] = ()
    retries: int = 0
    interval: float = 1.0
    #: What it took when it was last run.
    inputs: Values = field(default_factory=dict)

    @property
    def gives(self) -> tuple[str, ...]:
        return self.reading.gives

    @property
    def function_name(self) -> str:
        return f"_cell_{self.name}"


@dataclass
class CellStore:
    """The step cells of this kernel, and what they gave."""

    cells: dict[str, StepCell] = field(default_factory=dict)
    #: By name and by the cell that gave it: several may give one name.
    given: dict[str, dict[str, Given]] = field(default_factory=dict)
    #: What cells gave that run just now.
    made: dict[Reference, Any] = field(default_factory=dict)
    #: The value of the last line of a cell that runs, to be shown.
    last: dict[str, Any] = field(default_factory=dict)
    #: What is known of the cells of records beside their values, by run and cell.
    past: dict[tuple[str, str], Past] = field(default_factory=dict)

    def bind(self, cell: StepCell, run: str, values: Values, names: dict[str, Any]) -> None:
        """Give the notebook what a record holds."""
        for name, value in values.items():
            known = self.given.setdefault(name, {})
            known.pop(cell.name, None)  # the latest giver comes last
            reference = Reference(run, name)
            known[cell.name] = Given(reference, value, fingerprint(value))
            self.made.pop(reference, None)
            names[name] = value

    def taken(self, cell: StepCell, names: Mapping[str, Any]) -> Values:
        """The inputs of a cell by name: references to records, and other data as it is."""
        missing = [name for name in cell.needs if name not in names]
        if missing:
            raise UsageError(
                f"%%step {cell.name}: it needs {', '.join(missing)}, which this notebook does not have yet. "
                "Run the cell that makes it first."
            )
        found: Values = {}
        for name in dict.fromkeys([*cell.reading.reads, *cell.needs]):
            # What a cell gave, or what is asked for, is data even if it can be called, as some models can.
            if name in names and (name in self.given or name in cell.needs or has_data(names, name)):
                value = self._input(cell, name, names[name])
                # What nobody can tell from another is no input that could be recorded: a connection, a file.
                if isinstance(value, Reference) or fingerprint(value) is not None or name in cell.needs:
                    found[name] = value
        return found

    def around(self, cell: StepCell, cells: Cells, fn: Callable[..., Any], names: Mapping[str, Any]) -> Values:
        """Other data by name that what the cell calls reads: as inputs are, but nothing that the cell is given."""
        found: Values = {}
        for name in names_around(cells, Code(cells, fn).parts):
            if name not in cell.inputs and (name in self.given or has_data(names, name)) and name in names:
                value = self._input(cell, name, names[name])
                if isinstance(value, Reference) or fingerprint(value) is not None:
                    found[name] = value
        return found

    def _input(self, cell: StepCell, name: str, value: Any) -> Any:
        for giver, each in self.given.get(name, {}).items():
            if each.is_still(value):
                earlier = self.cells.get(cell.name)
                if giver == cell.name and earlier is not None and name in earlier.inputs:
                    # Or it would take what it has made of it, and be another cell each time that it is run.
                    return earlier.inputs[name]
                return each.reference
        return value

    def resolved(self, value: Any) -> Any:
        """The value behind an input."""
        if not isinstance(value, Reference):
            return value
        # In this process nothing needs to be read again, unless somebody has changed it in place.
        for each in self.given.get(value.name, {}).values():
            if each.reference == value and each.is_still(each.value):
                return each.value
        return recorded(value.run)[0][value.name]

    def forget(self) -> None:
        for each in (self.cells, self.given, self.made, self.last, self.past):
            each.clear()


def recorded(run: str) -> tuple[Values, Past]:
    """What the cell of a record gave, and what else is known of it."""
    # Beside the workflow that may ask: what it reads here is no step of its own.
    from dbos_notebook import door  # a session loads the magics, and these come here

    step = door.session().client.get_step(run, 1)
    if step is None or not isinstance(step["output"], dict):
        raise UsageError(f"the record {run} is gone; run the cell that made it again")
    return parted(step["output"])


def parted(output: Values) -> tuple[Values, Past]:
    """The values of a record, and what else it knows."""
    values = dict(output)
    return values, values.pop(OF_CELL, Past())


def has_data(names: Mapping[str, Any], name: str) -> bool:
    """Whether the notebook has data under this name, and no code."""
    return name in names and not isinstance(names[name], CODE_KINDS) and not callable(names[name])


def notebook_name(names: Mapping[str, Any]) -> str:
    """The name of the notebook, if its front end tells it."""
    path = names.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or "notebook"
    return Path(str(path)).stem or "notebook"


# -- what a cell is made of ------------------------------------------------------------------------------------


def made_of(cells: Cells, cell: StepCell, fn: Callable[..., Any], inputs: Values) -> dict[str, str]:
    """Everything that decides what a cell gives, by name: its code, the functions and classes it calls, its inputs."""
    parts = {"its code": hashed(normalised(cell.reading.body))}
    for name, thing in Code(cells, fn).parts.items():
        parts[f"`{name}`"] = hashed(normalised(cells.source(thing)))
    for name, value in inputs.items():
        parts[f"`{name}`"] = "/".join(value) if isinstance(value, Reference) else _print_of(cell, name, value)
    return parts


def _print_of(cell: StepCell, name: str, value: Any) -> str:
    found = fingerprint(value)
    if found is None:
        raise UsageError(
            f"%%step {cell.name}: `{name}` is a {type(value).__name__}, which cannot be told from another. Leave it "
            "out of --needs; the cell can use it all the same."
        )
    return found


# -- its function ----------------------------------------------------------------------------------------------


def as_step(
    store: CellStore, cell: StepCell, fn: Callable[..., Any], code: dict[str, str], most_megabytes: float
) -> Callable[..., Any]:
    """The function of a cell as a step that takes references and returns what can be stored: its values."""

    def before(given: Values) -> Values:
        values = {name: store.resolved(value) for name, value in given.items()}
        # It may change them in place, and may be tried again.
        return {name: copy.deepcopy(value) if name in cell.gives else value for name, value in values.items()}

    def after(outputs: Values, shown: list[Bundle]) -> Values:
        run = DBOS.workflow_id or ""
        store.last[run] = last = outputs.pop(LAST, None)
        stored: Values = {**kept_all(outputs, most_megabytes)}
        store.made |= {Reference(run, name): value for name, value in outputs.items()}
        stored[OF_CELL] = Past(kept(shown), kept_one(bundle_of(last)), code)
        return stored

    def values_of(stored: Values) -> Values:
        values, store.past[DBOS.workflow_id or "", cell.name] = parted(stored)
        return values

    if inspect.iscoroutinefunction(fn):

        @functools.wraps(fn)
        async def call_async(**given: Any) -> Values:
            with watched() as shown:
                outputs = await fn(**before(given))
            return after(outputs, shown)

        recording: Callable[..., Any] = call_async
    else:

        @functools.wraps(fn)
        def call(**given: Any) -> Values:
            with watched() as shown:
                outputs = fn(**before(given))
            return after(outputs, shown)

        recording = call
    retries: dict[str, Any] = {"retries_allowed": True, "max_attempts": cell.retries + 1} if cell.retries else {}
    step = DBOS.step(name=cell.name, interval_seconds=cell.interval, should_retry=_may_pass, **retries)(recording)
    if inspect.iscoroutinefunction(fn):

        @functools.wraps(step)
        async def values_async(**given: Any) -> Values:
            return values_of(await step(**given))

        return values_async

    @functools.wraps(step)
    def values(**given: Any) -> Values:
        return values_of(step(**given))

    return values


def _may_pass(error: BaseException) -> bool:
    return not isinstance(error, CannotBeKeptError)


def workflow_source(cell: StepCell, takes: Iterable[str]) -> str:
    """The cell as a function, and the workflow of it alone, whose version is also that of the cell's code."""
    step = cell.reading.function(cell.function_name, tuple(takes), cell.gives, shows=True)
    start, wait = ("async ", "await ") if cell.reading.is_async else ("", "")
    code = hashed(normalised(cell.reading.body))
    return (
        f"{step}\n{start}def {cell.function_name}_alone(inputs, code={code!r}):\n"
        f"    return list({wait}{cell.function_name}(**inputs))\n"
    )


def is_in_workflow() -> bool:
    """Whether the cell runs in the workflow of a notebook that is run as a whole."""
    place = extension.place()
    return place is not None and place.step_id is None
