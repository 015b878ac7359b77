"""`%dbos`: text in, objects out; its errors are one line, its examples run."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from dbos import DBOS, Queue, SetWorkflowID
from dbos_notebook import commands, door, magics
from dbos_notebook.explore import actions
from dbos_notebook.typed import moment_of, value_of
from dbos_notebook.verbs import VERBS, HelpAskedError, overview
from dbos_notebook.views.live import Live
from dbos_notebook.views.view import View
from tests.notebook.shells import line, shell  # noqa: F401 - a fixture
from tests.waiting import eventually

ID, OTHER = "7f3a90c1-4be2", "81c0d2aa-1111"


@pytest.fixture
def runs(shell: InteractiveShell) -> InteractiveShell:  # noqa: F811 - the fixture
    """Two runs, one of which failed; a stream, an event, a queue, a schedule."""
    Queue("mail")

    @DBOS.step(name="score")
    def score(rows: list[int]) -> float:
        return 1 / (len(rows) - 2)

    @DBOS.step(name="clean")
    def clean(rows: list[int]) -> list[int]:
        return sorted(rows)

    @DBOS.workflow(name="nightly")
    def nightly(when: Any = None, _: Any = None) -> float:
        rows = clean([2, 1])
        DBOS.write_stream("tokens", "one")
        DBOS.set_event("state", "scored")
        return score(rows)

    @DBOS.workflow(name="good")
    def good() -> str:
        return "fine"

    door.session().launch()
    with SetWorkflowID(ID), pytest.raises(ZeroDivisionError):
        nightly()
    with SetWorkflowID(OTHER):
        good()
    DBOS.create_schedule(schedule_name="nightly", workflow_fn=nightly, schedule="0 3 * * *")
    return shell


def test_a_line_returns_the_object(runs: InteractiveShell) -> None:
    runs.run_cell("failed = %dbos runs --status ERROR --since 24h").raise_error()

    frame = runs.user_ns["failed"]
    assert isinstance(frame, pd.DataFrame)
    assert [ID] == list(frame.index)


def test_a_semicolon_silences(runs: InteractiveShell) -> None:
    assert runs.run_cell("%dbos runs;").result is None
    assert runs.run_cell("%dbos runs").result is not None


def test_variables_stand_in_lines(runs: InteractiveShell) -> None:
    runs.user_ns["which"] = ID

    assert [ID] == sorted(set(line(runs, "steps $which").index.get_level_values(0)))
    assert [ID] == sorted(set(line(runs, "steps {which}").index.get_level_values(0)))


def test_a_variable_names_the_runs_that_it_holds(runs: InteractiveShell) -> None:
    runs.user_ns["handle"] = DBOS.retrieve_workflow(ID)
    runs.user_ns["both"] = [runs.user_ns["handle"], DBOS.retrieve_workflow(OTHER)]
    runs.user_ns["failed"] = line(runs, "runs --status ERROR")
    runs.user_ns["f"] = "not a run"

    assert [ID] == list(line(runs, "wait handle").index)
    assert [ID, OTHER] == list(line(runs, "wait both").index)
    assert [ID] == list(line(runs, "wait failed").index)
    with pytest.raises(UsageError, match="there is no workflow 'f'"):
        line(runs, "show f")


def test_filters_of_runs(runs: InteractiveShell) -> None:
    assert [ID] == list(line(runs, "runs --name nightly --limit 5").index)
    assert [OTHER] == list(line(runs, "runs --status success cancelled").index)
    assert [] == list(line(runs, "runs --until 1h").index)
    assert [OTHER, ID] == list(line(runs, "runs --all --roots").index)


def test_the_beginning_of_an_id_names_a_run(runs: InteractiveShell) -> None:
    shown = line(runs, "show 7f3a")

    assert "ZeroDivisionError" in shown.text
    assert "score" in shown.text
    with pytest.raises(UsageError, match="there is no workflow 'nobody'"):
        line(runs, "show nobody")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rnus", "there is no 'rnus'; did you mean runs?"),
        ("runs --status DONE", "there is no status DONE"),
        ("runs --nonsense", "unrecognized arguments: --nonsense; %dbos runs --help tells more"),
        ("runs --since never", "'never' is no moment"),
        ("show", "the following arguments are required: id"),
        ("show 'open", "quote what has spaces"),
        ("fork 7f3a --set x", "--set wants STEP=VALUE"),
        ("fork 7f3a --set 1=nonsense", "'nonsense' is no variable"),
        ("fork 7f3a --from nowhere", "has no step 'nowhere'"),
        ("send 7f3a yes", "'yes' is no variable of this notebook, no Python literal and no JSON"),
        ("pause nowhere", "there is no schedule 'nowhere'"),
        ("backfill nowhere 2d", "there is no schedule 'nowhere'"),
        ("check nightly --last 0", "argument --last: '0' is no number from 1 on"),
        ("log --lines -1", "argument --lines: '-1' is no number from 1 on"),
        ("import nowhere.jsonl", "there is no file nowhere.jsonl"),
        ("backfill nightly 1h 2h --yes", "the end of a backfill comes after its start"),
        ("config colour=1", "there is no setting 'colour'; there are keep_locals, limit, live"),
        ("config limit=none", "limit"),
        ("wait nobody", "there is no workflow 'nobody'"),
    ],
)
def test_errors_are_one_line(runs: InteractiveShell, text: str, told: str) -> None:
    with pytest.raises(UsageError) as raised:
        line(runs, text)

    assert told in str(raised.value)
    assert 1 == len(str(raised.value).splitlines())


def test_errors_can_be_had_whole(runs: InteractiveShell) -> None:
    line(runs, "config short_errors=False")

    with pytest.raises(LookupError):
        line(runs, "show nobody")


def test_help_of_all_and_of_each(runs: InteractiveShell) -> None:
    assert overview() == line(runs, "--help").text
    for name in VERBS:
        assert name in overview()
        assert f"%dbos {name}" in line(runs, f"{name} --help").text
        assert "examples:" in line(runs, f"{name} -h").text


EXAMPLES = [(verb.name, each) for verb in VERBS.values() for each in verb.examples]


@pytest.mark.parametrize(("verb", "example"), EXAMPLES, ids=[each for _, each in EXAMPLES])
def test_an_example_of_the_help_runs(
    runs: InteractiveShell, verb: str, example: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs.user_ns["clean"] = [1, 2, 3]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "explorer", lambda: View("", "the explorer"))
    monkeypatch.setattr(door.session(), "launch", lambda url: f"launched {url}")
    monkeypatch.setattr(commands, "attach", lambda url=None, **_: View("", f"attached {url}"))
    for name in (
        "flow",
        "export_worker",
        "export_notebook",
        "import_run",
    ):  # these need a kernel that has the extension loaded
        monkeypatch.setattr(commands, name, lambda *words, **_: View("", f"made {words}"))

    ran = runs.run_cell(example)

    ran.raise_error()
    assert ran.result is not None or "=" in example


def test_alone_it_opens_the_explorer(runs: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "explorer", lambda: "opened")

    assert "opened" == line(runs, "")


# -- what changes something ----------------------------------------------------------------------------------------


def test_a_fork_replaces_an_output(runs: InteractiveShell) -> None:
    runs.user_ns["cleaned"] = [1, 2, 3]

    fork = line(runs, "fork 7f3a --from score --set 1=cleaned")

    assert isinstance(fork, Live)
    assert 1.0 == DBOS.retrieve_workflow(fork.workflow_id).get_result()
    assert ID == line(runs, f"runs --forked-from {ID}")["forked_from"].iloc[0]


def test_a_fork_below_a_cell_runs_the_cell_first(runs: InteractiveShell) -> None:
    fork = runs.run_cell_magic("dbos", "fork 7f3a --set 1=fresh", "fresh = [5, 6, 7]")

    assert [5, 6, 7] == runs.user_ns["fresh"]
    assert 1.0 == DBOS.retrieve_workflow(fork.workflow_id).get_result()


def test_a_cell_that_fails_forks_nothing(runs: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="the cell failed, so nothing was forked"):
        runs.run_cell_magic("dbos", "fork 7f3a", "1 / 0")

    assert 2 == len(line(runs, "runs"))
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_only_a_fork_has_a_cell(runs: InteractiveShell) -> None:
    with pytest.raises(UsageError, match="takes no cell"):
        runs.run_cell_magic("dbos", "runs", "x = 1")

    assert "x" not in runs.user_ns


def test_what_destroys_wants_a_yes(runs: InteractiveShell) -> None:
    told = line(runs, "delete 7f3a 81c0")

    assert "Nothing was done. This would delete 2 runs with all recorded steps:" in told.text
    assert "nightly  ERROR" in told.text
    assert 2 == len(line(runs, "runs"))
    assert "Nothing was done" in line(runs, "cancel 7f3a 81c0").text
    assert "Deleted 2 runs." == line(runs, "delete 7f3a 81c0 --yes").text
    assert 0 == len(line(runs, "runs"))


def test_a_message_is_a_value(runs: InteractiveShell) -> None:
    @DBOS.workflow(name="waits")
    def waits() -> Any:
        return [DBOS.recv("topic"), DBOS.recv("topic"), DBOS.recv("topic")]

    runs.user_ns["mine"] = {"a": 1}
    handle = DBOS.start_workflow(waits)
    for message in ("mine", "'\"a text\"'", "'{\"b\": true}'"):
        line(runs, f"send {handle.workflow_id} {message} --topic topic")

    assert [{"a": 1}, "a text", {"b": True}] == handle.get_result()


def test_schedules_are_paused_triggered_and_backfilled(runs: InteractiveShell) -> None:
    assert "PAUSED" == line(runs, "pause nightly")["status"].iloc[0]
    assert "ACTIVE" == line(runs, "unpause nightly")["status"].iloc[0]
    assert "Nothing was done" in line(runs, "backfill nightly 3d").text
    live = line(runs, "backfill nightly 3d --yes")
    assert "3 runs" in live.now().text
    assert "nightly" in line(runs, "trigger nightly").now().text
    eventually(lambda: len(line(runs, "runs --name nightly --status ERROR")) == 5)


def test_settings_are_shown_and_changed(runs: InteractiveShell) -> None:
    assert "limit: 20" in line(runs, "config").text
    line(runs, "config limit=1")

    assert 1 == len(line(runs, "runs"))
    assert door.settings() in runs.configurables


def test_targets_of_every_kind(runs: InteractiveShell) -> None:
    frame = commands.runs()
    handle = DBOS.retrieve_workflow(ID)

    for target in (ID, "7f3a", handle, handle.get_status(), frame[frame.index == ID], [ID], commands.steps(ID)):
        assert [ID] == sorted(set(commands.steps(target).index.get_level_values(0)))
    with pytest.raises(TypeError, match="a run is named by its id or its handle"):
        commands.show(3)
    with pytest.raises(ValueError, match="one run is meant here, not 2"):
        commands.show(frame)


# -- words ---------------------------------------------------------------------------------------------------------

NOON = datetime(2026, 3, 1, 12).astimezone()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOON),
        ("24h", NOON - timedelta(hours=24)),
        ("1d12h", NOON - timedelta(hours=36)),
        ("today", NOON.replace(hour=0)),
        ("yesterday", NOON.replace(hour=0) - timedelta(days=1)),
        ("2026-02-01", datetime(2026, 2, 1).astimezone()),
        ("2026-02-01T09:00+00:00", datetime.fromisoformat("2026-02-01T09:00+00:00")),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    assert expected == moment_of(text, NOON)


def test_typed_values() -> None:
    assert [1, {"a": 2}, True, None, "x"] == [
        value_of(each, {"v": 1}) for each in ("v", "{'a': 2}", "true", "null", "'x'")
    ]


ACTIONS = [
    actions.Fork(ID, 2, with_newest_code=False, replaced_step=1, replaced_by="clean"),
    actions.Fork(ID),
    actions.Resume((ID, OTHER)),
    actions.Cancel((ID, OTHER)),
    actions.Delete((ID,)),
    actions.Send(ID, '{"a": [1, "b"]}', "a topic"),
    actions.ToFrame(ID, "tokens", "x"),
    actions.Trigger("every night"),
    actions.Backfill("nightly", NOON - timedelta(days=1), NOON),
    actions.Pause("nightly"),
    actions.Unpause("nightly"),
]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: type(action).__name__)
def test_each_button_names_a_command_that_is_one(action: actions.Action) -> None:
    """The words after `%dbos` are taken by the verb's own parser."""
    _, _, text = action.command.partition("%dbos ")
    words = magics._words(text)

    assert VERBS[words[0]].parser().parse_args(words[1:])


def test_help_is_raised_not_printed() -> None:
    with pytest.raises(HelpAskedError, match="One run as it is now"):
        VERBS["show"].parser().parse_args(["--help"])


def test_everything_is_taken_back(shell: InteractiveShell) -> None:  # noqa: F811 - the fixture
    fresh = InteractiveShell()
    before = (
        set(fresh.magics_manager.magics["line"]),
        set(fresh.strdispatchers["complete_command"].strs),
        len(fresh.configurables),
    )

    magics.register(fresh)
    magics.register(fresh)
    magics.unregister(fresh)

    after = (
        set(fresh.magics_manager.magics["line"]),
        set(fresh.strdispatchers["complete_command"].strs),
        len(fresh.configurables),
    )
    assert before == after


def test_what_is_here_already_is_not_imported_again(
    runs: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "night.jsonl"
    line(runs, f"export run 7f3a {file}")

    assert 0 == len(line(runs, f"import {file}"))
    assert "all of its runs are here already" in capsys.readouterr().out
