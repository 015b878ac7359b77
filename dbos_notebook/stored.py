"""Stored values as short texts, where no preview was kept: read without running anything of theirs.

JSON is readable as it is. A pickle is a program that may call whatever it names, so it is read by an unpickler that
imports nothing: whatever it names becomes a stand-in that only remembers what it was given.
"""

from __future__ import annotations

import functools
import io
import json
import pickle
import pickletools
import reprlib
from binascii import a2b_base64
from typing import Any, Self

# Longer texts are not even fetched to be shown.
LONGEST_STORED = 8_000
# A preview has at most so many characters.
LONGEST_PREVIEW = 200
PICKLE, PORTABLE = "py_pickle", "portable_json"
STREAM_CLOSED = "__DBOS_STREAM_CLOSED__"


_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = LONGEST_PREVIEW


def shortened(value: Any) -> str:
    """The value in a few words, as Python writes it."""
    return cut(_shortened.repr(value))


def cut(text: str) -> str:
    """At most so much of a text, with dots where the rest was."""
    return text if len(text) <= LONGEST_PREVIEW else f"{text[: LONGEST_PREVIEW - 1]}…"


def preview(text: str | None, serialization: str | None) -> str | None:
    """A stored value in a few words; None where nothing is stored."""
    if text is None:
        return None
    if serialization == PORTABLE:
        return cut(text)
    if serialization not in (None, PICKLE):
        return f"<{len(text)} characters of {serialization}>"
    try:
        return shortened(_inert(text))
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is shown as what it is
        return f"<{len(text)} characters that cannot be read>"


def preview_input(text: str | None, serialization: str | None) -> str | None:
    """The arguments of a call in a few words."""
    if text is None:
        return None
    portable = serialization == PORTABLE
    try:
        value = json.loads(text) if portable else _inert(text)
        args, kwargs = (value[key] for key in (("positionalArgs", "namedArgs") if portable else ("args", "kwargs")))
        given = [shortened(each) for each in args or ()]
        return cut(", ".join([*given, *(f"{name}={shortened(each)}" for name, each in (kwargs or {}).items())]))
    except Exception:  # noqa: BLE001 - as above
        return preview(text, serialization)


def preview_error(text: str | None, serialization: str | None) -> str | None:
    """A stored error as `Type: message`."""
    if text is None:
        return None
    try:
        value = json.loads(text) if serialization == PORTABLE else _inert(text)
        if isinstance(value, dict):
            return cut(f"{value.get('name') or 'Error'}: {value.get('message')}")
        args = value.given[0]
        return cut(f"{type(value).__name__}: {args[0] if len(args) == 1 else args}" if args else type(value).__name__)
    except Exception:  # noqa: BLE001 - as above
        return preview(text, serialization)


def is_closing_mark(text: str | None, serialization: str | None) -> bool:
    """Whether this stream value says that the stream is closed."""
    return text is not None and STREAM_CLOSED in (text.strip('"'), _plain(text, serialization))


def _plain(text: str, serialization: str | None) -> Any:
    if serialization not in (None, PICKLE) or len(text) > LONGEST_PREVIEW:
        return None
    try:
        return _inert(text)
    except Exception:  # noqa: BLE001 - then it is no mark
        return None


# -- pickles ---------------------------------------------------------------------------------------------------


class StandIn:
    """What a pickle names, without being it."""

    given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        made.given = (args, kwargs)
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        """Everything was noted by `__new__`: a pickle may leave this out."""

    def __setstate__(self, state: Any) -> None:
        fields = state if isinstance(state, dict) else {}
        self.given = (self.given[0], {**self.given[1], **{str(name): each for name, each in fields.items()}})

    def append(self, value: Any) -> None:
        self.given = ((*self.given[0], value), self.given[1])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.given = (self.given[0], {**self.given[1], str(key): value})

    def __repr__(self) -> str:
        args, fields = self.given
        told = [*map(repr, args), *(f"{name}={each!r}" for name, each in fields.items())]
        return f"{type(self).__name__}({', '.join(told)})"


class _Inert(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return _stand_in(module_name, global_name.rpartition(".")[2])

    def persistent_load(self, pid: Any, /) -> Any:
        return pid


@functools.lru_cache(maxsize=500)
def _stand_in(module: str, name: str) -> type[StandIn]:
    return type(name[:80], (StandIn,), {"__module__": module[:80]})


def _inert(text: str) -> Any:
    stored = a2b_base64(text)
    # The memo is an array: one word of a hostile pickle could make it larger than the machine.
    for code, argument, _ in pickletools.genops(stored):
        if code.name == "LONG_BINPUT" and isinstance(argument, int) and argument > len(stored):
            raise pickle.UnpicklingError("an index out of all proportion")
    return _Inert(io.BytesIO(stored)).load()
