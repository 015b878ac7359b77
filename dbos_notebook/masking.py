"""`Mask`: named fields whose values nobody shall see, wherever they stand: in values and in texts made of values.

A field is a key of a mapping, an attribute of an object, a column of a frame, or in a text what stands behind `name=`,
`"name":` or `name:`. Its name is compared whole and without regard to case. Arguments that were recorded by their places
have the names that the function gave them as the run ran it, or else as it is here; where neither is known, every text
among them is hidden.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter
from itertools import chain, repeat
from typing import Any

HIDDEN = "***"
# Values that are nested deeper are hidden whole.
DEEPEST = 40
# What may stand between a name and the word that is to be hidden, as in `Authorization: Bearer abc`.
SCHEMES = re.compile(r"(?:bearer|basic|token|digest)\s+", re.IGNORECASE)
QUOTED = re.compile(r"[a-zA-Z]{0,2}(\\*)([\"'])")
CALLED = re.compile(r"[\w.]*(?=[\[({<])")
BARE = {"=": re.compile(r"[^\s,;&)\]}>\"']*"), ":": re.compile(r"[^\n,;)\]}>\"']*")}
OPEN = {"(": ")", "[": "]", "{": "}", "<": ">"}


class Mask:
    """The names of the fields to hide; without any it changes nothing."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        listed = [each.strip().lower() for each in names]
        self.names = frozenset(each for each in listed if each)
        told = "|".join(re.escape(each) for each in sorted(self.names))
        self._named = re.compile(rf"(?<!\w)(\\*[\"']?)(?:{told})\1\s*([=:])(?!=)\s*", re.IGNORECASE)

    def __bool__(self) -> bool:
        return bool(self.names)

    def __repr__(self) -> str:
        return f"<Mask of {', '.join(sorted(self.names)) or 'nothing'}>"

    def hides(self, name: object) -> bool:
        """Whether a field of this name is hidden."""
        return isinstance(name, str) and name.lower() in self.names

    # -- texts -------------------------------------------------------------------------------------------------

    def text(self, text: str) -> str:
        """The text without the values of such fields, as far as it says which they are."""
        if not self.names:
            return text
        made, place = list[str](), 0
        while found := self._named.search(text, place):
            end = _end_of_value(text, found.end(), found.group(2))
            made += [text[place : found.end()], HIDDEN if end > found.end() else ""]
            place = end
        return "".join([*made, text[place:]])

    def texts(self, texts: Iterable[Any]) -> list[Any]:
        """All of these that are texts, masked; what is missing stays so."""
        return [self.text(each) if isinstance(each, str) else each for each in texts]

    # -- values ------------------------------------------------------------------------------------------------

    def value(self, value: Any) -> Any:
        """The value with such fields hidden: itself where it has none, else a copy."""
        return self._masked(value, DEEPEST, {}) if self.names else value

    def arguments(self, args: Iterable[Any], names: Sequence[str] | None) -> tuple[Any, ...]:
        """The arguments of a call by their places, masked by the names that `places` tells (None: not known)."""
        if not self.names:
            return tuple(args)
        if names is None:
            return tuple(HIDDEN if isinstance(each, str) else self.value(each) for each in args)
        # More than there are names were gathered under the last.
        named = chain(names, repeat(names[-1] if names else ""))
        return tuple(HIDDEN if self.hides(name) else self.value(each) for name, each in zip(named, args, strict=False))

    def fields(self, held: Mapping[str, Any]) -> dict[str, Any]:
        """Named values, such as variables and arguments, masked."""
        return {name: HIDDEN if self.hides(name) else self.value(value) for name, value in held.items()}

    def _masked(self, value: Any, depth: int, seen: dict[int, Any]) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | int | float | complex | bytes | type):
            return value
        if id(value) in seen:
            return seen[id(value)]
        if depth == 0:
            return HIDDEN
        seen[id(value)] = HIDDEN  # what holds itself is hidden there
        made = self._copied(value, lambda inner: self._masked(inner, depth - 1, seen))
        seen[id(value)] = made
        return made

    def _copied(self, value: Any, inner: Callable[[Any], Any]) -> Any:
        match value:
            case dict():
                made = {key: HIDDEN if self.hides(key) else inner(each) for key, each in value.items()}
                return value if _is_same(made.values(), value.values()) else made
            case list() | tuple() | set() | frozenset():
                return self._row(value, inner)
        if hasattr(value, "columns") and hasattr(value, "assign"):
            hidden = {name: HIDDEN for name in value.columns if self.hides(name)}
            return value.assign(**hidden) if hidden else value
        return self._object(value, inner)

    def _row(self, value: Any, inner: Callable[[Any], Any]) -> Any:
        names = getattr(value, "_fields", None) or ()
        made = [HIDDEN if self.hides(names[place]) else inner(each) for place, each in enumerate(value)] if names else [
            inner(each) for each in value
        ]  # fmt: skip
        if _is_same(made, value):
            return value
        if names:
            return type(value)._make(made)
        return next(kind(made) for kind in (list, tuple, set, frozenset) if isinstance(value, kind))

    def _object(self, value: Any, inner: Callable[[Any], Any]) -> Any:
        known = _attributes(value)
        made = {name: HIDDEN if self.hides(name) else inner(each) for name, each in known.items()}
        args = value.args if isinstance(value, BaseException) else ()
        told = tuple(inner(each) for each in args)
        if _is_same(made.values(), known.values()) and _is_same(told, args):
            return value
        try:
            copy = value.__new__(type(value), *told) if args else object.__new__(type(value))
            for name, each in made.items():
                object.__setattr__(copy, name, each)
        except Exception:  # noqa: BLE001 - a class may refuse to be made; better nothing is seen of it
            return HIDDEN
        return copy


NOTHING = Mask()


def places(fn: Callable[..., Any] | None) -> tuple[str, ...] | None:
    """The names under which a function takes what is given to it by place; None where they are not known."""
    try:
        taken = () if fn is None else inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return None
    by_place = {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL}
    return None if fn is None else tuple(each.name for each in taken if each.kind in by_place)


def _attributes(value: Any) -> dict[str, Any]:
    """What an object holds, without asking its code for anything."""
    held = getattr(value, "__dict__", None)
    if isinstance(held, dict):
        return dict(held)
    names = [each.name for each in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else _slots(value)
    found = {}
    for name in names:
        try:
            found[name] = object.__getattribute__(value, name)
        except AttributeError:
            continue
    return found


def _slots(value: Any) -> list[str]:
    listed = (vars(cls).get("__slots__", ()) for cls in type(value).__mro__)
    return [name for slots in listed for name in ([slots] if isinstance(slots, str) else slots)]


def _is_same(made: Iterable[Any], of: Iterable[Any]) -> bool:
    return all(one is other for one, other in zip(made, of, strict=True))


def _end_of_value(text: str, start: int, sign: str) -> int:
    """Where the value ends that begins there; at the end of the text where that was cut off within it."""
    if quote := QUOTED.match(text, start):
        return _end_of_quoted(text, quote.end(), quote.group(2), len(quote.group(1)))
    called = CALLED.match(text, start)
    if called is not None:
        return _end_of_bracket(text, called.end())
    scheme = SCHEMES.match(text, start)
    bare = BARE[sign].match(text, start if scheme is None else scheme.end())
    return start if bare is None else bare.end()


def _end_of_quoted(text: str, start: int, quote: str, slashes: int) -> int:
    place = text.find(quote, start)
    while place >= 0:
        before = text[start:place]
        count = len(before) - len(before.rstrip("\\"))
        # As many as the opening has; without any, the quote itself may be escaped.
        if count == slashes or (slashes == 0 and count % 2 == 0):
            return place + 1
        place = text.find(quote, place + 1)
    return len(text)


def _end_of_bracket(text: str, start: int) -> int:
    """The end of what is in brackets, whose quoted parts may hold brackets."""
    closing, place = list[str](), start
    while place < len(text):
        sign = text[place]
        if sign in OPEN:
            closing.append(OPEN[sign])
        elif sign in "\"'":
            place = _end_of_quoted(text, place + 1, sign, 0)
            continue
        elif closing and sign == closing[-1]:
            closing.pop()
        place += 1
        if not closing:
            return place
    return len(text)
