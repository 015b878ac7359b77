"""Previews of any value: quick, bounded, and never an error."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dbos_notebook.views.values import LIMIT, call_preview, preview


@dataclasses.dataclass
class Point:
    x: int
    y: Any


class Plain:
    def __init__(self) -> None:
        self.v, self.me = 5, self


class Raising:
    def __repr__(self) -> str:
        raise ValueError("no")


class Raises:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Text(str):
    __slots__ = ()


class Rows(list):
    pass


Named = collections.namedtuple("Named", "a b")
LOOP: list[Any] = [1]
LOOP.append(LOOP)
RING: dict[str, Any] = {}
RING["ring"] = RING
BIG = "x" * 10_000_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "None"),
        (1.5, "1.5"),
        (float("nan"), "nan"),
        ("it's", '"it\'s"'),
        (10**5000, "<int of 16,610 bits>"),
        ([1, "a", None], "[1, 'a', None]"),
        ((1,), "(1,)"),
        ((), "()"),
        (set(), "set()"),
        ({"a": [1, 2]}, "{'a': [1, 2]}"),
        (list(range(1000)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... 988 more]"),
        (collections.OrderedDict(a=1), "OrderedDict({'a': 1})"),
        (collections.Counter("aab"), "Counter({'a': 2, 'b': 1})"),
        (collections.deque([1, 2]), "deque([1, 2])"),
        (Named(1, 2), "Named(a=1, b=2)"),
        (Point(1, Point(2, 3)), "Point(x=1, y=Point(x=2, y=3))"),
        (LOOP, "[1, <itself>]"),
        (RING, "{'ring': <itself>}"),
        (Plain(), "Plain(v=5, me=<itself>)"),
        (object(), "<object>"),
        (Raising(), "<Raising: its repr raised ValueError>"),
        ([Raising()], "[<Raising: its repr raised ValueError>]"),
        (Point, "<type Point>"),
        (len, "<builtin_function_or_method len>"),
        (ValueError("bad", 1), "ValueError('bad', 1)"),
        (b"abc", "b'abc'"),
        (b"x" * 5_000_000, f"{b'x' * 40!r}... (5,000,000 bytes)"),
        (range(10), "range(0, 10)"),
        (dt.date(2026, 3, 1), "datetime.date(2026, 3, 1)"),
        (pd.DataFrame({"a": [1, 2], "b": [3, 4]}), "DataFrame 2 x 2: a, b"),
        (pd.DataFrame(np.zeros((3, 50))), "DataFrame 3 x 50: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... 38 more"),
        (pd.Series([1, 2], name="s"), "Series 2 int64 's'"),
        (np.zeros((3, 4)), "ndarray 3 x 4 float64"),
        (np.arange(3), "ndarray 3 int64 [0, 1, 2]"),
        (pd.Timestamp("2026-03-01"), "Timestamp('2026-03-01 00:00:00')"),
        (pd.NaT, "NaT"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_in_a_few_words(value: Any, expected: str) -> None:
    assert expected == preview(value)


@pytest.mark.parametrize(
    "value",
    [
        BIG,
        [BIG] * 100,
        {BIG: BIG},
        Text(BIG),
        Rows([1] * 1_000_000),
        [[[[[[[[1]]]]]]]],
        {number: BIG for number in range(100)},
        collections.OrderedDict.fromkeys(range(1_000_000)),
        Point(BIG, [BIG]),
        ValueError(BIG),
        BIG.encode(),
        Raises(),
        pd.DataFrame({BIG[:100_000]: [1]}),
        np.zeros(1_000_000),
        1 << 10_000_000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_preview_is_bounded_in_length_and_time(value: Any) -> None:
    preview("warm")
    began = time.process_time()

    shown = preview(value)

    assert len(shown) <= LIMIT + 3
    assert time.process_time() - began < 0.1  # to write the longest of them down takes seconds


def test_a_dict_that_changes_meanwhile_is_no_error() -> None:
    class Growing(dict):
        def items(self) -> Any:
            for each in super().items():
                self[len(self)] = 1
                yield each

    assert preview(Growing(a=1, b=2)).startswith(("Growing", "<Growing"))


def test_a_call_as_it_would_be_written() -> None:
    assert "1, 'a', depth=6" == call_preview((1, "a"), {"depth": 6})
    assert len(call_preview([BIG] * 50, {})) <= LIMIT + 3
