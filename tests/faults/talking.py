"""A program that says and hears everything there is to say, one thing after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dbos import DBOS, SendMessage, SetWorkflowID
from dbos.error import DBOSException, DBOSNonExistentWorkflowError
from dbos.testing import Ledger
from tests.compat.rows import Rows
from tests.compat.talking import collected, read
from tests.faults.programs import Act
from tests.hand import Hand, Inside


def talks(hand: Hand, ledger: Ledger) -> Act:
    """Messages, events and stream values from a workflow, from its step, and from outside."""

    @DBOS.step(name="speaks")
    def speaks() -> None:
        ledger.note()
        DBOS.send("w", "from the step")
        DBOS.set_event("event", "from the step")
        DBOS.write_stream("k", "from the step")
        DBOS.close_stream("other")

    @DBOS.workflow(name="speaker")
    def speaker() -> None:
        DBOS.write_stream("k", 0)
        speaks()
        DBOS.write_stream("k", 1)

    @hand.workflow()
    async def says(do: Inside) -> list[Any]:
        await do.send("w", 1)
        await do.send_bulk([SendMessage("w", 2), SendMessage("w", 3)])
        said: list[Any] = [await do.recv(timeout_seconds=0) for _ in range(4)]
        try:
            await do.send("nobody", 1)
        except DBOSNonExistentWorkflowError as error:
            said.append(str(error))
        await do.set_event("event", 1)
        await do.set_event("event", 2)
        said += [await do.get_event("w", "event", 0), await do.get_event("w", "no event", 0)]
        for number in range(3):
            await do.write_stream("k", number)
        await do.close_stream("k")
        try:
            await do.write_stream("k", 3)
        except DBOSException as error:
            said.append(str(error))
        return [*said, await collected(do, "w", "k"), await do.read_stream_offset("w", "k", 1)]

    def act(rows: Rows) -> object:
        with SetWorkflowID("w"):
            said = hand.call(says)
        for _ in range(2):
            hand.do("send", "w", "from outside", idempotency_key="key")
        hand.do("send", "w", "from outside")
        with SetWorkflowID("s"):
            speaker()
        return said, [*map(len, tables(rows))], read(hand, "s", "k"), hand.do("get_all_events", "s"), values(rows)

    return act


def tables(rows: Rows) -> list[list[Any]]:
    names = ("notifications", "workflow_events", "workflow_events_history", "streams")
    return [rows.run(f"SELECT * FROM {{}}{name}") for name in names]


def values(rows: Rows) -> list[tuple[Any, ...]]:
    found = rows.run('SELECT workflow_uuid, key, "offset", value FROM {}streams ORDER BY 1, 2, 3')
    return [tuple(each) for each in found]


TALKING: dict[str, Callable[[Hand, Ledger], Act]] = {"talks": talks}
