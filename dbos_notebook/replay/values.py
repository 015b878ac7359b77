"""In what two values differ, in a few words. It never raises: what cannot be compared says so."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd

from dbos_notebook.views.values import preview

MOST_NAMED = 4
SHOWN = 60


def told_difference(one: Any, other: Any) -> str:
    """What to say of two values that may differ; nothing where they are equal."""
    try:
        return _told(one, other)
    except Exception as error:  # noqa: BLE001 - it compares what users made, whatever that does
        return f"cannot be compared, {type(error).__name__}"


def _told(one: Any, other: Any) -> str:
    if type(one) is not type(other):
        return f"{type(one).__name__} → {type(other).__name__}: {_beside(one, other)}"
    match one:
        case pd.DataFrame():
            return _of_frames(one, other)
        case pd.Series():
            return _of_frames(one.to_frame("values"), other.to_frame("values"))
        case np.ndarray():
            return _of_arrays(one, other)
        case Mapping():
            return _of_mappings(one, other)
        case list() | tuple():
            return _of_lists(one, other)
        case str() | bytes():
            return _of_texts(one, other)
    return "" if bool(one == other) else _beside(one, other)


def _beside(one: Any, other: Any) -> str:
    return f"{preview(one, SHOWN)} → {preview(other, SHOWN)}"


def _of_frames(one: pd.DataFrame, other: pd.DataFrame) -> str:
    told = [f"{len(one):,} → {len(other):,} rows"] if len(one) != len(other) else []
    columns, others = list(map(str, one.columns)), list(map(str, other.columns))
    told += _names("without columns", [each for each in columns if each not in others])
    told += _names("with columns", [each for each in others if each not in columns])
    if len(one) != len(other):
        return ", ".join(told)
    for name in one.columns:
        if name in other.columns:
            differs = _number_of_differences(one[name].to_numpy(), other[name].to_numpy())
            told += [f"column {name}: {differs:,} values"] if differs else []
    return ", ".join(told[: 2 * MOST_NAMED])


def _of_arrays(one: Any, other: Any) -> str:
    if one.shape != other.shape:
        return f"shape {one.shape} → {other.shape}"
    differs = _number_of_differences(one.ravel(), other.ravel())
    return f"{differs:,} of {one.size:,} values" if differs else ""


def _number_of_differences(one: Any, other: Any) -> int:
    # NaN differs from itself, but not for whoever compares two runs.
    return int((~((one == other) | (pd.isna(one) & pd.isna(other)))).sum())


def _of_mappings(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> str:
    told = _names("without", [str(each) for each in one if each not in other])
    told += _names("with", [str(each) for each in other if each not in one])
    inner = [(key, _told(one[key], other[key])) for key in one if key in other]
    changed = [f"{preview(key, SHOWN)}: {what}" for key, what in inner if what]
    return ", ".join([*told, *changed[:MOST_NAMED], *_rest(len(changed))])


def _of_lists(one: Any, other: Any) -> str:
    told = [f"{len(one):,} → {len(other):,} values"] if len(one) != len(other) else []
    inner = [(place, _told(a, b)) for place, (a, b) in enumerate(zip(one, other, strict=False))]
    changed = [f"[{place}]: {what}" for place, what in inner if what]
    return ", ".join([*told, *changed[:MOST_NAMED], *_rest(len(changed))])


def _of_texts(one: Any, other: Any) -> str:
    if one == other:
        return ""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    start = max(same - 10, 0)
    where = f"from character {same + 1:,}: " if same else ""
    return f"{where}{_beside(one[start : start + SHOWN], other[start : start + SHOWN])}"


def _names(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"{what} {', '.join(names[:MOST_NAMED])}" + (" ..." if len(names) > MOST_NAMED else "")]


def _rest(number: int) -> list[str]:
    return [f"... {number - MOST_NAMED} more"] if number > MOST_NAMED else []
