"""Several step cells as one workflow: its source, in the order in which the cells need each other.

The source is plain `dbos`: it needs nothing of the notebook, so it may be looked at, edited, scheduled, forked and
exported as any other. What the cells take and none of them gives becomes a parameter of the workflow.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dbos_notebook.durable.cells import StepCell


class FlowError(ValueError):
    """The cells cannot be one workflow; the message says why."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Cells as one workflow."""

    name: str
    cells: tuple[StepCell, ...]
    #: What no cell gives, with the values of now: the workflow's parameters.
    parameters: Mapping[str, Any]

    @property
    def is_async(self) -> bool:
        return any(cell.reading.is_async for cell in self.cells)

    @property
    def source(self) -> str:
        """The cell that defines it."""
        return "\n\n".join(["from dbos import DBOS", *map(self._step, self.cells), self._workflow()])

    @property
    def by_the_clock(self) -> str:
        """A workflow that a schedule can call, with its moment, for which the flow has no parameter."""
        start, wait = ("async ", "await ") if self.is_async else ("", "")
        return (
            f"@DBOS.workflow(name={f'{self.name} by the clock'!r})\n"
            f"{start}def {self.name}_by_the_clock(moment, context):\n    return {wait}{self.name}()\n"
        )

    def _step(self, cell: StepCell) -> str:
        options = [f"name={cell.name!r}"]
        if cell.retries:
            options += ["retries_allowed=True", f"max_attempts={cell.retries + 1}"]
        if cell.retries and cell.interval != 1.0:
            options.append(f"interval_seconds={cell.interval:g}")
        function = cell.reading.function(self._function(cell), tuple(cell.inputs), cell.gives, shows=False)
        *body, _ = function.rstrip().splitlines()
        given = ", ".join(cell.gives)
        return "\n".join([f"@DBOS.step({', '.join(options)})", *body, *([f"    return {given}"] if given else [])])

    def _workflow(self) -> str:
        start, wait = ("async ", "await ") if self.is_async else ("", "")
        parameters = ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())
        lines = [f"@DBOS.workflow(name={self.name!r})", f"{start}def {self.name}({parameters}):"]
        for cell in self.cells:
            call = f"{wait if cell.reading.is_async else ''}{self._function(cell)}({', '.join(cell.inputs)})"
            lines.append(f"    {', '.join(cell.gives)} = {call}" if cell.gives else f"    {call}")
        last = self.cells[-1].gives
        return "\n".join([*lines, f"    return {', '.join(last)}" if last else "    return None"]) + "\n"

    def _function(self, cell: StepCell) -> str:
        return f"{self.name}_{cell.name}"


def flow(name: str, known: Mapping[str, StepCell], chosen: Sequence[str], names: Mapping[str, Any]) -> Flow:
    """These cells as a workflow of that name; without `chosen` all. Raises FlowError."""
    if not name.isidentifier():
        raise FlowError(f"{name!r} cannot be the name of a workflow; use letters, digits and _")
    unknown = [each for each in chosen if each not in known]
    if unknown:
        raise FlowError(f"there is no step cell {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    cells = [known[each] for each in (chosen or known)]
    if not cells:
        raise FlowError("there are no step cells yet: run some that begin with %%step NAME")
    ordered = _ordered(cells)
    if name in {cell.name for cell in cells} | {given for cell in cells for given in cell.gives}:
        raise FlowError(f"{name!r} is the name of one of the cells, or of what they give; take another")
    return Flow(name, ordered, _parameters(name, ordered, names))


def _ordered(cells: Iterable[StepCell]) -> tuple[StepCell, ...]:
    """Each cell after those that give what it takes; otherwise as they were first run."""
    left, placed, ready = list(cells), list[StepCell](), set[str]()
    while left:
        given_later = {name: cell for cell in left for name in cell.gives}
        following = next((cell for cell in left if _is_ready(cell, ready, given_later)), None)
        if following is None:
            raise FlowError(f"the cells {', '.join(cell.name for cell in left)} need each other in a circle")
        left.remove(following)
        placed.append(following)
        ready |= set(following.gives)
    return tuple(placed)


def _is_ready(cell: StepCell, ready: set[str], given_later: Mapping[str, StepCell]) -> bool:
    return all(name in ready or given_later.get(name, cell) is cell for name in cell.inputs)


def _parameters(name: str, cells: Sequence[StepCell], names: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    ready: set[str] = set()
    for cell in cells:
        for taken in cell.inputs:
            if taken not in ready and taken not in found:
                found[taken] = _plain(name, cell, taken, names.get(taken))
        ready |= set(cell.gives)
    return found


def _plain(flow_name: str, cell: StepCell, taken: str, value: Any) -> Any:
    """The value, if it can be written as a default."""
    try:
        if ast.literal_eval(repr(value)) == value:
            return value
    except Exception:  # noqa: BLE001, S110 - its repr and its comparison are its own
        pass
    raise FlowError(
        f"{flow_name}: the cell {cell.name} takes `{taken}`, a {type(value).__name__} that no step cell gives. Make it in "
        "a cell under %%step, or let the cell make it."
    )
