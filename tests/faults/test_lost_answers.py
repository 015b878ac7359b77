"""A commit whose answer is lost, and one that never got there: at every commit that a program makes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest

from dbos import DBOSConfig
from dbos.testing import Ledger
from tests.coroner import Coroner
from tests.crash.conftest import sql
from tests.databases import postgres_database
from tests.faults.line import Line, Moment
from tests.faults.lives import differences, live
from tests.faults.programs import DELETED_ON_PURPOSE, PROGRAMS, Act, starts
from tests.faults.talking import TALKING
from tests.hand import Hand

ALL = PROGRAMS | TALKING


def troubles_of(act: Act, fresh: Callable[[], DBOSConfig], moment: Moment, ledger: Ledger) -> list[object]:
    """Every commit of the program in turn goes wrong: what that changed for anybody."""
    expected = live(act, fresh(), ledger, Line().laid())
    troubles: list[object] = []
    for number in itertools.count(1):
        line = Line(number, moment)
        try:
            found = live(act, fresh(), ledger, line.laid())
        except Exception as error:
            troubles.append((number, line.broke_at, repr(error)))
        else:
            troubles.extend((number, line.broke_at, each) for each in differences(expected, found))
        if not line.broke_at:
            break
    assert number > 8
    return troubles


# In the async colour everything is written by the committer; what was never sent is the committer's in both.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("hand", "moment"),
    [("sync", "answer lost"), ("sync", "never sent"), ("async", "answer lost")],
    indirect=["hand"],
)
@pytest.mark.parametrize("name", ALL)
def test_nobody_notices(
    name: str,
    moment: Moment,
    hand: Hand,
    fresh: Callable[[], DBOSConfig],
    complaints: Callable[[], list[str]],
    coroner: Coroner,
) -> None:
    """Whatever commit it is: no error comes to the user, no step body runs again, no row is there twice or missing."""
    coroner.excuse(DELETED_ON_PURPOSE)
    ledger = Ledger()

    troubles = troubles_of(ALL[name](hand, ledger), fresh, moment, ledger)

    assert not troubles, "\n".join(map(str, troubles))
    assert [] == complaints()


@pytest.fixture
def apart(
    request: pytest.FixtureRequest, database: str, fresh: Callable[[], DBOSConfig], tmp_path: Path
) -> Iterator[Callable[[], DBOSConfig]]:
    """Like `fresh`, with the tables of transactions in a database of their own."""

    def make(url: str) -> DBOSConfig:
        sql(url, "DROP TABLE IF EXISTS effects", "CREATE TABLE effects (x INTEGER UNIQUE)")
        return {**fresh(), "application_database_url": url}

    if database.startswith("sqlite"):
        numbers = itertools.count()
        yield lambda: make(f"sqlite:///{tmp_path}/application-{next(numbers)}.sqlite")
        return
    with postgres_database(request.getfixturevalue("postgres")) as url:

        def emptied() -> DBOSConfig:
            config = make(url)
            sql(url, "DROP TABLE IF EXISTS dbos.transaction_outputs")
            return config

        yield emptied


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", get_args(Moment))
@pytest.mark.parametrize("hand", ["sync"], indirect=True)
def test_nobody_notices_with_two_databases(moment: Moment, hand: Hand, apart: Callable[[], DBOSConfig]) -> None:
    """Where transactions commit in another database than their steps, in both databases."""
    ledger = Ledger()

    troubles = troubles_of(starts(hand, ledger), apart, moment, ledger)

    assert not troubles, "\n".join(map(str, troubles))
