"""Enqueueing by name from an application, and the registered queues of a client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, DBOSContextSetAuth, Queue, SetWorkflowAttributes, SetWorkflowID, SetWorkflowTimeout
from dbos.error import DBOSConflictingWorkflowError, DBOSException, DBOSMisuseError, DBOSQueueDeduplicatedError
from tests.compat.acts import again, step_names
from tests.compat.clients import Caller, to
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Held, Inside

BY_NAME = "enqueue_workflow_with_options"


@pytest.fixture
def client(database: str) -> Iterator[DBOSClient]:
    with DBOSClient(system_database_url=database) as made:
        yield made


def define(hand: Hand) -> list[Any]:
    ran: list[Any] = []

    @hand.workflow()
    async def work(do: Inside, x: int, *, y: int = 0) -> int:
        ran.append(x)
        return x + y

    return ran


# -- from outside ----------------------------------------------------------------------------------------------


def test_a_workflow_is_enqueued_by_its_name(app: App, hand: Hand) -> None:
    define(hand)
    app.launch()
    held = hand.do(BY_NAME, to("work", workflow_id="w"), 3, y=4)

    assert ("w", 7) == (held.workflow_id, held.result())
    assert 7 == hand.do(BY_NAME, to("work", workflow_id="w"), 99).result()


def test_neither_function_nor_queue_need_be_here(app: App, hand: Hand) -> None:
    app.launch()
    held = hand.do(BY_NAME, {"workflow_name": "far", "queue_name": "away", "priority": 3, "app_version": "v9"}, 1)

    found = held.status()
    assert ("ENQUEUED", "far", "away", 3, "v9") == (
        found.status,
        found.name,
        found.queue_name,
        found.priority,
        found.app_version,
    )
    assert {"args": (1,), "kwargs": {}} == found.input


def test_the_blocks_around_it_count_where_the_options_are_silent(app: App, hand: Hand) -> None:
    app.launch()
    options = {"workflow_name": "far", "queue_name": "away"}
    with SetWorkflowID("given"), SetWorkflowAttributes({"a": 1}), DBOSContextSetAuth("me", ["admin"]):
        silent = hand.do(BY_NAME, options).status()
        said = hand.do(
            BY_NAME, {**options, "workflow_id": "own", "attributes": {"b": 2}, "authenticated_user": "you"}
        ).status()

    assert ("given", {"a": 1}, "me", ["admin"]) == (
        silent.workflow_id,
        silent.attributes,
        silent.authenticated_user,
        silent.authenticated_roles,
    )
    assert ("own", {"b": 2}, "you", None) == (
        said.workflow_id,
        said.attributes,
        said.authenticated_user,
        said.authenticated_roles,
    )


def test_what_a_queue_of_ours_does_not_take_is_refused(app: App, hand: Hand) -> None:
    Queue("parted", partition_queue=True)
    app.launch()

    with pytest.raises(DBOSException, match="is a partitioned queue"):
        hand.do(BY_NAME, {"workflow_name": "work", "queue_name": "parted"})
    with pytest.raises(TypeError, match="no such key"):
        hand.do(BY_NAME, {"workflow_name": "work", "queue_name": "parted", "prio": 1})


# -- from a workflow -------------------------------------------------------------------------------------------


def test_in_a_workflow_it_is_a_child(app: App, hand: Hand, rows: Rows) -> None:
    """With the id and the record of one, under the parent's deadline; a replay does not enqueue it again."""
    ran = define(hand)

    @hand.workflow()
    async def parent(do: Inside) -> int:
        handle = await do.enqueue_workflow_with_options(to("work"), 3, y=4)
        return await do(handle.get_result())

    app.launch()
    with SetWorkflowID("p"), SetWorkflowTimeout(600):
        assert 7 == hand.call(parent)
    child = DBOS.get_workflow_status("p-1")
    assert child is not None
    assert ("p", rows.workflow("p").workflow_deadline_epoch_ms) == (
        child.parent_workflow_id,
        child.workflow_deadline_epoch_ms,
    )
    assert 7 == again(rows, "p").get_result()

    assert [3] == ran
    assert ["work", "DBOS.getResult"] == step_names("p")
    assert ["p-1", "p-1"] == [each["child_workflow_id"] for each in DBOS.list_workflow_steps("p")]


def test_a_refusal_is_recorded(app: App, hand: Hand, rows: Rows) -> None:
    """Another function has the id, or another workflow the deduplication id: a replay meets the same error."""
    define(hand)
    errors: list[type[Exception]] = []

    @hand.workflow()
    async def parent(do: Inside) -> str:
        for options in (
            {"workflow_id": "taken"},
            {"deduplication_id": "d"},
        ):
            try:
                await do.enqueue_workflow_with_options({**to("work"), "queue_name": "away", **options}, 1)
            except DBOSException as error:
                errors.append(type(error))
        existing = {"deduplication_id": "d", "duplication_policy": "return-existing"}
        handle = await do.enqueue_workflow_with_options({**to("work"), "queue_name": "away", **existing}, 1)
        return handle.workflow_id

    app.launch()
    hand.do(BY_NAME, {"workflow_name": "other", "queue_name": "away", "workflow_id": "taken"})
    hand.do(BY_NAME, {"workflow_name": "work", "queue_name": "away", "workflow_id": "h", "deduplication_id": "d"}, 1)
    with SetWorkflowID("p"):
        assert "h" == hand.call(parent)
    rows.run("DELETE FROM {}workflow_status WHERE workflow_uuid IN ('taken', 'h')")
    assert "h" == again(rows, "p").get_result()

    assert [DBOSConflictingWorkflowError, DBOSQueueDeduplicatedError] * 2 == errors


def test_in_a_step_it_is_refused(app: App, hand: Hand) -> None:
    async def start(do: Inside) -> None:
        await do.enqueue_workflow_with_options(to("work"), 1)

    function = hand.function(start)

    @hand.workflow()
    async def parent(do: Inside) -> None:
        await do.run_step(None, function)

    app.launch()
    with pytest.raises(DBOSMisuseError):
        hand.call(parent)
    assert ["parent"] == [each.name for each in DBOS.list_workflows()]


# -- registered queues of a client -----------------------------------------------------------------------------


def test_a_client_registers_queues(app: App, hand: Hand, client: DBOSClient) -> None:
    """What it sets, every process sees; it changes those that are there."""
    ran = define(hand)
    app.launch()
    call = Caller(hand, client)
    queue = call("register_queue", "q", global_concurrency=2, worker_concurrency=1)
    assert ("q", 2, 1) == (queue.name, queue.global_concurrency, queue.worker_concurrency)
    hand.do("register_queue", "mine", global_concurrency=3)
    call("register_queue", "mine", global_concurrency=5)

    assert ["mine", "q"] == [each.name for each in call("list_queues")]
    mine = call("retrieve_queue", "mine")
    assert 5 == mine.global_concurrency
    mine.set_global_concurrency(6)
    assert 6 == hand.do("retrieve_queue", "mine").global_concurrency
    assert 7 == call("enqueue", {"workflow_name": "work", "queue_name": "q"}, 7).result()
    assert [7] == ran
    call("delete_queue", "q")
    assert (None, ["mine"]) == (call("retrieve_queue", "q"), [each.name for each in call("list_queues")])


def test_a_queue_of_a_client_takes_no_functions(app: App, hand: Hand, client: DBOSClient) -> None:
    app.launch()
    queue = Caller(hand, client)("register_queue", "q")

    with pytest.raises(DBOSException, match="A client has no functions"):
        Held(hand, hand.call(queue.enqueue_async if hand.is_async else queue.enqueue, lambda: None))


def test_the_methods_of_a_client_are_documented() -> None:
    for name in ("register_queue", "retrieve_queue", "list_queues", "delete_queue"):
        for method in (getattr(DBOSClient, name), getattr(DBOSClient, f"{name}_async")):
            assert method.__doc__
            assert method.__name__ in (name, f"{name}_async")
