"""Blocks and context variables: what they say, how they nest, and that they do not leak."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid

import pytest

from dbos import DBOS, DBOSContextEnsure, SetWorkflowID, SetWorkflowTimeout
from dbos.error import DBOSException
from tests.compat.conftest import Log
from tests.conftest import App
from tests.hand import Hand, Inside


def tell_id(hand: Hand):
    @hand.workflow()
    async def tell(do: Inside) -> str:
        return DBOS.workflow_id

    return tell


def test_outside_everything_is_none() -> None:
    assert (None, None, None, None) == (DBOS.workflow_id, DBOS.step_id, DBOS.step_status, DBOS.span)


def test_the_logger_needs_no_instance() -> None:
    assert isinstance(DBOS.logger, logging.Logger)
    assert "dbos" == DBOS.logger.name


def test_an_id_is_for_the_first_workflow_of_its_block(app: App, hand: Hand, log: Log) -> None:
    """The second gets an id of its own, and a warning."""
    tell = tell_id(hand)
    app.launch(log_level="WARNING")
    log.records.clear()
    with SetWorkflowID("w"):
        first = hand.call(tell)
        assert not log.says("", logging.WARNING)
        second = hand.call(tell)

    assert "w" == first
    assert 4 == uuid.UUID(second).version
    assert log.says("SetWorkflowID", logging.WARNING)


def test_an_id_is_for_a_start_as_for_a_call(app: App, hand: Hand) -> None:
    tell = tell_id(hand)
    app.launch()
    with SetWorkflowID("w"):
        started = hand.start(tell)

    assert "w" == started.workflow_id == started.result()


def test_the_inner_id_counts_and_the_outer_comes_back(app: App, hand: Hand) -> None:
    tell = tell_id(hand)
    app.launch()
    with SetWorkflowID("outer"):
        with SetWorkflowID("inner"):
            inner = hand.call(tell)
        outer = hand.call(tell)

    assert ("inner", "outer") == (inner, outer)


def test_an_id_does_not_reach_into_the_body(app: App, hand: Hand) -> None:
    """Children are named after their parent, and what follows the block is free again."""
    tell = tell_id(hand)

    @hand.workflow()
    async def parent(do: Inside) -> str:
        return await do(tell())

    app.launch()
    with SetWorkflowID("p"):
        assert "p-1" == hand.call(parent)
    assert hand.call(tell) not in ("p", "p-1")


def test_an_id_that_was_not_used_is_gone_with_its_block(app: App, hand: Hand) -> None:
    tell = tell_id(hand)
    app.launch()
    with SetWorkflowID("unused"):
        pass

    assert "unused" != hand.call(tell)


def test_an_id_in_a_workflow_does_not_leave_it(app: App, hand: Hand) -> None:
    tell = tell_id(hand)

    @hand.workflow()
    async def parent(do: Inside) -> list[str]:
        with SetWorkflowID("mine"):
            first = await do(tell())
        return [first, await do(tell())]

    app.launch()
    with SetWorkflowID("p"):
        assert ["mine", "p-3"] == hand.call(parent)


@pytest.mark.parametrize("wrong", ["", "   "])
def test_an_id_must_not_be_blank(wrong: str) -> None:
    with pytest.raises(DBOSException, match="non-empty"):
        SetWorkflowID(wrong).__enter__()


def test_parallel_tasks_do_not_see_each_others_blocks(app: App) -> None:
    @DBOS.workflow()
    async def tell() -> str:
        return DBOS.workflow_id

    async def one(number: int) -> str:
        with SetWorkflowID(f"w-{number}"), SetWorkflowTimeout(100 + number):
            await asyncio.sleep(0)
            return await tell()

    async def main() -> list[str]:
        with DBOSContextEnsure():
            return list(await asyncio.gather(*(one(number) for number in range(20))))

    app.launch()
    assert [f"w-{number}" for number in range(20)] == asyncio.run(main())

    timeouts = [DBOS.get_workflow_status(f"w-{number}").workflow_timeout_ms for number in range(20)]
    assert [(100 + number) * 1000 for number in range(20)] == timeouts


def test_blocks_end_with_an_error_inside_them(app: App, hand: Hand) -> None:
    tell = tell_id(hand)
    app.launch()
    with pytest.raises(ValueError, match="inside"), SetWorkflowID("w"), SetWorkflowTimeout(5):
        raise ValueError("inside")

    workflow_id = hand.call(tell)
    assert "w" != workflow_id
    assert DBOS.get_workflow_status(workflow_id).workflow_timeout_ms is None


def test_the_variables_inside_workflows_and_steps(app: App, hand: Hand) -> None:
    """In a child the workflow id is the child's, afterwards the parent's again."""

    @hand.step()
    def inside() -> tuple:
        return DBOS.workflow_id, DBOS.step_id

    @hand.workflow()
    async def child(do: Inside) -> tuple:
        return DBOS.workflow_id, DBOS.step_id, await do(inside())

    @hand.workflow()
    async def parent(do: Inside) -> tuple:
        return await do(child()), await do(inside()), DBOS.workflow_id

    app.launch()
    with SetWorkflowID("p"):
        assert (("p-1", None, ("p-1", 1)), ("p", 3), "p") == hand.call(parent)
    assert DBOS.workflow_id is None


def test_a_thread_of_the_user_is_outside(app: App) -> None:
    """Only what the runtime starts itself knows its workflow."""

    @DBOS.workflow()
    def work() -> list[str | None]:
        seen: list[str | None] = []
        thread = threading.Thread(target=lambda: seen.append(DBOS.workflow_id))
        thread.start()
        thread.join()
        return seen

    app.launch()

    assert [None] == work()


def test_version_and_executor_are_known_after_launch(app: App) -> None:
    app.launch(application_version="v7", executor_id="me")

    assert ("v7", "me") == (DBOS.application_version, DBOS.executor_id)


def test_blocks_may_be_used_in_async_code(app: App) -> None:
    @DBOS.workflow()
    async def tell() -> str:
        return DBOS.workflow_id

    async def main() -> list[str]:
        with SetWorkflowID("called"):
            first = await tell()
        with SetWorkflowID("started"):
            second = await (await DBOS.start_workflow_async(tell)).get_result()
        return [first, second]

    app.launch()

    assert ["called", "started"] == asyncio.run(main())
