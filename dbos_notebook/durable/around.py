"""The data of the notebook that the functions which a cell calls read past it: it decides what the cell gives, too.

What such a function changes is its own memory (a cache, a counter) and no input, or no record would ever fit again.
"""

from __future__ import annotations

import ast
import dis
import functools
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any

from dbos_notebook.cells.code import Cells, functions_in

READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})
# Methods that change what they are called on.
CHANGES = frozenset({
    "add", "append", "clear", "difference_update", "discard", "extend", "insert", "intersection_update", "move_to_end",
    "pop", "popitem", "popleft", "put", "remove", "reverse", "rotate", "setdefault", "sort",
    "symmetric_difference_update", "update", "write",
})  # fmt: skip


def names_around(cells: Cells, parts: Mapping[str, Any]) -> list[str]:
    """The global names that these functions and classes read and leave as they are, in their order."""
    changed = set[str]().union(*(_changed_in(cells.source(each)) for each in parts.values()))
    read = (name for each in parts.values() for fn in functions_in(each) for name in _read_by(inspect.unwrap(fn)))
    return [name for name in dict.fromkeys(read) if name not in changed]


def _read_by(fn: Any) -> Iterator[str]:
    code = getattr(fn, "__code__", None)
    return iter(()) if code is None else _read_in(code)


def _read_in(code: types.CodeType) -> Iterator[str]:
    yield from (each.argval for each in dis.get_instructions(code) if each.opname in READS)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _read_in(constant)


@functools.lru_cache(maxsize=1024)
def _changed_in(source: str) -> frozenset[str]:
    """The names that are given another value here, or whose value is changed in place."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return frozenset()
    found = set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.Global(names=names):
                found.update(names)
            case ast.Subscript(ctx=ast.Store() | ast.Del()) | ast.Attribute(ctx=ast.Store() | ast.Del()):
                found |= _root(node)
            case ast.Call(func=ast.Attribute(attr=method) as called) if method in CHANGES:
                found |= _root(called)
    return frozenset(found)


def _root(node: ast.expr) -> set[str]:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()
