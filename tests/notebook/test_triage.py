"""Triage: failures in groups of one cause, and what is done to a whole group."""

from __future__ import annotations

import base64
import pickle
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, SetWorkflowID, SetWorkflowTimeout
from dbos.error import DBOSMaxStepRetriesExceeded
from dbos_notebook.commands import fork_group, resume_group, triage
from dbos_notebook.explore.actions import ForkGroup
from dbos_notebook.explore.live import Explorer
from dbos_notebook.explore.state import Entered
from dbos_notebook.failures import Triage
from dbos_notebook.fingerprints import cause_of, kind_and_message, normalised
from dbos_notebook.frames import TRIAGE
from dbos_notebook.naming import NotFoundError
from dbos_notebook.repair import NotConfirmedError
from dbos_notebook.source import Source
from dbos_notebook.verbs import verb_of
from tests.compat.rows import Rows
from tests.conftest import App


class Shop(Source):
    """The failures of an application; `mend` lets its charges succeed, `fail` makes one more."""

    mend: Callable[[], None]
    fail: Callable[[str], None]


def pickled(value: Any) -> str:
    return base64.b64encode(pickle.dumps(value, 4)).decode()


@pytest.fixture
def rows(database: str) -> Rows:
    return Rows(database)


@pytest.fixture
def source(app: App, database: str) -> Iterator[Shop]:
    """An application whose charges fail for two reasons, some of them called by parents."""
    is_mended: list[bool] = []

    @DBOS.step(name="charge")
    def charge(number: int) -> int:
        if number < 0 and not is_mended:
            raise ValueError(f"charge {number} of user-{number * 7} is below 0")
        return number

    @DBOS.workflow(name="bill")
    def bill(number: int) -> int:
        DBOS.set_event("number", number)
        return charge(number)

    @DBOS.workflow(name="month")
    def month(number: int) -> int:
        return DBOS.start_workflow(bill, number).get_result()

    @DBOS.workflow(name="own")
    def own(text: str) -> None:
        charge(1)
        raise KeyError(text)

    @DBOS.workflow(name="inner")
    def inner() -> None:
        DBOS.recv("never", 60)

    @DBOS.workflow(name="slow")
    def slow() -> None:
        inner()

    def fail(name: str) -> None:
        with SetWorkflowID(f"own-{name}"), pytest.raises(KeyError):
            own(name)

    app.launch()
    for number in (-1, -22, -333):
        with SetWorkflowID(f"bill{number}"), pytest.raises(ValueError):
            bill(number)
    with SetWorkflowID("month"), pytest.raises(ValueError):
        month(-4)
    fail("a")
    fail("b")
    bill(5)
    with SetWorkflowID("slow"), SetWorkflowTimeout(0.2), pytest.raises(Exception):
        slow()
    with DBOSClient(system_database_url=database) as client:
        made = Shop(client)
        made.mend, made.fail = lambda: is_mended.append(True), fail
        yield made


def by_workflow(found: Triage) -> dict[str, Any]:
    return {each.workflow: each for each in found.groups}


def test_failures_of_one_cause_are_one_group(source: Shop) -> None:
    found = triage(at=source)

    bills = by_workflow(found)["bill"]
    assert ("charge", "ValueError: charge # of user-# is below #") == (bills.step, bills.error)
    assert 4 == len(bills.ids)
    assert {"bill-1", "bill-22", "bill-333"} < set(bills.ids)
    assert ["v1"] == list(bills.versions)
    assert 1 == bills.number


def test_a_parent_follows_its_child(source: Shop) -> None:
    found = triage(at=source)

    assert ("month",) == by_workflow(found)["bill"].following
    assert "month" not in by_workflow(found)


def test_what_fails_in_the_code_of_a_workflow_has_no_step(source: Shop) -> None:
    own = by_workflow(triage(at=source))

    assert None is own["own"].step
    assert "own-" in own["own"].ids[0]


def test_children_that_ran_out_of_time_follow_their_parent(source: Shop) -> None:
    slow = by_workflow(triage(at=source))["slow"]

    assert ("slow",) == slow.ids
    assert 1 == len(slow.following)
    assert "resume" in slow.suggestion


def test_a_triage_can_be_narrowed(source: Shop) -> None:
    assert {"slow"} == set(by_workflow(triage(status="CANCELLED", at=source)))
    assert {"own"} == set(by_workflow(triage(name="own", at=source)))
    assert {"bill"} == set(by_workflow(triage(name=["month"], at=source)))
    assert () == triage("1s", name="nobody", at=source).groups
    with pytest.raises(ValueError, match="is no failure"):
        triage(status="SUCCESS", at=source)


def test_what_is_older_is_left_out(source: Shop, rows: Rows) -> None:
    rows.run("UPDATE {}workflow_status SET updated_at = updated_at - 86400000 WHERE name = 'own'")

    assert "own" not in by_workflow(triage("12h", at=source))
    assert "own" in by_workflow(triage("2d", at=source))


def test_it_is_a_frame_and_a_view(source: Shop) -> None:
    found = triage(at=source)

    assert list(TRIAGE)[1:] == list(found.frame.columns)
    assert [len(each.ids) for each in found.groups] == found.frame["runs"].tolist()
    assert found.frame.dtypes.tolist() == Triage(found.asked, ()).frame.dtypes.tolist()
    assert "4 (1 follow)" in repr(found)
    assert "%dbos fork --group 1" in repr(found)
    assert "<table" in found.view.html
    assert "Nothing failed" in repr(triage("1s", name="nobody", at=source))


# -- acting --------------------------------------------------------------------------------------------------------


def test_a_group_is_forked_after_its_count_is_given(source: Shop) -> None:
    number = by_workflow(triage(at=source))["bill"].number
    source.mend()

    said = fork_group(number, at=source)
    assert "Nothing was done" in said.text
    assert f"--group {number} --confirm 4" in said.text
    assert "step 2 charge: 4" in said.text
    with pytest.raises(NotConfirmedError, match="4 runs now, not 3"):
        fork_group(number, confirm=3, at=source)
    assert 0 == len(source.runs(forked_from=["bill-1"]))

    forks = fork_group(number, confirm=4, at=source)

    assert {"bill"} == set(forks["name"])
    assert -22 == DBOS.get_result(source.runs(forked_from=["bill-22"]).index[0])
    noted = source.client.list_workflows(forked_from=["bill-22"])[0].attributes
    assert by_workflow(triage(at=source))["bill"].fingerprint == noted["triage"]
    assert "forked_by" in noted


def test_what_is_forked_already_is_not_forked_again(source: Shop) -> None:
    number = by_workflow(triage(at=source))["bill"].number
    source.mend()
    group = source.triaged.group(number)
    with SetWorkflowID(f"bill-1-{group.fingerprint}"):  # as far as somebody came who died there
        source.client.fork_workflow("bill-1", 2)

    assert "Forked already, and left as they are: 1 run." in fork_group(number, at=source).text
    fork_group(number, confirm=3, at=source)

    assert 1 == len(source.runs(forked_from=["bill-1"]))
    assert "all are forked already" == by_workflow(triage(at=source))["bill"].suggestion
    with pytest.raises(ValueError, match="nothing is left"):
        fork_group(number, confirm=0, at=source)


def test_a_group_that_grew_is_refused_with_its_new_number(source: Shop) -> None:
    number = by_workflow(triage(at=source))["own"].number
    source.fail("c")

    with pytest.raises(NotConfirmedError, match="--confirm 3"):
        fork_group(number, confirm=2, at=source)


def test_a_group_is_forked_from_a_step_that_all_have(source: Shop) -> None:
    number = by_workflow(triage(at=source))["bill"].number

    assert "step 1 DBOS.setEvent: 4" in fork_group(number, "DBOS.setEvent", dry_run=True, at=source).text
    assert "step 1" in fork_group(number, 1, confirm=4, dry_run=True, at=source).text
    with pytest.raises(NotFoundError, match="no step 'pay'"):
        fork_group(number, "pay", confirm=4, at=source)
    assert 0 == len(source.runs(forked_from=["bill-1"]))


def test_timeouts_are_resumed_with_their_children(source: Shop) -> None:
    number = by_workflow(triage(at=source))["slow"].number

    assert "--confirm 2" in resume_group(number, dry_run=True, at=source).text
    resumed = resume_group(number, confirm=2, at=source)

    assert 2 == len(resumed)
    assert not {"CANCELLED"} & set(source.runs(workflow_ids=list(resumed.index))["status"])
    assert "slow" not in by_workflow(triage(at=source))
    DBOS.cancel_workflows(list(resumed.index))


def test_what_ended_with_an_error_is_not_resumed(source: Shop) -> None:
    number = by_workflow(triage(at=source))["own"].number

    with pytest.raises(ValueError, match=f"fork --group {number}"):
        resume_group(number, at=source)


def test_a_group_that_is_gone_is_said_to_be(source: Shop) -> None:
    number = by_workflow(triage(at=source))["own"].number
    source.delete("own-a", "own-b")

    with pytest.raises(LookupError, match="gone"):
        fork_group(number, at=source)
    with pytest.raises(LookupError, match="no group 99"):
        fork_group(99, at=source)


# -- what is the same ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("timed out after 30.5 s at 10.0.0.1:5432", "timed out after 7 s at 10.0.12.9:1"),
        ("user 3fa85f64-5717-4562-b3fc-2c963f66afa6", "user 00000000-aaaa-bbbb-cccc-121212121212"),
        ("object at 0x7f0d1e26e550", "object at 0x1"),
        ("no column 'age' in \"people\"", "no column 'size of it' in \"x\""),
        ("cannot read /data/a/1.csv", "cannot read /srv/x/y/z.parquet"),
        ("GET https://a.org/x?y=1", "GET http://b.com/"),
        ("mail to ada@example.org bounced", "mail to b.c@d.example bounced"),
        ("took  3\n ms", "took -4 ms"),
    ],
)
def test_messages_that_differ_in_their_values_are_the_same(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"), [("can't open 'x'", "can't close 'x'"), ("user not found", "item not found")]
)
def test_messages_that_differ_in_words_are_not(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("x is -3"), ("ValueError", "x is -3")),
        (KeyError(), ("KeyError", "")),
        (KeyError("age"), ("KeyError", "'age'")),
        (OSError(2, "no such file"), ("FileNotFoundError", "no such file")),
        (DBOSMaxStepRetriesExceeded("s", 3, [ValueError("a"), TypeError("b")]), ("TypeError", "b")),
        (ValueError("long " * 1000), ("ValueError", "long " * 120)),
    ],
)
def test_type_and_message_are_read_without_unpickling(error: BaseException, expected: tuple[str, str]) -> None:
    kind, message = kind_and_message(pickled(error), "py_pickle")

    assert expected == (kind, message[: len(expected[1])])


def test_an_error_that_is_cut_off_or_hostile_has_at_least_a_group() -> None:
    whole = pickled(ValueError("y" * 5000))

    assert ("ValueError", "y" * 300) == cause_of(whole[:800], "py_pickle")
    for wrong in ("", "no pickle", whole[:10], pickled(3), "gASVAAAA"):
        assert cause_of(wrong, None)[0]
    assert ("Timeout", "late by #") == cause_of('{"name":"Timeout","message":"late by 3"}', "portable_json")
    assert "mine" in cause_of("xxx", "mine")[0]


def test_messages_that_differ_in_their_ids_have_one_cause() -> None:
    said = "job {} failed: no column"
    ids = ("3fa85f64-5717-4562-b3fc-2c963f66afa6", "00c0ffee-aaaa-bbbb-cccc-12121212abcd")

    causes = {cause_of(pickled(ValueError(said.format(each))), None) for each in ids}

    assert {("ValueError", "job <id> failed: no column")} == causes
    assert ("ValueError", "job <id> is late") == cause_of(pickled(ValueError(f"job {ids[0]} is late")), None)


class Http404(Exception):
    pass


class Http403(Exception):
    pass


def test_types_that_differ_in_digits_are_not_the_same() -> None:
    assert cause_of(pickled(Http404("x")), None) != cause_of(pickled(Http403("x")), None)


def test_a_circle_of_parents_does_not_hang(source: Shop, rows: Rows) -> None:
    rows.run("UPDATE {}workflow_status SET parent_workflow_id = 'own-b' WHERE workflow_uuid = 'own-a'")
    rows.run("UPDATE {}workflow_status SET parent_workflow_id = 'own-a' WHERE workflow_uuid = 'own-b'")

    assert {"own-a", "own-b"} <= {each for group in triage(at=source).groups for each in (*group.ids, *group.following)}


# -- in the explorer -----------------------------------------------------------------------------------------------


@pytest.fixture
def opened(source: Shop, eventually: Callable[..., Any]) -> Iterator[Explorer]:
    made = Explorer(source, {}, newest=lambda _: None)
    made.post(Entered("triage"))
    eventually(lambda: made.state.groups)
    yield made
    made.close()


def test_a_group_is_forked_by_a_button_after_its_count_was_typed(
    source: Shop, opened: Explorer, eventually: Callable[..., Any]
) -> None:
    source.mend()
    panel = opened.layout.triage
    eventually(lambda: not panel.fork.button.disabled)
    assert "Fork group (4 runs)" == panel.fork.button.description
    assert "bill" in panel.table.value
    assert "type how many" in panel.fork.button.tooltip

    panel.fork.button.click()
    eventually(lambda: "type how many" in opened.state.error)
    panel.count.value = "3"
    panel.fork.button.click()
    eventually(lambda: "4 runs now, not 3" in opened.state.error)
    assert 0 == len(source.runs(forked_from=["bill-1"]))
    panel.count.value = "4"
    assert "--confirm 4" in panel.fork.button.tooltip
    panel.fork.button.click()
    eventually(lambda: "Forked 4 runs." == opened.state.notice)

    assert 1 == len(source.runs(forked_from=["bill-22"]))
    eventually(lambda: panel.fork.button.disabled)


def test_the_command_of_the_button_does_the_same(source: Shop, opened: Explorer) -> None:
    action = ForkGroup(opened.state.groups[0].fingerprint, 4)
    verb, *words = shlex.split(action.command.removeprefix("%dbos "))

    given = verb_of(verb).parser().parse_args(words)

    assert (action.fingerprint, 4) == (given.group, given.confirm)
    assert 4 == len(fork_group(given.group, confirm=given.confirm, at=source))


@pytest.mark.parametrize(
    "wrong",
    [
        "fork",
        "fork w --group 1",
        "resume",
        "resume w --group 1",
        "fork w --confirm 1",
        "resume w --dry-run",
        "resume w --confirm 1",
        "triage --status SUCCESS",
    ],
)
def test_words_that_do_not_fit_are_refused(wrong: str) -> None:
    verb, *words = wrong.split()

    with pytest.raises(ValueError):
        given = verb_of(verb).parser().parse_args(words)
        verb_of(verb).act(given, {})
