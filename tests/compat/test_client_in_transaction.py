"""A client inside a transaction of its program: what it asks for happens if that commits, and not at all if not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.orm import Session

from dbos import DBOS, DBOSClient, Queue, SetWorkflowID
from dbos._faces.config import parsed
from dbos._features.messages import SendMessage
from dbos.error import DBOSException, DBOSNonExistentWorkflowError, DBOSQueueDeduplicatedError, DBOSReadOnlyError
from tests.conftest import App

Place = Callable[[], AbstractContextManager[Connection | Session]]


@pytest.fixture
def client(database: str) -> Iterator[DBOSClient]:
    with DBOSClient(system_database_url=database) as made:
        yield made


@pytest.fixture(params=["connection", "session"])
def place(database: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A transaction of the user's that commits at the end of the block, beside a table of the user's."""
    engine = create_engine(parsed(database))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (name TEXT)"))

    @contextmanager
    def begin() -> Iterator[Connection | Session]:
        if request.param == "connection":
            with engine.begin() as connection:
                yield connection
        else:
            with Session(engine) as session, session.begin():
                yield session

    yield begin
    engine.dispose()


def options(**more: Any) -> Any:
    return {"workflow_name": "work", "queue_name": "jobs", **more}


def test_work_is_enqueued_with_the_commit(app: App, client: DBOSClient, place: Place) -> None:
    Queue("jobs")

    @DBOS.workflow(name="work")
    def work(order: str) -> str:
        return f"done {order}"

    app.launch()
    with place() as mine:
        mine.execute(text("INSERT INTO orders VALUES ('one')"))
        handle = client.enqueue_in_transaction(mine, options(workflow_id="w"), "one")
        assert handle.workflow_id == "w"
    assert handle.get_result() == "done one"


def test_nothing_is_left_of_a_transaction_that_fails(app: App, client: DBOSClient, place: Place) -> None:
    app.launch()
    with pytest.raises(RuntimeError), place() as mine:
        mine.execute(text("INSERT INTO orders VALUES ('one')"))
        client.enqueue_in_transaction(mine, options(workflow_id="w", attributes={"a": 1}), "one")
        raise RuntimeError
    assert client.list_workflows() == []
    with place() as mine:
        assert mine.execute(text("SELECT count(*) FROM orders")).scalar() == 0


def test_the_same_id_and_a_taken_key_are_answered_as_ever(app: App, client: DBOSClient, place: Place) -> None:
    app.launch()
    with place() as mine:
        client.enqueue_in_transaction(mine, options(workflow_id="w", deduplication_id="key", delay_seconds=60), 1)
        client.enqueue_in_transaction(mine, options(workflow_id="w", deduplication_id="key", delay_seconds=60), 1)
    with pytest.raises(DBOSQueueDeduplicatedError), place() as mine:
        client.enqueue_in_transaction(mine, options(deduplication_id="key"), 1)
    assert [each.workflow_id for each in client.list_workflows()] == ["w"]


def test_messages_are_sent_with_the_commit(app: App, client: DBOSClient, place: Place) -> None:
    @DBOS.workflow()
    def listen() -> list[Any]:
        return [DBOS.recv("t", 30) for _ in range(3)]

    app.launch()
    with SetWorkflowID("listener"):
        handle = DBOS.start_workflow(listen)
    with pytest.raises(RuntimeError), place() as mine:
        client.send_in_transaction(mine, "listener", "lost", "t")
        raise RuntimeError
    for _ in range(2):
        with place() as mine:
            client.send_in_transaction(mine, "listener", "first", "t", "key")
    with place() as mine:
        client.send_bulk_in_transaction(mine, [SendMessage("listener", n, "t") for n in (2, 3)])
    assert handle.get_result() == ["first", 2, 3]


def test_nobody_to_send_to_is_an_error(app: App, client: DBOSClient, place: Place) -> None:
    app.launch()
    with pytest.raises(DBOSNonExistentWorkflowError), place() as mine:
        client.send_in_transaction(mine, "nobody", 1)


def test_a_transaction_elsewhere_is_refused(database: str, app: App, client: DBOSClient) -> None:
    app.launch()
    with pytest.raises(DBOSException, match="Connection or Session"):
        client.enqueue_in_transaction("text", options(), 1)  # type: ignore[arg-type]
    if not database.startswith("sqlite"):
        with (
            create_engine("sqlite://", poolclass=NullPool).begin() as mine,
            pytest.raises(DBOSException, match="one database"),
        ):
            client.enqueue_in_transaction(mine, options(), 1)


def test_a_client_that_only_reads_asks_for_nothing_in_a_transaction(app: App, place: Place, database: str) -> None:
    Queue("jobs")

    @DBOS.workflow(name="work")
    def work() -> None:
        return None

    app.launch()
    with DBOSClient(system_database_url=database, read_only=True) as client:
        with pytest.raises(DBOSReadOnlyError, match="only reads"):
            client.refuse_if_read_only()
        with place() as mine, pytest.raises(DBOSReadOnlyError, match="only reads"):
            client.enqueue_in_transaction(mine, options())
        assert client.list_workflows() == []
