"""Values without the fields that a mask hides: in copies, with every part that is hidden replaced.

No code of a value is run to look into it: what it is says its type, and what it holds is read past its own methods. What
cannot be looked into or copied is hidden whole where it might hold something. Modules, functions, and what belongs to
the runtime are no data, and stay what they are.
"""

from __future__ import annotations

import dataclasses
import types
from collections import deque
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbos_notebook.masking import Mask

HIDDEN = "***"
# Values that are nested deeper are hidden whole.
DEEPEST = 40
PLAIN = (type(None), bool, int, float, complex, type)
CODE = (
    types.ModuleType,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.CodeType,
    types.FrameType,
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
)
VIEWS = (ItemsView, KeysView, ValuesView)
ROWS = (list, tuple, set, frozenset, deque)
# What tells the class of a value how it is masked: stand-ins hold values in a way of their own.
OWN_WAY = "_masked_by_"


class Veil:
    """One walk through one value."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        # What was met, kept alive: the id of what is gone may be given to another.
        self._seen: dict[int, tuple[Any, Any]] = {}

    def over(self, value: Any, depth: int = DEEPEST) -> Any:
        """The value itself where nothing of it is hidden, else a copy."""
        kind = type(value)
        if issubclass(kind, str):
            return self._mask.text(value)
        if issubclass(kind, bytes | bytearray):
            return self._bytes(value)
        if issubclass(kind, (*PLAIN, *CODE)) or _is_of_the_runtime(kind):
            return value
        if id(value) in self._seen:
            return self._seen[id(value)][1]
        if depth == 0:
            return HIDDEN
        self._seen[id(value)] = value, HIDDEN  # what holds itself is hidden there
        try:
            made = self._copied(value, kind, lambda inner: self.over(inner, depth - 1))
        except Exception:  # noqa: BLE001 - a class may refuse to be looked into or made; better nothing is seen of it
            made = HIDDEN
        self._seen[id(value)] = value, made
        return made

    def _bytes(self, value: bytes | bytearray) -> Any:
        text = bytes(value).decode("utf-8", "surrogateescape")
        masked = self._mask.text(text)
        return value if masked == text else type(value)(masked.encode("utf-8", "surrogateescape"))

    def _copied(self, value: Any, kind: type, inner: Callable[[Any], Any]) -> Any:
        own_way = getattr(kind, OWN_WAY, None)
        if own_way is not None:
            return own_way(value, self._mask, inner)
        if issubclass(kind, ROWS):
            return self._row(value, kind, inner)
        if issubclass(kind, Mapping) and (issubclass(kind, dict) or not _attributes(value)):
            return self._mapping(value, inner)
        if issubclass(kind, VIEWS):
            return self._view(value, kind, inner)
        table = TABLES.get(((kind.__module__ or "").partition(".")[0], kind.__name__))
        if table is not None:
            return table(value, self._mask, inner)
        if hasattr(kind, "columns") or hasattr(kind, "column_names"):
            return self._foreign_table(value, kind)
        return self._object(value, kind, inner)

    def _mapping(self, value: Any, inner: Callable[[Any], Any]) -> Any:
        held = dict(value)
        made = {key: HIDDEN if self._mask.hides(key) else inner(each) for key, each in held.items()}
        return value if _is_same(made.values(), held.values()) else made

    def _view(self, value: Any, kind: type, inner: Callable[[Any], Any]) -> Any:
        if issubclass(kind, KeysView):
            return value
        held = dict(value.mapping)
        made = self._mapping(held, inner)
        if made is held:
            return value
        return list(made.items() if issubclass(kind, ItemsView) else made.values())

    def _row(self, value: Any, kind: Any, inner: Callable[[Any], Any]) -> Any:
        names = getattr(kind, "_fields", None) or ()
        if names:
            made = [HIDDEN if self._mask.hides(name) else inner(each) for name, each in zip(names, value, strict=False)]
        elif len(value) == 2 and issubclass(kind, list | tuple) and self._mask.hides(value[0]):
            made = [value[0], HIDDEN]  # a pair, as in lists of headers
        else:
            made = [inner(each) for each in value]
        if _is_same(made, value):
            return value
        if names:
            return kind._make(made)
        return next(plain(made) for plain in ROWS if issubclass(kind, plain))

    def _foreign_table(self, value: Any, kind: type) -> Any:
        """A frame of a library that we know nothing of but that it has columns: it is hidden whole, or shown."""
        named = value.column_names if hasattr(kind, "column_names") else value.columns
        said = [*map(str, named), str(getattr(value, "schema", ""))]
        return HIDDEN if any(self._mask.names_in(each) for each in said) else value

    def _object(self, value: Any, kind: Any, inner: Callable[[Any], Any]) -> Any:
        known = _attributes(value)
        made = {name: HIDDEN if self._mask.hides(name) else inner(each) for name, each in known.items()}
        args = BaseException.args.__get__(value) if issubclass(kind, BaseException) else ()  # type: ignore[attr-defined]
        told = tuple(inner(each) for each in args)
        if _is_same(made.values(), known.values()) and _is_same(told, args):
            return value
        copy = kind.__new__(kind, *told) if args else object.__new__(kind)
        for name, each in made.items():
            object.__setattr__(copy, name, each)
        return copy


# -- frames and arrays ---------------------------------------------------------------------------------------------


def _frame(value: Any, mask: Mask, inner: Callable[[Any], Any]) -> Any:
    made = value
    for place, name in enumerate(value.columns):
        before = value.iloc[:, place]
        after = HIDDEN if _hides(mask, name) else _cells(before, inner)
        if after is not before:
            made = value.copy() if made is value else made
            made.isetitem(place, after)
    index = _index(value.index, mask, inner)
    return made if index is value.index else made.set_axis(index, axis=0)


def _series(value: Any, mask: Mask, inner: Callable[[Any], Any]) -> Any:
    hidden = type(value)([HIDDEN] * len(value), index=value.index, name=value.name)
    made = hidden if _hides(mask, value.name) else _cells(value, inner)
    labels = [mask.hides(each) for each in value.index]
    if any(labels):
        made = made.astype(object).mask(labels, HIDDEN)
    index = _index(value.index, mask, inner)
    return made if index is value.index else made.set_axis(index, axis=0)


def _index(value: Any, mask: Mask, inner: Callable[[Any], Any]) -> Any:
    names = list(value.names)
    if any(_hides(mask, name) for name in names):
        rows = ((each if len(names) > 1 else (each,)) for each in value)
        made = [tuple(HIDDEN if _hides(mask, name) else each for name, each in zip(names, row, strict=True)) for row in rows]  # fmt: skip
        frame = value.to_frame(index=False).iloc[:0]
        rebuilt = frame.reindex(range(len(made))).astype(object)
        rebuilt[:] = made
        return rebuilt.set_index(list(rebuilt.columns)).index.set_names(names)
    cells = _cells(value, inner)
    return value if cells is value else cells


def _cells(value: Any, inner: Callable[[Any], Any]) -> Any:
    """A column or an index by its cells; those of numbers and times hold nothing to hide."""
    if value.dtype.kind not in "OSU":
        return value
    held = value.tolist()
    made = [inner(each) for each in held]
    if _is_same(made, held):
        return value
    given = {"index": value.index} if hasattr(value, "index") else {}
    return type(value)(made, name=value.name, **given)


def _array(value: Any, mask: Mask, inner: Callable[[Any], Any]) -> Any:
    names = value.dtype.names
    if names is not None:
        return HIDDEN if any(mask.hides(name) for name in names) else value
    if value.dtype.kind not in "OSU":
        return value
    held = value.ravel().tolist()
    made = [inner(each) for each in held]
    if _is_same(made, held):
        return value
    copy = value.astype(object)
    copy.ravel()[:] = made
    return copy


TABLES: dict[tuple[str, str], Callable[[Any, Mask, Callable[[Any], Any]], Any]] = {
    ("pandas", "DataFrame"): _frame,
    ("pandas", "Series"): _series,
    ("pandas", "Index"): _index,
    ("pandas", "MultiIndex"): _index,
    ("numpy", "ndarray"): _array,
}


# -- what objects hold ---------------------------------------------------------------------------------------------


def _hides(mask: Mask, name: Any) -> bool:
    """Whether a column is hidden: its name, or a part of it, is."""
    return any(mask.hides(part) for part in (name if isinstance(name, tuple) else (name,)))


def _is_of_the_runtime(kind: type) -> bool:
    """Whether it is a part of the runtime, and not what it hands out: a status or a message holds what users gave."""
    return (kind.__module__ or "").partition(".")[0] == "dbos" and not dataclasses.is_dataclass(kind)


def _attributes(value: Any) -> dict[str, Any]:
    """What an object holds, without asking its code for anything."""
    try:
        held = object.__getattribute__(value, "__dict__")
    except AttributeError:
        held = {}
    found: dict[str, Any] = dict(held) if type(held) is dict else {}
    named = [each.name for each in dataclasses.fields(value)] if dataclasses.is_dataclass(type(value)) else []
    for name in [*named, *_slots(type(value))]:
        try:
            found[name] = object.__getattribute__(value, name)
        except AttributeError:
            continue
    return found


def _slots(kind: type) -> list[str]:
    listed = ((cls.__name__.lstrip("_"), vars(cls).get("__slots__", ())) for cls in kind.__mro__)
    named = ((owner, name) for owner, slots in listed for name in ([slots] if isinstance(slots, str) else slots))
    return [
        f"_{owner}{name}" if name.startswith("__") and not name.endswith("__") else name
        for owner, name in named
        if name not in {"__dict__", "__weakref__"}
    ]


def _is_same(made: Iterable[Any], of: Iterable[Any]) -> bool:
    return all(one is other for one, other in zip(made, of, strict=True))
