"""Completion of `%dbos`: every word that may come next, quickly, whatever the database holds."""

from __future__ import annotations

import sqlite3
import time
from types import SimpleNamespace

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from dbos import DBOS, Queue, SetWorkflowID
from dbos_notebook import completion, door
from dbos_notebook.completion import candidates
from dbos_notebook.frames import STATUSES
from dbos_notebook.verbs import VERBS
from tests.notebook.shells import shell  # noqa: F401 - a fixture

ID = "7f3a90c1-4be2"
MANY = 100_000
LIMIT_SECONDS = 0.1


@pytest.fixture
def runs(shell: InteractiveShell) -> InteractiveShell:  # noqa: F811 - the fixture
    @DBOS.workflow(name="nightly")
    def nightly(when: object = None, _: object = None) -> None:
        DBOS.write_stream("tokens", "one")
        DBOS.set_event("state", "scored")

    @DBOS.workflow(name="idle")
    def idle() -> None: ...

    door.session().launch()
    DBOS.register_queue("mail")
    with SetWorkflowID(ID):
        nightly()
    with SetWorkflowID("81c0"):
        idle()
    DBOS.create_schedule(schedule_name="every-night", workflow_fn=nightly, schedule="0 3 * * *")
    return shell


def found(text: str) -> list[str]:
    return candidates(text, door.source_if_launched)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%dbos ", sorted(VERBS)),
        ("%dbos st", ["status", "steps", "streams"]),
        ("%dbos show ", ["81c0", ID]),
        ("%dbos show 7f", [ID]),
        ("%dbos show 7f3a90c1-4", [ID]),
        ("%dbos show nothing", []),
        ("%dbos cancel 81c0 7", [ID]),
        ("%dbos runs --sta", ["--status"]),
        ("%dbos runs --status ", list(STATUSES)),
        ("%dbos runs --status ERROR SUC", ["SUCCESS"]),
        ("%dbos runs --name n", ["nightly"]),
        ("%dbos runs --queue ", ["mail"]),
        ("%dbos fork 7f3a --from ", ["1", "2", "DBOS.setEvent", "DBOS.writeStream"]),
        ("%dbos fork 7f3a --from DBOS.s", ["DBOS.setEvent"]),
        ("%%dbos fork 7f", [ID]),
        ("%dbos streams 7f3a ", ["tokens"]),
        ("%dbos tail 7f3a t", ["tokens"]),
        ("%dbos pause ", ["every-night"]),
        ("%dbos pause every-", ["every-night"]),
        ("%dbos config lim", ["limit="]),
        ("%dbos delete 7f3a --", ["--yes", "--help"]),
        ("%dbos queues ", ["--help"]),
        ("%dbos nonsense ", []),
        ("%dbos runs --limit ", ["--status", "--name", "--since", "--until", "--queue", "--version", "--prefix", "--parent",
                                 "--forked-from", "--user", "--roots", "--limit", "--all", "--help"]),
        ("%dbos show 'open ", ["--help"]),
        ("failed = %dbos runs --status ERR", ["ERROR"]),
    ],
)  # fmt: skip
def test_what_may_come_next(runs: InteractiveShell, text: str, expected: list[str]) -> None:
    made = found(text)

    assert sorted(expected) == sorted(made)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("%dbos sho", "show"),
        ("%dbos show 7f3a90c1-4", ID),
        ("%dbos runs --sta", "--status"),
        ("%%dbos fork 7f", ID),
        ("x = 1\n%dbos show 7f", ID),
    ],
)
def test_ipython_offers_it(runs: InteractiveShell, code: str, expected: str) -> None:
    """As a front end asks: the text of the cell and where the cursor is."""
    with provisionalcompleter():
        offered = [each.text for each in runs.Completer.completions(code, len(code))]

    assert expected in offered


def test_nothing_is_launched_for_it(shell: InteractiveShell) -> None:  # noqa: F811 - the fixture
    assert "show" in found("%dbos s")
    assert [] == [each for each in found("%dbos show ") if not each.startswith("-")]
    assert not door.session().is_launched


def test_a_word_that_nothing_completes_is_left_to_others(runs: InteractiveShell) -> None:
    event = SimpleNamespace(text_until_cursor="%dbos show nothing", symbol="nothing")

    with pytest.raises(completion.TryNext):
        completion.complete(None, event)


def fill(number: int) -> None:
    """So many runs, without running them."""
    file = door.session().url.removeprefix("sqlite:///")
    with sqlite3.connect(file) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(workflow_status)")]
        of = {
            "workflow_uuid": "printf('%08x-many', i * 2654435761 % 4294967296)",
            "name": "'name-' || (i % 50)",
            "created_at": "created_at - i * 1000",
            "queue_name": "CASE i % 10 WHEN 0 THEN 'mail' END",
        }
        connection.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number}) "
            f"INSERT INTO workflow_status ({', '.join(columns)}) "
            f"SELECT {', '.join(of.get(each, each) for each in columns)} FROM n, workflow_status "
            "WHERE workflow_uuid = ?",
            (ID,),
        )
    connection.close()


def test_a_hundred_thousand_runs_are_not_felt(runs: InteractiveShell) -> None:
    Queue("mail")
    fill(MANY)

    for text in (
        "%dbos s", "%dbos show ", "%dbos show 7", "%dbos show 7f3a90c1-4", "%dbos show zzz", "%dbos runs --name n",
        "%dbos runs --queue ", "%dbos fork 7f3a9 --from ", "%dbos streams 7f3a90c1-4be2 ", "%dbos pause e",
    ):  # fmt: skip
        # The best of three: others use this machine too.
        took = min(timed(text) for _ in range(3))
        print(f"{text!r}: {took * 1000:.1f} ms")
        assert took < LIMIT_SECONDS, text


def timed(text: str) -> float:
    began = time.process_time()
    found(text)
    return time.process_time() - began


def test_it_is_taken_back(shell: InteractiveShell) -> None:  # noqa: F811 - the fixture
    completion.unregister(shell)

    assert not {"%dbos", "%%dbos"} & set(shell.strdispatchers["complete_command"].strs)
    completion.register(shell)
