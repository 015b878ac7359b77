"""What the explorer's buttons do, on a real database and without a page: clicks are given by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from dbos import DBOS, DBOSClient
from dbos_notebook.explore.actions import (
    Action,
    Backfill,
    Bench,
    Cancel,
    Delete,
    Fork,
    Pause,
    Resume,
    Send,
    ToFrame,
    Trigger,
    Unpause,
    guard,
)
from dbos_notebook.explore.live import Explorer
from dbos_notebook.explore.state import TABS, Chose, Entered, Narrowed, Opened, PickedWorkflow, Wanted
from dbos_notebook.replay.check import fits
from dbos_notebook.source import Source
from tests.conftest import App

Wait = Callable[..., Any]


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Any, sqlite_template: Any) -> str:
    """SQLite is enough here: what differs between databases is tested where it is done."""
    file = tmp_path / "test.sqlite"
    file.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{file}"


@pytest.fixture
def source(app: App, database: str) -> Iterator[Source]:
    app.launch()
    with DBOSClient(system_database_url=database) as client:
        yield Source(client)


@pytest.fixture
def bench(source: Source) -> Bench:
    return Bench(source, {}, lambda _: None)


@pytest.fixture
def opened(source: Source) -> Iterator[Explorer]:
    made = Explorer(source, {"doubled": 84}, newest=lambda _: None)
    yield made
    made.close()


def fails_at_the_second_step() -> str:
    """The id of a run whose second step failed; a fork of it returns what its first step did."""
    is_mended = threading.Event()

    @DBOS.step()
    def count() -> int:
        return 42

    @DBOS.step()
    def check(number: int) -> int:
        if is_mended.is_set():
            return number
        is_mended.set()
        raise ValueError("not yet")

    @DBOS.workflow(name="counting")
    def counting() -> int:
        return check(count())

    handle = DBOS.start_workflow(counting)
    with pytest.raises(ValueError, match="not yet"):
        handle.get_result()
    return handle.workflow_id


def waits_for_a_message() -> str:
    @DBOS.workflow()
    def waiting() -> Any:
        return DBOS.recv(timeout_seconds=60)

    return DBOS.start_workflow(waiting).workflow_id


# -- actions ---------------------------------------------------------------------------------------------------


def test_a_fork_runs_again_from_the_failed_step(bench: Bench) -> None:
    outcome = Fork(fails_at_the_second_step()).perform(bench)

    assert outcome.chosen is not None
    assert 42 == DBOS.retrieve_workflow(outcome.chosen).get_result()


def test_a_fork_can_have_another_output_of_a_kept_step(bench: Bench) -> None:
    fork = Fork(fails_at_the_second_step(), 2, replaced_step=1, replaced_by="better")
    bench.variables["better"] = 43

    outcome = fork.perform(bench)

    assert outcome.chosen is not None
    assert 43 == DBOS.retrieve_workflow(outcome.chosen).get_result()


def test_a_run_is_cancelled_resumed_sent_to_and_deleted(bench: Bench) -> None:
    run = waits_for_a_message()

    Cancel((run,)).perform(bench)
    assert "CANCELLED" == bench.source.run(run).status

    Resume((run,)).perform(bench)
    Send(run, '{"day": 1}').perform(bench)
    assert {"day": 1} == DBOS.retrieve_workflow(run).get_result()

    Delete((run,)).perform(bench)
    assert bench.source.runs().empty


def test_a_stream_becomes_a_frame_in_the_notebook(bench: Bench) -> None:
    @DBOS.workflow()
    def writing() -> str:
        DBOS.write_stream("lines", "first")
        DBOS.write_stream("other", "x")
        DBOS.write_stream("lines", "second")
        return str(DBOS.workflow_id)

    ToFrame(writing(), "lines", "lines").perform(bench)

    assert [0, 1] == bench.variables["lines"]["offset"].tolist()


def test_a_stream_cannot_have_a_name_that_is_none(bench: Bench) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a variable"):
        ToFrame("run", "lines", "my stream").perform(bench)


def test_a_schedule_is_triggered_backfilled_paused_and_goes_on(bench: Bench) -> None:
    @DBOS.workflow()
    def nightly(moment: datetime, context: Any) -> None: ...

    DBOS.create_schedule(schedule_name="at-noon", workflow_fn=nightly, schedule="0 12 * * *")
    start, end = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 4, tzinfo=UTC)

    Pause("at-noon").perform(bench)
    assert ["PAUSED"] == bench.source.schedules()["status"].tolist()
    Unpause("at-noon").perform(bench)
    assert ["ACTIVE"] == bench.source.schedules()["status"].tolist()
    Trigger("at-noon").perform(bench)
    assert 1 == len(bench.source.runs())
    Backfill("at-noon", start, end).perform(bench)
    assert 4 == len(bench.source.runs())


ACTIONS: list[Action] = [
    Fork("run-1", 2, replaced_step=1, replaced_by="[1, 2]"),
    Resume(("run-1", "run-2")),
    Cancel(("run-1",)),
    Delete(("run-1",)),
    Send("run-1", '{"a": "b c"}', "mail"),
    ToFrame("run-1", "lines", "frame"),
    Trigger("at noon"),
    Backfill("at-noon", datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 4, tzinfo=UTC)),
    Pause("at-noon"),
    Unpause("at-noon"),
]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda each: each.verb)
def test_every_action_names_the_command_that_does_the_same(action: Action) -> None:
    assert "%dbos " in action.command
    assert "\n" not in action.command
    assert (action.question is None) == ("--yes" not in action.command)


def test_the_guard_is_code_whatever_the_patch_is_called() -> None:
    compile(guard('a "hostile" \\ name\n'), "cell", "exec")


# -- the explorer ----------------------------------------------------------------------------------------------


def test_a_click_on_delete_asks_and_a_yes_deletes(opened: Explorer, eventually: Wait) -> None:
    run = fails_at_the_second_step()
    opened.post(Chose(run))
    eventually(lambda: not opened.layout.forms.delete.button.disabled)

    opened.layout.forms.delete.button.click()
    eventually(lambda: opened.state.asked)
    assert "Yes, delete" == opened.layout.yes.description
    assert opened.layout.yes.tooltip.endswith(f"%dbos delete {run} --yes")
    opened.layout.yes.click()

    eventually(lambda: opened.state.notice == f"Deleted {run[:8]}.")
    eventually(lambda: opened.state.rows == ())


def test_a_fork_is_made_with_the_values_of_the_form_and_then_shown(opened: Explorer, eventually: Wait) -> None:
    run = fails_at_the_second_step()
    opened.post(Chose(run))
    forms = opened.layout.forms
    eventually(lambda: not forms.fork.button.disabled)

    forms.start.value, forms.replaced.value, forms.by.value = 2, 1, "doubled"
    assert forms.fork.button.tooltip.endswith(f"%dbos fork {run} --from 2 --set 1=doubled")
    forms.fork.button.click()

    fork = eventually(lambda: opened.state.look.chosen != run and opened.state.look.chosen)
    assert 84 == DBOS.retrieve_workflow(fork).get_result()
    eventually(lambda: opened.state.detail and opened.state.detail.run.status == "SUCCESS")


def test_an_error_of_an_action_is_shown(opened: Explorer, eventually: Wait) -> None:
    run = waits_for_a_message()
    opened.post(Chose(run))
    eventually(lambda: opened.state.detail)

    opened.layout.forms.message.value = "no such variable"
    opened.layout.forms.send.button.click()

    assert "no variable of this notebook" in eventually(lambda: opened.state.error)
    DBOS.cancel_workflow(run)


def test_a_click_is_answered_at_once_while_another_action_goes_on(
    opened: Explorer, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, gate = waits_for_a_message(), threading.Event()
    opened.post(Chose(run))
    eventually(lambda: not opened.layout.forms.send.button.disabled)
    monkeypatch.setattr(opened._source, "send", lambda *_: gate.wait(20))

    opened.layout.forms.message.value = "1"
    opened.layout.forms.send.button.click()
    opened.layout.forms.fork.button.click()

    eventually(lambda: "Fork: queued." in opened.layout._notice.value)
    gate.set()
    eventually(lambda: opened.state.queued == ())
    DBOS.cancel_workflow(run)


def test_every_tab_of_a_run_shows_something(opened: Explorer, eventually: Wait) -> None:
    opened.post(Chose(fails_at_the_second_step()))
    for tab in TABS:
        opened.post(Opened(tab))
        shown = eventually(lambda: opened.state.unread or (opened.state.detail and opened.state.detail.shown.html))
        assert "" == opened.state.unread
        assert "dbos-view" in shown


def test_a_run_that_ends_is_shown_to_have_ended(opened: Explorer, eventually: Wait) -> None:
    run = waits_for_a_message()
    eventually(lambda: opened.state.rows and opened.state.rows[0].status == "PENDING")

    DBOS.send(run, "go on")

    eventually(lambda: opened.state.rows[0].status == "SUCCESS")


def test_filters_narrow_the_list(opened: Explorer, eventually: Wait) -> None:
    run = fails_at_the_second_step()
    for wanted, found in (
        (Wanted(status="SUCCESS"), ()),
        (Wanted(name="counting", status="ERROR"), (run,)),
        (Wanted(prefix=run[:6]), (run,)),
        (Wanted(since="1h"), (run,)),
        (Wanted(since="2030-01-01"), ()),
        (Wanted(text="NOT YET"), (run,)),
        (Wanted(text="something else"), ()),
    ):
        opened.post(Narrowed(wanted))
        eventually(lambda: opened.state.look.wanted == wanted)
        before = opened.state.read_at
        eventually(lambda: opened.state.read_at != before)
        assert found == tuple(row.workflow_id for row in opened.state.rows), wanted


def test_a_wrong_filter_is_said_and_can_be_mended(opened: Explorer, eventually: Wait) -> None:
    opened.post(Narrowed(Wanted(since="yesterday-ish")))
    assert "is no moment" in eventually(lambda: opened.state.unread)

    opened.post(Narrowed(Wanted(since="1d")))
    eventually(lambda: not opened.state.unread)


def test_the_patch_panel_says_which_runs_fit(source: Source, eventually: Wait) -> None:
    run = fails_at_the_second_step()
    made = Explorer(source, {}, fits=lambda *_: "step 2 is `check`, the new code runs `mend`")
    made.post(Entered("patch"))
    made.post(PickedWorkflow("counting"))

    (row,) = eventually(lambda: made.state.fits)

    assert (run, "step 2 is `check`, the new code runs `mend`") == (row.run.workflow_id, row.obstacle)
    assert "✗ step 2" in made.layout.patch.table.value
    made.close()


def test_the_patch_panel_has_the_cell_with_the_guard(source: Source, eventually: Wait) -> None:
    fails_at_the_second_step()

    @DBOS.step(name="look")
    def look() -> int:
        return 1

    @DBOS.workflow(name="counting")
    def counting() -> int:
        return look() + 1

    made = Explorer(source, {}, fits=fits, cell="cell-7")
    made.post(Entered("patch"))
    made.post(PickedWorkflow("counting"))
    panel = made.layout.patch

    eventually(lambda: 'if DBOS.patch("look"):\n        return look() + 1' in panel.writer.text)
    panel.patch.value = "look-first"
    eventually(lambda: 'if DBOS.patch("look-first"):' in panel.writer.text)

    assert "cell-7" == panel.writer.below
    assert "Same as: %dbos patch counting" == panel.writer.tooltip
    assert panel.writer.text.startswith('@DBOS.workflow(name="counting")')
    made.close()


def test_a_closed_explorer_leaves_no_thread_and_no_widget(source: Source) -> None:
    before = set(threading.enumerate())
    made = Explorer(source, {})

    made.close()
    made.close()

    assert {each for each in threading.enumerate() if each.name.startswith("dbos-explorer")} <= before
    assert made.layout.root.comm is None


def test_an_empty_database_says_what_to_do(opened: Explorer) -> None:
    assert "No runs yet" in opened.layout.list._heads.value
