"""Fixtures of the acceptance tests: raw rows, the log, a clock that jumps, and empty Postgres databases."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator

import pytest

from dbos import DBOS
from dbos.testing import FakeClock, use_clock
from tests.compat.rows import Rows
from tests.databases import admin, url_of


@pytest.fixture
def rows(database: str) -> Rows:
    return Rows(database)


@pytest.fixture
def clock() -> FakeClock:
    """Time stands still from the next launch on."""
    made = FakeClock()
    use_clock(made)
    return made


class Log(logging.Handler):
    """What the runtime said."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def says(self, part: str, at_least: int = logging.DEBUG) -> bool:
        return any(part in record.getMessage() for record in self.records if record.levelno >= at_least)


@pytest.fixture
def log() -> Iterator[Log]:
    """The log from here on; launch with log_level="DEBUG" to have all of it."""
    made, level = Log(), DBOS.logger.level
    DBOS.logger.addHandler(made)
    DBOS.logger.setLevel(logging.DEBUG)
    yield made
    DBOS.logger.removeHandler(made)
    DBOS.logger.setLevel(level)


@pytest.fixture
def missing_database(postgres: str) -> Iterator[Callable[[], str]]:
    """URLs of Postgres databases that do not exist yet; those that come to be are dropped again."""
    names: list[str] = []

    def name_one() -> str:
        names.append(f"missing_{uuid.uuid4().hex[:12]}")
        return url_of(postgres, names[-1])

    yield name_one
    DBOS.destroy(destroy_registry=True)
    for name in names:
        for each in (name, f"{name}_dbos_sys"):
            admin(postgres, f"DROP DATABASE IF EXISTS {each} WITH (FORCE)")
