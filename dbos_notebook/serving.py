"""`dbos worker NOTEBOOK.ipynb`: the workflows that a notebook defines, served without running the notebook.

Of an ordinary cell only what defines is run: imports, functions, classes, objects that are made by calling a class, such
as queues, and the assignments of names that one of these, or a recorded cell, reads. Cells under `%%workflow` and lines with `%dbos flow` define workflows; cells under `%%step`
are known to those, and not run. So the versions are those of the notebook, and its unfinished runs go on here.
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from dbos_notebook.cells.observer import GENERAL_VERSION
from dbos_notebook.durable import magic
from dbos_notebook.durable.reading import LIFTED, lines_of, names_read
from dbos_notebook.durable.recording import CellRun
from dbos_notebook.headless import SKIPPED, CellFailedError, cells_of

# Before anything is configured: the version of steps that are enqueued by themselves.
VERSION_VARIABLE = "DBOS__APPVERSION"
FLOW = "%dbos flow "


def load(file: str) -> str:
    """Define what a notebook defines; its name."""
    path = Path(file).resolve()
    os.environ.setdefault(VERSION_VARIABLE, GENERAL_VERSION)
    os.environ.setdefault("JPY_SESSION_NAME", path.stem)
    shell: Any = InteractiveShell.instance()
    handlers = list(logging.getLogger("dbos").handlers)
    with contextlib.redirect_stdout(io.StringIO()):  # what it says is for those who sit in front of it
        shell.run_line_magic("load_ext", "dbos_notebook")
    # A worker's log is for its terminal, and not for a cell.
    logging.getLogger("dbos").handlers[:] = handlers
    cells = [cell for cell in cells_of(path) if SKIPPED not in cell.tags]
    wanted = _wanted([cell.source for cell in cells])
    for cell in cells:
        _define(shell, cell.source, cell.number, wanted)
    return path.stem


def python_of(source: str) -> str:
    """A cell without its magics."""
    return "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))


def _wanted(sources: list[str]) -> set[str]:
    """The names that definitions and recorded cells read, and what the assignments of those read in turn."""
    assigned: dict[str, set[str]] = {}
    wanted: set[str] = set()
    for source in sources:
        is_recorded = source.lstrip().startswith("%%step")
        try:
            tree = ast.parse(python_of(source))
        except SyntaxError:  # a cell that only a front end understands, such as of another language
            continue
        for node in tree.body:
            reads = set(names_read(ast.unparse(node)))
            if is_recorded or isinstance(node, LIFTED):
                wanted |= reads
            for name in _targets(node):
                assigned.setdefault(name, set()).update(reads)
    while more := {read for name in wanted for read in assigned.get(name, ())} - wanted:
        wanted |= more
    return wanted


def _define(shell: Any, source: str, number: int, wanted: set[str]) -> None:
    first = source.lstrip().partition("\n")[0]
    if first.startswith("%%workflow"):
        _run(shell, source, number)
    elif first.startswith("%%step"):
        line, _, body = source.lstrip().partition("\n")
        CellRun(shell, magic.parser().parse_args(magic.words(line.removeprefix("%%step"))), body).define_only()
    elif not first.startswith("%%"):
        _run(shell, definitions(python_of(source), wanted), number)
        for line in source.splitlines():
            if line.startswith(FLOW):
                _run(shell, line + ";", number)


def _run(shell: Any, code: str, number: int) -> None:
    ran = shell.run_cell(code, store_history=False)
    error = ran.error_before_exec or ran.error_in_exec
    if error is not None:
        raise CellFailedError(f"cell {number} cannot be defined: {type(error).__name__}: {error}")


def definitions(text: str, wanted: Collection[str]) -> str:
    """The statements of a cell that define something, or assign what is wanted."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return ""
    chosen = [node for node in tree.body if isinstance(node, LIFTED) or _makes(node) or {*_targets(node)} & {*wanted}]
    return "\n".join("\n".join(text.splitlines()[line - 1] for line in lines_of(node)) for node in chosen)


def _targets(node: ast.stmt) -> list[str]:
    """The plain names that a statement assigns."""
    match node:
        case ast.Assign(targets=targets):
            return [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            return [name]
    return []


def _makes(node: ast.stmt) -> bool:
    """Whether it makes an object of a class, as everybody writes classes: with a capital first, and not all of them."""
    match node:
        case ast.Assign(value=ast.Call(func=func)) | ast.Expr(value=ast.Call(func=func)):
            called = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
            return called[:1].isupper() and called != called.upper()
    return False
