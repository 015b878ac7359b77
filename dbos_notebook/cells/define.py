"""`%%workflow`: a cell of plain functions becomes a workflow and its steps, without a decorator."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, magics_class, no_var_expand

from dbos import DBOS, Queue, WorkflowHandle, extension
from dbos.error import DBOSException
from dbos_notebook.cells.options import CellParser, options_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

Function = Callable[..., Any]


def parser() -> CellParser:
    """The options of `%%workflow`."""
    made = CellParser(
        "%%workflow",
        "Register the last function of the cell as a workflow, and the others as its steps.",
        "%%workflow --name nightly --retries 2\n  def load(day): ...\n  def nightly(day): return load(day)",
    )
    made.add_argument("--name", help="the workflow's name, if it is not the function's")
    made.add_argument("--queue", help="NAME.start(...) puts it on this queue, which is made if there is none")
    made.add_argument("--retries", type=int, default=0, help="try a step that fails so many times again")
    made.add_argument(
        "--interval", type=float, default=1.0, help="seconds before the first of these; each waits twice as long"
    )
    made.add_argument("--schedule", help="start it by the clock, as cron writes it: '0 2 * * *'")
    return made


@magics_class
class WorkflowMagic(Magics):
    """`%%workflow`."""

    @no_var_expand
    @cell_magic
    def workflow(self, line: str, cell: str) -> None:
        """Register the last function of the cell as a workflow, and the others as its steps; `--help` for options."""
        shell: Any = self.shell
        options = options_of(parser(), line)
        if options is None:
            return
        names = functions_of(shell.transform_cell(cell))
        if options.retries < 0:
            raise UsageError("%%workflow: --retries must not be negative")
        result = shell.run_cell(cell, store_history=False)
        if not result.success:
            # It has shown its own error; a notebook that is run top to bottom stops here only for this one.
            raise UsageError("%%workflow: the cell failed, so nothing was registered")
        define(shell.user_ns, names, options)


def functions_of(text: str) -> list[str]:
    """The names of the functions of a cell, in their order; a UsageError if there are none."""
    names = functions_in(text)
    if not names:
        raise UsageError(
            "%%workflow: the cell has no function. Its last one becomes the workflow, the others its steps."
        )
    return names


def functions_in(text: str) -> list[str]:
    """The names of the functions that a cell defines, in their order."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise UsageError(f"the cell is no Python: {error.msg}, line {error.lineno}") from None
    names = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Decorator:
    """How `%%workflow` decorates a function."""

    kind: str
    options: dict[str, Any]
    queue: str | None = None

    def __str__(self) -> str:
        return f"@DBOS.{self.kind}({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"

    def __call__(self, fn: Function) -> Function:
        made: Any = getattr(DBOS, self.kind)(**self.options)(fn)
        if self.kind == "workflow":
            made.start = starter(made, self.queue)
        return cast("Function", made)


#: By the name of the function: for when it is mended as a plain one, or written to a file.
decorators: dict[str, Decorator] = {}


def define(names: dict[str, Any], functions: list[str], options: argparse.Namespace) -> None:
    """Decorate these functions where they stand."""
    *steps, workflow = functions
    retries = {"retries_allowed": True, "max_attempts": options.retries + 1} if options.retries else {}
    title = options.name or workflow
    for name in steps:
        decorators[name] = Decorator("step", {"interval_seconds": options.interval, **retries})
    decorators[workflow] = Decorator("workflow", {"name": title}, options.queue)
    for name in functions:
        names[name] = decorators[name](names[name])
    if options.schedule:
        made = names[workflow]
        try:
            DBOS.apply_schedules(
                [{"schedule_name": title, "workflow_fn": made, "schedule": options.schedule, "context": None}]
            )
        except DBOSException as error:
            raise UsageError(f"%%workflow: {error} {title} is defined, and has no new schedule.") from None


def mend(names: dict[str, Any], before: dict[str, Any], functions: list[str]) -> None:
    """A cell has defined these as plain functions: what was a step or workflow before is one again."""
    for name in functions:
        if extension.name_of(before.get(name)) is not None and extension.name_of(names[name]) is None:
            names[name] = decorators.get(name, Decorator("step", {}))(names[name])


def starter(workflow: Function, queue: str | None) -> Callable[..., WorkflowHandle[Any]]:
    """What `NAME.start` does."""
    if queue is not None:
        Queue(queue)

    def start(*args: Any, **kwargs: Any) -> WorkflowHandle[Any]:
        """Start it beside, or put it on its queue; the handle."""
        if queue is not None:
            return DBOS.enqueue_workflow(queue, workflow, *args, **kwargs)
        return DBOS.start_workflow(workflow, *args, **kwargs)

    return start


def register(shell: InteractiveShell) -> None:
    """Offer the magic."""
    add: Any = shell.register_magics
    add(WorkflowMagic(shell=shell))


def unregister(shell: InteractiveShell) -> None:
    """Take it back."""
    shell.magics_manager.magics["cell"].pop("workflow", None)
