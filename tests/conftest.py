"""Fixtures: a database of each kind, a hand of each colour, and an application between them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS, run_dbos_database_migrations
from dbos.testing import crash, use_clock
from tests.databases import make_template, postgres_cluster, postgres_database
from tests.hand import Hand


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The coroner reads what was printed last: a fixture could not without taking `capfd` from the tests."""
    report = yield
    examiner = getattr(item, "funcargs", {}).get("coroner")
    if report.when == "teardown" and report.passed and examiner is not None:
        findings = examiner.read(text for _, text in report.sections)
        if findings:
            report.outcome, report.longrepr = "failed", "\n".join(findings)
    return report


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with postgres_cluster() as url:
        make_template(url)
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "template.sqlite"
    run_dbos_database_migrations(f"sqlite:///{file}")
    return file


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty system database."""
    if request.param == "sqlite":
        file = tmp_path / "test.sqlite"
        shutil.copy(request.getfixturevalue("sqlite_template"), file)
        yield f"sqlite:///{file}"
        return
    with postgres_database(request.getfixturevalue("postgres")) as url:
        yield url


@pytest.fixture(params=["sync", "async"])
def hand(request: pytest.FixtureRequest) -> Iterator[Hand]:
    made = Hand(request.param)
    yield made
    made.close()


class App:
    """The application under test: launched, killed, launched again."""

    def __init__(self, database: str) -> None:
        self.database = database

    def launch(self, **config: Any) -> None:
        defaults = {
            "name": "test-app",
            "system_database_url": self.database,
            "application_version": "v1",
            "log_level": "ERROR",
            "run_admin_server": False,
        }
        DBOS(config={**defaults, **config})
        DBOS.launch()

    def relaunch(self, **config: Any) -> None:
        """End in order, and launch again."""
        DBOS.destroy()
        self.launch(**config)

    def crash(self) -> None:
        """Die without a word."""
        crash()

    def restart(self, **config: Any) -> None:
        """Die, and launch again: what a killed process and its successor do."""
        crash()
        self.launch(**config)


@pytest.fixture
def app(database: str) -> Iterator[App]:
    made = App(database)
    yield made
    DBOS.destroy(destroy_registry=True)
    use_clock(None)


@pytest.fixture(autouse=True)
def clean_registry() -> Iterator[None]:
    yield
    DBOS.destroy(destroy_registry=True)
    use_clock(None)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    from tests.waiting import eventually

    return eventually
