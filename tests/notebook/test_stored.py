"""Stored values as texts: nothing of theirs is run, whatever they are."""

from __future__ import annotations

import base64
import collections
import json
import os
import pickle
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from dbos_notebook.stored import LONGEST_PREVIEW, is_closing_mark, preview, preview_error, preview_input


def pickled(value: Any) -> str:
    return base64.b64encode(pickle.dumps(value, 4)).decode()


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil",)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "None"),
        ({"a": [1, 2.5, (True, "x")]}, "{'a': [1, 2.5, (True, 'x')]}"),
        ({1}, "{1}"),
        (Point(3), "Point(x=3)"),
        (Decimal("1.5"), "Decimal('1.5')"),
        (timedelta(seconds=3), "timedelta(0, 3, 0)"),
        (collections.OrderedDict(a=1), "OrderedDict(a=1)"),
        (ValueError, "<class 'ValueError'>"),
    ],
)
def test_a_pickle_is_told_in_words(value: Any, expected: str) -> None:
    assert expected == preview(pickled(value), "py_pickle")


def test_what_a_pickle_calls_is_not_called(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert "system('touch evil')" == preview(pickled(Evil()), "py_pickle")
    assert "Evil" not in (preview_error(pickled(Evil()), None) or "")
    assert preview_input(pickled({"args": (Evil(),), "kwargs": {}}), None) == "system('touch evil')"
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "no base64 at all",
        pickled(1)[:-8],
        base64.b64encode(b"\x80\x04N" + b"r\xff\xff\xff\x7f" + b".").decode(),  # an index that would fill the memory
        base64.b64encode(b"\x80\x04\x8b\xff\xff\xff\x7f.").decode(),
        base64.b64encode(b"(" * 5000 + b".").decode(),
        base64.b64encode(b"\x80\x04" + b"]\x94" * 3000 + b"a" * 2999 + b".").decode(),  # a list 3,000 deep
    ],
    ids=range(7),
)
def test_what_cannot_be_read_is_said_to_be_so(stored: str) -> None:
    told = preview(stored, "py_pickle")

    assert told is not None
    assert len(told) <= LONGEST_PREVIEW


def test_a_cycle_is_told() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    point: Any = Point(1)
    point.x = point

    assert preview(pickled(cycle), None).startswith("[1, [1, ")  # type: ignore[union-attr]
    assert preview(pickled(point), None) is not None


def test_long_values_are_cut() -> None:
    for text, form in ((pickled("x" * 5000), None), (json.dumps("x" * 5000), "portable_json")):
        assert len(preview(text, form) or "") <= LONGEST_PREVIEW


def test_other_formats_are_named() -> None:
    assert "<4 characters of mine>" == preview("xxxx", "mine")
    assert '{"a":1}' == preview('{"a":1}', "portable_json")
    assert preview(None, "mine") is None


def test_arguments_are_told_as_they_are_written() -> None:
    expected = "1, 'x', key=[2]"

    assert expected == preview_input(pickled({"args": (1, "x"), "kwargs": {"key": [2]}}), None)
    assert expected == preview_input('{"positionalArgs":[1,"x"],"namedArgs":{"key":[2]}}', "portable_json")
    assert "3" == preview_input(pickled(3), None)


def test_errors_are_told_by_type_and_message() -> None:
    assert "ValueError: x must be > 0" == preview_error(pickled(ValueError("x must be > 0")), None)
    assert "KeyError" == preview_error(pickled(KeyError()), None)
    assert "Timeout: late" == preview_error('{"name":"Timeout","message":"late"}', "portable_json")


def test_the_end_of_a_stream_is_known() -> None:
    mark = "__DBOS_STREAM_CLOSED__"

    assert is_closing_mark(pickled(mark), "py_pickle")
    assert is_closing_mark(f'"{mark}"', "portable_json")
    assert is_closing_mark(mark, None)
    assert not is_closing_mark(pickled("other"), None)
    assert not is_closing_mark(None, None)
