"""The values that cells give each other: how they are stored, and how it is told whether they are still the same.

A value is stored as Parquet if it is a frame that comes back from Parquet as it was, and pickled otherwise; whoever
decodes the record gets the value itself.
"""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import hashlib
import io
import pickle
import uuid
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import pandas as pd

from dbos_notebook.views.values import preview

MEGABYTE = 1_000_000
ATOMS = (type(None), bool, int, float, complex, str, bytes, decimal.Decimal, uuid.UUID, dt.date, dt.time,
         dt.timedelta)  # fmt: skip


class CannotBeKeptError(Exception):
    """A value that a cell gives cannot be stored; the message says which one, and what to do."""


class Kept:
    """A value in its stored form. Pickled, it is what gives the value back."""

    def __init__(self, kind: str, data: bytes, words: str) -> None:
        self.kind, self.data, self._words = kind, data, words

    def __reduce__(self) -> tuple[Callable[[str, bytes], Any], tuple[str, bytes]]:
        return restored, (self.kind, self.data)

    def __repr__(self) -> str:
        return self._words


def restored(kind: str, data: bytes) -> Any:
    """The value of a stored form."""
    if kind == "parquet":
        return pd.read_parquet(io.BytesIO(data))
    return pickle.loads(data)  # noqa: S301 - it stands in a pickle, which is as trusted as this


def kept(name: str, value: Any) -> Kept:
    """The stored form of a value. Raises CannotBeKeptError, which names it."""
    parquet = _as_parquet(value)
    if parquet is not None:
        return Kept("parquet", parquet, preview(value))
    try:
        data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        pickle.loads(data)  # noqa: S301 - our own, a moment old: what cannot be read is worth nothing
    except Exception as error:  # noqa: BLE001 - what it raises is up to the value
        raise CannotBeKeptError(
            f"`{name}` is a {type(value).__name__} and cannot be stored: {error}. Name it `_{name}` if no other cell "
            "needs it; or make it in a cell without %%step."
        ) from None
    return Kept("pickle", data, preview(value))


def kept_all(values: Mapping[str, Any], most_megabytes: float) -> dict[str, Kept]:
    """The stored forms of what a cell gives. Raises CannotBeKeptError where they are too large together."""
    made = {name: kept(name, value) for name, value in values.items()}
    size = sum(len(each.data) for each in made.values())
    if size > most_megabytes * MEGABYTE:
        largest = max(made, key=lambda name: len(made[name].data))
        raise CannotBeKeptError(
            f"what it gives takes {size / MEGABYTE:,.1f} MB to store, most of it `{largest}`; the limit is "
            f"{most_megabytes:g} MB. Write it to a file and give its path, or raise the limit: "
            f"%dbos config most_megabytes={int(size / MEGABYTE) + 1}"
        )
    return made


def _as_parquet(value: Any) -> bytes | None:
    """A frame as Parquet; None if that would not give back the same."""
    if (
        type(value) is not pd.DataFrame
        or not _has_parquet()
        or value.attrs
        or any(each.kind == "O" and each.name == "object" for each in value.dtypes)
    ):
        return None
    file = io.BytesIO()
    try:
        value.to_parquet(file)
        back = pd.read_parquet(file)
    except Exception:  # noqa: BLE001 - each kind of column that it does not know has an error of its own
        return None
    is_same = back.equals(value) and (back.dtypes == value.dtypes).all() and type(back.index) is type(value.index)
    return file.getvalue() if is_same and getattr(value.index, "freq", None) is None else None


@functools.cache
def _has_parquet() -> bool:
    return find_spec("pyarrow") is not None


# -- whether it is the same ------------------------------------------------------------------------------------


def fingerprint(value: Any) -> str | None:
    """What tells this value from others, the same in every process for plain values; None if nothing can tell."""
    sum_ = hashlib.sha256()
    try:
        _add(sum_.update, value, frozenset())
    except Exception:  # noqa: BLE001 - it cannot be pickled: a connection, a module, a lock
        return None
    return sum_.hexdigest()[:16]


def _add(add: Callable[[bytes], None], value: Any, inside: frozenset[int]) -> None:
    if id(value) in inside:
        raise ValueError("it holds itself")
    add(f"{type(value).__name__}:".encode())
    if isinstance(value, ATOMS) and type(value).__module__ in {"builtins", "datetime", "decimal", "uuid"}:
        add(repr(value).encode("utf-8", "surrogatepass"))
    elif type(value) in {list, tuple}:
        for each in value:
            _add(add, each, inside | {id(value)})
    elif type(value) is dict:
        for key, each in value.items():
            _add(add, key, inside | {id(value)})
            _add(add, each, inside | {id(value)})
    elif type(value) in {set, frozenset}:
        for each in sorted(fingerprint(each) or "" for each in value):
            add(each.encode())
    elif isinstance(value, (pd.DataFrame, pd.Series)):
        _add_frame(add, value)
    else:
        add(pickle.dumps(value, protocol=4))
    add(b";")


def _add_frame(add: Callable[[bytes], None], value: pd.DataFrame | pd.Series) -> None:
    try:
        rows = pd.util.hash_pandas_object(value).to_numpy().tobytes()
    except TypeError:  # it has lists or dicts for values
        rows = pickle.dumps(value, protocol=4)
    labels = value.columns.tolist() if isinstance(value, pd.DataFrame) else [value.name]
    kinds = value.dtypes.tolist() if isinstance(value, pd.DataFrame) else [value.dtype]
    add(repr((labels, kinds)).encode())
    add(rows)
