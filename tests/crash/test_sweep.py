"""Every death of every scenario: before and after each thing that the runtime does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dbos import DBOSConfig
from dbos.testing import Ledger, crash_sweep
from tests.crash.conftest import sql
from tests.crash.keeping import KEEPING
from tests.crash.queued import QUEUED
from tests.crash.scenarios import SCENARIOS
from tests.crash.talking import TALKING
from tests.crash.timing import TIMING

# The rows that the transactions of a scenario insert, each exactly once.
WORK = {"transaction": [(1,), (2,)]}
ALL = SCENARIOS | QUEUED | TALKING | TIMING | KEEPING


# A runtime that is killed leaves its connections to the garbage collector, which says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ALL)
def test_every_death_leads_to_the_same_end(name: str, fresh: Callable[[], DBOSConfig]) -> None:
    """Whenever the runtime dies, its successor comes to the same end and repeats nothing that was recorded."""
    ledger = Ledger()
    act = ALL[name](ledger)
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
