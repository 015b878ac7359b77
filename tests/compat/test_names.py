"""Names that not every database can store are refused where they enter, with one verdict on all of them."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import DBOS, DBOSContextEnsure, DBOSContextSetAuth, SetWorkflowID
from dbos.error import DBOSException
from tests.compat.acts import step_names
from tests.conftest import App
from tests.hand import Hand, Inside

UNSTORABLE = [
    pytest.param("a\0b", "contains a (control|NUL) character", id="NUL"),
    pytest.param("\ud800", "half a surrogate pair", id="half a pair"),
    pytest.param("k" * 3_000, "bytes", id="too long"),
]


# What was written for others may call a step so.
GOOD = "the titles of:\n\t" + "a page, " * 200


@pytest.mark.parametrize(("name", "text"), UNSTORABLE)
def test_names_inside_a_workflow(app: App, hand: Hand, name: str, text: str) -> None:
    """Of a step and of a patch: nothing is recorded, and the workflow goes on."""

    @hand.workflow()
    async def work(do: Inside) -> int:
        for attempt in (
            lambda: do.run_step({"name": name}, lambda: 1),
            lambda: do.patch(name),
            lambda: do.deprecate_patch(name),
        ):
            with pytest.raises(DBOSException, match=text):
                await attempt()
        return await do.run_step({"name": GOOD}, lambda: 2)

    app.launch(enable_patching=True)
    with SetWorkflowID("w"):
        assert 2 == hand.call(work)

    assert [GOOD] == step_names("w")


@pytest.mark.parametrize("name", [*(case.values[0] for case in UNSTORABLE), "", " "])
@pytest.mark.parametrize("option", ["application_version", "queue_partition_key"])
@pytest.mark.parametrize(("again", "given"), [("fork_workflow", {"start_step": 1}), ("rewind_workflow", {})])
def test_names_of_a_run_that_is_repeated(
    app: App, hand: Hand, again: str, given: dict[str, Any], option: str, name: str
) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)

    with pytest.raises(DBOSException, match=r"version|partition key"):
        hand.do(again, "w", **given, **{option: name})
    assert ["w"] == [each.workflow_id for each in DBOS.list_workflows()]


@pytest.mark.parametrize(("name", "text"), UNSTORABLE)
def test_names_of_users(name: str, text: str) -> None:
    with pytest.raises(DBOSException, match=text):
        DBOSContextSetAuth(name, [])
    with DBOSContextEnsure(), pytest.raises(DBOSException, match=text):
        DBOS.set_authentication(name, [])


@pytest.mark.parametrize("name", ["a\0b", "\ud800"], ids=["NUL", "half a pair"])
@pytest.mark.parametrize(
    ("what", "given"),
    [
        ("get_result", {}),
        ("get_workflow_status", {}),
        ("retrieve_workflow", {}),
        ("list_workflow_steps", {}),
        ("cancel_workflow", {}),
        ("resume_workflow", {}),
        ("delete_workflow", {}),
        ("fork_workflow", {"start_step": 1}),
        ("rewind_workflow", {}),
        ("set_workflow_delay", {"delay_seconds": 1}),
        ("retrieve_queue", {}),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_what_no_database_could_hold_is_not_looked_for(
    app: App, hand: Hand, what: str, given: dict[str, Any], name: str
) -> None:
    app.launch()

    with pytest.raises(DBOSException, match=r"NUL character|half a surrogate pair"):
        hand.do(what, name, **given)


@pytest.mark.parametrize(
    "condition", ["workflow_ids", "name", "user", "queue_name", "app_version", "executor_id", "workflow_id_prefix"]
)
def test_a_listing_says_which_condition_no_workflow_can_meet(app: App, condition: str) -> None:
    app.launch()
    conditions: dict[str, Any] = {condition: ["good", "a\0b"]}

    with pytest.raises(DBOSException, match=f"{condition}: .* contains a NUL character"):
        DBOS.list_workflows(**conditions)
