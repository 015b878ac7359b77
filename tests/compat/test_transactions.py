"""Transactions: a step of the user's tables that is done exactly once."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session

from dbos import DBOS, SetWorkflowID
from tests.compat.acts import again, beside, step_names
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import Gate


@pytest.fixture
def table(rows: Rows) -> Rows:
    """A table of the user's."""
    rows.run("CREATE TABLE mine (x INTEGER)")
    return rows


def stored(table: Rows) -> list[int]:
    return [row.x for row in table.run("SELECT x FROM mine ORDER BY x")]


def insert(x: int) -> int:
    return DBOS.sql_session.execute(text("INSERT INTO mine VALUES (:x)"), {"x": x}).rowcount


def test_a_transaction_commits_when_it_returns(app: App, hand: Hand, table: Rows) -> None:
    @DBOS.transaction(name="txn")
    def txn(x: int) -> int:
        assert isinstance(DBOS.sql_session, Session)
        return insert(x)

    @hand.workflow()
    async def body(do: Inside) -> int:
        return await do(txn(1)) + await do(txn(2))

    app.launch()
    with SetWorkflowID("w"):
        assert 2 == hand.call(body)

    assert [1, 2] == stored(table)
    assert ["txn", "txn"] == step_names("w")


def test_a_transaction_is_not_run_again(app: App, hand: Hand, table: Rows) -> None:
    @DBOS.transaction()
    def txn() -> int:
        return insert(1)

    @hand.workflow()
    async def body(do: Inside) -> int:
        return await do(txn())

    app.launch()
    with SetWorkflowID("w"):
        hand.call(body)

    assert 1 == again(table, "w").get_result()
    assert [1] == stored(table)


def test_an_error_rolls_back_and_is_recorded(app: App, hand: Hand, table: Rows) -> None:
    """The workflow may catch it, and its replay meets it without running anything."""
    ran: list[int] = []

    @DBOS.transaction()
    def txn() -> None:
        ran.append(1)
        insert(1)
        raise ValueError("no")

    @hand.workflow()
    async def body(do: Inside) -> str:
        try:
            await do(txn())
        except ValueError as error:
            return str(error)
        return ""

    app.launch()
    with SetWorkflowID("w"):
        assert "no" == hand.call(body)

    assert "no" == again(table, "w").get_result()
    assert ([], [1]) == (stored(table), ran)
    assert "no" == str(DBOS.list_workflow_steps("w")[0]["error"])


def test_an_error_of_the_database_is_the_functions(app: App, table: Rows) -> None:
    """A violated constraint is not retried."""
    table.run("CREATE UNIQUE INDEX one_of_each ON mine (x)")
    ran: list[int] = []

    @DBOS.transaction()
    def txn() -> None:
        ran.append(1)
        insert(7)
        insert(7)

    app.launch()

    with pytest.raises(Exception, match=r"(?i)unique"):
        txn()
    assert ([], [1]) == (stored(table), ran)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_transaction_must_not_end_itself(app: App, table: Rows, end: str) -> None:
    @DBOS.transaction()
    def txn() -> None:
        insert(1)
        getattr(DBOS.sql_session, end)()
        insert(2)

    app.launch()

    with pytest.raises(InvalidRequestError, match="Can't operate on closed transaction inside context manager"):
        txn()
    assert stored(table) in ([], [1])


def test_the_session_is_for_transactions_only(app: App, hand: Hand) -> None:
    @hand.step()
    def step() -> None:
        DBOS.sql_session  # noqa: B018 - the look is the test

    @hand.workflow()
    async def body(do: Inside) -> None:
        with pytest.raises(AssertionError):
            DBOS.sql_session  # noqa: B018 - the look is the test
        await do(step())

    app.launch()
    with pytest.raises(AssertionError):
        DBOS.sql_session  # noqa: B018 - the look is the test
    with pytest.raises(AssertionError):
        hand.call(body)


@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"])
def test_a_transaction_has_the_isolation_it_asks_for(app: App, rows: Rows, level: str) -> None:
    @DBOS.transaction(level)
    def tell() -> str:
        if not rows.is_postgres:
            return level.lower()  # SQLite has one isolation, the strictest
        return DBOS.sql_session.execute(text("SHOW transaction_isolation")).scalar()

    app.launch()

    assert level.lower() == tell()


def test_a_transaction_is_serializable_by_default(app: App, rows: Rows) -> None:
    @DBOS.transaction()
    def tell() -> str:
        if not rows.is_postgres:
            return "serializable"
        return DBOS.sql_session.execute(text("SHOW transaction_isolation")).scalar()

    app.launch()

    assert "serializable" == tell()


def test_transactions_that_meet_are_repeated(app: App, table: Rows) -> None:
    """Two that read the same row before both write it: each adds to what the other left."""
    table.run("INSERT INTO mine VALUES (0)")
    gate, tries = Gate(), []

    @DBOS.transaction()
    def increment() -> None:
        seen = DBOS.sql_session.execute(text("SELECT x FROM mine")).scalar()
        tries.append(seen)
        if table.is_postgres and len(tries) <= 2:
            gate.pass_through()
        DBOS.sql_session.execute(text("UPDATE mine SET x = :x"), {"x": seen + 1})

    app.launch()
    calls = [beside(increment) for _ in range(2)]
    if table.is_postgres:
        gate.wait_reached(2)
    gate.open()
    for call in calls:
        call.result(20)

    assert [2] == stored(table)
    assert len(tries) == (3 if table.is_postgres else 2)


def test_many_transactions_at_once_lose_nothing(app: App, table: Rows) -> None:
    table.run("INSERT INTO mine VALUES (0)")

    @DBOS.transaction()
    def increment() -> None:
        seen = DBOS.sql_session.execute(text("SELECT x FROM mine")).scalar()
        DBOS.sql_session.execute(text("UPDATE mine SET x = :x"), {"x": seen + 1})

    app.launch()
    handles = [DBOS.start_workflow(increment) for _ in range(20)]
    for handle in handles:
        handle.get_result()

    assert [20] == stored(table)


def test_a_transaction_whose_output_cannot_be_stored_fails(app: App, table: Rows) -> None:
    """And leaves nothing in the user's table that the workflow does not know of."""
    import threading

    @DBOS.transaction()
    def txn() -> object:
        insert(1)
        return threading.Lock()

    app.launch()
    with SetWorkflowID("w"), pytest.raises(TypeError, match="pickle"):
        txn()

    assert "ERROR" == DBOS.get_workflow_status("w").status
    assert [] == stored(table)
