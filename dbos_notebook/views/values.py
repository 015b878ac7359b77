"""Previews: a few words about any value, made by the process that has it.

A preview never raises and never builds more than it shows: it walks into containers only as far as it prints, asks
only the shape of a frame, and cuts texts before it quotes them. It runs for every step, so it is also quick. Types
of libraries are known by name: nothing is imported for them.
"""

from __future__ import annotations

import dataclasses
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from dbos_notebook.views.html import clean

LIMIT = 400
# How deep, and how many members of one container, are looked at.
DEPTH, MEMBERS = 4, 12
# Beyond it Python itself refuses to write an integer.
LONGEST_INTEGER_BITS = 4_000

ATOMS = (type(None), bool, float, complex, type(...), type(NotImplemented))

# Their own words would write every member.
DICTS: tuple[Any, ...] = tuple(kind.__repr__ for kind in (dict, OrderedDict, defaultdict, Counter))


def preview(value: Any, limit: int = LIMIT) -> str:
    """At most about `limit` characters that tell what a value is."""
    try:
        shown = _Preview(limit).of(value, DEPTH)
    except Exception as error:  # noqa: BLE001 - it shows what users made, whatever that does
        shown = f"<{_name(value)}: cannot be shown, {type(error).__name__}>"
    # A value's own words may hold what acts on a terminal, and frames show them as they are.
    return clean(shown if len(shown) <= limit else f"{shown[:limit]}...")


def call_preview(args: Iterable[Any], kwargs: Mapping[str, Any], limit: int = LIMIT) -> str:
    """The arguments of a call, as they would be written in it."""
    given = list(args)
    each = max(limit // max(len(given) + len(kwargs), 1), 40)
    parts = [preview(value, each) for value in given]
    parts += [f"{name}={preview(value, each)}" for name, value in kwargs.items()]
    shown = ", ".join(parts)
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


def _name(value: Any) -> str:
    return type(value).__name__


class _Preview:
    """One preview: what may still be written, and the containers it stands in."""

    def __init__(self, limit: int) -> None:
        self._limit, self._left, self._inside = limit, limit, set[int]()

    def of(self, value: Any, depth: int) -> str:
        shown = self._shown(value, depth)
        self._left -= len(shown)
        return shown

    def _shown(self, value: Any, depth: int) -> str:
        kind = type(value)
        if kind in ATOMS:
            return repr(value)
        if kind is int:
            return (
                repr(value) if value.bit_length() <= LONGEST_INTEGER_BITS else f"<int of {value.bit_length():,} bits>"
            )
        if kind is str:
            return self._text(value)
        if kind in (bytes, bytearray, memoryview):
            return self._bytes(value)
        if (told := _library_value(value, kind)) is not None:
            return told
        return self._contained(value, kind, depth)

    def _text(self, value: str) -> str:
        if len(value) <= self._limit:
            return repr(value)
        return f"{value[: max(self._limit // 2, 20)]!r}... ({len(value):,} characters)"

    def _bytes(self, value: bytes | bytearray | memoryview) -> str:
        size = value.nbytes if isinstance(value, memoryview) else len(value)
        if isinstance(value, memoryview):
            return f"<memoryview of {size:,} bytes>"
        return repr(bytes(value)) if size <= 60 else f"{bytes(value[:40])!r}... ({size:,} bytes)"

    def _contained(self, value: Any, kind: type, depth: int) -> str:
        if id(value) in self._inside:
            return "<itself>"
        show = self._walk(kind)
        if show is None:
            return _own_words(value, kind)
        if depth <= 0:
            return f"<{kind.__name__}>"
        self._inside.add(id(value))
        try:
            return show(value, depth - 1)
        finally:
            self._inside.discard(id(value))

    def _walk(self, kind: type) -> Callable[[Any, int], str] | None:
        """How to look into a value of this type, if that says more than its own words, and is safer."""
        written: Any = kind.__repr__
        if written in DICTS:
            return self._mapping
        if written is list.__repr__:
            return lambda value, depth: self._members(value, depth, "[", "]")
        if written is tuple.__repr__:
            return lambda value, depth: self._members(value, depth, "(", ",)" if len(value) == 1 else ")")
        if written in (set.__repr__, frozenset.__repr__):
            return lambda value, depth: self._members(value, depth, "{", "}") if value else f"{_name(value)}()"
        if written is deque.__repr__:
            return lambda value, depth: self._members(value, depth, "deque([", "])")
        if dataclasses.is_dataclass(kind) and getattr(written, "__wrapped__", None) is not None:
            return self._dataclass
        if written is object.__repr__:
            return self._plain
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return self._named
        return None

    def _members(self, value: Any, depth: int, left: str, right: str) -> str:
        shown = []
        for each in islice(value, MEMBERS):
            if self._left <= 0:
                break
            shown.append(self.of(each, depth))
        return f"{left}{', '.join(shown)}{_rest(len(value) - len(shown))}{right}"

    def _mapping(self, value: Any, depth: int) -> str:
        shown = []
        for key, each in islice(value.items(), MEMBERS):
            if self._left <= 0:
                break
            shown.append(f"{self.of(key, depth)}: {self.of(each, depth)}")
        inner = f"{{{', '.join(shown)}{_rest(len(value) - len(shown))}}}"
        return inner if type(value) is dict else f"{_name(value)}({inner})"

    def _dataclass(self, value: Any, depth: int) -> str:
        names = [each.name for each in dataclasses.fields(value) if each.repr]
        return self._fields(value, names, depth)

    def _named(self, value: Any, depth: int) -> str:
        return self._fields(value, list(value._fields), depth)

    def _plain(self, value: Any, depth: int) -> str:
        """An object that says nothing of itself but its address."""
        held = getattr(value, "__dict__", None)
        return self._fields(value, [each for each in held if not each.startswith("_")] if held else [], depth)

    def _fields(self, value: Any, names: list[str], depth: int) -> str:
        shown = []
        for each in names[:MEMBERS]:
            if self._left <= 0:
                break
            shown.append(f"{each}={self.of(getattr(value, each, None), depth)}")
        inner = f"{', '.join(shown)}{_rest(len(names) - len(shown))}"
        return f"{_name(value)}({inner})" if inner else f"<{_name(value)}>"


def _rest(more: int) -> str:
    return f", ... {more:,} more" if more > 0 else ""


NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def _own_words(value: Any, kind: type) -> str:
    """What the value says of itself; without the address, which is another one in every process."""
    if isinstance(value, BaseException):
        return f"{kind.__name__}({', '.join(preview(each, 120) for each in value.args[:3])})"
    if isinstance(value, NAMED):
        return f"<{_name(value)} {getattr(value, '__qualname__', '?')}>"
    if isinstance(value, types.GeneratorType | types.CoroutineType | types.ModuleType):
        return f"<{_name(value)} {value.__name__}>"
    if isinstance(value, str | bytes | bytearray) and len(value) > LIMIT:
        return f"<{kind.__name__} of {len(value):,}>"
    if isinstance(value, int) and value.bit_length() > LONGEST_INTEGER_BITS:
        return f"<{kind.__name__} of {value.bit_length():,} bits>"
    try:
        said = repr(value)
    except Exception as error:  # noqa: BLE001 - a user's __repr__
        return f"<{kind.__name__}: its repr raised {type(error).__name__}>"
    return said


def _library_value(value: Any, kind: type) -> str | None:
    """Frames, series and arrays, told by their shape: their own words cost much and say little."""
    library = (kind.__module__ or "").partition(".")[0]
    if library not in ("pandas", "polars", "numpy", "torch", "pyarrow", "xarray", "jax", "scipy"):
        return None
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple) or not shape:
        return None
    size = " x ".join(f"{each:,}" for each in shape)
    columns = getattr(value, "columns", None)
    if len(shape) == 2 and columns is not None and not callable(columns):
        names = [str(each)[:40] for each in islice(columns, MEMBERS)]
        return f"{kind.__name__} {size}: {', '.join(names)}{_rest(shape[1] - len(names))}"
    told = f"{kind.__name__} {size} {str(getattr(value, 'dtype', ''))[:40]}".rstrip()
    name = getattr(value, "name", None)
    if isinstance(name, str):
        told = f"{told} {name[:40]!r}"
    # A short vector says its numbers.
    if library == "numpy" and shape[0] <= MEMBERS and len(shape) == 1:
        return f"{told} [{', '.join(preview(each, 40) for each in value.tolist())}]"
    return told
