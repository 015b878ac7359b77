"""The command line as such: what it takes, what it refuses, and what shells complete."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from dbos.cli.completion import Place, places, script
from dbos.cli.main import command_named
from dbos.cli.parser import SHELLS, make_parser
from tests.cli.conftest import Run


def all_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from all_parsers(child)


PARSERS = list(all_parsers(make_parser()))
COMMANDS = [each for each in PARSERS if each.get_default("run")]
PLACES = list(places(make_parser(), "dbos"))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each.prog)
def test_a_command_has_a_function(command: argparse.ArgumentParser) -> None:
    assert callable(command_named(command.get_default("run")))


@pytest.mark.parametrize("parser", PARSERS, ids=lambda each: each.prog)
def test_help_is_complete(parser: argparse.ArgumentParser) -> None:
    """Every command says what it does, and every option what it is for."""
    assert parser.description
    silent = [each.option_strings for each in parser._actions if each.option_strings and not each.help]
    assert [] == silent
    assert parser.format_help()


def test_all_commands_are_there() -> None:
    expected = {
        *("init", "start", "worker", "migrate", "reset", "schema", "completion", "version", "mcp", "notebook"),
        *("export", "import", "gc"),
        *(f"workflow {each}" for each in ("list", "get", "steps", "cancel", "resume", "fork", "delete", "queue list")),
        *(f"schedule {each}" for each in ("list", "get", "pause", "resume", "trigger", "backfill", "delete")),
        *(f"version {each}" for each in ("list", "latest", "set")),
    }

    assert expected == {each.prog.removeprefix("dbos ") for each in COMMANDS}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "workflow",
        "workflow list --status FINISHED",
        "workflow list --limit 0",
        "workflow list --limit -1",
        f"workflow list --limit {10**30}",
        f"workflow list --offset {2**63}",
        f"workflow fork w --step {2**31}",
        f"gc --keep {10**30}",
        "workflow list --limit ٣",
        "workflow list --start-time yesterday",
        "workflow fork w --step 0",
        "workflow cancel",
        "worker m --drain forever",
        "completion tcsh",
        "workflow list --stat ERROR",
    ],
)
def test_what_is_not_understood_ends_with_2(run: Run, line: str) -> None:
    """And the usage is written to where errors are."""
    said = run(*line.split())

    assert (2, "") == (said.code, said.out)
    assert said.err.startswith("usage: dbos")


def test_a_status_may_be_written_small() -> None:
    assert ["ERROR"] == make_parser().parse_args(["workflow", "list", "-S", "error"]).status


def test_what_is_missing_is_named(run: Run) -> None:
    """And not what may be left out."""
    assert run("export").err.endswith("the following arguments are required: FILE\n")


@pytest.mark.parametrize("line", ["version", "--version", "-V"])
def test_it_says_its_version(run: Run, line: str) -> None:
    said = run(line)

    assert (0, "") == (said.code, said.err)
    assert said.out.startswith("DBOS CLI version: ")
    assert run("version", "--json").document["version"] in said.out


def test_moments_without_a_zone_are_local() -> None:
    given = make_parser().parse_args(["workflow", "list", "-t", "2030-01-02T03:04", "-e", "2030-01-02T03:04+02:00"])

    assert datetime(2030, 1, 2, 3, 4).astimezone() == given.start_time
    assert datetime(2030, 1, 2, 1, 4, tzinfo=UTC) == given.end_time


# -- completion ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.path)
def test_a_script_knows_every_command_and_option(shell: str, place: Place) -> None:
    made = script(shell)

    for word in [*place.commands, *place.options, *place.values]:
        assert word.lstrip("-") in made


def bash_offers(*words: str) -> list[str]:
    """What bash offers for the last of these words."""
    line = " ".join(f"'{each}'" for each in words)
    asked = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _dbos; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    # `complete` itself is missing where bash was built without line editing.
    made = script("bash").replace("\ncomplete ", "\n: complete ")
    ran = subprocess.run(["bash", "-c", made + asked], capture_output=True, text=True, check=True)
    return sorted(ran.stdout.split())


def test_bash_completes() -> None:
    """Commands, options of a command also after others and their values, and values where they are known."""
    assert ["schedule", "schema", "start"] == bash_offers("dbos", "s")
    assert ["resume"] == bash_offers("dbos", "workflow", "r")
    assert ["--start-time", "--status"] == bash_offers("dbos", "workflow", "list", "--limit", "3", "--sta")
    assert ["ENQUEUED", "ERROR"] == bash_offers("dbos", "workflow", "list", "--status", "E")
    assert ["bash"] == bash_offers("dbos", "completion", "ba")
    assert ["list"] == bash_offers("dbos", "workflow", "queue", "l")


def test_the_script_is_written(run: Run) -> None:
    said = run("completion", "fish")

    assert (0, script("fish")) == (said.code, said.out)
