"""Deaths of the second order: the life that recovers a workflow dies too, before and after each of its effects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from dbos import DBOS, DBOSConfig, SetWorkflowID
from dbos._engine.runtime import Call
from dbos._engine.transaction import Transact
from dbos._kernel.plan import Effect
from dbos.testing import Death, Ledger, crash_sweep
from tests.crash.conftest import sql


def half_done(ledger: Ledger) -> Callable[[], object]:
    """Steps, a transaction, a child that is called and one that is started, and then the same again."""

    @DBOS.step(name="work")
    def work(x: int) -> int:
        ledger.note()
        return x

    @DBOS.transaction(name="insert")
    def insert(x: int) -> int:
        DBOS.sql_session.execute(sa.text("INSERT INTO effects VALUES (:x)"), {"x": x})
        return x

    @DBOS.workflow(name="child")
    def child(x: int) -> int:
        return work(x) + insert(x)

    @DBOS.workflow(name="whole")
    def whole() -> list[int]:
        handle = DBOS.start_workflow(child, 10)
        return [work(1), insert(2), child(3), handle.get_result(), work(4), insert(5), child(6)]

    def act() -> object:
        with SetWorkflowID("whole"):
            return whole()

    return act


def is_step(effect: Effect[Any]) -> bool:
    return isinstance(effect, Call) and effect.fn.__name__ == "work" and effect.here.run.workflow_id == "whole-4"


# The first death: the program is in the middle of everything, and what it did last is not on record.
FIRST = {
    "a step of a child ran": Death(1, "after", is_step),
    "a transaction of the parent is committed": Death(
        1, "after", lambda effect: isinstance(effect, Transact) and effect.args == (5,)
    ),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_a_recovery_that_dies_is_recovered(first: Death, fresh: Callable[[], DBOSConfig]) -> None:
    """Wherever the second life dies, the third comes to the undisturbed end and repeats nothing that was recorded."""
    ledger = Ledger()
    act = half_done(ledger)
    lives: list[str] = []

    def effects() -> list[tuple[object, ...]]:
        return sql(lives[-1], "SELECT x FROM effects ORDER BY x")

    def database() -> DBOSConfig:
        if lives:
            assert [(2,), (3,), (5,), (6,), (10,)] == effects()
        config = fresh()
        lives.append(str(config["system_database_url"]))
        return config

    sweep = crash_sweep(act, database, ledger, after=first, stride=2)

    assert [] == sweep.divergences[:3]
    assert [(2,), (3,), (5,), (6,), (10,)] == effects()
    assert sweep.deaths > 20
