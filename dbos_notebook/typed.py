"""What people type, as values: moments, and values of any kind."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from dbos_notebook.source import span_of


def moment_of(text: str | datetime, now: datetime | None = None) -> datetime:
    """A moment: ISO 8601, `now`, `today`, `yesterday`, or how long ago, such as `24h`. Without a zone it is local."""
    if isinstance(text, datetime):
        return text.astimezone()
    here = (now or datetime.now().astimezone()).astimezone()
    midnight = here.replace(hour=0, minute=0, second=0, microsecond=0)
    named = {"now": here, "today": midnight, "yesterday": midnight - timedelta(days=1)}
    if text.strip().lower() in named:
        return named[text.strip().lower()]
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except ValueError:
        pass
    try:
        return here - span_of(text)
    except ValueError:
        raise ValueError(f"{text!r} is no moment; write one such as 2026-03-01T09:00, today, or 24h (ago)") from None


def value_of(text: str, variables: Mapping[str, Any]) -> Any:
    """The value that somebody typed: the name of a variable of the notebook, a Python literal, or JSON."""
    text = text.strip()
    if text in variables:
        return variables[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(f"{text!r} is no variable of this notebook, no Python literal and no JSON") from None
