"""The explorer's state is arithmetic: a message in, the next state and what has to be done out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from dbos_notebook.explore.actions import Cancel, Delete, Fork, Outcome, Resume
from dbos_notebook.explore.state import (
    TABS,
    Asked,
    Chose,
    Command,
    Confirmed,
    Detail,
    Did,
    Dismissed,
    Entered,
    Failed,
    KernelBusy,
    Look,
    Message,
    Narrowed,
    Opened,
    Ordered,
    Perform,
    PickedStream,
    PickedWorkflow,
    Read,
    Row,
    Seen,
    Shown,
    State,
    Tailed,
    Turned,
    Unread,
    Wanted,
    allowed,
    update,
)
from dbos_notebook.frames import STATUSES

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
RUN = Row("run-1", "nightly", "ERROR")
DELETE = Delete(("run-1",))


def after(*messages: Message, state: State | None = None) -> tuple[State, tuple[Command, ...]]:
    """The state after these messages, and the commands of the last one."""
    state, commands = state or State(), ()
    for message in messages:
        state, commands = update(state, message)
    return state, commands


@pytest.mark.parametrize(
    ("message", "field", "value"),
    [
        (Entered("patch"), "section", "patch"),
        (Narrowed(Wanted(status="ERROR")), "wanted", Wanted(status="ERROR")),
        (Ordered("oldest"), "order", "oldest"),
        (Chose("run-1"), "chosen", "run-1"),
        (Opened("log"), "tab", "log"),
        (PickedStream("lines"), "stream", "lines"),
        (Tailed(on=False), "is_tailing", False),
        (PickedWorkflow("nightly"), "workflow", "nightly"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, get_args(Message)) else "",
)
def test_looking_at_something_else_reads_it(message: Message, field: str, value: Any) -> None:
    state, commands = after(message)

    assert value == getattr(state.look, field)
    assert (Read(),) == commands


def test_looking_at_the_same_again_reads_nothing() -> None:
    assert () == after(Opened("log"), Opened("log"))[1]


def test_a_filter_and_an_order_begin_at_the_first_page() -> None:
    third = State(look=Look(page=2))

    assert 0 == after(Narrowed(Wanted(name="nightly")), state=third)[0].look.page
    assert 0 == after(Ordered("oldest"), state=third)[0].look.page


def test_pages_end_where_there_are_no_more_runs_and_begin_at_the_first() -> None:
    more = State(has_more=True)

    assert 1 == after(Turned(1), state=more)[0].look.page
    assert 0 == after(Turned(1))[0].look.page
    assert 0 == after(Turned(-1))[0].look.page


def test_what_was_read_for_an_older_question_is_dropped() -> None:
    old = Seen(Look(), NOW, rows=(RUN,))

    state, _ = after(Narrowed(Wanted(name="other")), old)

    assert () == state.rows


def test_what_was_read_is_shown_and_names_are_collected() -> None:
    first, second = Seen(Look(), NOW, (RUN,), names=("b",)), Seen(Look(), NOW, (), names=("a", "b"))

    state, _ = after(first, second)

    assert ((), ("a", "b"), NOW) == (state.rows, state.names, state.read_at)


def test_another_run_is_never_shown_with_what_belongs_to_the_last_one() -> None:
    looked = State(look=Look(chosen="run-1"), detail=Detail(RUN, Shown("html")), asked=DELETE)

    state, _ = after(Chose("run-2"), state=looked)

    assert (None, None) == (state.detail, state.asked)


def test_another_tab_is_empty_until_it_is_read_while_the_run_stays() -> None:
    looked = State(look=Look(chosen="run-1"), detail=Detail(RUN, Shown("html")))

    state, _ = after(Opened("log"), state=looked)

    assert Detail(RUN, Shown()) == state.detail


@pytest.mark.parametrize("action", [DELETE, Cancel(("run-1",))], ids=lambda each: each.verb)
def test_what_destroys_asks_first(action: Any) -> None:
    asked, commands = after(Asked(action))
    assert (action, ()) == (asked.asked, commands)

    confirmed, commands = after(Confirmed(), state=asked)
    assert (None, (action,), (Perform(action),)) == (confirmed.asked, confirmed.queued, commands)

    dismissed, commands = after(Dismissed(), state=asked)
    assert (None, (), ()) == (dismissed.asked, dismissed.queued, commands)


def test_a_yes_without_a_question_does_nothing() -> None:
    assert (State(), ()) == after(Confirmed())


def test_what_does_not_destroy_is_queued_at_once_and_says_so() -> None:
    state, commands = after(Asked(Resume(("run-1",))))

    assert "Resume: queued." == state.notice
    assert (Perform(Resume(("run-1",))),) == commands


def test_actions_leave_the_queue_in_their_order_whether_they_succeed_or_not() -> None:
    both = (Asked(Resume(("run-1",))), Asked(Fork("run-2")))

    state, commands = after(*both, Did(Outcome("Resumed run-1.")))
    assert ((Fork("run-2"),), "Resumed run-1.", (Read(),)) == (state.queued, state.notice, commands)

    state, _ = after(Failed("Fork: no such step", was_action=True), state=state)
    assert ((), "Fork: no such step", "") == (state.queued, state.error, state.notice)


def test_an_error_of_a_callback_leaves_the_queue_alone_and_is_gone_with_the_next_action() -> None:
    state, _ = after(Asked(Fork("run-1")), Failed("ValueError: no such step"))
    assert ((Fork("run-1"),), "ValueError: no such step") == (state.queued, state.error)

    assert "" == after(Asked(Resume(("run-1",))), state=state)[0].error


def test_a_fork_is_looked_at_when_it_is_made() -> None:
    state, _ = after(Chose("run-1"), Asked(Fork("run-1")), Did(Outcome("Forked.", "run-2")))

    assert "run-2" == state.look.chosen


def test_an_unreadable_database_is_said_until_it_is_read() -> None:
    state, _ = after(Unread("away"))
    assert "away" == state.unread

    assert "" == after(Seen(Look(), NOW), state=state)[0].unread


def test_no_button_changes_what_is_shown_of_a_run() -> None:
    """Only a reading does."""
    looked = replace(State(), look=Look(chosen="run-1"), rows=(RUN,), detail=Detail(RUN, Shown("html")))

    state, _ = after(Asked(DELETE), Confirmed(), Did(Outcome("Deleted run-1.")), state=looked)

    assert (looked.rows, looked.detail) == (state.rows, state.detail)


def test_a_busy_kernel_is_known() -> None:
    assert after(KernelBusy(is_busy=True))[0].is_kernel_busy


def test_every_status_has_its_verbs() -> None:
    assert all({"Fork", "Delete"} <= allowed(status) for status in STATUSES)
    assert "Resume" not in allowed("SUCCESS")
    assert "Cancel" not in allowed("ERROR")


def test_every_tab_can_be_opened() -> None:
    assert [*TABS] == [after(Opened(tab))[0].look.tab for tab in TABS]
