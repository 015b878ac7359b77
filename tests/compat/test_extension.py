"""Extensions: what a tool around the runtime takes part in, and that none of its errors reaches a run."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, WorkflowHandle, extension
from dbos.extension import Extension, Note, Observed, Observer
from tests.conftest import App
from tests.hand import Hand, Inside
from tests.waiting import eventually


class Watcher(Observer):
    """Notes what it sees."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool

    def attempt(self, step_id: int, name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        self.tool.attempts.append((step_id, name))
        return fn

    def step_notes(self, step_id: int, value: Any, error: BaseException | None) -> Iterable[Note]:
        return [Note(step_id, "output" if error is None else "error", f"{value if error is None else error}\0")]

    def last_notes(self, value: Any, error: BaseException | None) -> Iterable[Note]:
        return [Note(0, "output", f"{value}"), Note(0, "place", f"{self.tool.places}")]

    def left(self) -> None:
        self.tool.left += 1


class Tool(Extension):
    def __init__(self) -> None:
        self.number = 1
        self.attempts: list[tuple[int, str]] = []
        self.places: list[extension.Place | None] = []
        self.left = 0

    def version(self, name: str, fn: Callable[..., Any]) -> str:
        return f"{name} {self.number}"

    def observe(self, run: Observed) -> Observer:
        return Watcher(self)


@pytest.fixture
def tool() -> Iterator[Tool]:
    made = Tool()
    extension.install(made)
    yield made
    extension.install(None)


def notes(hand: Hand, workflow_id: str) -> dict[tuple[int, str], str]:
    return {(each.step_id, each.kind): each.text for each in hand.do("list_notes", [workflow_id])}


def test_notes_are_written_with_the_records(app: App, hand: Hand, tool: Tool) -> None:
    @hand.step(name="part")
    def part(x: int) -> int:
        tool.places.append(extension.place())
        if x > 1:
            raise ValueError("too much")
        return x

    @hand.workflow(name="flow")
    async def flow(do: Inside) -> int:
        await do(part(1))
        try:
            await do(part(2))
        except ValueError:
            return 3
        return 4

    app.launch()
    with SetWorkflowID("w"):
        assert 3 == hand.call(flow)

    assert [(1, "part"), (2, "part")] == tool.attempts
    assert [("w", 1, 1), ("w", 2, 2)] == tool.places
    found = notes(hand, "w")
    assert ("1␀", "too much␀", "3") == (found[1, "output"], found[2, "error"], found[0, "output"])
    assert [("w", 1)] == [each[:2] for each in hand.do("list_notes", ["w"], ["output"])][1:]
    eventually(lambda: 1 == tool.left)
    assert extension.place() is None
    hand.do("delete_workflow", "w")
    assert {} == notes(hand, "w")


def test_an_extension_that_fails_disturbs_nothing(app: App, hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Extension):
        def _fail(self, *_: Any) -> Any:
            raise RuntimeError("broken")

        version = observe = code = earlier_code = _fail

    extension.install(Broken())
    logging.getLogger("dbos").addHandler(caplog.handler)
    try:
        for number in (1, 2):

            @hand.workflow(name="flow")
            async def flow(do: Inside, number: int = number) -> int:
                return number

            app.launch() if number == 1 else None
            assert number == hand.call(flow)
    finally:
        logging.getLogger("dbos").removeHandler(caplog.handler)
        extension.install(None)
    assert "failed" in caplog.text


def define(hand: Hand, word: str) -> Any:
    @hand.workflow(name="flow")
    async def flow(do: Inside) -> str:
        return word

    return flow


def test_work_goes_on_with_the_code_it_began_with(app: App, hand: Hand, tool: Tool) -> None:
    """As long as the process lives; and new work has the newest."""
    old = define(hand, "old")
    app.launch()
    with SetWorkflowID("first"):
        assert "old" == hand.call(old)
    tool.number = 2
    new = define(hand, "new")

    with SetWorkflowID("second"):
        assert "new" == hand.call(new)
    with SetWorkflowID("third"):
        assert "old" == hand.call(old)
    versions = {each.workflow_id: each.app_version for each in hand.do("list_workflows")}
    assert {"first": "flow 1", "second": "flow 2", "third": "flow 1"} == versions
    assert "new" == hand.do("fork_workflow", "first", 1).result()
    assert "old" == hand.do("fork_workflow", "first", 1, application_version="flow 1").result()


def test_what_no_process_has_the_code_of_waits(app: App, hand: Hand, tool: Tool) -> None:
    define(hand, "new")
    app.launch()
    with SetWorkflowID("first"):
        assert "new" == hand.call(define(hand, "new"))
    waits = hand.do("fork_workflow", "first", 1, application_version="flow 0")
    assert not extension.is_defined("flow", "flow 0")
    assert extension.is_defined("flow", "flow 1")
    assert "ENQUEUED" == waits.status().status

    assert [waits.workflow_id] == hand.do("assign_application_version", [waits.workflow_id, "first"], "flow 1")

    assert "new" == waits.result()
    assert [] == hand.do("assign_application_version", [waits.workflow_id], "flow 0")


def test_a_review_finds_changed_helpers(app: App, hand: Hand, tool: Tool) -> None:
    flow = define(hand, "same")
    app.launch()
    assert [] == extension.review()
    tool.number = 5

    assert ["flow"] == extension.review()
    with SetWorkflowID("w"):
        hand.call(flow)

    assert {"flow": "flow 5"} == extension.defined_versions()
    assert "flow 5" == hand.do("get_workflow_status", "w").app_version


def test_definitions_replace_each_other_only_under_an_extension(hand: Hand, tool: Tool, app: App) -> None:
    def everything() -> None:
        @DBOS.dbos_class("Same")
        class Same:
            pass

    everything()
    everything()
    extension.install(None)
    with pytest.raises(Exception, match="Duplicate type registration"):
        everything()


def test_a_launch_may_be_made_when_it_is_wanted(app: App, hand: Hand) -> None:
    class Launches(Extension):
        def wanted(self) -> None:
            thread = threading.Thread(target=app.launch)
            thread.start()
            thread.join()

    flow = define(hand, "here")
    extension.install(Launches())
    try:
        assert "here" == hand.call(flow)
    finally:
        extension.install(None)


def test_sources_are_kept_once(app: App, hand: Hand) -> None:
    app.launch()
    for text in ("first", "second"):
        hand.do("keep_source", "v1", "flow", text)

    assert [("v1", "flow", "first")] == [each[:3] for each in hand.do("list_sources", ["v1", "v2"])]


def test_handles_are_awaited_only_under_an_extension(app: App, hand: Hand) -> None:
    """Elsewhere a program may tell by it what a call of either colour came to."""
    flow = define(hand, "here")
    app.launch()
    with SetWorkflowID("w"):
        hand.call(flow)
    assert "__await__" not in dir(WorkflowHandle)

    extension.install(Extension())
    try:

        async def awaits() -> str:
            return await (await DBOS.retrieve_workflow_async("w"))

        assert "here" == asyncio.run(awaits())
    finally:
        extension.install(None)
    assert "__await__" not in dir(WorkflowHandle)
