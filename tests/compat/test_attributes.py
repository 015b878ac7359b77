"""Attributes: what is noted of a workflow at its start or later, and that listings can ask for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, Debouncer, Queue, SetWorkflowAttributes, SetWorkflowID
from dbos.error import DBOSException, DBOSNonExistentWorkflowError, DBOSSchemaError
from tests.compat.acts import again, beside, step_names
from tests.compat.clients import Caller
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside


def noted(workflow_id: str) -> dict[str, Any] | None:
    found = DBOS.get_workflow_status(workflow_id)
    assert found is not None
    return found.attributes


def define(hand: Hand) -> Any:
    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    return work


@pytest.fixture
def client(database: str) -> Iterator[DBOSClient]:
    with DBOSClient(system_database_url=database) as made:
        yield made


# -- at the start ----------------------------------------------------------------------------------------------


def test_they_are_noted_however_it_starts(app: App, hand: Hand, client: DBOSClient) -> None:
    """Called, started, enqueued here or by a client, or debounced."""
    work = define(hand)
    queue = Queue("q")
    app.launch()
    wanted = {"customer": "é", "tags": ["a", 1, None, True], "nested": {"x": 1.5}}
    with SetWorkflowAttributes(wanted):
        with SetWorkflowID("called"):
            hand.call(work)
        with SetWorkflowID("started"):
            hand.start(work).result()
        with SetWorkflowID("queued"):
            enqueued = hand.call(queue.enqueue_async if hand.is_async else queue.enqueue, work)
            hand.call(enqueued.get_result)
        with SetWorkflowID("debounced"):
            debouncer = Debouncer.create(work)
            hand.call(debouncer.debounce_async if hand.is_async else debouncer.debounce, "key", 0)
    Caller(hand, client).enqueue("work", workflow_id="by-client", attributes=wanted).result()
    hand.call(work)

    found = {each.workflow_id: each.attributes for each in DBOS.list_workflows()}
    assert dict.fromkeys(("called", "started", "queued", "debounced", "by-client"), wanted) == {
        each: found.pop(each) for each in ("called", "started", "queued", "debounced", "by-client")
    }
    assert [None] == list(found.values())


def test_a_workflow_that_is_there_keeps_its_own(app: App, hand: Hand) -> None:
    work = define(hand)
    app.launch()
    with SetWorkflowID("bare"):
        hand.call(work)
    for text in ("first", "second"):
        with SetWorkflowID("w"), SetWorkflowAttributes({"is": text}):
            hand.call(work)
    with SetWorkflowID("bare"), SetWorkflowAttributes({"is": "late"}):
        hand.call(work)

    assert ({"is": "first"}, None) == (noted("w"), noted("bare"))


def test_blocks_nest_and_end(app: App, hand: Hand) -> None:
    work = define(hand)
    app.launch()
    with SetWorkflowAttributes({"a": 1}):
        with SetWorkflowAttributes({"b": 2}):
            inner = hand.start(work)
        with SetWorkflowAttributes(None):
            none = hand.start(work)
        outer = hand.start(work)
    after = hand.start(work)

    assert [{"b": 2}, None, {"a": 1}, None] == [noted(each.workflow_id) for each in (inner, none, outer, after)]


def test_children_have_their_own(app: App, hand: Hand) -> None:
    """None of their parent's; those of a block in the parent."""
    work = define(hand)

    @hand.workflow()
    async def parent(do: Inside) -> None:
        await do(work())
        with SetWorkflowAttributes({"is": "child"}):
            await do(work())
            handle = await do.start(work)
        await do(handle.get_result())

    app.launch()
    with SetWorkflowID("p"), SetWorkflowAttributes({"is": "parent"}):
        hand.call(parent)

    assert [{"is": "parent"}, None, {"is": "child"}, {"is": "child"}] == [
        noted(each) for each in ("p", "p-1", "p-3", "p-5")
    ]


def test_forks_have_those_of_the_original(app: App, hand: Hand) -> None:
    work = define(hand)
    app.launch()
    with SetWorkflowID("w"), SetWorkflowAttributes({"a": 1}):
        hand.call(work)
    fork = hand.do("fork_workflow", "w", 1)
    hand.do("update_workflow_attributes", "w", {"a": 2})

    assert ({"a": 1}, {"a": 2}) == (noted(fork.workflow_id), noted("w"))


def test_forks_have_what_the_block_adds(app: App, hand: Hand, client: DBOSClient) -> None:
    """In the transaction that makes the fork; asked for again it stays as it was made."""
    work = define(hand)
    app.launch()
    with SetWorkflowID("original"), SetWorkflowAttributes({"customer": 1, "team": "a"}):
        hand.call(work)

    for team in ("b", "c"):
        with SetWorkflowID("fork"), SetWorkflowAttributes({"team": team, "why": "x"}):
            client.fork_workflow("original", 1)

    assert {"customer": 1, "team": "b", "why": "x"} == noted("fork")
    assert {"customer": 1, "team": "a"} == noted("original")


@pytest.mark.parametrize("bad", [5, "text", [1], {"a": object()}, {"a": float("nan")}, {"a": "\0"}, {"a": "\ud800"}])
def test_what_is_no_json_object_is_refused(app: App, hand: Hand, client: DBOSClient, bad: Any) -> None:
    define(hand)
    app.launch()
    text = "must be JSON-serializable" if isinstance(bad, dict) else "must be a dict"

    with pytest.raises(DBOSException, match=text):
        SetWorkflowAttributes(bad)
    with pytest.raises(DBOSException, match=text):
        hand.do("update_workflow_attributes", "w", bad)
    with pytest.raises(DBOSException, match=text):
        Caller(hand, client).enqueue("work", attributes=bad)
    with pytest.raises(DBOSException, match=text):
        hand.do("list_workflows", attributes=bad)


def test_a_backslash_is_no_escape(app: App, hand: Hand) -> None:
    work = define(hand)
    app.launch()
    with SetWorkflowAttributes({"path": "\\u0000"}), SetWorkflowID("w"):
        hand.call(work)

    assert ["w"] == [each.workflow_id for each in hand.do("list_workflows", attributes={"path": "\\u0000"})]


# -- later -----------------------------------------------------------------------------------------------------


def test_they_can_be_replaced_merged_and_cleared(app: App, hand: Hand, client: DBOSClient) -> None:
    work = define(hand)
    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    seen = []
    for attributes, options in (
        ({"a": 1, "n": {"x": 1}}, {}),
        ({"b": 2, "n": {"y": 1}}, {"merge": True}),
        ({"c": 3}, {}),
        ({}, {"merge": True}),
        (None, {}),
        ({"d": 4}, {"merge": True}),
        ({}, {}),
    ):
        hand.do("update_workflow_attributes", "w", attributes, **options)
        seen.append(noted("w"))
    Caller(hand, client)("update_workflow_attributes", "w", {"by": "client"})

    assert [{"a": 1, "n": {"x": 1}}, {"a": 1, "n": {"y": 1}, "b": 2}, {"c": 3}, {"c": 3}, None, {"d": 4}, {}] == seen
    assert {"by": "client"} == noted("w")


def test_what_cannot_be_done_is_refused(app: App, hand: Hand) -> None:
    app.launch()

    with pytest.raises(DBOSException, match="Cannot merge None"):
        hand.do("update_workflow_attributes", "w", None, merge=True)
    with pytest.raises(DBOSNonExistentWorkflowError):
        hand.do("update_workflow_attributes", "w", {"a": 1})


def test_merges_do_not_lose_each_other(app: App, hand: Hand) -> None:
    work = define(hand)
    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    ready = threading.Barrier(6)

    def merge(number: int) -> None:
        ready.wait()
        for key in range(5):
            DBOS.update_workflow_attributes("w", {f"{number}-{key}": number}, merge=True)

    for future in [beside(merge, number) for number in range(6)]:
        future.result(20)

    assert {f"{number}-{key}": number for number in range(6) for key in range(5)} == noted("w")


def test_in_a_workflow_a_change_is_a_step(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        await do.update_workflow_attributes(DBOS.workflow_id, {"by": "itself"})

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    assert {"by": "itself"} == noted("w")
    hand.do("update_workflow_attributes", "w", {"by": "another"})
    again(rows, "w").get_result()

    assert {"by": "another"} == noted("w")
    assert ["DBOS.updateWorkflowAttributes"] == step_names("w")


def test_they_go_with_the_workflow(app: App, hand: Hand, rows: Rows) -> None:
    work = define(hand)
    app.launch()
    with SetWorkflowID("w"), SetWorkflowAttributes({"a": 1}):
        hand.call(work)
    hand.do("delete_workflow", "w")
    assert [] == rows.run("SELECT * FROM {}notebook_attributes")
    with SetWorkflowID("w"):
        hand.call(work)

    assert noted("w") is None


# -- listings --------------------------------------------------------------------------------------------------

NOTED: dict[str, Any] = {
    "plain": {"a": 1, "b": "x"},
    "nested": {"a": {"b": {"c": [1, 2, {"d": 3}]}}, "e": None},
    "flags": {"a": True, "f": [[1], 2]},
    "empty": {},
    "none": None,
}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["plain", "nested", "flags", "empty"]),
        ({"a": 1}, ["plain"]),
        ({"a": 1.0}, ["plain"]),
        ({"a": 1, "b": "x"}, ["plain"]),
        ({"a": 1, "b": "y"}, []),
        ({"a": True}, ["flags"]),
        ({"a": {}}, ["nested"]),
        ({"a": {"b": {"c": [{"d": 3}, 1]}}}, ["nested"]),
        ({"a": {"b": {"c": [4]}}}, []),
        ({"e": None}, ["nested"]),
        ({"f": [[1]]}, ["flags"]),
        ({"f": [[2]]}, []),
        (None, ["plain", "nested", "flags", "empty", "none"]),
    ],
)
def test_a_listing_finds_what_contains_them(app: App, hand: Hand, wanted: Any, found: list[str]) -> None:
    work = define(hand)
    app.launch()
    for workflow_id, attributes in NOTED.items():
        with SetWorkflowID(workflow_id), SetWorkflowAttributes(attributes):
            hand.call(work)

    assert found == [each.workflow_id for each in hand.do("list_workflows", attributes=wanted)]


def test_a_column_of_a_later_release_is_used(app: App, hand: Hand, rows: Rows) -> None:
    """Where the shared table has one, other programs find them there, and we find theirs."""
    work = define(hand)
    rows.run(f"ALTER TABLE {{}}workflow_status ADD COLUMN attributes {'JSONB' if rows.is_postgres else 'TEXT'}")
    rows.add("theirs", "work", status="SUCCESS", output="7", attributes='{"a": [1, 2]}')
    rows.add("unset", "work", status="SUCCESS", output="7", attributes="null")
    app.launch()
    with SetWorkflowID("ours"), SetWorkflowAttributes({"a": [2]}):
        hand.call(work)
    with SetWorkflowID("fork"):
        hand.do("fork_workflow", "ours", 1).result()
    hand.do("update_workflow_attributes", "theirs", {"b": 1}, merge=True)
    hand.do("update_workflow_attributes", "fork", None)

    assert [{"a": [1, 2], "b": 1}, None, {"a": [2]}, None] == list(map(noted, ("theirs", "unset", "ours", "fork")))
    assert {"theirs", "ours"} == {each.workflow_id for each in hand.do("list_workflows", attributes={"a": [2]})}
    stored = rows.workflow("ours").attributes
    assert {"a": [2]} == (stored if rows.is_postgres else json.loads(stored))
    assert [] == rows.run("SELECT * FROM {}notebook_attributes")


def test_a_client_reads_a_database_of_others(app: App, database: str, rows: Rows) -> None:
    """No program of ours has been there, and a client makes nothing."""
    rows.run("DROP TABLE {}notebook_attributes")
    rows.add("theirs", "work", status="SUCCESS", output="7")
    with DBOSClient(system_database_url=database) as client:
        assert [None] == [each.attributes for each in client.list_workflows()]
        assert [] == client.list_workflows(attributes={"a": 1})
        with pytest.raises(DBOSSchemaError):
            client.update_workflow_attributes("theirs", {"a": 1})
