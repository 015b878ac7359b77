"""Every death of a program with a datasource."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dbos import DBOSConfig
from dbos.testing import Ledger, crash_sweep
from tests.coroner import Coroner
from tests.crash.datasource import datasource


# A runtime that is killed leaves its connections to the garbage collector, which says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.timeout(600)
def test_every_death_leads_to_the_same_rows(fresh: Callable[[], DBOSConfig], tmp_path: Path, coroner: Coroner) -> None:
    """Whenever the runtime dies, its successor comes to the same end, and each transaction was done exactly once."""
    coroner.excuse("C8 .*/mine.sqlite")  # a datasource is its program's, and outlives the runtime
    ledger = Ledger()
    act, taken = datasource(ledger, tmp_path)
    lives: list[int] = []

    def database() -> DBOSConfig:
        if lives:
            assert [1, 2] == taken()
        lives.append(1)
        return fresh()

    sweep = crash_sweep(act, database, ledger)

    assert [] == sweep.divergences[:3]
    assert [1, 2] == taken()
    assert sweep.deaths > 10
