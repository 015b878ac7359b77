"""What is shown of values that nobody decodes, and how far long work is."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, SetWorkflowID, WorkflowSerializationFormat, extension
from dbos.cli import ask
from dbos.extension import Extension, Note, Observed, Observer
from tests.cli.conftest import Run
from tests.cli.test_workflows import Terminal
from tests.conftest import App


class Previews(Observer):
    def step_notes(self, step_id: int, value: Any, error: BaseException | None) -> Iterable[Note]:
        return [Note(step_id, "input", "x = 1"), Note(step_id, "output", f"about {value}")]

    def last_notes(self, value: Any, error: BaseException | None) -> Iterable[Note]:
        return [Note(0, "output", f"about {value}"), Note(0, "code", "v")]


class Tool(Extension):
    def observe(self, run: Observed) -> Observer:
        return Previews()


@pytest.fixture
def tool() -> Iterator[None]:
    extension.install(Tool())
    yield
    extension.install(None)


def test_previews_are_shown(tool: None, app: App, dbos: Run) -> None:
    """What was noted of values when they were there."""

    @DBOS.step()
    def step(x: int) -> int:
        return x

    @DBOS.workflow()
    def workflow() -> int:
        return step(1)

    app.launch()
    with SetWorkflowID("w"):
        workflow()
    (noted,) = dbos("workflow", "steps", "w", "--json").document

    assert "about 1" == dbos("workflow", "get", "w", "--json").document["output"]
    assert ("x = 1", "about 1", None) == (noted["input"], noted["output"], noted["error"])


def test_json_is_shown_as_it_is_stored(database: str, dbos: Run) -> None:
    """It runs no code."""
    portable = WorkflowSerializationFormat.PORTABLE
    with DBOSClient(system_database_url=database) as client:
        client.enqueue(
            {"workflow_name": "f", "queue_name": "q", "workflow_id": "w", "serialization_type": portable}, "a", b=1
        )

    card = dbos("workflow", "get", "w").out

    assert '{"positionalArgs":["a"],"namedArgs":{"b":1}}' in card


def test_values_cannot_command_the_terminal(database: str, dbos: Run) -> None:
    """No control sequence in eight bits, no change of direction."""
    with DBOSClient(system_database_url=database) as client:
        client.enqueue({"workflow_name": "f", "queue_name": "q", "workflow_id": "w"}, "\x1b[2J\x9b2J\u202e\n")

    said = dbos("workflow", "list", "--values").out + dbos("workflow", "get", "w", "--values").out

    assert 2 == said.count("[2J")
    assert [] == [each for each in "\x1b\x9b\u202e" if each in said]


def test_a_person_sees_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log file does not."""
    monkeypatch.setattr(ask, "BATCH", 2)
    seen: list[list[int]] = []
    for stream in (terminal := Terminal(), file := io.StringIO()):
        monkeypatch.setattr("sys.stderr", stream)
        ask.in_batches("done", [1, 2, 3], seen.append)

    assert [[1, 2], [3]] * 2 == seen
    assert "\rdone 2 of 3\rdone 3 of 3\n" == terminal.getvalue()
    assert "" == file.getvalue()
