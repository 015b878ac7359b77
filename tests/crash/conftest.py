"""Fixtures of the sweeps: an empty database for every life."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dbos import DBOSConfig
from tests.compat.rows import Rows
from tests.coroner import coroner
from tests.databases import empty

__all__ = ["coroner"]


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
        sql(url, "CREATE TABLE IF NOT EXISTS effects (x INTEGER UNIQUE)", "DELETE FROM effects")
        return {
            "name": "sweep",
            "system_database_url": url,
            "application_version": "v1",
            "enable_patching": True,
            "log_level": "CRITICAL",
        }

    return make


def sql(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Run statements, and return the rows of the last."""
    rows = Rows(url)
    with rows.kept():
        return [[tuple(row) for row in rows.run(statement)] for statement in statements][-1]
