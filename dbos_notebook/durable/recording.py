"""One time that a cell under `%%step` is run: answered from its record, or run and recorded."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from itertools import count, islice
from typing import Any

from IPython.core.error import UsageError
from IPython.display import display

from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID, WorkflowStatus, WorkflowStatusString, extension
from dbos_notebook import door
from dbos_notebook.cells.code import Cells, hashed
from dbos_notebook.durable import cells as durable
from dbos_notebook.durable.cells import CellStore, Past, Reference, StepCell, Values
from dbos_notebook.durable.reading import read
from dbos_notebook.durable.shown import show
from dbos_notebook.durable.values import CannotBeKeptError
from dbos_notebook.views import words

UNFINISHED = {WorkflowStatusString.PENDING.value, WorkflowStatusString.ENQUEUED.value}
# So many attempts of the same code on the same inputs are looked for at once.
ATTEMPTS = 50
PARTS = "made_of"

_store = CellStore()


def store() -> CellStore:
    """The step cells of this kernel."""
    return _store


class CellRun:
    """One time that a cell under `%%step` is run."""

    def __init__(self, shell: Any, options: argparse.Namespace, text: str) -> None:
        self.shell, self.again, self.names = shell, options.again, shell.user_ns
        reading = read(shell.transform_cell(text))
        self.cell = StepCell(options.name, text, reading, tuple(options.needs), options.retry, options.interval)

    def run(self) -> None:
        cell = self.cell
        self._execute(cell.reading.lifted)
        self.inputs = store().taken(cell, self.names)
        cell.inputs = self.inputs
        self._define()
        store().cells[cell.name] = cell
        if durable.is_in_workflow():
            self._in_workflow()
            return
        self.parts = durable.made_of(
            known_cells(), cell, self.names[cell.function_name], {**self.around, **self.inputs}
        )
        attempts = self._attempts()
        done = next((each for each in attempts if each.status == WorkflowStatusString.SUCCESS.value), None)
        if done is not None and not self.again:
            self._answer(done)
        else:
            self._run_alone(attempts)

    def define_only(self) -> None:
        """Know the cell without running it, for a flow that calls it."""
        cell, given = self.cell, {name for each in store().cells.values() for name in each.gives}
        self._execute(cell.reading.lifted)
        reads = dict.fromkeys([*cell.reading.reads, *cell.needs])
        cell.inputs = dict.fromkeys(name for name in reads if name in given or durable.has_data(self.names, name))
        store().cells[cell.name] = cell

    # -- defining ----------------------------------------------------------------------------------------------

    def _execute(self, code: str) -> None:
        if code and not self.shell.run_cell(code, store_history=False).success:
            # It has shown its own error; a notebook that is run top to bottom stops here only for this one.
            raise UsageError(f"%%step {self.cell.name}: the cell failed")

    def _define(self) -> None:
        cell, name = self.cell, self.cell.function_name
        self.title = f"{durable.notebook_name(self.names)}.{cell.name}"
        self._execute(durable.workflow_source(cell, self.inputs))
        self.code = durable.made_of(known_cells(), cell, self.names[name], {})
        self.around = store().around(cell, known_cells(), self.names[name], self.names)
        most = door.settings().most_megabytes
        self.names[name] = durable.as_step(store(), cell, self.names[name], self.code, most)
        self.names[f"{name}_alone"] = DBOS.workflow(name=self.title)(self.names[f"{name}_alone"])

    # -- records -----------------------------------------------------------------------------------------------

    def _attempts(self) -> list[WorkflowStatus]:
        """The records of just this, the newest first; `free` is the id for another one."""
        base, client = f"{self.title}.{hashed(repr(sorted(self.parts.items())))}", door.session().client
        ids = (base if number == 1 else f"{base}.{number}" for number in count(1))
        found: list[WorkflowStatus] = []
        while True:
            asked = list(islice(ids, ATTEMPTS))
            page = client.list_workflows(workflow_ids=asked, load_input=False, load_output=False)
            found += page
            if len(page) < ATTEMPTS:
                taken = {each.workflow_id for each in page}
                self.free = next(each for each in asked if each not in taken)
                return sorted(found, key=lambda each: each.created_at or 0, reverse=True)

    def _answer(self, done: WorkflowStatus) -> None:
        cell, found = self.cell, store().given
        kept = [found.get(name, {}).get(cell.name) for name in cell.gives]
        is_here = all(
            each is not None
            and each.reference == Reference(done.workflow_id, name)
            and each.is_still(self.names.get(name))
            for name, each in zip(cell.gives, kept, strict=True)
        )
        key = done.workflow_id, cell.name
        if not is_here or key not in store().past:
            values, store().past[key] = durable.recorded(done.workflow_id)
            if not is_here:
                store().bind(cell, done.workflow_id, values, self.names)
        (step,) = door.session().client.list_steps([done.workflow_id], longest=0)
        began, ended = step.started_at or 0, step.completed_at or 0
        saved = words.duration((ended - began) / 1000)
        _say(f"{cell.name}: from {_when(ended)}, {saved} saved (code and inputs unchanged)")
        self._show_again(store().past[key])

    def _run_alone(self, attempts: list[WorkflowStatus]) -> None:
        cell = self.cell
        goes_on = next((each for each in attempts if each.status in UNFINISHED), None)
        run = self.free
        if goes_on is not None:
            run = goes_on.workflow_id
            _say(f"{cell.name}: begun {_when(goes_on.created_at)} and not ended, so it goes on")
        elif not attempts:
            self._say_why()
        with SetWorkflowID(run), SetWorkflowAttributes({"cell": cell.name, PARTS: self.parts}):
            try:
                self._call()
            except CannotBeKeptError as error:
                raise UsageError(f"%%step {cell.name}: {error}") from None
        values = {name: store().made.get(Reference(run, name)) for name in cell.gives}
        is_here = run in store().last
        store().bind(cell, run, values if is_here else durable.recorded(run)[0], self.names)
        _show(store().last.pop(run, None))

    def _call(self) -> None:
        workflow = self.names[f"{self.cell.function_name}_alone"]
        if self.cell.reading.is_async:
            DBOS.start_workflow(workflow, self.inputs).get_result()
        else:
            workflow(self.inputs)

    def _say_why(self) -> None:
        earlier = door.session().client.list_workflows(
            name=self.title, sort_desc=True, limit=1, load_input=False, load_output=False
        )
        parts = (earlier[0].attributes or {}).get(PARTS) if earlier else None
        if isinstance(parts, dict):
            changed = _changed(parts, self.parts)
            if changed:
                _say(f"{self.cell.name}: stale, {_listed(changed)} changed, so it runs")

    def _in_workflow(self) -> None:
        """The notebook is run as a whole: the cell is a step of that run."""
        cell, run = self.cell, DBOS.workflow_id or ""
        try:
            outputs: Values = self.names[cell.function_name](**self.inputs)
        except CannotBeKeptError as error:
            raise UsageError(f"%%step {cell.name}: {error}") from None
        is_here = run in store().last
        values = {name: store().made[Reference(run, name)] for name in cell.gives} if is_here else outputs
        store().bind(cell, run, values, self.names)
        if is_here:
            _show(store().last.pop(run, None))
        else:
            self._say_recorded(store().past[run, cell.name])

    def _say_recorded(self, past: Past) -> None:
        _say(f"{self.cell.name}: from the record")
        changed = _changed(past.code, self.code) if past.code else []
        if changed:
            told = (
                f"{self.cell.name}: {_listed(changed)} changed since it was recorded; another --id runs it as it is now"
            )
            print(told, file=sys.stderr)  # noqa: T201 - it belongs to the cell
        self._show_again(past)

    def _show_again(self, past: Past) -> None:
        show(past.displayed)
        if past.last is not None and self.cell.reading.last is not None:  # by now a semicolon may stand there
            show([past.last])


def known_cells() -> Cells:
    """What the extension knows of the notebook's cells."""
    known = extension.installed()
    cells = getattr(known, "cells", None)
    if not isinstance(cells, Cells):
        raise UsageError("the extension is not loaded: %load_ext dbos_notebook")
    return cells


def _say(text: str) -> None:
    print(text)  # noqa: T201 - it belongs to the cell


def _show(value: Any) -> None:
    if value is not None:
        display(value)  # type: ignore[no-untyped-call]  # IPython's


def _changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """The names of what differs."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _when(epoch_ms: int | None) -> str:
    """A moment of today by its time, any other with its day."""
    moment = datetime.fromtimestamp((epoch_ms or 0) / 1000).astimezone()
    is_today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M")
