"""Validation of arguments that come from the database, not from a call."""

from __future__ import annotations

import sys
from datetime import datetime

import pytest
from pydantic import BaseModel

from dbos import DBOS, DBOSConfiguredInstance, SetWorkflowID, make_pydantic_args_validator, pydantic_args_validator
from tests.compat.acts import again, status_of
from tests.compat.rows import INTERNAL_QUEUE, Rows
from tests.conftest import App
from tests.hand import Hand, Inside


class Point(BaseModel):
    x: int
    y: int = 0


def test_a_validator_sees_what_comes_from_the_database(app: App, hand: Hand, rows: Rows) -> None:
    """And replaces it; a direct call is not validated."""
    seen: list = []

    def validate(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        seen.append((args, kwargs))
        return tuple(10 * each for each in args), kwargs

    @hand.workflow(validate_args=validate)
    async def echo(do: Inside, x: int, *, y: int) -> list[int]:
        return [x, y]

    app.launch()
    with SetWorkflowID("w"):
        assert [1, 2] == hand.call(echo, 1, y=2)
    assert [] == seen

    assert [10, 2] == again(rows, "w").get_result()
    assert [((1,), {"y": 2})] == seen


def test_arguments_that_do_not_fit_are_the_workflows_error(app: App, hand: Hand, rows: Rows) -> None:
    ran: list[int] = []

    def validate(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        raise ValueError("do not fit")

    @hand.workflow(validate_args=validate)
    async def work(do: Inside) -> None:
        ran.append(1)

    rows.add("w", "work", queue_name=INTERNAL_QUEUE)
    app.launch()

    with pytest.raises(Exception, match="do not fit"):
        hand.do("get_result", "w")
    assert ("ERROR", []) == (status_of("w"), ran)


def test_pydantic_makes_of_json_what_the_annotations_say(app: App, rows: Rows) -> None:
    """A model, a date, a number."""

    @DBOS.workflow(name="work", validate_args=pydantic_args_validator)
    def work(point: Point, moment: datetime, *, number: int) -> list:
        return [type(point).__name__, point.x, moment.year, number]

    arguments = '{"positionalArgs":[{"x":3},"2026-01-02T03:04:05.000Z"],"namedArgs":{"number":"7"}}'
    rows.add("w", "work", queue_name=INTERNAL_QUEUE, inputs=arguments)
    app.launch()

    assert ["Point", 3, 2026, 7] == DBOS.get_result("w")


def test_pydantic_names_every_argument_that_does_not_fit(app: App, rows: Rows) -> None:
    @DBOS.workflow(name="work", validate_args=pydantic_args_validator)
    def work(a: int, b: int, c: int, *, d: int) -> None:
        return None

    arguments = '{"positionalArgs":["no",2],"namedArgs":{"d":"no"}}'
    rows.add("w", "work", queue_name=INTERNAL_QUEUE, inputs=arguments)
    app.launch()

    with pytest.raises(Exception, match="Argument validation failed for workflow:") as caught:
        DBOS.get_result("w")
    for part in ("Argument 'a' (position 0)", "Argument 'd'", "Missing required argument: 'c'"):
        assert part in str(caught.value)
    assert "'b'" not in str(caught.value)


@pytest.mark.parametrize("kind", ["instance", "class_"])
def test_pydantic_passes_over_what_a_method_is_called_on(app: App, rows: Rows, kind: str) -> None:
    @DBOS.dbos_class("Keeper")
    class Keeper(DBOSConfiguredInstance):
        @DBOS.workflow(name="instance", validate_args=pydantic_args_validator)
        def instance(self, point: Point) -> int:
            return point.x

        @classmethod
        @DBOS.workflow(name="class_", validate_args=pydantic_args_validator)
        def class_(cls, point: Point) -> int:
            return point.x

    Keeper("mine")
    whose = {"class_name": "Keeper", "config_name": "mine" if kind == "instance" else None}
    rows.add("w", kind, queue_name=INTERNAL_QUEUE, inputs='{"positionalArgs":[{"x":3}]}', **whose)
    app.launch()

    assert 3 == DBOS.get_result("w")


def test_a_validator_can_be_made_for_a_function() -> None:
    def work(point: Point, number: int = 5) -> None:
        return None

    validate = make_pydantic_args_validator(work)

    assert ((Point(x=1), 2), {}) == validate(({"x": 1}, "2"), {})
    assert ((), {"point": Point(x=1, y=2)}) == validate((), {"point": {"x": 1, "y": 2}})
    with pytest.raises(ValueError, match="Missing required argument: 'point'"):
        validate((), {})


def test_the_sentinel_is_not_to_be_called() -> None:
    with pytest.raises(NotImplementedError):
        pydantic_args_validator((), {})


def test_without_pydantic_its_validator_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)

    with pytest.raises(ImportError, match="pydantic"):
        make_pydantic_args_validator(lambda x: x)


def test_without_a_validator_json_stays_as_it_is(app: App, rows: Rows) -> None:
    """A moment in portable arguments is text to the workflow."""

    @DBOS.workflow(name="work")
    def work(moment: str, point: dict) -> list:
        return [moment, point]

    arguments = '{"positionalArgs":["2026-01-02T03:04:05.000Z",{"x":3}]}'
    rows.add("w", "work", queue_name=INTERNAL_QUEUE, inputs=arguments)
    app.launch()

    assert ["2026-01-02T03:04:05.000Z", {"x": 3}] == DBOS.get_result("w")
