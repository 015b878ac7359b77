"""`dbos workflow` on real databases: what it shows and what it does."""

from __future__ import annotations

import io

import pytest

from dbos import DBOS, DBOSClient, Queue, SetWorkflowID
from tests.cli.conftest import Run
from tests.conftest import App

FIRED: list[str] = []


def fire() -> None:
    FIRED.append("unpickled")


class Canary:
    """Tells when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (fire, ())


@pytest.fixture
def done(app: App) -> App:
    """Three workflows that ended, two of them well, and one that waits on a queue nobody serves."""

    @DBOS.step()
    def double(x: int) -> int:
        return x * 2

    @DBOS.workflow(name="double_all")
    def double_all(*numbers: int) -> list[int]:
        return [double(each) for each in numbers]

    @DBOS.workflow(name="fails")
    def fails() -> None:
        raise ValueError("no\nway")

    queue = Queue("other")
    DBOS.listen_queues(["served"])
    app.launch()
    for workflow_id, numbers in (("w-1", (1, 2)), ("w-2", (3,))):
        with SetWorkflowID(workflow_id):
            double_all(*numbers)
    with SetWorkflowID("w-3"), pytest.raises(ValueError):
        fails()
    with SetWorkflowID("w-4"):
        queue.enqueue(double_all, 5)
    return app


def status_of(workflow_id: str) -> str:
    found = DBOS.get_workflow_status(workflow_id)
    return "gone" if found is None else found.status


# -- looking ---------------------------------------------------------------------------------------------------


def test_list_shows_a_table(done: App, dbos: Run) -> None:
    said = dbos("workflow", "list")

    lines = said.out.splitlines()
    assert (0, "") == (said.code, said.err)
    assert ["ID", "STATUS", "NAME", "CREATED", "TOOK", "QUEUE", "VERSION"] == lines[0].split()
    assert ["w-1", "w-2", "w-3", "w-4"] == [line.split()[0] for line in lines[1:]]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", ["w-1", "w-2", "w-3", "w-4"]),
        ("--status ERROR", ["w-3"]),
        ("-S ERROR -S ENQUEUED", ["w-3", "w-4"]),
        ("--name double_all --limit 2", ["w-1", "w-2"]),
        ("-l 2 -o 1", ["w-2", "w-3"]),
        ("-d -l 1", ["w-4"]),
        ("-q other", ["w-4"]),
        ("-v v1 -S SUCCESS", ["w-1", "w-2"]),
        ("-v v2", []),
        ("-u nobody", []),
        ("-e 2001-01-01", []),
        ("-t 2001-01-01 -S ERROR", ["w-3"]),
    ],
)
def test_list_takes_filters(done: App, dbos: Run, line: str, expected: list[str]) -> None:
    assert expected == [each["workflow_id"] for each in dbos("workflow", "list", "--json", *line.split()).document]


def test_values_are_shown_when_asked_for(done: App, dbos: Run) -> None:
    (plain, *_), (asked, *_) = (dbos("workflow", "list", "--json", *more).document for more in ([], ["--values"]))

    assert "output" not in plain
    assert ({"args": [1, 2], "kwargs": {}}, [2, 4], None) == (asked["input"], asked["output"], asked["error"])


def test_nothing_is_unpickled_unless_asked(database: str, dbos: Run) -> None:
    """Whoever can write into the database must not run code in the terminal of who looks."""
    client = DBOSClient(system_database_url=database)
    client.enqueue({"workflow_name": "carries", "queue_name": "idle", "workflow_id": "w"}, Canary())
    client.create_schedule(schedule_name="s", workflow_name="carries", schedule="0 0 1 1 *", context=Canary())
    client.destroy()
    FIRED.clear()

    said = [
        dbos(*line.split())
        for line in (
            "workflow list",
            "workflow list --json",
            "workflow get w",
            "workflow steps w",
            "workflow queue list",
            "workflow cancel w",
            "workflow resume w",
            "schedule list",
            "schedule get s",
            "schedule pause s",
            "schedule resume s",
        )
    ]

    assert [0] * len(said) == [each.code for each in said]
    assert [] == FIRED
    dbos("workflow", "get", "w", "--values")
    assert FIRED


def test_get_shows_one(done: App, dbos: Run) -> None:
    card, record = dbos("workflow", "get", "w-3").out, dbos("workflow", "get", "w-3", "--json", "--values").document

    assert ["status", "ERROR"] == card.splitlines()[1].split()
    assert ("ERROR", "ValueError: no\nway") == (record["status"], record["error"])
    assert (1, "dbos: there is no workflow 'nope'\n") == dbos("workflow", "get", "nope")[::2]


def test_steps_are_listed(done: App, dbos: Run) -> None:
    plain = dbos("workflow", "steps", "w-1", "--json").document
    asked = dbos("workflow", "steps", "w-1", "--json", "--values").document

    assert [(1, "SUCCESS"), (2, "SUCCESS")] == [(each["step_id"], each["status"]) for each in plain]
    assert [None, None] == [each["output"] for each in plain]
    assert [2, 4] == [each["output"] for each in asked]
    assert plain[0].keys() == asked[0].keys()
    assert "STEP  STATUS   NAME" in dbos("workflow", "steps", "w-1").out
    assert 1 == dbos("workflow", "steps", "nope").code


def test_queued_workflows_are_listed(done: App, dbos: Run) -> None:
    assert ["w-4"] == [each["workflow_id"] for each in dbos("workflow", "queue", "list", "--json").document]
    assert "w-4  ENQUEUED  other" in dbos("workflow", "queue", "list").out


# -- acting ----------------------------------------------------------------------------------------------------


def test_cancel_and_resume(done: App, dbos: Run) -> None:
    """The answer is what became of each; one that has ended stays as it ended."""
    cancelled = dbos("workflow", "cancel", "w-1", "w-4", "--json")
    resumed = dbos("workflow", "resume", "w-4", "-q", "other", "--json")

    assert [("w-1", "SUCCESS"), ("w-4", "CANCELLED")] == [(*each.values(),) for each in cancelled.document]
    assert [("w-4", "ENQUEUED")] == [(*each.values(),) for each in resumed.document]


def test_ids_come_from_standard_input(done: App, dbos: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("w-2\nw-4 w-4\n"))

    said = dbos("workflow", "cancel", "-")

    assert ["w-2  SUCCESS", "w-4  CANCELLED"] == [
        " ".join(line.split(maxsplit=0)) for line in said.out.splitlines()[1:]
    ]


@pytest.mark.parametrize("verb", [["cancel"], ["resume"], ["delete", "--yes"]])
def test_a_misspelt_id_stops_everything(done: App, dbos: Run, verb: list[str]) -> None:
    said = dbos("workflow", *verb, "w-4", "w-five")

    assert (1, "", "dbos: there is no workflow 'w-five'; nothing was done\n") == said
    assert "ENQUEUED" == status_of("w-4")


def test_fork_keeps_the_first_steps(done: App, dbos: Run) -> None:
    said = dbos("workflow", "fork", "w-1", "--step", "2", "-f", "w-1-again", "--json")

    assert {"workflow_id": "w-1-again", "forked_from": "w-1", "start_step": 2} == said.document
    assert [2, 4] == DBOS.retrieve_workflow("w-1-again").get_result()
    assert 1 == dbos("workflow", "fork", "nope").code
    assert 1 == dbos("workflow", "fork", "w-1", "-f", "").code


def test_delete_asks_first(done: App, dbos: Run) -> None:
    """Where there is nobody to ask, it has to be told."""
    refused = dbos("workflow", "delete", "w-1", "w-2")
    assert (2, "") == refused[:2]
    assert "give --yes" in refused.err
    assert "SUCCESS" == status_of("w-1")

    assert {"deleted": ["w-1", "w-2"]} == dbos("workflow", "delete", "w-1", "w-2", "--yes", "--json").document
    assert ("gone", "gone") == (status_of("w-1"), status_of("w-2"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, "gone"), ("\n", 1, "SUCCESS"), ("", 1, "SUCCESS")])
def test_the_answer_counts(
    done: App, dbos: Run, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, left: str
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))

    said = dbos("workflow", "delete", "w-1")

    assert (code, left) == (said.code, status_of("w-1"))
    assert "cannot be undone" in said.err


def test_children_go_too(app: App, dbos: Run) -> None:
    @DBOS.workflow()
    def child() -> None: ...

    @DBOS.workflow()
    def parent() -> str:
        return DBOS.start_workflow(child).workflow_id

    app.launch()
    with SetWorkflowID("p"):
        child_id = parent()
    DBOS.retrieve_workflow(child_id).get_result()

    assert 0 == dbos("workflow", "delete", "p", "--children", "-y").code
    assert ("gone", "gone") == (status_of("p"), status_of(child_id))
