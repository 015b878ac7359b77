"""`dbos migrate`, `reset` and `schema`, and what is said when there is no database to work on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import make_url

from dbos import DBOSClient
from tests.cli.conftest import Run
from tests.compat.conftest import missing_database
from tests.databases import admin, postgres_database

__all__ = ["missing_database"]


@pytest.fixture(params=["sqlite", "postgres"])
def nowhere(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that does not exist yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new.sqlite"
    make: Callable[[], str] = request.getfixturevalue("missing_database")
    return make()


def test_from_nothing_and_back(run: Run, nowhere: str) -> None:
    """Migrated it can be used, reset it is gone, and each may be done again."""
    before = run("schema", "-s", nowhere, "--json")
    assert (1, False) == (before.code, before.document["complete"])

    for _ in range(2):
        assert run("migrate", "-s", nowhere, "--json").document["complete"]
    assert run("schema", "-s", nowhere, "--json").document["complete"]
    assert (0, "There are no such workflows.\n", "") == run("workflow", "list", "-s", nowhere)
    assert (0, []) == ((said := run("workflow", "list", "-s", nowhere, "--json")).code, said.document)

    assert 2 == run("reset", "-s", nowhere).code
    DBOSClient(system_database_url=nowhere).destroy()
    for _ in range(2):
        assert 0 == run("reset", "-s", nowhere, "--yes").code
    assert 1 == run("schema", "-s", nowhere).code


def test_a_schema_of_another_name(run: Run, postgres: str) -> None:
    with postgres_database(postgres) as url:
        assert 1 == run("schema", "-s", url, "--schema", "mine").code
        assert 0 == run("migrate", "-s", url, "--schema", "mine").code
        assert 0 == run("schema", "-s", url, "--schema", "mine").code


def test_a_role_is_granted_what_it_needs(run: Run, postgres: str) -> None:
    admin(postgres, "DROP ROLE IF EXISTS cli_app", "CREATE ROLE cli_app LOGIN")
    with postgres_database(postgres) as url:
        assert 0 == run("migrate", "-s", url, "--app-role", "cli_app").code
        theirs = make_url(url).set(username="cli_app").render_as_string(hide_password=False)
        assert 0 == run("workflow", "list", "-s", theirs).code
        admin(url, "DROP OWNED BY cli_app")
    admin(postgres, "DROP ROLE cli_app")


def test_a_database_has_to_be_named(run: Run, tmp_path: Path) -> None:
    missing = run("workflow", "list")
    (tmp_path / "dbos-config.yaml").write_text("language: python\n")
    unnamed = run("workflow", "list")

    assert (2, 2) == (missing.code, unnamed.code)
    assert "DBOS_SYSTEM_DATABASE_URL" in missing.err
    assert "dbos-config.yaml" in unnamed.err


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:canary@127.0.0.1:1/db",
        "postgresql://me@127.0.0.1:1/db?password=canary",
        "canary",
        "postgresql://me:canary@127.0.0.1:1",
        "postgresql://me:canary@127.0.0.1:port/db",
        "postgresql://me:canary",
        "postgresql://me:a@canary@127.0.0.1:1/db",
        "mysql://me:canary@127.0.0.1/db",
        "sqlite://canary@host/file",
    ],
)
@pytest.mark.parametrize("line", ["workflow list", "schema --json", "migrate", "reset --yes", "reset"])
def test_an_error_is_one_line_without_a_password(run: Run, line: str, url: str) -> None:
    said = run(*line.split(), "-s", url)

    assert "canary" not in said.out + said.err
    assert said.code == 0 or 1 == len(said.err.splitlines())
    assert "Traceback" not in said.err


def test_a_file_that_is_no_database_is_not_deleted(run: Run, tmp_path: Path) -> None:
    """A misspelt address must not cost a program."""
    program = tmp_path / "main.py"
    program.write_text("print('mine')")

    said = run("reset", "-s", f"sqlite:///{program}", "--yes")

    assert (1, True) == (said.code, "no SQLite database" in said.err)
    assert program.exists()
