"""What is written: tables that fit, documents that programs read, and nothing that does harm."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from dbos.cli.failure import in_one_line, without_secrets
from dbos.cli.output import Column, duration, fitted, jsonable, lines_of, moment, printable, width_of
from dbos.error import DBOSSchemaError

COLUMNS = (Column("ID", "id", whole=True), Column("NAME", "name"), Column("QUEUE", "queue"))
ROWS = [{"id": "w-1", "name": "a" * 30, "queue": None}, {"id": "w-22", "name": "b", "queue": "q" * 12}]


def test_columns_are_aligned() -> None:
    assert [
        "ID    NAME" + " " * 28 + "QUEUE",
        "w-1   " + "a" * 30,
        "w-22  b" + " " * 31 + "q" * 12,
    ] == lines_of(COLUMNS, ROWS, None)


def test_a_table_is_cut_to_the_terminal() -> None:
    """The widest column first; what is to be copied stays whole."""
    lines = lines_of(COLUMNS, ROWS, 30)

    assert 30 == max(map(len, lines))
    assert ["w-1   aaaaaaaaaa…", "w-22  b            qqqqqqqqqq…"] == lines[1:]


def test_ids_stay_whole_on_the_smallest_terminal() -> None:
    assert all(row["id"] in line for row, line in zip(ROWS, lines_of(COLUMNS, ROWS, 3)[1:], strict=True))


def test_wide_characters_take_two_places() -> None:
    assert 4 == width_of("日本")
    assert "日…" == fitted("日本語", 3)
    assert "日… " == fitted("日本語", 4)


def test_a_name_cannot_command_the_terminal() -> None:
    """No escape sequence, no change of direction, no second line."""
    assert "\x1b" not in printable("\x1b]0;owned\x07\x1b[2J")
    assert "\u202e" not in printable("abc\u202ecba")
    assert "a b" == printable("a\nb")


@pytest.mark.parametrize(
    ("took_ms", "expected"),
    [(0, "0 s"), (1234, "1.23 s"), (42_400, "42 s"), (61_000, "1 min 1 s"), (7_260_000, "2 h 1 min")],
)
def test_durations_are_read_at_a_glance(took_ms: int, expected: str) -> None:
    assert expected == duration(1_000, 1_000 + took_ms)


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def put(name: str) -> None:
        patch.setenv("TZ", name)
        time.tzset()

    with monkeypatch.context() as patch:
        yield put
    time.tzset()


def test_moments_are_in_local_time(zone: Callable[[str], None]) -> None:
    zone("UTC")
    assert "1970-01-01 00:00:01" == moment(1_000)
    zone("Asia/Tokyo")
    assert "1970-01-01 09:00:01" == moment(1_999)


class Odd:
    def __str__(self) -> str:
        return "odd"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "nan"),
        (ValueError("no"), "ValueError: no"),
        ({1: (2, {3})}, {"1": [2, [3]]}),
        (datetime(2030, 1, 2, tzinfo=UTC), "2030-01-02T00:00:00+00:00"),
        (Odd(), "odd"),
        (b"x", "b'x'"),
        (2**70, 2**70),
    ],
)
def test_what_json_has_not_becomes_text(value: Any, expected: Any) -> None:
    assert expected == jsonable(value)
    assert json.dumps(jsonable(value), allow_nan=False)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:canary@host/db",
        "postgresql://me:can@ary-canary@host/db",
        "postgresql://host/db?user=me&password=canary&x=1",
        "host=h password='canary canary' dbname=x",
        "sslpassword=canary",
    ],
)
def test_passwords_are_masked(text: str) -> None:
    assert "canary" not in without_secrets(f"cannot connect to {text} now")


def test_an_error_is_one_line() -> None:
    """The driver's words without the statement, and ours without their number."""
    driver = OperationalError("SELECT 1", {}, Exception("connection failed:\n  refused"))

    assert "connection failed: refused" == in_one_line(driver)
    assert "no tables" == in_one_line(DBOSSchemaError("no tables"))
    assert "KeyError" == in_one_line(KeyError())
