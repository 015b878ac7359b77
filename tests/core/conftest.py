"""Fixtures of the kernel's tests: the database without a runtime, and jobs that meet at its door."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dbos._faces.config import engine_for, parsed
from dbos._kernel.bell import Bell
from dbos._kernel.clock import Clock
from dbos._kernel.store import Store
from dbos.error import DBOSException, DBOSRuntimeEndedError
from tests.core.door import Door


def farewell(inside: bool) -> BaseException:
    return DBOSRuntimeEndedError("closed") if inside else DBOSException("closed")


@pytest.fixture
def new_store(database: str) -> Iterator[Callable[[], Store]]:
    """Opens the database, each time with connections and a lane of its own."""
    made: list[Store] = []

    def make() -> Store:
        made.append(Store(engine_for(parsed(database)), "dbos", Clock(), Bell().ring, owns_engine=True))
        made[-1].open()
        return made[-1]

    yield make
    for each in made:
        each.close(farewell)


@pytest.fixture
def store(new_store: Callable[[], Store]) -> Store:
    return new_store()


@pytest.fixture
def door(store: Store, monkeypatch: pytest.MonkeyPatch) -> Door:
    made = Door(store)
    monkeypatch.setattr(store.dialect, "transact", made.transact)  # it is everybody's
    return made
