"""`Mask`: named fields whose values nobody shall see, wherever they stand: in values and in texts made of values.

A field is a key of a mapping, an attribute of an object, a column of a frame, or in a text what stands behind `name=`,
`"name":` or `name:`. Its name is compared whole and without regard to case. Arguments that were recorded by their places
have the names that the function gave them as the run ran it, or else as it is here; where neither is known, every text
among them is hidden.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter
from itertools import chain, repeat
from typing import Any

from dbos_notebook.veiling import HIDDEN, Veil

WORD = re.compile(r"\w+")
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
        # By its type: a value may answer for itself, and raise, when it is asked what it is.
        if issubclass(type(name), bytes):
            name = bytes(name).decode("utf-8", "replace")  # type: ignore[call-overload]  # bytes it is
        return issubclass(type(name), str) and str.lower(name) in self.names  # type: ignore[arg-type]  # as above

    def names_in(self, text: str) -> bool:
        """Whether a text names such a field, whatever it says of it."""
        return any(word in self.names for word in WORD.findall(text.lower()))

    # -- texts -------------------------------------------------------------------------------------------------

    def text(self, text: str) -> str:
        """The text without the values of such fields, as far as it says which they are."""
        if not self.names:
            return text
        made, place = list[str](), 0
        while found := self._named.search(text, place):
            end = _end_of_value(text, found.end(), found.group(2))
            value = text[found.end() : end]
            is_hidden = not value or value.strip("'\"\\") == HIDDEN
            made += [text[place : found.end()], value if is_hidden else HIDDEN]
            place = end
        return "".join([*made, text[place:]])

    def texts(self, texts: Iterable[Any]) -> list[Any]:
        """All of these that are texts, masked; what is missing stays so."""
        return [self.text(each) if isinstance(each, str) else each for each in texts]

    # -- values ------------------------------------------------------------------------------------------------

    def value(self, value: Any) -> Any:
        """The value with such fields hidden: itself where it has none, else a copy."""
        return Veil(self).over(value) if self.names else value

    def arguments(self, args: Iterable[Any], names: Sequence[str] | None) -> tuple[Any, ...]:
        """The arguments of a call by their places, masked by the names that `places` tells (None: not known)."""
        if not self.names:
            return tuple(args)
        if names is None:
            return tuple(HIDDEN if issubclass(type(each), str) else self.value(each) for each in args)
        # More than there are names were gathered under the last.
        named = chain(names, repeat(names[-1] if names else ""))
        return tuple(HIDDEN if self.hides(name) else self.value(each) for name, each in zip(named, args, strict=False))

    def fields(self, held: Mapping[str, Any]) -> dict[str, Any]:
        """Named values, such as variables and arguments, masked."""
        return {name: HIDDEN if self.hides(name) else self.value(value) for name, value in held.items()}


NOTHING = Mask()


def places(fn: Callable[..., Any] | None) -> tuple[str, ...] | None:
    """The names under which a function takes what is given to it by place; None where they are not known."""
    try:
        taken = () if fn is None else inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return None
    by_place = {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL}
    return None if fn is None else tuple(each.name for each in taken if each.kind in by_place)


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
