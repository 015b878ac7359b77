"""Rehearsals: whether code fits what earlier runs have recorded, without running a step or writing a row."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, extension
from dbos.error import DBOSNonExistentWorkflowError, DBOSWorkflowFunctionNotFoundError
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside


class Flow:
    """A workflow of all that is recorded: steps, a child, a message, an event, a sleep; and what ran."""

    def __init__(self, hand: Hand) -> None:
        self.ran: list[str] = []

        @hand.step(name="load")
        def load(x: int) -> int:
            self.ran.append("load")
            return x + 1

        @hand.step(name="save")
        def save(x: int) -> int:
            self.ran.append("save")
            return x * 2

        @hand.workflow(name="child")
        async def child(do: Inside, x: int) -> int:
            return x

        @hand.workflow(name="flow")
        async def flow(do: Inside, x: int) -> int:
            got = await do(load(x))
            await do.sleep(0.01)
            await do.set_event("at", got)
            got += await do(child(100))
            assert await do.recv("never", timeout_seconds=0) is None
            return await do(save(got))

        self.hand, self.load, self.save, self.child, self.flow = hand, load, save, child, flow

    def changed(self, body: Any) -> Any:
        """Another body for the same workflow."""
        return self.hand.function(body)


@pytest.fixture
def flow(app: App, hand: Hand) -> Flow:
    made = Flow(hand)
    app.launch()
    with SetWorkflowID("w"):
        assert 206 == hand.call(made.flow, 2)
    made.ran.clear()
    return made


def test_the_same_code_fits_and_nothing_is_done(flow: Flow, rows: Rows) -> None:
    before = rows.run("SELECT workflow_uuid, status, updated_at, recovery_attempts FROM {}workflow_status ORDER BY 1")
    found = extension.rehearse("w")

    assert (True, True, None) == (found.fits, found.is_complete, found.difference)
    assert len(DBOS.list_workflow_steps("w")) == found.steps
    assert [] == flow.ran
    after = rows.run("SELECT workflow_uuid, status, updated_at, recovery_attempts FROM {}workflow_status ORDER BY 1")
    assert before == after


def test_the_first_difference_is_named(flow: Flow) -> None:
    async def other(do: Inside, x: int) -> int:
        return await do(flow.save(x))

    found = extension.rehearse("w", flow.changed(other))

    assert "step 1 is 'save', where 'load' is recorded" == found.difference
    assert [] == flow.ran


def test_code_that_ends_too_soon_does_not_fit(flow: Flow) -> None:
    async def shorter(do: Inside, x: int) -> int:
        return await do(flow.load(x))

    found = extension.rehearse("w", flow.changed(shorter))

    assert "step 2 'DBOS.sleep' is recorded, and the code ends before it" == found.difference


def test_what_goes_on_after_the_record_fits(flow: Flow, rows: Rows) -> None:
    """A run in flight: the rehearsal ends where its record ends."""
    rows.run("DELETE FROM {}operation_outputs WHERE workflow_uuid = 'w' AND function_id > 2")

    found = extension.rehearse("w")

    assert (True, False, 2) == (found.fits, found.is_complete, found.steps)
    assert [] == flow.ran


def test_an_endless_function_is_given_up(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from dbos._engine import rehearsal

    monkeypatch.setattr(rehearsal, "PATIENCE_SECONDS", 0.05)
    release = threading.Event()

    async def stuck(do: Inside, x: int) -> int:
        await do(flow.load(x))
        release.wait(20)
        return 1

    found = extension.rehearse("w", flow.changed(stuck))
    release.set()

    assert "took more than 0.05 s after step 1" == found.difference


def test_what_cannot_be_rehearsed_says_so(flow: Flow, rows: Rows) -> None:
    with pytest.raises(DBOSNonExistentWorkflowError):
        extension.rehearse("unknown")
    rows.add("foreign", "not here", status="SUCCESS")
    with pytest.raises(DBOSWorkflowFunctionNotFoundError, match="not here"):
        extension.rehearse("foreign")
