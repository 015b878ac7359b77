"""The code of a workflow that was written in cells: its exact source, its version, and a hold on it.

The version covers what decides the order of steps: the workflow's own function, without comments and decorators,
and the helper functions and classes from cells that it calls. What a step does is its own affair, as everywhere in
DBOS: a step may be mended and the run goes on. The source that is kept for a run covers the steps too.
"""

from __future__ import annotations

import ast
import builtins
import dis
import functools
import hashlib
import inspect
import json
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from dbos import extension

Function = Callable[..., Any]
HASH_LENGTH = 12
# What `functools.cache` makes of a function.
CACHED = type(functools.lru_cache(lambda: None))
CODE = (types.FunctionType, CACHED, type)


class Cells:
    """The text of what cells defined, by name: Python itself forgets that of classes, imports and assignments."""

    def __init__(self, main: dict[str, Any]) -> None:
        self.main = main
        self._classes: dict[str, str] = {}
        #: The statement that imported a name, or assigned it last.
        self.imports: dict[str, str] = {}
        self.assignments: dict[str, str] = {}
        # A function or class has one source as long as it lives; another cell makes another one.
        self._sources: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        #: What the names stood for before the cell that runs now.
        self.before: dict[str, Any] = {}

    def begin(self, text: str) -> None:
        """A cell is about to run."""
        self.before = dict(self.main)
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            return
        for node in tree.body:
            self._keep(text, node)

    def _keep(self, text: str, node: ast.stmt) -> None:
        match node:
            case ast.ClassDef():
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                self._classes[node.name] = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
            case ast.Import() | ast.ImportFrom():
                for alias in node.names:
                    one = [alias]
                    made = (
                        ast.Import(one)
                        if isinstance(node, ast.Import)
                        else ast.ImportFrom(node.module, one, node.level)
                    )
                    self.imports[alias.asname or alias.name.partition(".")[0]] = ast.unparse(made)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                self.assignments[name] = ast.get_source_segment(text, node) or ""

    def source(self, thing: Any) -> str:
        """The source of a function or class; empty where nobody knows it."""
        thing = inspect.unwrap(thing)
        found = self._sources.get(thing)
        if found is None:
            found = self._sources[thing] = self._find(thing)
        return found

    def _find(self, thing: Any) -> str:
        try:
            return textwrap.dedent(inspect.getsource(thing))
        except (OSError, TypeError):
            return self._classes.get(getattr(thing, "__name__", ""), "")

    def is_from_here(self, thing: Any, module: str) -> bool:
        """Whether it is a function or class of that module: code that may change with the workflow's."""
        return isinstance(thing, CODE) and getattr(thing, "__module__", None) == module


class Code:
    """What a workflow's function is made of at this moment."""

    def __init__(self, cells: Cells, fn: Function) -> None:
        self.fn = inspect.unwrap(fn)
        #: Every function and class of the same cells that is reached from it, steps included, by name.
        self.parts: dict[str, Any] = {}
        self._cells = cells
        owner, _, method = self.fn.__qualname__.rpartition(".")
        if owner in getattr(self.fn, "__globals__", {}) and method:
            self.parts[owner] = self.fn.__globals__[owner]
        self._collect(self.fn)

    def _collect(self, fn: Any) -> None:
        for name, thing in reached(fn):
            if name in self.parts or thing is self.fn or not self._cells.is_from_here(thing, self.fn.__module__):
                continue
            self.parts[name] = thing
            for inner in functions_in(thing):
                self._collect(inspect.unwrap(inner))

    @property
    def version(self) -> str | None:
        """The hash of what decides the order of steps; None where the source is not known."""
        own = normalised(self._cells.source(self.fn))
        if not own:
            return None
        texts = [own]
        for name, thing in sorted(self.parts.items()):
            step = extension.name_of(thing)
            texts.append(f"step {step}" if step is not None else f"{name}\n{normalised(self._cells.source(thing))}")
        return hashed("\n".join(texts))

    @property
    def text(self) -> str:
        """The exact source of all parts, as JSON: name -> source, the workflow's own function last."""
        texts = {name: self._cells.source(thing) for name, thing in self.parts.items()}
        texts[self.fn.__qualname__] = self._cells.source(self.fn)
        return json.dumps(texts, ensure_ascii=False)


def reached(fn: Any) -> Iterator[tuple[str, Any]]:
    """What the code of a function names, in its module or around it, with what stands there now."""
    code = getattr(fn, "__code__", None)
    if code is None:
        return
    for name in sorted(set(_names(code))):
        if name in fn.__globals__:
            yield name, fn.__globals__[name]
    for name, cell in zip(code.co_freevars, fn.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue


@functools.lru_cache(maxsize=4096)  # asked for every workflow after every cell
def normalised(source: str) -> str:
    """Source without what does not matter: comments, spaces, decorators, docstrings."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            # A class of workflows brings its helpers; what is recorded has a version, or none, of its own.
            for method in node.body:
                if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)) and _is_recorded(method):
                    method.body = [ast.Pass()]
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            node.decorator_list = []
            first = node.body[0] if len(node.body) > 1 else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return ast.unparse(tree)


def _is_recorded(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("DBOS." in ast.unparse(each) for each in method.decorator_list)


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


def held(fn: Function, names: dict[str, Any]) -> Function:
    """The function with the functions and classes it calls as they are in `names`, whatever is defined meanwhile.

    Data stays as it is: a variable that another cell changes is changed. A function that assigns to global names
    is left alone.
    """
    inner = inspect.unwrap(fn)
    if inner is not fn or not isinstance(fn, types.FunctionType) or _assigns_globals(fn.__code__):
        return fn
    return _Hold(fn.__globals__, names).copy(fn)


class _Hold:
    """Copies of functions that share one fixed view of the names around them."""

    def __init__(self, live: dict[str, Any], names: dict[str, Any]) -> None:
        self._names = names
        self._module = names.get("__name__", "__main__")
        self._globals = _Names(live)
        self._copies: dict[int, Function] = {}

    def copy(self, fn: types.FunctionType) -> Function:
        known = self._copies.get(id(fn))
        if known is not None:
            return known
        made = types.FunctionType(fn.__code__, self._globals, fn.__name__, fn.__defaults__, fn.__closure__)
        made.__kwdefaults__, made.__dict__, made.__qualname__ = fn.__kwdefaults__, dict(fn.__dict__), fn.__qualname__
        made.__module__, made.__doc__, made.__annotations__ = fn.__module__, fn.__doc__, fn.__annotations__
        self._copies[id(fn)] = made
        for name in set(_names(fn.__code__)):
            thing = self._names.get(name)
            if getattr(thing, "__module__", None) != fn.__module__ or name in self._globals:
                continue
            if isinstance(thing, (type, CACHED)) or extension.name_of(thing) is not None:
                self._globals[name] = thing
            elif isinstance(thing, types.FunctionType) and not _assigns_globals(thing.__code__):
                self._globals[name] = self.copy(thing)
        return made


class _Names(dict[str, Any]):
    """Names of a module of which some are held; the others are looked up where they live."""

    def __init__(self, live: dict[str, Any]) -> None:
        super().__init__({"__builtins__": live.get("__builtins__", builtins), "__name__": live.get("__name__")})
        self._live = live

    def __missing__(self, name: str) -> Any:
        return self._live[name]


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def functions_in(thing: Any) -> list[Any]:
    """A function itself, or those of a class."""
    if isinstance(thing, type):
        return [each for each in vars(thing).values() if isinstance(each, types.FunctionType)]
    return [thing]


def _assigns_globals(code: types.CodeType) -> bool:
    return any(each.opname in {"STORE_GLOBAL", "DELETE_GLOBAL"} for each in dis.get_instructions(code))
