"""Stored values as short texts, where no preview was kept: read without running anything of theirs.

JSON is readable as it is. A pickle is a program that may call whatever it names, so it is read by an unpickler that
imports nothing: whatever it names becomes a stand-in that only remembers what it was given. Where somebody asks for the
value itself, only what is not here becomes one (`decoded`).
"""

from __future__ import annotations

import datetime as dt
import functools
import io
import json
import pickle
import pickletools
import reprlib
import sys
from binascii import a2b_base64
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Self

from dbos_notebook.masking import NOTHING, Mask
from dbos_notebook.veiling import HIDDEN

# Longer texts are not even fetched to be shown.
LONGEST_STORED = 8_000
# A preview has at most so many characters.
LONGEST_PREVIEW = 200
PICKLE, PORTABLE = "py_pickle", "portable_json"
STREAM_CLOSED = "__DBOS_STREAM_CLOSED__"


class _Shortened(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = LONGEST_PREVIEW

    def repr1(self, x: Any, level: int) -> str:
        # By its parts, each as short as it may be here: a small pickle can hold a text of any length. What stands in for
        # a deque is none, whatever its name says.
        if isinstance(x, StandIn):
            return "..." if level <= 0 else x.told(lambda part: self.repr1(part, level - 1))
        return super().repr1(x, level)


_shortened = _Shortened()


def shortened(value: Any) -> str:
    """The value in a few words, as Python writes it."""
    return cut(_shortened.repr(value))


def cut(text: str) -> str:
    """At most so much of a text, with dots where the rest was."""
    return text if len(text) <= LONGEST_PREVIEW else f"{text[: LONGEST_PREVIEW - 1]}…"


def preview(text: str | None, serialization: str | None, mask: Mask = NOTHING) -> str | None:
    """A stored value in a few words; None where nothing is stored."""
    if text is None:
        return None
    if serialization == PORTABLE:
        return cut(mask.text(text)) if _is_json(text) else f"<{len(text)} characters that are no JSON>"
    if serialization not in (None, PICKLE):
        return f"<{len(text)} characters of {serialization}>"
    try:
        return shortened(mask.value(inert(text)))
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is shown as what it is
        return f"<{len(text)} characters that cannot be read>"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def preview_input(
    text: str | None, serialization: str | None, mask: Mask = NOTHING, names: Sequence[str] | None = None
) -> str | None:
    """The arguments of a call in a few words; `names` are those of its parameters, where a mask wants to know them."""
    if text is None:
        return None
    portable = serialization == PORTABLE
    try:
        value = json.loads(text) if portable else inert(text)
        args, kwargs = (value[key] for key in (("positionalArgs", "namedArgs") if portable else ("args", "kwargs")))
        given = [shortened(each) for each in mask.arguments(args or (), names)]
        named = mask.fields(kwargs or {})
        return cut(", ".join([*given, *(f"{name}={shortened(each)}" for name, each in named.items())]))
    except Exception:  # noqa: BLE001 - as above
        return preview(text, serialization, mask)


def preview_error(text: str | None, serialization: str | None, mask: Mask = NOTHING) -> str | None:
    """A stored error as `Type: message`."""
    if text is None:
        return None
    try:
        value = json.loads(text) if serialization == PORTABLE else inert(text)
        if isinstance(value, dict):
            return cut(mask.text(f"{value.get('name') or 'Error'}: {value.get('message')}"))
        args = value.given[0]
        # One is the message; several are what its class takes by place, under names that nobody knows.
        args = mask.arguments(args, None) if len(args) > 1 and not _is_known(value) else mask.value(args)
        one = args[0] if len(args) == 1 else args
        told = one if isinstance(one, str) else shortened(one)
        return cut(f"{type(value).__name__}: {told}" if args else type(value).__name__)
    except Exception:  # noqa: BLE001 - as above
        return preview(text, serialization, mask)


def is_closing_mark(text: str | None, serialization: str | None) -> bool:
    """Whether this stream value says that the stream is closed."""
    return text is not None and STREAM_CLOSED in (text.strip('"'), _plain(text, serialization))


def _plain(text: str, serialization: str | None) -> Any:
    if serialization not in (None, PICKLE) or len(text) > LONGEST_PREVIEW:
        return None
    try:
        return inert(text)
    except Exception:  # noqa: BLE001 - then it is no mark
        return None


# -- pickles ---------------------------------------------------------------------------------------------------


class StandIn:
    """What a pickle names, without being it. Its fields can be asked for like those of the value it stands for."""

    given: tuple[tuple[Any, ...], dict[str, Any]]
    #: What it stands for, as the pickle names it.
    named: tuple[str, str] = ("", "")

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        made.given = (args, kwargs)
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        """Everything was noted by `__new__`: a pickle may leave this out."""

    def __setstate__(self, state: Any) -> None:
        # An object with slots has two parts, of which either may be missing.
        parts = state if isinstance(state, tuple) else (state,)
        fields = {str(name): each for part in parts if isinstance(part, dict) for name, each in part.items()}
        self.given = (self.given[0], {**self.given[1], **fields})

    def append(self, value: Any) -> None:
        self.given = ((*self.given[0], value), self.given[1])

    add = append

    def __setitem__(self, key: Any, value: Any) -> None:
        self.given = (self.given[0], {**self.given[1], str(key): value})

    def __call__(self, *args: Any, **kwargs: Any) -> StandIn:
        """What it would come to: a pickle may call what another call has found."""
        made = StandIn.__new__(type(self), *self.given[0], *args, **kwargs)
        made.given = (made.given[0], {**self.given[1], **made.given[1]})
        return made

    def _masked_by_(self, mask: Mask, inner: Callable[[Any], Any]) -> StandIn:
        """It without what a mask hides. What it was given by place has no names, unless everybody knows its class."""
        args, fields = self.given
        made = type(self).__new__(type(self))
        made.given = (
            tuple(map(inner, args)) if _is_known(self) else mask.arguments(args, None),
            {name: HIDDEN if mask.hides(name) else inner(each) for name, each in fields.items()},
        )
        return made

    def __getattr__(self, name: str) -> Any:
        fields = object.__getattribute__(self, "given")[1]
        if name in fields:
            return fields[name]
        known = ", ".join(fields) or "none"
        raise AttributeError(f"{type(self).__name__} is not defined here, and has no field {name!r}; it has {known}")

    def __eq__(self, other: object) -> bool:
        try:
            return isinstance(other, StandIn) and (self.named, self.given) == (other.named, other.given)
        except RecursionError:
            return False

    def __hash__(self) -> int:
        return hash(self.named)

    def told(self, shown: Callable[[Any], str]) -> str:
        """It in words, its parts as they are shown."""
        args, fields = self.given
        told = ", ".join([*map(shown, args), *(f"{name}={shown(each)}" for name, each in fields.items())])
        name = type(self).__name__
        return f"{name}({told})" if _is_here(*self.named) else f"<{name}: class not defined here> {told}".rstrip()

    def __repr__(self) -> str:
        return _shortened.repr(self)


def _is_known(value: StandIn) -> bool:
    """Whether everybody has the class: what it takes by place is no secret's name."""
    return value.named[0].partition(".")[0] in {*sys.stdlib_module_names, "dbos"}


class Unreadable:
    """A stored value that cannot be read, and why."""

    def __init__(self, text: str, why: str) -> None:
        self.text, self.why = text, why

    def __repr__(self) -> str:
        return f"<{len(self.text)} characters that cannot be read: {cut(self.why)}>"


def decoded(
    text: str | None, serialization: str | None, decode: Callable[[str, str | None], Any], mask: Mask = NOTHING
) -> Any:
    """The value itself, which may run code; a stand-in where it cannot be made here. Never an error."""
    if text is None:
        return None
    try:
        return mask.value(decode(text, serialization))
    except Exception as error:  # noqa: BLE001 - the value of somebody else's program: whatever it raises
        why = f"{type(error).__name__}: {error}"
    if serialization in (None, PICKLE):
        try:
            return mask.value(inert(text))
        except Exception:  # noqa: BLE001 - as above
            return Unreadable(text, why)
    return Unreadable(text, why)


def unpickled(text: str) -> Any:
    """The value of a pickle, with stand-ins for what is not here. It runs what it names: only for those one trusts."""
    return _Lenient(io.BytesIO(a2b_base64(text))).load()


class _Lenient(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return super().find_class(module_name, global_name)
        except (ImportError, AttributeError):
            return _stand_in(module_name, global_name)


class _Zone(dt.tzinfo):
    """Stands in for a time zone: it has a name, and no rules."""

    def __init__(self, told: str) -> None:
        self._told = told

    def __repr__(self) -> str:
        return self._told

    def utcoffset(self, _: dt.datetime | None) -> None:
        return None

    dst = utcoffset

    def tzname(self, _: dt.datetime | None) -> str:
        return self._told


def _in_zone(kind: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a moment, also in a time zone that is not made."""
    return lambda *args: kind(*(_Zone(_zone_of(each)) if isinstance(each, StandIn) else each for each in args))


def _zone_of(stand_in: StandIn) -> str:
    words = [each for each in stand_in.given[0] if isinstance(each, str) and each != "_unpickle"]
    return f"{words[0] if words else type(stand_in).__name__}"


# They are made of what they are given and do nothing else, and their own words are better than their bytes.
HARMLESS: dict[tuple[str, str], Callable[..., Any]] = {
    ("datetime", "date"): dt.date,
    ("datetime", "datetime"): _in_zone(dt.datetime),
    ("datetime", "time"): _in_zone(dt.time),
    ("datetime", "timezone"): lambda *args: dt.timezone(*(_as_span(each) for each in args)),
}


def _as_span(value: Any) -> Any:
    return dt.timedelta(*value.given[0]) if isinstance(value, StandIn) else value


class _Inert(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return HARMLESS.get((module_name, global_name)) or _stand_in(module_name, global_name)

    def persistent_load(self, pid: Any, /) -> Any:
        return pid


@functools.lru_cache(maxsize=500)
def _stand_in(module: str, name: str) -> type[StandIn]:
    short = name.rpartition(".")[2][:80]
    return type(short, (StandIn,), {"__module__": module[:80], "named": (module, name)})


def _is_here(module: str, name: str) -> bool:
    """Whether this process has what is named so, as far as that can be told without importing anything."""
    loaded = sys.modules.get(module)
    if loaded is None:
        try:
            return find_spec(module.partition(".")[0]) is not None
        except (ImportError, ValueError):
            return False
    found: Any = loaded
    for part in name.split("."):
        held = getattr(found, "__dict__", {})
        if part not in held:
            return False
        found = held[part]
    return True


def inert(text: str) -> Any:
    """The value of a pickle, with stand-ins for whatever it names: nothing of it is run."""
    stored = a2b_base64(text)
    # The memo is an array: one word of a hostile pickle could make it larger than the machine.
    for code, argument, _ in pickletools.genops(stored):
        if code.name == "LONG_BINPUT" and isinstance(argument, int) and argument > len(stored):
            raise pickle.UnpicklingError("an index out of all proportion")
    return _Inert(io.BytesIO(stored)).load()
