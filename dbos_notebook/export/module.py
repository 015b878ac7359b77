"""The cells that workflows need, as one importable module.

What a function names is followed through the notebook: other functions and classes by their source, modules by the
statement that imported them, plain data by its value of now, and other objects by the assignment that made them.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from dbos import extension
from dbos_notebook.cells.code import Cells
from dbos_notebook.cells.define import decorators
from dbos_notebook.durable.reading import names_read

# What a library makes for data is too large to be written, or takes too long to be made again.
DATA_MODULES = ("pandas", "numpy", "polars", "pyarrow", "torch")


class ExportError(ValueError):
    """Something that is needed cannot be written; the message says what, and what to do."""


@dataclass
class Module:
    """The text of a module as it grows."""

    cells: Cells
    names: Mapping[str, Any]
    imports: list[str] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    _done: set[str] = field(default_factory=set)

    def add(self, name: str, needed_by: str) -> None:
        """Write what a name of the notebook stands for, after all that it needs itself."""
        if name in self._done or (name not in self.names and hasattr(builtins, name)):
            return
        self._done.add(name)
        if name == "get_ipython":
            raise ExportError(f"{needed_by} uses a magic or a shell command, which only a notebook has")
        if name not in self.names:
            raise ExportError(f"{needed_by} uses `{name}`, which is not defined in this notebook")
        value = self.names[name]
        is_foreign = isinstance(value, ModuleType) or getattr(value, "__module__", None) not in {"__main__", None}
        if is_foreign and self._imported(name, value):
            return
        if _is_plain(value):
            self.constants.append(f"{name} = {value!r}")
            return
        text = self._source(name, value) or self._assignment(name, value, needed_by)
        self._add_needs(text, name)
        self.parts.append(text)

    def _add_needs(self, text: str, name: str) -> None:
        for each in names_read(text):
            if each != name:
                self.add(each, f"`{name}`")

    def _imported(self, name: str, value: Any) -> bool:
        statement = self.cells.imports.get(name)
        if statement is None and isinstance(value, ModuleType):
            statement = f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}")
        elif statement is None and hasattr(value, "__qualname__"):
            statement = f"from {value.__module__} import {value.__qualname__} as {name}"
        if statement is not None:
            self.imports.append(statement)
        return statement is not None

    def _source(self, name: str, value: Any) -> str:
        """A function or class of a cell, as it was written there, and decorated as it is."""
        if not callable(value) or getattr(value, "__module__", None) != "__main__":
            return ""
        text = self.cells.source(value).rstrip()
        decorator = decorators.get(name)
        if text and decorator is not None and extension.name_of(value) is not None and "@DBOS." not in text:
            self.add("DBOS", f"`{name}`") if "DBOS" in self.names else self.imports.append("from dbos import DBOS")
            text = f"{decorator}\n{text}"
            if decorator.queue is not None:
                self.imports.append("from dbos import Queue")
                self.parts.append(f"Queue({decorator.queue!r})")
        return text

    def _assignment(self, name: str, value: Any, needed_by: str) -> str:
        text = self.cells.assignments.get(name)
        if text is None or type(value).__module__.partition(".")[0] in DATA_MODULES:
            raise ExportError(
                f"{needed_by} uses `{name}`, a {type(value).__name__} that cannot be written to a file. Make it in a step, "
                "or pass it as an argument."
            )
        return text

    def text(self, docstring: str) -> str:
        """All of it."""
        imports = sorted(dict.fromkeys(self.imports), key=lambda each: (each.startswith("from"), each))
        top = [f'"""{docstring}"""', "\n".join(imports), "\n".join(self.constants)]
        return "\n\n\n".join(["\n\n".join(filter(None, top)), *self.parts]) + "\n"


def module_of(cells: Cells, names: Mapping[str, Any], workflows: Iterable[str]) -> Module:
    """What these workflows need. Raises ExportError."""
    made = Module(cells, names)
    for workflow in workflows:
        for name in _places(names, workflow):
            made.add(name, f"the workflow {workflow}")
    return made


def _places(names: Mapping[str, Any], workflow: str) -> list[str]:
    """Where the notebook has a workflow: its function, or its class and the instances that are registered."""
    found = [
        name
        for name, value in names.items()
        if not name.startswith("_") and extension.name_of(value) == workflow and callable(value)
    ]
    if found:
        return found[:1]
    owner = workflow.rpartition(".")[0]
    cls = names.get(owner)
    if not isinstance(cls, type):
        raise ExportError(f"the workflow {workflow} is not defined in this notebook under a name of its own")
    instances = [
        name for name, value in names.items() if isinstance(value, cls) and not name.startswith("_") and name != owner
    ]
    return [owner, *instances]


def _is_plain(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except Exception:  # noqa: BLE001 - its repr and its comparison are its own
        return False
