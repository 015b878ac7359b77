"""Every death of every scenario: before and after each thing that the runtime does."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from dbos import DBOSConfig
from dbos._faces.config import parsed
from dbos.testing import Ledger, crash_sweep
from tests.crash.scenarios import SCENARIOS
from tests.databases import empty

# The rows that the transactions of a scenario insert, each exactly once.
WORK = {"transaction": [(1,), (2,)]}


@pytest.fixture
def fresh(database: str, sqlite_template: Path, tmp_path: Path) -> Callable[[], DBOSConfig]:
    """Gives an empty database each time, with the table that transactions write to."""
    numbers = itertools.count()

    def make() -> DBOSConfig:
        url = database
        if database.startswith("sqlite"):
            file = tmp_path / f"sweep-{next(numbers)}.sqlite"
            shutil.copy(sqlite_template, file)
            url = f"sqlite:///{file}"
        else:
            empty(database)
        sql(url, "CREATE TABLE IF NOT EXISTS effects (x INTEGER)", "DELETE FROM effects")
        return {
            "name": "sweep",
            "system_database_url": url,
            "application_version": "v1",
            "log_level": "CRITICAL",
        }

    return make


def sql(url: str, *statements: str) -> list[tuple[object, ...]]:
    engine = sa.create_engine(parsed(url))
    with engine.begin() as conn:
        results = [conn.execute(sa.text(statement)) for statement in statements]
        rows = [tuple(row) for row in results[-1]] if results[-1].returns_rows else []
    engine.dispose()
    return rows


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_death_leads_to_the_same_end(name: str, fresh: Callable[[], DBOSConfig]) -> None:
    """Whenever the runtime dies, its successor comes to the same end and repeats nothing that was recorded."""
    ledger = Ledger()
    act = SCENARIOS[name](ledger)
    lives: list[str] = []

    def database() -> DBOSConfig:
        if lives:
            assert WORK.get(name, []) == sql(lives[-1], "SELECT x FROM effects ORDER BY x")
        config = fresh()
        lives.append(str(config["system_database_url"]))
        return config

    sweep = crash_sweep(act, database, ledger)

    assert [] == sweep.divergences[:3]
    assert WORK.get(name, []) == sql(lives[-1], "SELECT x FROM effects ORDER BY x")
    assert sweep.deaths > 10
