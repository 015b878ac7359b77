"""The guard of a change: the source of a workflow with `DBOS.patch` around what is new in it."""

from __future__ import annotations

import ast
import json
import textwrap
from collections.abc import Collection, Iterator

INDENT = "    "


def guarded(source: str, calls: Collection[str], name: str) -> str | None:
    """The source with the first statement that makes one of these calls under a patch of that name.

    `calls` are written as in the code: `normalise`, `DBOS.sleep`. None if there is no such statement: a guard for what
    is missing in the new code, or moved, is for a person to write.
    """
    source = textwrap.dedent(source)
    function = next(
        (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)), None
    )
    if function is None:
        return None
    found = next((node for node in _statements(function.body) if _makes(node, calls)), None)
    if found is None or found.end_lineno is None:
        return None
    lines = source.splitlines()
    begin, end = found.lineno - 1, found.end_lineno
    margin = lines[begin][: found.col_offset]
    if margin.strip():  # it stands behind another one on its line
        return None
    is_async = isinstance(function, ast.AsyncFunctionDef)
    ask = f"await DBOS.patch_async({json.dumps(name)})" if is_async else f"DBOS.patch({json.dumps(name)})"
    body = [f"{INDENT}{line}" if line.strip() else line for line in lines[begin:end]]
    return "\n".join([*lines[:begin], f"{margin}if {ask}:", *body, *lines[end:]])


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements that hold no others, in the order in which they stand."""
    for node in body:
        inner = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt)]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if inner:
            yield from _statements(inner)
        else:
            yield node


def _makes(statement: ast.stmt, calls: Collection[str]) -> bool:
    return any(isinstance(node, ast.Call) and ast.unparse(node.func) in calls for node in ast.walk(statement))
