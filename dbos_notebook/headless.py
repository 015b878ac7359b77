"""`dbos notebook run FILE`: a notebook as one durable run, without a front end.

The run is a workflow whose steps are the cells under `%%step`; other cells run each time, as they do in a kernel that
was restarted. Cells run in the main thread, where signals and many libraries want them, while the workflow waits for
each in its own. Started again under its id, the run goes on at the first step that is not recorded.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import contextvars
import functools
import io
import json
import os
import re
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from dbos import DBOS, SetWorkflowID, WorkflowHandle, WorkflowStatus, WorkflowStatusString
from dbos_notebook import door
from dbos_notebook.cells.code import hashed
from dbos_notebook.durable.reading import read
from dbos_notebook.session import NotebookError

PARAMETERS = "parameters"
SKIPPED = "skip-execution"
# It is loaded already, and would say so.
LOADING = re.compile(r"^%(re)?load_ext\s+dbos_notebook\s*$", re.MULTILINE)
FAILED, MISUSED, INTERRUPTED = 1, 2, 130
ENDED = {WorkflowStatusString.ERROR.value, WorkflowStatusString.MAX_RECOVERY_ATTEMPTS_EXCEEDED.value}


class CellFailedError(ValueError):
    """A cell of the notebook raised an error."""


class MisuseError(ValueError):
    """What was asked for cannot be done."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A code cell of a file."""

    number: int
    source: str
    tags: frozenset[str]


def main(words: Sequence[str]) -> int:
    """`dbos notebook ...`; the exit code."""
    given = _parser().parse_args(words)
    try:
        file = Path(given.file).resolve()
        cells, parameters = cells_of(file), parameters_of(given.parameter)
        if given.sys_db_url:
            os.environ["DBOS_SYSTEM_DATABASE_URL"] = given.sys_db_url
        os.chdir(file.parent)  # as Jupyter does
        return NotebookRun(file.stem, cells, parameters, given.id or f"{file.stem}-{uuid.uuid4().hex[:8]}").go()
    except (MisuseError, NotebookError, UsageError) as error:
        _tell(str(error))
        return MISUSED


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="dbos notebook", description="Notebooks as durable runs.")
    run = made.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "run",
        help="execute a notebook; started again with the same id, it goes on where it ended",
        description="Execute a notebook. Its cells under %%step are recorded under the id: started again after a crash, "
        "it goes on at the first of them that is not recorded. Other cells run each time.",
        epilog="Exit codes: 0 done, 1 a cell failed, 2 not understood, 130 interrupted.",
    )
    run.add_argument("file", help="a notebook, FILE.ipynb")
    run.add_argument("--id", help="the id of the run (default: a new one)")
    run.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE",
                     help="set after the cell that has the tag `parameters`; a Python literal, or else a text")  # fmt: skip
    run.add_argument(
        "-s", "--sys-db-url", metavar="URL", help="the database (default: dbos.sqlite beside the notebook)"
    )
    return made


# -- the file --------------------------------------------------------------------------------------------------


def cells_of(file: Path) -> list[Cell]:
    """The code cells of a notebook. Raises MisuseError where it is none."""
    try:
        document = json.loads(file.read_text("utf-8"))
        cells = document["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no notebook of version 4"
        raise MisuseError(f"{file.name} cannot be read: {reason}") from None
    return [
        Cell(number, LOADING.sub("", "".join(cell["source"])), frozenset(cell.get("metadata", {}).get("tags", ())))
        for number, cell in enumerate(cells, 1)
        if cell.get("cell_type") == "code"
    ]


def parameters_of(given: Sequence[str]) -> dict[str, Any]:
    """What `-p NAME=VALUE` says."""
    found: dict[str, Any] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals or not name.isidentifier():
            raise MisuseError(f"-p wants NAME=VALUE, such as -p day=2026-01-31, not {each!r}")
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text
    return found


# -- the run ---------------------------------------------------------------------------------------------------


class Desk:
    """Where the main thread does what other threads bring, in their context."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def bring(self, act: Callable[[], Any]) -> Any:
        """Have it done, and wait for that."""
        done: Future[Any] = Future()
        context = contextvars.copy_context()

        def job() -> None:
            try:
                done.set_result(context.run(act))
            except BaseException as error:  # noqa: BLE001 - raised where it was brought from
                done.set_exception(error)

        self._jobs.put(job)
        return done.result()

    def work(self) -> None:
        """Do jobs until it is closed."""
        while (job := self._jobs.get()) is not None:
            job()

    def close(self) -> None:
        self._jobs.put(None)


class NotebookRun:
    """One notebook, run under one id."""

    def __init__(self, name: str, cells: list[Cell], parameters: dict[str, Any], run_id: str) -> None:
        self.name, self.cells, self.parameters, self.run_id = name, cells, parameters, run_id
        self._desk = Desk()
        self._interrupted = False
        self._check_parameters()
        self.shell: Any = InteractiveShell.instance()

    def _check_parameters(self) -> None:
        if not self.parameters:
            return
        known = {name for cell in self.cells if PARAMETERS in cell.tags for name in read(cell.source).gives}
        unknown = sorted(self.parameters.keys() - known)
        if unknown:
            raise MisuseError(
                f"{self.name} has no parameter {', '.join(unknown)}; it has: {', '.join(sorted(known)) or 'none'}. "
                "Parameters are what the cell with the tag `parameters` assigns."
            )

    def go(self) -> int:
        """Run it, or go on with it; the exit code."""
        os.environ.setdefault("JPY_SESSION_NAME", self.name)
        with contextlib.redirect_stdout(io.StringIO()):  # what it says is for those who sit in front of it
            self.shell.run_line_magic("load_ext", "dbos_notebook")
        door.session().launch()
        try:
            return self._go()
        finally:
            door.session().end()

    def _go(self) -> int:
        workflow = self._workflow()
        earlier = DBOS.get_workflow_status(self.run_id)
        if earlier is not None:
            self._check(earlier)
            if earlier.status == WorkflowStatusString.SUCCESS.value:
                _tell(f"{self.run_id} has ended well already; another --id runs the notebook again")
                return 0
        _tell(f"{self.run_id}: {'goes on' if earlier is not None else 'begins'}")
        handle = self._begin(workflow, earlier)
        failures: list[BaseException] = []

        def follow() -> None:
            try:
                handle.get_result()
            except BaseException as error:  # noqa: BLE001 - told below
                failures.append(error)
            finally:
                self._desk.close()

        threading.Thread(target=follow, name="dbos-notebook-follow", daemon=True).start()
        self._desk.work()
        return self._ended(failures)

    def _workflow(self) -> Callable[..., Any]:
        def run_notebook(parameters: dict[str, Any]) -> None:
            """The workflow: all cells, one after the other."""
            for cell in self.cells:
                if SKIPPED not in cell.tags:
                    self._desk.bring(functools.partial(self._run, cell, parameters))

        # Nobody else may take it up: its cells are run here, one notebook in one process.
        run_notebook.version_of_code = hashed(f"{self.name}/{self.run_id}")  # type: ignore[attr-defined]
        return DBOS.workflow(name=self.name)(run_notebook)

    def _check(self, earlier: WorkflowStatus) -> None:
        recorded = earlier.input["args"] if earlier.input is not None else ({},)
        if earlier.name != self.name:
            raise MisuseError(f"{self.run_id} is a run of {earlier.name}; give another --id")
        if self.parameters and recorded[0] != self.parameters:
            raise MisuseError(
                f"{self.run_id} was begun with other parameters: {recorded[0]}. Leave them out to go on with it, or give "
                "another --id."
            )

    def _begin(self, workflow: Callable[..., Any], earlier: WorkflowStatus | None) -> WorkflowHandle[Any]:
        if earlier is not None and earlier.status in ENDED:
            return DBOS.rewind_workflow(self.run_id, start_step=self._first_incomplete())
        if earlier is not None and earlier.status == WorkflowStatusString.CANCELLED.value:
            return DBOS.resume_workflow(self.run_id)
        with SetWorkflowID(self.run_id):
            return DBOS.start_workflow(workflow, self.parameters)

    def _first_incomplete(self) -> int:
        steps = DBOS.list_steps([self.run_id], longest=0)
        failed = [step.step_id for step in steps if step.failed]
        return min(failed, default=max((step.step_id for step in steps), default=0) + 1)

    def _run(self, cell: Cell, parameters: dict[str, Any]) -> None:
        ran = self.shell.run_cell(cell.source, store_history=True)
        error = ran.error_before_exec or ran.error_in_exec
        if isinstance(error, KeyboardInterrupt):
            self._interrupted = True
            self._desk.close()
        if error is not None:
            raise CellFailedError(f"cell {cell.number} failed: {type(error).__name__}: {error}")
        if PARAMETERS in cell.tags:
            self.shell.user_ns.update(parameters)

    def _ended(self, failures: list[BaseException]) -> int:
        again = f"dbos notebook run {self.name}.ipynb --id {self.run_id}"
        if self._interrupted:
            _tell(f"{self.run_id} was interrupted; go on with it: {again}")
            return INTERRUPTED
        if failures:
            _tell(f"{self.run_id}: {failures[0]}. Mend it, and go on with it: {again}")
            return FAILED
        _tell(f"{self.run_id}: done")
        return 0


def _tell(text: str) -> None:
    sys.stderr.write(f"dbos: {text}\n")
    sys.stderr.flush()
