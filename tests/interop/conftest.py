"""Fixtures of the conversations: processes of every package, each gone at the end of its test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.peers import python_of, typescript
from tests.interop.sides import HERE, Process, Sql

Begin = Callable[..., "Process | Sql"]


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with our tables on Postgres, where others cannot make theirs; on SQLite no database yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/interop.sqlite"
    return str(request.getfixturevalue("postgres_place"))


@pytest.fixture
def postgres_place(request: pytest.FixtureRequest) -> Iterator[str]:
    from tests.databases import postgres_database

    with postgres_database(request.getfixturevalue("postgres")) as url:
        yield url


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start a side: ours, a release of the package for Python, the one for TypeScript, or SQL."""
    begun: list[Process | Sql] = []

    def make(side: str, url: str = "") -> Process | Sql:
        if side == "sql":
            made: Process | Sql = Sql(url)
        elif side == "typescript":
            node, folder = typescript()
            made = Process(node, HERE / "client.mjs", folder)
        else:
            python = Path(sys.executable) if side == "ours" else python_of(side)
            made = Process(python, "-I", HERE / "program.py")
        begun.append(made)
        return made

    yield make
    for each in begun:
        each.kill()
