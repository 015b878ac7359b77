"""Forking: a new workflow from the first steps of another."""

from __future__ import annotations

import pytest

from dbos import DBOS, DBOSContextSetAuth, SetWorkflowID
from dbos.error import DBOSException, DBOSNonExistentWorkflowError
from tests.compat.acts import again, status_of, step_names
from tests.compat.rows import INTERNAL_QUEUE, Rows
from tests.conftest import App
from tests.hand import Hand, Inside


class Counted:
    """A workflow of five steps that knows how often each of them ran."""

    def __init__(self, hand: Hand) -> None:
        self.ran: list[int] = []

        @hand.step()
        def step(number: int, x: int) -> int:
            self.ran.append(number)
            return number * x

        @hand.workflow()
        async def counted(do: Inside, x: int) -> list[int]:
            return [await do(step(number, x)) for number in range(1, 6)]

        self.workflow = counted


def run_original(app: App, hand: Hand) -> Counted:
    counted = Counted(hand)
    app.launch()
    with SetWorkflowID("w"):
        assert [10, 20, 30, 40, 50] == hand.call(counted.workflow, 10)
    counted.ran.clear()
    return counted


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 5, 6, 9])
def test_a_fork_runs_the_steps_from_the_cut_on(app: App, hand: Hand, cut: int) -> None:
    """With the original's inputs; those before the cut are taken over."""
    counted = run_original(app, hand)

    assert [10, 20, 30, 40, 50] == hand.do("fork_workflow", "w", cut).result()
    assert list(range(max(cut, 1), 6)) == counted.ran


def test_a_fork_leaves_the_original_as_it_is(app: App, hand: Hand) -> None:
    run_original(app, hand)
    fork = hand.do("fork_workflow", "w", 3)
    fork.result()

    original = hand.do("get_workflow_status", "w")
    assert ("SUCCESS", [10, 20, 30, 40, 50], None) == (original.status, original.output, original.forked_from)
    assert original.was_forked_from
    assert ("w", False) == (fork.status().forked_from, fork.status().was_forked_from)


def test_a_fork_is_enqueued_with_what_it_inherits(app: App, hand: Hand) -> None:
    """Inputs, name and user; no version, attempts, priority, parent or timeout."""

    @hand.workflow()
    async def work(do: Inside, x: int, *, y: int) -> None:
        return None

    app.launch()
    with DBOSContextSetAuth("me", ["admin"]), SetWorkflowID("w"):
        hand.call(work, 1, y=2)
    held = hand.do("fork_workflow", "w", 1, queue_name="served-by-nobody")

    status = held.status()
    assert ("ENQUEUED", "served-by-nobody", "work") == (status.status, status.queue_name, status.name)
    assert {"args": (1,), "kwargs": {"y": 2}} == status.input
    assert ("me", ["admin"], None) == (status.authenticated_user, status.authenticated_roles, status.assumed_role)
    assert (None, 0, 0, None) == (
        status.app_version,
        status.recovery_attempts,
        status.priority,
        status.parent_workflow_id,
    )


def test_a_fork_goes_through_the_internal_queue_by_default(app: App, hand: Hand) -> None:
    """The version of who runs it is stamped on it."""
    run_original(app, hand)
    fork = hand.do("fork_workflow", "w", 1)
    fork.result()

    assert (INTERNAL_QUEUE, "v1", 1) == (
        fork.status().queue_name,
        fork.status().app_version,
        fork.status().recovery_attempts,
    )


def test_a_fork_may_have_an_id_of_its_own(app: App, hand: Hand) -> None:
    run_original(app, hand)
    with SetWorkflowID("mine"):
        fork = hand.do("fork_workflow", "w", 3)

    assert "mine" == fork.workflow_id
    assert [10, 20, 30, 40, 50] == fork.result()


def test_a_fork_without_an_id_gets_a_new_one(app: App, hand: Hand) -> None:
    run_original(app, hand)
    first, second = (hand.do("fork_workflow", "w", 3) for _ in range(2))

    assert 3 == len({"w", first.workflow_id, second.workflow_id})


def test_a_fork_of_a_fork(app: App, hand: Hand) -> None:
    counted = run_original(app, hand)
    first = hand.do("fork_workflow", "w", 3)
    first.result()
    second = hand.do("fork_workflow", first.workflow_id, 5)

    assert [10, 20, 30, 40, 50] == second.result()
    assert [3, 4, 5, 5] == counted.ran
    assert first.workflow_id == second.status().forked_from
    assert first.status().was_forked_from


def test_a_fork_for_another_version_waits_for_it(app: App, hand: Hand) -> None:
    """Processes of other versions leave it ENQUEUED."""
    counted = run_original(app, hand)
    held = hand.do("fork_workflow", "w", 5, application_version="v2")
    hand.do("fork_workflow", "w", 1).result()
    assert "ENQUEUED" == status_of(held.workflow_id)
    counted.ran.clear()
    app.relaunch(application_version="v2")

    assert [10, 20, 30, 40, 50] == hand.do("get_result", held.workflow_id)
    assert [5] == counted.ran
    assert "v2" == hand.do("get_workflow_status", held.workflow_id).app_version


def test_a_fork_on_a_queue_and_partition(app: App, hand: Hand, rows: Rows) -> None:
    run_original(app, hand)
    held = hand.do("fork_workflow", "w", 1, queue_name="mine", queue_partition_key="red")

    row = rows.workflow(held.workflow_id)
    assert ("ENQUEUED", "mine", "red") == (row.status, row.queue_name, row.queue_partition_key)


def test_an_unknown_workflow_cannot_be_forked(app: App, hand: Hand) -> None:
    app.launch()

    with pytest.raises(DBOSNonExistentWorkflowError, match="nobody"):
        hand.do("fork_workflow", "nobody", 1)
    assert [] == DBOS.list_workflows()


def test_a_workflow_that_failed_is_forked_past_its_failure(app: App, hand: Hand) -> None:
    """As after the fault in its code was mended."""
    is_mended = [False]

    @hand.step()
    def one() -> int:
        return 1

    @hand.step()
    def two() -> int:
        if not is_mended[0]:
            raise ValueError("broken")
        return 2

    @hand.workflow()
    async def work(do: Inside) -> int:
        return await do(one()) + await do(two())

    app.launch()
    with SetWorkflowID("w"), pytest.raises(ValueError, match="broken"):
        hand.call(work)
    is_mended[0] = True

    assert 3 == hand.do("fork_workflow", "w", 2).result()
    assert "ERROR" == status_of("w")


def test_a_fork_shares_the_children_before_the_cut(app: App, hand: Hand) -> None:
    """It does not run them again; those after the cut are its own."""
    ran: list[str] = []

    @hand.workflow()
    async def child(do: Inside) -> str:
        ran.append(DBOS.workflow_id)
        return DBOS.workflow_id

    @hand.workflow()
    async def parent(do: Inside) -> list[str]:
        return [await do(child()), await do(child())]

    app.launch()
    with SetWorkflowID("p"):
        assert ["p-1", "p-3"] == hand.call(parent)
    with SetWorkflowID("f"):
        fork = hand.do("fork_workflow", "p", 3)

    assert ["p-1", "f-3"] == fork.result()
    assert ["p-1", "p-3", "f-3"] == ran


def test_a_fork_takes_other_children_on_request(app: App, hand: Hand) -> None:
    """It waits for the replacement where the original waited for its child."""

    @hand.workflow()
    async def child(do: Inside, x: int) -> int:
        return x

    @hand.workflow()
    async def parent(do: Inside) -> int:
        handle = await do.start(child, 1)
        return await do(handle.get_result())

    app.launch()
    with SetWorkflowID("p"):
        assert 1 == hand.call(parent)
    with SetWorkflowID("other"):
        hand.call(child, 2)
    fork = hand.do("fork_workflow", "p", 2, replacement_children={"p-1": "other"})

    assert 2 == fork.result()
    assert ["other", "other"] == [step["child_workflow_id"] for step in DBOS.list_workflow_steps(fork.workflow_id)]


def test_a_fork_can_be_recovered(app: App, hand: Hand, rows: Rows) -> None:
    counted = run_original(app, hand)
    fork = hand.do("fork_workflow", "w", 4)
    fork.result()

    assert [10, 20, 30, 40, 50] == again(rows, fork.workflow_id).get_result()
    assert [4, 5] == counted.ran
    assert ["step"] * 5 == step_names(fork.workflow_id)


def test_events_and_stream_values_before_the_cut_are_taken_over(app: App, hand: Hand, rows: Rows) -> None:
    """The latest value of each event below the cut becomes the fork's current one."""
    run_original(app, hand)
    event = (
        "INSERT INTO {}workflow_events_history (workflow_uuid, function_id, key, value) VALUES ('w', :at, 'k', :value)"
    )
    entry = (
        "INSERT INTO {}streams (workflow_uuid, key, value, \"offset\", function_id) VALUES ('w', 's', :value, :at, :at)"
    )
    for at, value in ((1, "old"), (2, "new"), (4, "later")):
        rows.run(event, at=at, value=value)
        rows.run(entry, at=at, value=value)
    fork = hand.do("fork_workflow", "w", 3)
    fork.result()

    events = rows.run("SELECT value FROM {}workflow_events WHERE workflow_uuid = :id", id=fork.workflow_id)
    history = rows.run("SELECT value FROM {}workflow_events_history WHERE workflow_uuid = :id", id=fork.workflow_id)
    entries = rows.run("SELECT value FROM {}streams WHERE workflow_uuid = :id", id=fork.workflow_id)
    assert ["new"] == [row.value for row in events]
    assert [{"old", "new"}] * 2 == [{row.value for row in found} for found in (history, entries)]


def test_a_kept_step_may_have_come_to_something_else(app: App, hand: Hand) -> None:
    """The rest is run with the value that is given for it."""
    counted = run_original(app, hand)

    fork = hand.do("fork_workflow", "w", 3, replacement_outputs={2: "mended"})

    assert [10, "mended", 30, 40, 50] == fork.result()
    assert [3, 4, 5] == counted.ran
    assert [10, 20, 30, 40, 50] == hand.do("get_workflow_status", "w").output


@pytest.mark.parametrize("step", [0, 3, 99])
def test_only_a_kept_step_gets_another_output(app: App, hand: Hand, step: int) -> None:
    run_original(app, hand)
    before = len(hand.do("list_workflows"))

    with pytest.raises(DBOSException, match=f"Step {step} cannot get another output"):
        hand.do("fork_workflow", "w", 3, replacement_outputs={step: 1})

    assert before == len(hand.do("list_workflows"))
