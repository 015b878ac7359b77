"""Patches: code that changes while workflows are under way, over four releases and from every step on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSException, DBOSPatchNondeterminismError, DBOSUnexpectedStepError
from tests.compat.acts import again, step_ids, step_names
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside

Body = Callable[[Inside, "Steps"], Any]


class Steps:
    """The steps of all releases, and which of them ran."""

    def __init__(self, hand: Hand) -> None:
        self.ran: list[str] = []
        for name in ("foo", "bar", "baz", "qux"):
            setattr(self, name, self._step(hand, name))

    def _step(self, hand: Hand, name: str) -> Callable[[], Any]:
        @hand.step(name=name)
        def step() -> str:
            self.ran.append(name)
            return name

        return step


async def v1(do: Inside, steps: Any) -> list[str]:
    return [await do(steps.foo()), await do(steps.bar())]


async def v2(do: Inside, steps: Any) -> list[str]:
    first = await do(steps.baz()) if await do.patch("use-baz") else await do(steps.foo())
    return [first, await do(steps.bar())]


async def v3(do: Inside, steps: Any) -> list[str]:
    await do.deprecate_patch("use-baz")
    return [await do(steps.baz()), await do(steps.bar())]


async def v4(do: Inside, steps: Any) -> list[str]:
    return [await do(steps.baz()), await do(steps.bar())]


async def second_patch(do: Inside, steps: Any) -> list[str]:
    first = await do(steps.baz()) if await do.patch("use-baz") else await do(steps.foo())
    return [first, await do(steps.qux()) if await do.patch("use-qux") else await do(steps.bar())]


OLD, NEW, NEWEST = ["foo", "bar"], ["baz", "bar"], ["baz", "qux"]
MARKER, MARKER_2 = "DBOS.patch-use-baz", "DBOS.patch-use-qux"


class Releases:
    """One program, released again and again on one database."""

    def __init__(self, app: App, hand: Hand, rows: Rows) -> None:
        self.app, self.hand, self.rows = app, hand, rows

    def release(self, body: Body) -> None:
        DBOS.destroy(destroy_registry=True)
        self.steps = Steps(self.hand)

        @self.hand.workflow(name="changing")
        async def changing(do: Inside) -> list[str]:
            return await body(do, self.steps)

        self.workflow = changing
        self.app.launch(application_version=None, enable_patching=True)

    def run(self, workflow_id: str) -> list[str]:
        with SetWorkflowID(workflow_id):
            return self.hand.call(self.workflow)

    def again(self, workflow_id: str) -> list[str]:
        """The whole of it, on record already, by the code of this release."""
        self.steps.ran.clear()
        result = again(self.rows, workflow_id).get_result()
        assert [] == self.steps.ran
        return result

    def fork(self, workflow_id: str, step: int) -> list[str]:
        return self.hand.do("fork_workflow", workflow_id, step, application_version="PATCHING_ENABLED").result()


@pytest.fixture
def releases(app: App, hand: Hand, rows: Rows) -> Releases:
    return Releases(app, hand, rows)


def test_one_version_for_all_releases(releases: Releases) -> None:
    releases.release(v1)
    assert "PATCHING_ENABLED" == DBOS.application_version


def test_old_and_new_workflows_run_their_own_code(releases: Releases) -> None:
    """Each history is replayed by every release that claims to know it."""
    releases.release(v1)
    assert OLD == releases.run("old")

    releases.release(v2)
    assert OLD == releases.again("old")
    assert NEW == releases.run("new")
    assert NEW == releases.again("new")
    assert [MARKER, "baz", "bar"] == step_names("new")
    assert [1, 2, 3] == step_ids("new")

    releases.release(v3)
    assert NEW == releases.again("new")
    assert NEW == releases.run("newer")
    assert ["baz", "bar"] == step_names("newer")
    with pytest.raises(DBOSUnexpectedStepError):
        releases.again("old")

    releases.release(v4)
    assert NEW == releases.again("newer")
    assert NEW == releases.run("newest")
    with pytest.raises(DBOSUnexpectedStepError):
        releases.again("new")


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_fork_of_old_history_goes_on_with_the_code_that_it_has(releases: Releases, cut: int) -> None:
    """From the first step on it has none, and is new."""
    releases.release(v1)
    releases.run("old")
    releases.release(v2)

    assert (NEW if cut == 1 else OLD) == releases.fork("old", cut)


@pytest.mark.parametrize("release", [v2, v3])
@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_fork_of_patched_history_runs_the_new_code(releases: Releases, release: Body, cut: int) -> None:
    releases.release(v2)
    releases.run("new")
    releases.release(release)

    assert NEW == releases.fork("new", cut)


def test_two_patches(releases: Releases) -> None:
    releases.release(v1)
    releases.run("old")
    releases.release(v2)
    releases.run("new")

    releases.release(second_patch)
    assert OLD == releases.again("old")
    assert NEW == releases.again("new")
    assert NEWEST == releases.run("newest")
    assert [MARKER, "baz", MARKER_2, "qux"] == step_names("newest")
    assert [["baz", "qux"], ["baz", "qux"], ["baz", "qux"], NEW, NEW] == [
        releases.fork("new", cut) for cut in (1, 2, 3, 4, 5)
    ]


def test_an_unfinished_old_workflow_goes_on_with_the_old_code(releases: Releases) -> None:
    releases.release(v1)
    releases.run("old")
    releases.rows.run("DELETE FROM {}operation_outputs WHERE function_id = 2")
    releases.release(v2)

    assert OLD == again(releases.rows, "old").get_result()
    assert ["bar"] == releases.steps.ran


def test_a_gap_in_the_history_is_old_history(releases: Releases) -> None:
    """Of two steps at once the second was recorded and the first not: the old code came by all the same."""
    releases.release(v1)
    releases.run("old")
    releases.rows.run("DELETE FROM {}operation_outputs WHERE function_id = 1")
    releases.release(v2)

    assert OLD == again(releases.rows, "old").get_result()


def test_a_recorded_marker_is_asked_by_its_own_name(releases: Releases) -> None:
    async def other(do: Inside, steps: Any) -> bool:
        return await do.patch("another")

    releases.release(v2)
    releases.run("new")
    releases.release(other)

    assert again(releases.rows, "new").get_result() is False


def test_outside_of_a_workflow_there_is_nothing_to_patch(app: App, hand: Hand) -> None:
    tried: list[str] = []

    @hand.step(name="inside")
    def inside() -> None:
        try:
            DBOS.patch("x")
        except DBOSException as error:
            tried.append(str(error))

    @hand.workflow()
    async def work(do: Inside) -> None:
        await do(inside())

    app.launch(enable_patching=True)
    for operation in ("patch", "deprecate_patch"):
        with pytest.raises(DBOSException, match="must be called from a workflow"):
            hand.do(operation, "x")
    hand.call(work)
    assert 1 == len(tried)
    assert "DBOS.patch must be called from a workflow" in tried[0]


def test_patching_is_enabled_first(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        await do.patch("x")

    app.launch()
    with pytest.raises(DBOSException, match="enable_patching must be True in DBOS configuration"):
        hand.call(work)


def test_a_patch_beside_other_operations_is_refused(app: App) -> None:
    """Their order would be left to chance."""

    @DBOS.step(name="beside")
    async def beside() -> None: ...

    @DBOS.workflow(name="concurrent")
    async def concurrent() -> None:
        await asyncio.gather(DBOS.patch_async("x"), beside())

    @DBOS.workflow(name="in_order")
    async def in_order() -> bool:
        patched = await DBOS.patch_async("x")
        await asyncio.gather(beside(), beside())
        return patched

    app.launch(enable_patching=True)
    with pytest.raises(DBOSPatchNondeterminismError, match="concurrently"):
        asyncio.run(concurrent())
    assert asyncio.run(in_order())
