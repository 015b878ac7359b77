"""`dbos-config.yaml`: what the command line takes from there, and what it says of a file that is wrong."""

from __future__ import annotations

import builtins
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbos.cli import config_file
from tests.cli.conftest import Run


@pytest.fixture
def database(tmp_path: Path, sqlite_template: Path) -> str:
    shutil.copy(sqlite_template, tmp_path / "some_app.sqlite")
    return f"sqlite:///{tmp_path}/some_app.sqlite"


def write(text: str) -> None:
    Path("dbos-config.yaml").write_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "system_database_url: {url}",
        "system_database_url: ${{WHERE}}",
        "system_database_url: sqlite:///${{FOLDER}}/some_app.sqlite",
        "database_url: {url}",
        "name: some-app",
    ],
)
def test_the_database_is_the_one_of_the_file(
    run: Run, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("WHERE", database)
    monkeypatch.setenv("FOLDER", str(tmp_path))
    write(text.format(url=database))

    assert (0, "There are no such workflows.\n", "") == run("workflow", "list")


def test_what_is_said_otherwise_wins(run: Run, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write("system_database_url: sqlite:///nowhere.sqlite")
    assert 1 == run("workflow", "list").code
    assert 0 == run("workflow", "list", "-s", database).code
    monkeypatch.setenv("DBOS_SYSTEM_DATABASE_URL", database)
    assert 0 == run("workflow", "list").code


def test_a_secret_comes_from_its_file(run: Run, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "address").write_text(f"{database}\n")
    monkeypatch.setattr(config_file, "SECRETS_FOLDER", tmp_path)
    write("system_database_url: ${DOCKER_SECRET:address}")
    assert 0 == run("workflow", "list").code

    write("system_database_url: ${DOCKER_SECRET:missing}")
    assert "missing" in run("workflow", "list").err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n- b\n", "must contain a dictionary"),
        ("", "must contain a dictionary"),
        ("name: x\nsystem_database_url: [canary-password\n", "is not YAML"),
        ("name: !!python/object/apply:os.system ['touch canary-password']", "is not YAML"),
        ("system_database_url: 5", "must be a text"),
        ("language: python", "which database"),
        ("name: ../canary", "must be 3 to 30"),
        ("name: " + "[" * 5_000, "nests too deeply"),
    ],
)
def test_a_file_that_is_wrong_is_told_of_without_quoting_it(run: Run, tmp_path: Path, text: str, says: str) -> None:
    write(text)

    said = run("workflow", "list")

    assert 2 == said.code
    assert says in said.err
    assert "canary" not in said.err
    assert not (tmp_path / "canary-password").exists()


def test_only_what_is_asked_for_is_filled_in(run: Run, database: str) -> None:
    """A secret that another command needs may be missing, and a text that stands for many is not written out."""
    many = "a: &a [x, x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 99)}]\n" for a, b in zip("abcde", "bcdef", strict=True)
    )
    write(f"{many}other: ${{DOCKER_SECRET:missing}}\nloop: &loop [*loop]\nsystem_database_url: {database}")

    assert 0 == run("workflow", "list").code


def test_a_variable_cannot_change_what_the_file_means(run: Run, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "x\nsystem_database_url: sqlite:///elsewhere.sqlite")
    write(f"name: ${{NAME}}\nsystem_database_url: {database}")

    assert 0 == run("workflow", "list").code


def test_without_the_extra_it_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write("name: x")
    real = builtins.__import__

    def importing(name: str, *rest: Any) -> Any:
        if name == "yaml":
            raise ModuleNotFoundError("No module named 'yaml'", name="yaml")
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "yaml", raising=False)
    monkeypatch.setattr(builtins, "__import__", importing)

    assert "dbos-notebook[config]" in run("workflow", "list").err


def test_migrating_runs_the_commands_of_the_file(run: Run, database: str, tmp_path: Path) -> None:
    write(f"system_database_url: {database}\ndatabase:\n  migrate:\n    - echo one > first\n    - echo two > second\n")
    assert 0 == run("migrate").code
    assert ["one\n", "two\n"] == [(tmp_path / each).read_text() for each in ("first", "second")]

    write(f"system_database_url: {database}\ndatabase:\n  migrate:\n    - exit 3\n")
    said = run("migrate")
    assert (1, True) == (said.code, "ended with 3" in said.err)


@pytest.fixture
def signals() -> Iterator[None]:
    """A command that starts programs takes the signals of its process."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def test_start_runs_the_commands_of_the_file(run: Run, signals: None, tmp_path: Path) -> None:
    write("name: x\nruntimeConfig:\n  start:\n    - echo one > first\n    - exit 7\n    - echo no > third\n")
    assert 7 == run("start").code
    assert (tmp_path / "first").exists()
    assert not (tmp_path / "third").exists()

    write("name: x\nruntimeConfig:\n  start: python main.py\n")
    assert "must be a list" in run("start").err
    write("name: x")
    assert 2 == run("start").code
