"""`workflow_id_reuse_policy`: whether a start may mean the workflow that has its id already."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, Debouncer, DebouncerClient, Queue, SetEnqueueOptions, SetWorkflowID
from dbos.error import DBOSException, DBOSWorkflowIDInUseError
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside

IN_USE = "Workflow ID taken is already in use by workflow work with status SUCCESS"


@pytest.fixture
def work(app: App, hand: Hand) -> Any:
    """A workflow, of which one is done: `taken`."""
    Queue("jobs")

    @hand.workflow(name="work")
    async def work(do: Inside, x: int) -> int:
        return x

    app.launch()
    with SetWorkflowID("taken"):
        assert hand.call(work, 1) == 1
    return work


def new(workflow_id: str) -> SetWorkflowID:
    return SetWorkflowID(workflow_id, workflow_id_reuse_policy="reject")


def test_a_known_id_is_refused(work: Any, hand: Hand, rows: Rows) -> None:
    before = rows.workflow("taken")

    for start in (hand.call, hand.start, lambda *args: hand.do("enqueue_workflow", "jobs", *args)):
        with new("taken"), pytest.raises(DBOSWorkflowIDInUseError, match=IN_USE) as refused:
            start(work, 2)
        error = refused.value
        assert ("taken", "SUCCESS", "work", 27) == (
            error.workflow_id,
            error.workflow_status,
            error.workflow_name,
            error.dbos_error_code,
        )
        assert str(pickle.loads(pickle.dumps(error))) == str(error)

    assert rows.workflow("taken") == before


def test_a_new_id_is_taken(work: Any, hand: Hand) -> None:
    with new("a"):
        assert hand.call(work, 2) == 2
    with new("b"):
        assert hand.start(work, 3).result() == 3
    with new("c"):
        assert hand.do("enqueue_workflow", "jobs", work, 4).result() == 4


def test_another_function_is_refused_in_the_same_words(work: Any, hand: Hand) -> None:
    @hand.workflow(name="other")
    async def other(do: Inside) -> None:
        return None

    with new("taken"), pytest.raises(DBOSWorkflowIDInUseError, match=IN_USE):
        hand.call(other)


def test_without_a_policy_the_workflow_is_meant_that_is_there(work: Any, hand: Hand) -> None:
    for policy in (None, "return-existing"):
        with SetWorkflowID("taken", workflow_id_reuse_policy=policy):
            assert hand.call(work, 2) == 1


def test_it_comes_before_deduplication(work: Any, hand: Hand) -> None:
    with SetEnqueueOptions(deduplication_id="d", delay_seconds=60), SetWorkflowID("first"):
        hand.do("enqueue_workflow", "jobs", work, 1)
    with (
        SetEnqueueOptions(deduplication_id="d"),
        new("first"),
        pytest.raises(DBOSWorkflowIDInUseError, match="status DELAYED"),
    ):
        hand.do("enqueue_workflow", "jobs", work, 1)


def test_a_parent_records_the_refusal(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow(name="work")
    async def work(do: Inside, x: int) -> int:
        return x

    @hand.workflow()
    async def parent(do: Inside) -> str:
        try:
            with new("taken"):
                await do(work(2))
        except DBOSWorkflowIDInUseError as error:
            return str(error)
        return "not refused"

    app.launch()
    with SetWorkflowID("taken"):
        hand.call(work, 1)
    with SetWorkflowID("p"):
        said = hand.call(parent)
    assert IN_USE in said
    # Nobody has the id any more when it is done again, but the record says what was.
    DBOS.delete_workflow("taken")
    assert hand.do("fork_workflow", "p", 2).result() == said


def test_a_child_of_a_replay_is_its_own(app: App, hand: Hand) -> None:
    @hand.workflow(name="work")
    async def work(do: Inside, x: int) -> int:
        return x

    @hand.workflow()
    async def parent(do: Inside) -> int:
        with new("child"):
            return await do(work(2))

    app.launch()
    with SetWorkflowID("p"):
        assert hand.call(parent) == 2
    assert hand.do("fork_workflow", "p", 3).result() == 2


def test_a_client_may_ask_for_a_new_workflow(work: Any, database: str) -> None:
    options: dict[str, Any] = {"workflow_name": "work", "queue_name": "jobs", "workflow_id_reuse_policy": "reject"}
    with DBOSClient(system_database_url=database) as client:
        with pytest.raises(DBOSWorkflowIDInUseError, match=IN_USE):
            client.enqueue({**options, "workflow_id": "taken"}, 2)  # type: ignore[typeddict-item]
        assert client.enqueue({**options, "workflow_id": "n"}, 2).get_result() == 2  # type: ignore[typeddict-item]
        assert client.enqueue(options, 3).get_result() == 3  # type: ignore[arg-type]


def test_only_two_policies_exist(work: Any, database: str) -> None:
    with pytest.raises(DBOSException, match="Invalid workflow_id_reuse_policy 'fail'"):
        SetWorkflowID("a", workflow_id_reuse_policy="fail")  # type: ignore[arg-type]
    options: Any = {"workflow_name": "work", "queue_name": "jobs", "workflow_id_reuse_policy": "fail"}
    with DBOSClient(system_database_url=database) as client:
        with pytest.raises(DBOSException, match="Invalid workflow_id_reuse_policy 'fail'"):
            client.enqueue(options, 1)
        assert [each.workflow_id for each in client.list_workflows()] == ["taken"]


def test_the_calls_of_a_debounce_mean_one_workflow(work: Any, database: str) -> None:
    with new("d"), pytest.raises(DBOSException, match="workflow_id_reuse_policy 'reject'"):
        Debouncer.create(work).debounce("k", 60, 1)
    options: Any = {"workflow_name": "work", "queue_name": "jobs", "workflow_id_reuse_policy": "reject"}
    with (
        DBOSClient(system_database_url=database) as client,
        pytest.raises(DBOSException, match="workflow_id_reuse_policy 'reject'"),
    ):
        DebouncerClient(client, options)
