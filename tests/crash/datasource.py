"""A program with a datasource, to be killed at every moment; see `scenarios`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from dbos import DBOS, SetWorkflowID, SQLAlchemyDatasource
from dbos.testing import Ledger

Act = Callable[[], object]


def datasource(ledger: Ledger, folder: Path) -> tuple[Act, Callable[[], list[int]]]:
    """Two transactions in another database between two steps; its rows are what is counted."""
    source = SQLAlchemyDatasource.create(f"sqlite:///{folder}/mine.sqlite")
    engine = sa.create_engine(f"sqlite:///{folder}/mine.sqlite", poolclass=sa.NullPool)
    with engine.begin() as conn:
        conn.execute(sa.text("CREATE TABLE effects (x INTEGER UNIQUE)"))

    @DBOS.step(name="before")
    def before() -> int:
        ledger.note()
        return 1

    @source.transaction(name="insert")
    def insert(x: int) -> int:
        source.sql_session().execute(sa.text("INSERT INTO effects VALUES (:x)"), {"x": x})
        return x + 1

    @DBOS.workflow(name="keeps")
    def keeps() -> int:
        return insert(insert(before()))

    def act() -> object:
        with SetWorkflowID("datasource"):
            return keeps()

    def taken() -> list[int]:
        """The rows of the life that is over; the next one begins without them."""
        with engine.begin() as conn:
            rows = list(conn.execute(sa.text("SELECT x FROM effects ORDER BY x")).scalars())
            conn.execute(sa.text("DELETE FROM effects"))
            conn.execute(sa.text("DELETE FROM datasource_outputs"))
        return rows

    return act, taken
