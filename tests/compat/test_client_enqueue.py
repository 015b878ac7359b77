"""Enqueueing by a client: what arrives, what is stored, what is refused, and who is woken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, DBOSConfiguredInstance, WorkflowSerializationFormat
from dbos._kernel import ear
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSConflictingWorkflowError,
    DBOSException,
    DBOSNonExistentWorkflowError,
    DBOSQueueDeduplicatedError,
)
from dbos.testing import FakeClock
from tests.compat.acts import step_names
from tests.compat.clients import Caller, to
from tests.compat.rows import INTERNAL_QUEUE, Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate, eventually

MOST = 2**31 - 1


@pytest.fixture
def ask(database: str, hand: Hand) -> Iterator[Caller]:
    """A client in both colours."""
    with DBOSClient(system_database_url=database) as client:
        yield Caller(hand, client)


@pytest.fixture
def client(database: str) -> Iterator[DBOSClient]:
    with DBOSClient(system_database_url=database) as made:
        yield made


def test_arguments_arrive_and_the_result_returns(app: App, hand: Hand, ask: Caller) -> None:
    @hand.workflow(name="work")
    async def work(do: Inside, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    app.launch()
    given = {"b": {3}, "here": 5, "client": 6, "order": 7}
    handle = ask("enqueue", to("work"), 1, (2,), **given)

    assert ((1, (2,)), given) == handle.result()
    assert ((), {"self": 1}) == ask.client.enqueue(to("work"), self=1).get_result()
    assert "SUCCESS" == handle.status().status


def test_an_error_is_raised_as_it_was(app: App, hand: Hand, ask: Caller) -> None:
    @hand.workflow(name="fails")
    async def fails(do: Inside) -> None:
        raise KeyError("no", 1)

    app.launch()
    with pytest.raises(KeyError) as caught:
        ask.enqueue("fails").result()

    assert ("no", 1) == caught.value.args


def test_a_method_is_called_on_its_instance(app: App, client: DBOSClient) -> None:
    @DBOS.dbos_class("Counter")
    class Counter(DBOSConfiguredInstance):
        def __init__(self, name: str, step: int) -> None:
            super().__init__(config_name=name)
            self.step = step

        @DBOS.workflow(name="count")
        def count(self, x: int) -> int:
            return x + self.step

        @staticmethod
        @DBOS.workflow(name="plain")
        def plain(x: int) -> int:
            return x

    Counter("by-ten", 10)
    app.launch()
    handle = client.enqueue(to("count", class_name="Counter", instance_name="by-ten"), 5)

    assert 15 == handle.get_result()
    assert 3 == client.enqueue(to("plain"), 3).get_result()


def test_every_option_is_stored(client: DBOSClient, rows: Rows, clock: FakeClock) -> None:
    with DBOSClient(system_database_url=client._url.render_as_string(hide_password=False)) as later:
        handle = later.enqueue(
            {
                "workflow_name": "work",
                "queue_name": "queue",
                "workflow_id": "w",
                "app_version": "v7",
                "workflow_timeout": 1.5,
                "delay_seconds": 2,
                "deduplication_id": "d",
                "duplication_policy": "reject",
                "priority": MOST,
                "queue_partition_key": "p",
                "max_recovery_attempts": 3,
                "authenticated_user": "ann",
                "authenticated_roles": ["a", "b"],
                "serialization_type": WorkflowSerializationFormat.PORTABLE,
                "class_name": "C",
                "instance_name": "i",
            },
            1,
            k="ü",
        )

    stored = rows.workflow(handle.workflow_id)._asdict()
    expected = {
        "workflow_uuid": "w",
        "status": "DELAYED",
        "name": "work",
        "queue_name": "queue",
        "application_version": "v7",
        "workflow_timeout_ms": 1_500,
        "workflow_deadline_epoch_ms": None,
        "delay_until_epoch_ms": clock.now_ms() + 2_000,
        "deduplication_id": "d",
        "priority": MOST,
        "queue_partition_key": "p",
        "authenticated_user": "ann",
        "authenticated_roles": '["a", "b"]',
        "serialization": "portable_json",
        "inputs": '{"positionalArgs":[1],"namedArgs":{"k":"ü"}}',
        "class_name": "C",
        "config_name": "i",
    }
    assert expected == {key: stored[key] for key in expected}


def test_what_is_not_given_is_not_stored(client: DBOSClient, rows: Rows) -> None:
    """In particular no version: any may run it."""
    stored = rows.workflow(client.enqueue(to("work", priority=None, app_version=None)).workflow_id)._asdict()

    nothing = (
        "application_version executor_id application_id class_name config_name deduplication_id queue_partition_key "
        "workflow_timeout_ms workflow_deadline_epoch_ms delay_until_epoch_ms authenticated_user authenticated_roles "
        "assumed_role parent_workflow_id owner_xid forked_from output error started_at_epoch_ms"
    ).split()
    assert {key: None for key in nothing} == {key: stored[key] for key in nothing}
    assert ("ENQUEUED", 0, 0, "py_pickle") == tuple(
        stored[key] for key in ("status", "priority", "recovery_attempts", "serialization")
    )


def test_the_same_id_is_the_same_workflow(app: App, hand: Hand, ask: Caller) -> None:
    @hand.workflow(name="work")
    async def work(do: Inside, x: int) -> int:
        return x

    app.launch()
    first = ask.enqueue("work", 1, workflow_id="w")
    second = ask.enqueue("work", 2, workflow_id="w")

    assert ("w", "w", 1, 1) == (first.workflow_id, second.workflow_id, first.result(), second.result())
    assert 1 == ask.enqueue("work", 3, workflow_id="w").result()
    with pytest.raises(DBOSConflictingWorkflowError, match="different function name"):
        ask.enqueue("other", workflow_id="w")
    with pytest.raises(DBOSConflictingWorkflowError, match="different class name"):
        ask.enqueue("work", workflow_id="w", class_name="C")


def test_a_deduplication_id_is_held_until_the_end(app: App, hand: Hand, ask: Caller) -> None:
    gate = Gate()

    @hand.step(name="wait")
    def wait() -> None:
        gate.pass_through()

    @hand.workflow(name="work")
    async def work(do: Inside) -> None:
        await do(wait())

    app.launch()
    first = ask.enqueue("work", workflow_id="first", deduplication_id="d")
    with pytest.raises(DBOSQueueDeduplicatedError) as caught:
        ask.enqueue("work", workflow_id="second", deduplication_id="d")
    joined = ask.enqueue("work", workflow_id="third", deduplication_id="d", duplication_policy="return-existing")

    assert ("second", INTERNAL_QUEUE, "d") == caught.value.args
    assert "first" == joined.workflow_id
    assert ["first"] == [each.workflow_id for each in ask("list_workflows")]
    gate.open()
    first.result()
    assert "fourth" == ask.enqueue("work", workflow_id="fourth", deduplication_id="d").workflow_id


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"workflow_nane": "x"}, TypeError, "no such key: workflow_nane"),
        ({"queue_name": None}, TypeError, "needs queue_name"),
        ({"workflow_name": " "}, DBOSException, "workflow name must be a non-empty string"),
        ({"queue_name": ""}, DBOSException, "queue name must be a non-empty string"),
        ({"workflow_id": " "}, DBOSException, "workflow ID must be a non-empty string"),
        ({"deduplication_id": ""}, DBOSException, "deduplication ID must be a non-empty string"),
        ({"app_version": 7}, DBOSException, "application version must be a non-empty string"),
        ({"priority": 0}, DBOSException, "Invalid priority"),
        ({"priority": MOST + 1}, DBOSException, "Invalid priority"),
        ({"priority": 1.5}, DBOSException, "Invalid priority"),
        ({"priority": True}, DBOSException, "Invalid priority"),
        ({"workflow_timeout": -1}, DBOSException, "workflow_timeout must be"),
        ({"workflow_timeout": float("nan")}, DBOSException, "workflow_timeout must be"),
        ({"delay_seconds": -0.1}, DBOSException, "delay_seconds must be"),
        ({"delay_seconds": float("inf")}, DBOSException, "delay_seconds must be"),
        ({"delay_seconds": "1"}, DBOSException, "delay_seconds must be"),
        ({"duplication_policy": "join", "deduplication_id": "d"}, DBOSException, "Invalid duplication_policy"),
        ({"duplication_policy": "return-existing"}, DBOSException, "requires a deduplication_id"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    database: str, hand: Hand, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with DBOSClient(system_database_url=database) as client:
        with pytest.raises(error, match=text):
            Caller(hand, client)("enqueue", to("work") | options)
        assert [] == client.list_workflows()


def test_arguments_that_cannot_be_stored_are_refused(client: DBOSClient) -> None:
    with pytest.raises(Exception, match="pickle"):
        client.enqueue(to("work"), lambda: 1)
    with pytest.raises(TypeError, match="not portable JSON"):
        client.enqueue(to("work", serialization_type=WorkflowSerializationFormat.PORTABLE), object())

    assert [] == client.list_workflows()


def test_a_delay_is_waited_for(app: App, clock: FakeClock, database: str, hand: Hand) -> None:
    @hand.workflow(name="work")
    async def work(do: Inside) -> int:
        return 1

    app.launch()
    with DBOSClient(system_database_url=database) as client:
        ask = Caller(hand, client)
        first = ask.enqueue("work", delay_seconds=100)
        second = ask.enqueue("work", delay_seconds=100)
        assert ["DELAYED", "DELAYED"] == [first.status().status, second.status().status]
        ask("set_workflow_delay", second.workflow_id, delay_seconds=1_000)
        clock.advance(101)

        assert 1 == DBOS.get_result(first.workflow_id)
        assert ("SUCCESS", "DELAYED") == (first.status().status, second.status().status)


def test_a_timeout_counts_from_the_start(app: App, clock: FakeClock, database: str, hand: Hand) -> None:
    @hand.workflow(name="sleeps")
    async def sleeps(do: Inside) -> None:
        await do.sleep(1_000)

    with DBOSClient(system_database_url=database) as client:
        handle = Caller(hand, client).enqueue("sleeps", workflow_timeout=10)
        clock.advance(50)
        app.launch()
        clock.wait_for_sleeper(clock.now_ms() + 1_000_000)
        assert clock.now_ms() + 10_000 == handle.status().workflow_deadline_epoch_ms
        clock.advance(11)

        with pytest.raises(DBOSAwaitedWorkflowCancelledError):
            DBOS.get_result(handle.workflow_id)


def test_nobody_waits_for_a_full_look(app: App, hand: Hand, ask: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application hears of the work, and the client of its end, by the database's own means."""
    for interval in ("FULL_LOOK_MS", "SHORT_LOOK_MS"):
        monkeypatch.setattr(ear, interval, 3_600_000)

    @hand.workflow(name="sleeps")
    async def sleeps(do: Inside, seconds: float) -> int:
        await do.sleep(seconds)
        return 1

    app.launch()
    sleeper = ask.enqueue("sleeps", 3_600)
    eventually(lambda: step_names(sleeper.workflow_id))
    ask("cancel_workflow", sleeper.workflow_id)
    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        DBOS.get_result(sleeper.workflow_id)

    assert 1 == ask.enqueue("sleeps", 0.1).result()


def test_a_portable_workflow_answers_portably(app: App, hand: Hand, ask: Caller, rows: Rows) -> None:
    @hand.workflow(name="work")
    async def work(do: Inside, x: int, *, y: Any) -> Any:
        return (x, y)

    app.launch()
    portable = WorkflowSerializationFormat.PORTABLE
    handle = ask("enqueue", to("work", serialization_type=portable, workflow_id="w"), 1, y={"k": [1]})

    assert [1, {"k": [1]}] == handle.result()
    assert ('[1,{"k":[1]}]', "portable_json") == (rows.workflow("w").output, rows.workflow("w").serialization)


def test_an_unknown_id_is_an_error(ask: Caller) -> None:
    for operation in ("retrieve_workflow", "get_result", "resume_workflow"):
        with pytest.raises(DBOSNonExistentWorkflowError, match="nobody"):
            ask(operation, "nobody")
    with pytest.raises(DBOSNonExistentWorkflowError, match="nobody"):
        ask("fork_workflow", "nobody", 1)

    assert ask("get_workflow_status", "nobody") is None
    assert [] == ask("list_workflow_steps", "nobody")
    assert ask("cancel_workflow", "nobody") is None
