"""`%dbos at` and `%dbos enter`: what a step was called with, in the notebook; no step runs, no row is written."""

from __future__ import annotations

from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from sqlalchemy import create_engine, text

from dbos import DBOS, SetWorkflowID
from dbos_notebook import commands, door
from dbos_notebook.replay.travel import Moment
from tests.notebook.shells import line, shell  # noqa: F401 - a fixture

ID = "7f3a90c1-4be2"
HEARTBEAT = {"notebook_leases"}


@pytest.fixture
def ran(shell: InteractiveShell) -> list[str]:  # noqa: F811 - the fixture
    """A run that failed in its second step, and what ran since then."""
    names: list[str] = []

    @DBOS.step(name="clean")
    def clean(rows: list[int]) -> list[int]:
        names.append("clean")
        return sorted(rows)

    @DBOS.step(name="score")
    def score(rows: list[int], *, depth: int = 6) -> float:
        names.append("score")
        return 1 / (len(rows) - 2)

    @DBOS.workflow(name="nightly")
    def nightly(day: str) -> float:
        kept = clean([2, 1])
        threshold = 0.5
        return score(kept, depth=3) + threshold

    door.session().launch()
    with SetWorkflowID(ID), pytest.raises(ZeroDivisionError):
        nightly("monday")
    names.clear()
    return names


def rows() -> dict[str, list[str]]:
    """Each row of each table, but those of the runtime's own heartbeat."""
    engine = create_engine(door.session().url)
    with engine.connect() as connection:
        names = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")).scalars()
        found = {
            name: sorted(map(repr, connection.execute(text(f'SELECT * FROM "{name}"'))))
            for name in list(names)
            if name not in HEARTBEAT
        }
    engine.dispose()
    assert {"workflow_status", "operation_outputs", "notebook_notes"} <= found.keys()
    return found


def test_a_moment_has_the_arguments_and_the_variables(ran: list[str], shell: InteractiveShell) -> None:  # noqa: F811
    before = rows()

    then = line(shell, "at 7f3a 2")

    assert isinstance(then, Moment)
    assert (([1, 2],), {"depth": 3}) == (then.args, then.kwargs)
    assert {"rows": [1, 2], "depth": 3} == then.arguments
    assert {"day": "monday", "kept": [1, 2], "threshold": 0.5}.items() <= then.locals.items()
    assert [] == ran
    assert before == rows()


def test_without_a_step_it_is_the_one_that_failed(ran: list[str], shell: InteractiveShell) -> None:  # noqa: F811
    assert "score" == line(shell, "at 7f3a").name
    assert "clean" == line(shell, "at 7f3a clean").name
    assert "clean" == line(shell, "at 7f3a 1").name


def test_a_moment_shows_itself(ran: list[str], shell: InteractiveShell) -> None:  # noqa: F811
    shown = line(shell, "at 7f3a 2")._repr_mimebundle_()

    for form in ("text/plain", "text/html"):
        assert "before step 2 score" in shown[form]
        assert "threshold" in shown[form]
    assert ">   " in shown["text/plain"]
    assert "return score(kept, depth=3)" in shown["text/plain"]


def test_the_line_of_the_call_is_marked(ran: list[str], shell: InteractiveShell) -> None:  # noqa: F811
    marked = [each for each in line(shell, "at 7f3a 1").source.splitlines() if each.startswith("> ")]

    assert ["kept = clean([2, 1])"] == [each[2:].strip() for each in marked]


def test_a_call_runs_the_step_alone(ran: list[str], shell: InteractiveShell) -> None:  # noqa: F811
    before = rows()

    assert [1, 2] == line(shell, "at 7f3a 1").call()
    with pytest.raises(ZeroDivisionError):
        line(shell, "at 7f3a 2").call()

    assert ["clean", "score"] == ran
    assert before == rows()


def test_entering_puts_the_variables_into_the_notebook(ran: list[str], shell: InteractiveShell) -> None:  # noqa: F811
    shell.user_ns["day"] = "mine"

    told = line(shell, "enter 7f3a score").text

    assert [1, 2] == shell.user_ns["kept"] == shell.user_ns["rows"]
    assert (3, "monday") == (shell.user_ns["depth"], shell.user_ns["day"])
    assert "As before step 2 score of nightly 7f3a90c1-4be2: " in told
    assert "These were yours and are replaced: day" in told


def test_what_cannot_be_reached_is_one_line(ran: list[str], shell: InteractiveShell) -> None:  # noqa: F811
    with pytest.raises(UsageError, match="has no step 7; say one from 1 to"):
        line(shell, "at 7f3a 7")
    with pytest.raises(UsageError, match="has no step 'fit'; its steps: clean, score"):
        line(shell, "at 7f3a fit")
    DBOS.destroy(destroy_registry=True)
    door.session().launch()
    with pytest.raises(UsageError, match="'nightly' is not registered in this process"):
        line(shell, "at 7f3a 2")


class Nasty:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_hostile_values_are_shown(shell: InteractiveShell) -> None:  # noqa: F811
    @DBOS.step(name="take")
    def take(value: Any, **more: Any) -> None: ...

    @DBOS.workflow(name="<script>x</script>")
    def hostile() -> None:
        nasty, endless = Nasty(), []
        endless.append(endless)
        large = "x" * 10_000_000
        take([nasty, endless, "<script>$x$</script>\x1b[31m"], large=large)

    door.session().launch()
    with SetWorkflowID(ID):
        hostile()

    shown = commands.at(ID, 1)._repr_mimebundle_()

    assert len(shown["text/html"]) < 64_000
    assert "<script>" not in shown["text/html"]
    assert "\x1b" not in shown["text/html"] + shown["text/plain"]
