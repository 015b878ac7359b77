"""Portable JSON: workflows whose values programs in other languages write and read."""

from __future__ import annotations

import json
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSPortableJSONSerializer,
    PortableWorkflowError,
    SetWorkflowID,
    WorkflowSerializationFormat,
)
from tests.compat.acts import again, status_of
from tests.compat.rows import INTERNAL_QUEUE, Rows
from tests.conftest import App
from tests.hand import Hand, Inside

PORTABLE = WorkflowSerializationFormat.PORTABLE


class Rich(Exception):
    def __init__(self, **facts: Any) -> None:
        super().__init__("too much")
        self.__dict__.update(facts)


def run_echo(hand: Hand, *args: Any, **kwargs: Any) -> Any:
    """A portable workflow that returns its arguments, run under the id "w"."""

    @hand.workflow(serialization_type=PORTABLE)
    async def echo(do: Inside, *args: Any, **kwargs: Any) -> Any:
        return [*args, kwargs] if kwargs else args[0]

    with SetWorkflowID("w"):
        return hand.call(echo, *args, **kwargs)


def test_arguments_are_positional_and_named(app: App, hand: Hand, rows: Rows) -> None:
    """As compact JSON."""
    app.launch()
    run_echo(hand, 1, "é", b={"k": [1]})

    row = rows.workflow("w")
    assert "portable_json" == row.serialization
    assert {"positionalArgs": [1, "é"], "namedArgs": {"b": {"k": [1]}}} == json.loads(row.inputs)
    assert " " not in row.inputs
    assert "é" in row.inputs
    assert '[1,"é",{"b":{"k":[1]}}]' == row.output
    assert {"args": (1, "é"), "kwargs": {"b": {"k": [1]}}} == DBOS.get_workflow_status("w").input


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, "null"),
        (True, "true"),
        (12345678901234567890, "12345678901234567890"),
        (1.5, "1.5"),
        ('quote " and \\ and ü', '"quote \\" and \\\\ and ü"'),
        (datetime(2026, 1, 2, 3, 4, 5, 678901), '"2026-01-02T03:04:05.678Z"'),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), '"2026-01-02T03:04:05.000Z"'),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))), '"2026-01-02T01:04:05.000Z"'),
        (date(2026, 1, 2), '"2026-01-02"'),
        (Decimal("1.50"), '"1.50"'),
        (Decimal("1E+3"), '"1000"'),
        ((1, 2), "[1,2]"),
        ({7}, "[7]"),
        (OrderedDict(b=1, a=(2,)), '{"b":1,"a":[2]}'),
        ([{"deep": [date(2026, 1, 2)]}], '[{"deep":["2026-01-02"]}]'),
    ],
    ids=str,
)
def test_a_value_is_written_as_every_language_reads_it(
    app: App, hand: Hand, rows: Rows, value: Any, stored: str
) -> None:
    """And comes back as plain JSON."""
    app.launch()
    run_echo(hand, value)

    assert stored == rows.workflow("w").output
    assert json.loads(stored) == hand.do("get_result", "w") == DBOS.get_workflow_status("w").output


@pytest.mark.parametrize(
    "value", [object(), {1: "one"}, b"bytes", 1j, [object()]], ids=["object", "key", "bytes", "complex", "deep"]
)
def test_a_value_that_no_other_language_knows_is_refused(app: App, hand: Hand, value: Any) -> None:
    """As an argument, before a row is written."""
    app.launch()

    with pytest.raises(TypeError):
        run_echo(hand, value)
    assert [] == DBOS.list_workflows()


def test_a_refused_value_is_described(app: App, hand: Hand) -> None:
    app.launch()

    with pytest.raises(TypeError, match="is not portable JSON serializable"):
        run_echo(hand, object())


def test_an_output_that_no_other_language_knows_is_the_workflows_error(app: App, hand: Hand) -> None:
    @hand.workflow(serialization_type=PORTABLE)
    async def give(do: Inside) -> object:
        return object()

    app.launch()
    with SetWorkflowID("w"), pytest.raises(TypeError):
        hand.call(give)

    assert "ERROR" == status_of("w")
    with pytest.raises(PortableWorkflowError, match="is not portable JSON serializable") as caught:
        again_after_launch(app, hand)
    assert "not portable" in caught.value.message


def again_after_launch(app: App, hand: Hand) -> Any:
    """The result of "w" as a process reads it that did not run it."""
    app.relaunch()
    return hand.do("get_result", "w")


@pytest.mark.parametrize(
    ("error", "stored"),
    [
        (ValueError("plain"), {"name": "ValueError", "message": "plain", "code": None}),
        (Rich(code=7), {"name": "Rich", "message": "too much", "code": 7}),
        (Rich(error_code="E7"), {"name": "Rich", "message": "too much", "code": "E7"}),
        (Rich(errno=8), {"name": "Rich", "message": "too much", "code": 8}),
        (Rich(status=9), {"name": "Rich", "message": "too much", "code": 9}),
        (Rich(status_code=404), {"name": "Rich", "message": "too much", "code": 404}),
        (Rich(code=1, status=2), {"name": "Rich", "message": "too much", "code": 1}),
        (Rich(code=[1], status=2), {"name": "Rich", "message": "too much", "code": 2}),
        (Rich(data={"k": 1}), {"name": "Rich", "message": "too much", "code": None, "data": {"k": 1}}),
        (Rich(details=[1]), {"name": "Rich", "message": "too much", "code": None, "data": [1]}),
        (Rich(payload="p"), {"name": "Rich", "message": "too much", "code": None, "data": "p"}),
        (Rich(extra=1), {"name": "Rich", "message": "too much", "code": None, "data": 1}),
        (Rich(meta=1), {"name": "Rich", "message": "too much", "code": None, "data": 1}),
        (Rich(metadata=1), {"name": "Rich", "message": "too much", "code": None, "data": 1}),
        (
            PortableWorkflowError("bad thing", "Custom", 42, {"k": "v"}),
            {"name": "PortableWorkflowError", "message": "bad thing", "code": 42, "data": {"k": "v"}},
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else None,
)
def test_an_error_is_name_message_code_and_data(
    app: App, hand: Hand, rows: Rows, error: Exception, stored: dict
) -> None:
    @hand.workflow(serialization_type=PORTABLE)
    async def fail(do: Inside) -> None:
        raise error

    app.launch()
    with SetWorkflowID("w"), pytest.raises(type(error)):
        hand.call(fail)

    assert stored == json.loads(rows.workflow("w").error)
    with pytest.raises(PortableWorkflowError) as caught:
        again_after_launch(app, hand)
    read = caught.value
    assert [stored["name"], stored["message"], stored["code"], stored.get("data")] == [
        read.name,
        read.message,
        read.code,
        read.data,
    ]
    assert stored["message"] == str(read)


def test_an_error_written_by_another_program_is_raised(app: App, hand: Hand, rows: Rows) -> None:
    error = '{"name":"RangeError","message":"out of it","code":"E1","data":{"k":1}}'
    rows.add("w", "work", status="ERROR", error=error)
    app.launch()

    with pytest.raises(PortableWorkflowError) as caught:
        hand.do("get_result", "w")
    read = caught.value
    assert ("RangeError", "out of it", "E1", {"k": 1}) == (read.name, read.message, read.code, read.data)
    assert "RangeError" == DBOS.get_workflow_status("w").error.name


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ('{"positionalArgs":[1,2],"namedArgs":{"z":3}}', [1, 2, 3]),
        ('{"positionalArgs":[1,2]}', [1, 2, None]),
        ('{"namedArgs":{"x":1,"y":2}}', [1, 2, None]),
        ('{"positionalArgs":[1,2],"namedArgs":null}', [1, 2, None]),
        ('{ "namedArgs" : {"x":1, "y":2, "z":[]} , "positionalArgs" : null }', [1, 2, []]),
    ],
)
def test_arguments_written_by_another_program_are_taken(
    app: App, hand: Hand, rows: Rows, inputs: str, expected: list
) -> None:
    """Each of the two kinds may be left out."""

    @hand.workflow()
    async def work(do: Inside, x: int, y: int, z: Any = None) -> list:
        return [x, y, z]

    rows.add("w", "work", queue_name=INTERNAL_QUEUE, inputs=inputs)
    app.launch()

    assert expected == hand.do("get_result", "w")
    assert (json.dumps(expected, separators=(",", ":")), "portable_json") == (
        rows.workflow("w").output,
        rows.workflow("w").serialization,
    )


@pytest.mark.parametrize("inputs", ["{", "[1,2]", '"text"', '{"positionalArgs":5}'])
def test_arguments_that_are_none_end_the_workflow(app: App, hand: Hand, rows: Rows, inputs: str) -> None:
    """In an ERROR, not in an endless loop."""

    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    rows.add("w", "work", queue_name=INTERNAL_QUEUE, inputs=inputs)
    app.launch()

    with pytest.raises(Exception, match=r"."):
        hand.do("get_result", "w")
    assert ("ERROR", 1) == (status_of("w"), rows.workflow("w").recovery_attempts)


def test_steps_of_a_portable_workflow_are_in_the_format_of_the_configuration(app: App, hand: Hand, rows: Rows) -> None:
    """They belong to this program alone."""

    @hand.step()
    def step() -> set:
        return {1}

    @hand.workflow(serialization_type=PORTABLE)
    async def work(do: Inside) -> list:
        return list(await do(step()))

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)

    assert "py_pickle" == rows.steps("w")[0].serialization
    assert [1] == again(rows, "w").get_result()


def test_a_child_inherits_no_format(app: App, hand: Hand, rows: Rows) -> None:
    """In either direction; the parent reads what the child wrote."""

    @hand.workflow()
    async def native(do: Inside) -> tuple:
        return (1,)

    @hand.workflow(serialization_type=PORTABLE)
    async def portable(do: Inside) -> list:
        return list(await do(native()))

    @hand.workflow()
    async def root(do: Inside) -> list:
        return await do((await do.start(portable)).get_result())

    app.launch()
    with SetWorkflowID("r"):
        assert [1] == hand.call(root)

    assert ["py_pickle", "portable_json", "py_pickle"] == [
        rows.workflow(w).serialization for w in ("r", "r-1", "r-1-1")
    ]
    assert [1] == again(rows, "r").get_result() == again(rows, "r-1").get_result()


def test_portable_json_can_be_the_serializer_of_the_application(app: App, hand: Hand, rows: Rows) -> None:
    @hand.step()
    def step() -> tuple:
        return (1, 2)

    @hand.workflow()
    async def work(do: Inside, x: int) -> tuple:
        return await do(step())

    app.launch(serializer=DBOSPortableJSONSerializer())
    with SetWorkflowID("w"):
        hand.call(work, 1)

    row = rows.workflow("w")
    assert {"positionalArgs": [1], "namedArgs": {}} == json.loads(row.inputs)
    assert ("portable_json", "portable_json") == (row.serialization, rows.steps("w")[0].serialization)
    assert [1, 2] == again(rows, "w").get_result()
