"""What commands write: tables and cards for people, one JSON document for programs.

Everything that comes from a database passes `printable`: a name must not be able to command the terminal.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

GAP = "  "
CUT = "…"
NARROWEST = 8


class Column(NamedTuple):
    """A column of a table; one that is kept whole is never cut, because it is meant to be copied."""

    title: str
    key: str
    whole: bool = False


def document(value: Any) -> None:
    """Write one JSON document, in one line."""
    sys.stdout.write(json.dumps(jsonable(value), allow_nan=False) + "\n")


def line(text: str) -> None:
    """Write one line for a person."""
    sys.stdout.write(f"{printable(text)}\n")


def table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], *, empty: str) -> None:
    """Write rows under each other; `empty` is said where there are none."""
    if not rows:
        line(empty)
        return
    for text in lines_of(columns, rows, terminal_width()):
        sys.stdout.write(f"{text}\n")


def card(fields: Mapping[str, Any]) -> None:
    """Write the fields of one thing under each other; those without a value are left out."""
    known = {title: value for title, value in fields.items() if value is not None and value != ""}
    width = max(map(len, known), default=0)
    for title, value in known.items():
        sys.stdout.write(f"{title:<{width}}{GAP}{printable(cell(value))}\n")


def lines_of(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], width: int | None) -> list[str]:
    """A table as lines, at most `width` wide unless what is kept whole needs more."""
    texts = [[column.title for column in columns]]
    texts += [[printable(cell(row.get(column.key))) for column in columns] for row in rows]
    widths = [max(map(width_of, column)) for column in zip(*texts, strict=True)]
    if width is not None:
        widths = _narrowed(columns, widths, width)
    lines = (GAP.join(fitted(text, size) for text, size in zip(row, widths, strict=True)) for row in texts)
    return [text.rstrip() for text in lines]


def _narrowed(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """Take from the widest of those that may be cut until the table fits."""
    widths = list(widths)
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    while excess > 0:
        cuttable = [place for place, column in enumerate(columns) if not column.whole and widths[place] > NARROWEST]
        if not cuttable:
            break
        widest = max(cuttable, key=lambda place: widths[place])
        widths[widest] -= 1
        excess -= 1
    return widths


def terminal_width() -> int | None:
    """How wide a line may be; None where no person reads along."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return None


# -- texts -----------------------------------------------------------------------------------------------------


def cell(value: Any) -> str:
    """A value as it stands in a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) else json.dumps(jsonable(value), ensure_ascii=False)


def printable(text: str) -> str:
    """The text in one line, with nothing in it that a terminal obeys."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\r\n\t":
        return " "
    # Control characters, and marks that turn the direction of writing or name no character at all.
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character


def width_of(text: str) -> int:
    """How many places a text takes on a terminal."""
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitted(text: str, width: int) -> str:
    """The text in exactly that width: padded, or cut."""
    found = width_of(text)
    if found > width:
        kept = 0
        for place, character in enumerate(text):
            kept += _width(character)
            if kept > width - 1:
                text = text[:place] + CUT
                break
        found = width_of(text)
    return text + " " * (width - found)


def moment(epoch_ms: int | None) -> str:
    """A moment in local time, as the options that take one read it."""
    if epoch_ms is None:
        return ""
    return datetime.fromtimestamp(epoch_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(start_ms: int | None, end_ms: int | None) -> str:
    """How long something took."""
    if start_ms is None or end_ms is None:
        return ""
    seconds = (end_ms - start_ms) / 1000
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def jsonable(value: Any) -> Any:
    """The value in what JSON knows; anything else as its text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int) and type(value) is int:
        return value
    if type(value) is float and value - value == 0:
        return value
    if isinstance(value, Mapping):
        return {str(key): jsonable(each) for key, each in value.items()}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, Iterable) and isinstance(value, list | tuple | set | frozenset):
        return [jsonable(each) for each in value]
    return str(value)
