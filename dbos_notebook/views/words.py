"""How times, durations, ids and numbers are said in views.

Frames hold UTC; here, and only here, a time is turned to the reader's zone.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

SHORT_ID = 8
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Ids of people's own making say something; longer ones lose their middle.
LONGEST_ID, FIRST, LAST = 32, 20, 10
LEFT_OUT = "…"


def is_missing(value: Any) -> bool:
    """Whether a cell of a frame has no value: None, NaN, NaT or NA."""
    if value is None or type(value).__name__ == "NAType":
        return True
    return bool(value != value)  # noqa: PLR0124 - NaN and NaT are the values that differ from themselves


def text(value: Any) -> str:
    """A cell of a frame as text; nothing where it has no value."""
    return "" if is_missing(value) else str(value)


def number(value: Any) -> int:
    """A counter of a frame; 0 where it has no value."""
    return 0 if is_missing(value) else int(value)


def moment(value: Any) -> str:
    """A time in the zone of the reader, to the second."""
    if is_missing(value):
        return ""
    # The times of frames know zones by name only; Python's own know that of the reader.
    plain = value.to_pydatetime() if hasattr(value, "to_pydatetime") else value
    assert isinstance(plain, datetime)
    return plain.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def time_of_day(epoch: float) -> str:
    """The time of a moment in the zone of the reader."""
    return datetime.fromtimestamp(epoch).astimezone().strftime("%H:%M:%S")


def zone() -> str:
    """The name of the reader's zone."""
    return datetime.now().astimezone().tzname() or "local time"


def seconds_of(value: Any) -> float | None:
    """The seconds of a duration of a frame."""
    if is_missing(value):
        return None
    assert isinstance(value, timedelta)
    return value.total_seconds()


def duration(seconds: float | None) -> str:
    """A duration in its two largest units. A negative one comes of clocks that disagree."""
    if seconds is None:
        return ""
    if seconds < 0:
        return "clocks differ"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    named = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next(place for place, (amount, _) in enumerate(named) if amount)
    return " ".join(f"{amount} {unit}" for amount, unit in named[first : first + 2] if amount)


def short(workflow_id: str) -> str:
    """An id in short: enough to name it to a command, and never another one.

    The ids of children begin with that of their parent, so of these the end is told too.
    """
    if UUID.match(workflow_id):
        start, end = workflow_id[:SHORT_ID], workflow_id[36:]
        return f"{start}{LEFT_OUT}{end}" if end else start
    if len(workflow_id) <= LONGEST_ID:
        return workflow_id
    return f"{workflow_id[:FIRST]}{LEFT_OUT}{workflow_id[-LAST:]}"


def count(amount: int, noun: str) -> str:
    """`1 run`, `2,000 runs`."""
    return f"{amount:,} {noun}" + ("" if amount == 1 else "s")
