"""What the code of a cell reads from the notebook and gives to it, and the same code as the body of a function.

A cell is read in the order in which it runs: a name is an input if it is read before the cell gives it. Imports,
functions and classes are lifted out: they stay in the notebook, so that other cells have them too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from IPython.core.error import UsageError

INDENT = "    "
LIFTED = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
SCOPES = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
# What the returned values hold beside the outputs: the value of the cell's last line.
LAST = "<last line>"


@dataclass(frozen=True, slots=True)
class Reading:
    """The code of one cell, read."""

    #: Names that it reads before it gives them, in their order.
    reads: tuple[str, ...]
    #: Names that it gives, in their order; not those that begin with an underscore, nor those of loops.
    gives: tuple[str, ...]
    #: Its imports, functions and classes.
    lifted: str
    #: All else.
    body: str
    #: Where the body's last line is a value that the cell shows: the lines it takes.
    last: tuple[int, int] | None
    is_async: bool

    def function(self, name: str, parameters: Sequence[str], gives: Sequence[str], *, shows: bool) -> str:
        """The body as a function that takes these names and returns a dict of those; with `shows` also of the last line."""
        lines = self.body.splitlines()
        if shows and self.last is not None:
            first, end = self.last
            lines[first - 1] = f"_last = ({lines[first - 1]}"
            lines[end - 1] += "\n)"
        inner = _indented("\n".join(lines)) if lines else ""
        given = [f"{each!r}: {each}" for each in gives]
        if shows and self.last is not None:
            given.append(f"{LAST!r}: _last")
        start = f"{'async ' if self.is_async else ''}def {name}({', '.join(parameters)}):"
        return "\n".join(filter(None, [start, inner, f"{INDENT}return {{{', '.join(given)}}}", ""]))


def read(text: str) -> Reading:
    """Read the code of a cell, magics already turned to Python. Raises UsageError where it is none."""
    try:
        tree = ast.parse(text)
        compile(text, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError) as error:
        number = getattr(error, "lineno", None)
        raise UsageError(f"the cell is no Python: {getattr(error, 'msg', error)}, line {number}") from None
    lifted, body = _apart(text, tree)
    names = _Names()
    for node in tree.body:
        names.visit(node)
    own = ast.parse(body)
    last = own.body[-1] if own.body else None
    shows = isinstance(last, ast.Expr) and not body.rstrip().endswith(";") and not isinstance(last.value, ast.Constant)
    return Reading(
        tuple(names.read),
        tuple(each for each in names.given if not each.startswith("_")),
        lifted,
        body,
        (last.lineno, last.end_lineno or last.lineno) if shows and last is not None and _has_own_lines(own) else None,
        any(isinstance(node, (ast.Await, ast.AsyncFor, ast.AsyncWith)) for each in own.body for node in _outside(each)),
    )


def names_read(text: str) -> list[str]:
    """The names that code reads from around it, in their order."""
    names = _Names()
    for node in ast.parse(text).body:
        names.visit(node)
    return list(names.read)


def _apart(text: str, tree: ast.Module) -> tuple[str, str]:
    """The lifted statements, and all other lines."""
    chosen = [node for node in tree.body if isinstance(node, LIFTED)]
    places = [set(lines_of(node)) for node in chosen]
    others = {number for node in tree.body if not isinstance(node, LIFTED) for number in lines_of(node)}
    if any(place & others for place in places):  # two of them on one line, with a semicolon between
        unparsed = [ast.unparse(node) for node in chosen]
        return "\n".join(unparsed), "\n".join(ast.unparse(node) for node in tree.body if node not in chosen)
    lines, taken = text.splitlines(), set[int]().union(*places)
    kept = [line for number, line in enumerate(lines, 1) if number not in taken]
    return "\n".join(lines[number - 1] for number in sorted(taken)), "\n".join(kept).strip("\n")


def lines_of(node: ast.stmt) -> range:
    """The lines that a statement takes, with its decorators."""
    decorators = [each.lineno for each in getattr(node, "decorator_list", ())]
    return range(min([node.lineno, *decorators]), (node.end_lineno or node.lineno) + 1)


def _has_own_lines(tree: ast.Module) -> bool:
    """Whether the last statement shares its lines with no other."""
    last = set(lines_of(tree.body[-1]))
    return not any(last & set(lines_of(each)) for each in tree.body[:-1])


def _indented(text: str) -> str:
    """The text a step further in; what stands inside of strings stays as it is."""
    inside = {
        number
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)))
        for number in range(node.lineno + 1, (node.end_lineno or node.lineno) + 1)
    }
    return "\n".join(
        line if number in inside or not line.strip() else f"{INDENT}{line}"
        for number, line in enumerate(text.splitlines(), 1)
    )


def _outside(node: ast.AST) -> Iterable[ast.AST]:
    """What runs with the cell itself: not what stands in functions that it defines."""
    yield node
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        for child in ast.iter_child_nodes(node):
            yield from _outside(child)


class _Names(ast.NodeVisitor):
    """Walks through code in the order in which it runs."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self.read: dict[str, None] = {}
        #: What is given to the notebook.
        self.given: dict[str, None] = {}
        self._known = set(known)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._reads(node.id)
        elif isinstance(node.ctx, ast.Store):
            self._gives(node.id)
        else:
            self.given.pop(node.id, None)

    def _reads(self, name: str) -> None:
        if name not in self._known:
            self.read[name] = None

    def _gives(self, name: str) -> None:
        self._known.add(name)
        self.given[name] = None

    def _in_order(self, *nodes: ast.AST | Sequence[ast.AST] | None) -> None:
        for each in nodes:
            for node in each if isinstance(each, Sequence) else [each]:
                if node is not None:
                    self.visit(node)

    # -- statements whose parts run in another order than they are written in ------------------------------------

    def visit_Assign(self, node: ast.Assign) -> None:
        self._in_order(node.value, node.targets)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._in_order(node.value, node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._in_order(node.value, node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._reads(node.target.id)
        self._in_order(node.value, node.target)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._changed(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._changed(node)

    def _changed(self, node: ast.Attribute | ast.Subscript) -> None:
        """`frame["x"] = 1` gives the frame again: it is not what it was."""
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Store):
            inner: ast.expr = node
            while isinstance(inner, (ast.Attribute, ast.Subscript)):
                inner = inner.value
            if isinstance(inner, ast.Name):
                self._gives(inner.id)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self._in_order(node.iter)
        self._known |= _stored(node.target)
        self._in_order(node.target, node.body, node.orelse)
        self._forget(node.target)

    visit_AsyncFor = visit_For  # noqa: N815 - the visitor's own names

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            self._in_order(item.context_expr, item.optional_vars)
        self._in_order(node.body)
        for item in node.items:
            self._forget(item.optional_vars)

    visit_AsyncWith = visit_With  # noqa: N815 - as above

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._known |= {node.name} if node.name else set()
        self._in_order(node.type, node.body)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self._in_order(node.pattern)
        self._known |= {node.name} if node.name else set()

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        self._known |= {node.name} if node.name else set()

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self.generic_visit(node)
        self._known |= {node.rest} if node.rest else set()

    def _forget(self, target: ast.AST | None) -> None:
        """The variables of loops and of `with` are known from then on, but are no outputs."""
        for name in _stored(target):
            self.given.pop(name, None)

    # -- scopes of their own -------------------------------------------------------------------------------------

    def _scope(self, node: ast.AST) -> None:
        inner = _Names(self._known)
        for each in node.generators:  # type: ignore[attr-defined]  # these four have them
            inner._in_order(each.iter)
            inner._known |= _stored(each.target)
            inner._in_order(each.ifs)
        parts = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)  # type: ignore[attr-defined]
        inner._in_order(*parts)
        self.read |= inner.read

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _scope  # noqa: N815 - as above

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._in_order(node.decorator_list)
        self._known.add(node.name)
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        self._in_order([each.annotation for each in every if each is not None and each.annotation], node.returns)
        self._function(node.args, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - as above

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node.args, [node.body])

    def _function(self, arguments: ast.arguments, body: Sequence[ast.AST]) -> None:
        self._in_order(arguments.defaults, [each for each in arguments.kw_defaults if each is not None])
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        local = {each.arg for each in every if each is not None}.union(*(_stored(each) for each in body))
        inner = _Names(self._known | local)
        inner._in_order(body)
        self.read |= inner.read

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._in_order(node.decorator_list, node.bases, [each.value for each in node.keywords])
        inner = _Names({*self._known, node.name})
        inner._in_order(node.body)
        self.read |= inner.read
        self._known.add(node.name)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self._known |= {each.asname or each.name.partition(".")[0] for each in node.names}

    visit_ImportFrom = visit_Import  # noqa: N815 - as above


def _stored(node: ast.AST | None) -> set[str]:
    if node is None:
        return set()
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
