"""Datasources: transactions in databases of the user's, done exactly once, in both colours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from dbos import DBOS, AsyncSQLAlchemyDatasource, DBOSClient, SetWorkflowID, SQLAlchemyDatasource
from dbos._faces.config import parsed
from dbos.error import DBOSAwaitedWorkflowCancelledError, DBOSException, DBOSMisuseError, DBOSSchemaError
from tests.compat.acts import again, step_names
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate, eventually


class Source:
    """A datasource of a hand's colour, with a table of the user's."""

    def __init__(self, hand: Hand, url: str, **options: Any) -> None:
        self.hand, self.engine = hand, create_engine(parsed(url), poolclass=NullPool)
        with self.engine.begin() as conn:
            conn.execute(text("CREATE TABLE IF NOT EXISTS mine (x INTEGER)"))
        self.made: Any = (
            hand.call(AsyncSQLAlchemyDatasource.create, url, **options)
            if hand.is_async
            else SQLAlchemyDatasource.create(url, **options)
        )

    def close(self) -> None:
        self.hand.call(self.made.close)

    def insert(self, before: Callable[[], Any] = lambda: None, **options: Any) -> Callable[..., Any]:
        """A transaction that inserts its argument and counts the rows."""
        source = self.made

        async def insert_async(x: int) -> int:
            session = source.sql_session()
            await session.execute(text("INSERT INTO mine VALUES (:x)"), {"x": x})
            await asyncio.to_thread(before)
            return (await session.execute(text("SELECT count(*) FROM mine"))).scalar_one()

        def insert(x: int) -> int:
            session = source.sql_session()
            assert isinstance(session, Session)
            session.execute(text("INSERT INTO mine VALUES (:x)"), {"x": x})
            before()
            return session.execute(text("SELECT count(*) FROM mine")).scalar_one()

        return source.transaction(name="insert", **options)(insert_async if self.hand.is_async else insert)

    def stored(self) -> list[int]:
        return self._all("SELECT x FROM mine ORDER BY x")

    def kept(self) -> list[int]:
        schema = "dbos." if self.engine.dialect.name == "postgresql" else ""
        return self._all(f"SELECT step_id FROM {schema}datasource_outputs ORDER BY 1")

    def _all(self, sql: str) -> list[int]:
        with self.engine.begin() as conn:
            return list(conn.execute(text(sql)).scalars())


@pytest.fixture(params=["apart", "together"])
def source(
    request: pytest.FixtureRequest, hand: Hand, database: str, tmp_path: Path, missing_database: Callable[[], str]
) -> Iterator[Source]:
    """In a database of its own, and in that of the workflows."""
    url = database
    if request.param == "apart":
        url = f"sqlite:///{tmp_path}/app.sqlite" if database.startswith("sqlite") else missing_database()
        if not database.startswith("sqlite"):
            SQLAlchemyDatasource.migrate(url)  # makes the database too
    made = Source(hand, url)
    yield made
    DBOS.destroy()
    made.close()


def test_a_transaction_is_a_step_that_is_done_once(app: App, hand: Hand, source: Source, rows: Rows) -> None:
    insert = source.insert()

    @hand.workflow()
    async def body(do: Inside) -> list[int]:
        return [await do(insert(7)), await do(insert(8))]

    app.launch()
    with SetWorkflowID("w"):
        assert [1, 2] == hand.call(body)

    assert ["insert", "insert"] == step_names("w")
    assert [1, 2] == again(rows, "w").get_result()
    assert [7, 8] == source.stored()
    eventually(lambda: [] == source.kept())


def inserted_and_held(app: App, hand: Hand, source: Source) -> tuple[Callable[..., Any], Gate]:
    """Start a workflow "w" that has done its transaction and waits at a gate; the workflow and the gate."""
    gate = Gate()
    insert = source.insert()

    @hand.step(name="wait")
    def wait() -> None:
        gate.pass_through()

    @hand.workflow()
    async def body(do: Inside) -> int:
        result = await do(insert(7))
        await do(wait())
        return result

    app.launch()
    with SetWorkflowID("w"):
        hand.start(body)
    gate.wait_reached()
    return body, gate


def test_what_was_kept_is_taken(app: App, hand: Hand, source: Source, rows: Rows) -> None:
    """The process dies after the user's commit and before the step's record."""
    _, gate = inserted_and_held(app, hand, source)
    assert [1] == source.kept()
    app.crash()
    rows.run("DELETE FROM {}operation_outputs WHERE workflow_uuid = 'w'")
    gate.open()
    app.launch()

    assert 1 == DBOS.retrieve_workflow("w").get_result()
    assert [7] == source.stored()
    assert ["insert", "wait"] == step_names("w")
    eventually(lambda: [] == source.kept())


def test_an_error_rolls_back_and_is_recorded(app: App, hand: Hand, source: Source, rows: Rows) -> None:
    ran: list[int] = []

    def fail() -> None:
        ran.append(1)
        raise ValueError("no")

    insert = source.insert(fail)

    @hand.workflow()
    async def body(do: Inside) -> str:
        try:
            await do(insert(7))
        except ValueError as error:
            return str(error)
        return ""

    app.launch()
    with SetWorkflowID("w"):
        assert "no" == hand.call(body)

    assert "no" == again(rows, "w").get_result()
    assert ([], [1], []) == (source.stored(), ran, source.kept())


def test_a_constraint_of_the_user_is_an_error(app: App, hand: Hand, source: Source) -> None:
    source._all("SELECT 1")
    with source.engine.begin() as conn:
        conn.execute(text("CREATE UNIQUE INDEX one_of_each ON mine (x)"))
        conn.execute(text("INSERT INTO mine VALUES (7)"))
    insert = source.insert()

    @hand.workflow()
    async def body(do: Inside) -> int:
        return await do(insert(7))

    app.launch()
    with pytest.raises(IntegrityError):
        hand.call(body)
    assert [7] == source.stored()


@pytest.mark.parametrize("database", ["postgres"], indirect=True)  # nobody else can write to a SQLite file meanwhile
def test_a_cancelled_workflow_rolls_back(app: App, hand: Hand, source: Source, rows: Rows) -> None:
    """It is cancelled while its transaction runs: the commit is refused, because the workflow is not its own."""
    gate = Gate()
    insert = source.insert(gate.pass_through)

    @hand.workflow()
    async def body(do: Inside) -> int:
        return await do(insert(7))

    app.launch()
    with SetWorkflowID("w"):
        handle = hand.start(body)
    gate.wait_reached()
    DBOS.cancel_workflow("w")
    gate.open()

    with pytest.raises(DBOSAwaitedWorkflowCancelledError):
        handle.result()
    assert ([], []) == (source.stored(), source.kept())
    assert [] == step_names("w")


def test_outside_of_a_workflow_nothing_is_kept(app: App, hand: Hand, source: Source) -> None:
    """Before launch, after it, and in a step."""
    insert = source.insert()

    @DBOS.step(name="step")
    async def step_async() -> int:
        return await insert(3)

    @DBOS.step(name="step")
    def step() -> int:
        return insert(3)

    @hand.workflow()
    async def body(do: Inside) -> int:
        return await do(step_async() if hand.is_async else step())

    assert 1 == hand.call(insert, 1)
    app.launch()
    assert 2 == hand.call(insert, 2)
    with SetWorkflowID("w"):
        assert 3 == hand.call(body)

    assert ([1, 2, 3], [], ["step"]) == (source.stored(), source.kept(), step_names("w"))


def test_any_function_can_be_run(app: App, hand: Hand, source: Source) -> None:
    made = source.made

    async def count_async(x: int) -> int:
        return x + (await made.sql_session().execute(text("SELECT count(*) FROM mine"))).scalar_one()

    def count(x: int) -> int:
        return x + made.sql_session().execute(text("SELECT count(*) FROM mine")).scalar_one()

    @hand.workflow()
    async def body(do: Inside) -> int:
        if hand.is_async:
            return await made.run_tx_step_async({"name": "counts", "isolation_level": "READ COMMITTED"}, count_async, 5)
        return made.run_tx_step({"name": "counts", "isolation_level": "READ COMMITTED"}, count, 5)

    app.launch()
    with SetWorkflowID("w"):
        assert 5 == hand.call(body)
    assert ["counts"] == step_names("w")


@pytest.mark.parametrize("database", ["postgres"], indirect=True)  # one writer at a time: there is nobody to meet
def test_a_transaction_that_met_another_one_is_repeated(app: App, hand: Hand, source: Source, rows: Rows) -> None:
    met: list[int] = []

    def meet() -> None:
        met.append(1)
        if len(met) == 1:  # one that reads what this one writes, and writes what this one reads
            with source.engine.execution_options(isolation_level="SERIALIZABLE").begin() as conn:
                conn.execute(text("SELECT count(*) FROM mine"))
                conn.execute(text("INSERT INTO mine VALUES (100)"))

    insert = source.insert(meet)

    @hand.workflow()
    async def body(do: Inside) -> int:
        return await do(insert(7))

    app.launch()
    with SetWorkflowID("w"):
        hand.call(body)
    assert (2, [7, 100]) == (len(met), source.stored())


def test_what_is_kept_goes_with_the_workflow(app: App, hand: Hand, source: Source) -> None:
    """A workflow that is deleted while it runs, and started again, does its transaction again."""
    body, gate = inserted_and_held(app, hand, source)
    DBOS.delete_workflow("w")
    assert [] == source.kept()
    gate.open()
    with SetWorkflowID("w"):
        assert 2 == hand.call(body)


def test_a_session_belongs_to_its_transaction(app: App, hand: Hand, source: Source) -> None:
    with pytest.raises(DBOSMisuseError, match="transaction of this datasource"):
        source.made.sql_session()


def test_functions_of_the_other_colour_are_refused(source: Source, hand: Hand) -> None:
    async def other() -> None: ...

    def plain() -> None: ...

    with pytest.raises(DBOSException, match="coroutine"):
        source.made.transaction(plain if hand.is_async else other)
    with pytest.raises(TypeError, match="no such option: nmae"):
        source.made._spec({"nmae": "x"}, other if hand.is_async else plain)
    with pytest.raises(ValueError, match="isolation_level"):
        source.made.transaction(isolation_level="SLOPPY")(other if hand.is_async else plain)


def test_how_it_is_made(app: App, hand: Hand, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/made.sqlite"
    with pytest.raises(DBOSSchemaError, match="at datasource schema version 0"):
        Source(hand, url, run_migrations=False)
    kind = AsyncSQLAlchemyDatasource if hand.is_async else SQLAlchemyDatasource
    kind.migrate(url)
    Source(hand, url, run_migrations=False).close()
    with pytest.raises(DBOSException, match="binds="):
        Source(hand, url, sessionmaker=sessionmaker(binds={object: None}))
    app.launch()
    with pytest.raises(DBOSException, match=r"before DBOS\.launch"):
        Source(hand, url)
    with pytest.raises(DBOSException, match="create"):
        kind()


def test_a_client_sees_its_steps(app: App, hand: Hand, source: Source) -> None:
    insert = source.insert()

    @hand.workflow(name="work")
    async def work(do: Inside) -> int:
        return await do(insert(7))

    app.launch()
    with DBOSClient(system_database_url=app.database) as client:
        handle = client.enqueue({"workflow_name": "work", "queue_name": "_dbos_internal_queue"})
        assert 1 == handle.get_result()
        assert ["insert"] == [each["function_name"] for each in client.list_workflow_steps(handle.workflow_id)]
