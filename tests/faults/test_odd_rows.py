"""Rows that nobody of us wrote so: each is flagged where it is looked at, and everything else goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dbos import DBOS, Queue, SetWorkflowID
from tests.compat.rows import Rows
from tests.conftest import App
from tests.waiting import eventually

ODD: list[dict[str, Any]] = [
    {"output": "gASVCg"},  # cut off
    {"output": "not base64 at all \u00fc"},
    {"serialization": "a_format_of_tomorrow"},
    {"output": None, "error": None},
    {"parent_workflow_id": "odd"},
    {"executor_id": None, "application_version": None, "application_id": None},
    {"created_at": -5, "updated_at": 2**53},
    {"authenticated_roles": "{not json"},
    {"status": "ASLEEP"},
    {"inputs": None},
    {"class_name": "Gone", "config_name": "nowhere"},
    {"queue_name": "", "priority": -7},
]


def define() -> Callable[..., Any]:
    @DBOS.step(name="double")
    def double(x: int) -> int:
        return 2 * x

    @DBOS.workflow(name="work")
    def work(x: int) -> int:
        return double(x)

    return work


@pytest.mark.parametrize("columns", ODD, ids=lambda columns: "-".join(columns))
def test_an_odd_row_harms_nobody_else(app: App, rows: Rows, columns: dict[str, Any]) -> None:
    """It can be listed, and deleted; other workflows run, are listed, and are recovered."""
    work = define()
    queue = Queue("jobs")
    app.launch()
    for name in ("odd", "good", "stranded"):
        with SetWorkflowID(name):
            work(4)
    rows.change("odd", **columns)
    rows.interrupt("stranded")
    app.restart()

    assert 8 == DBOS.retrieve_workflow("stranded").get_result()
    assert 6 == queue.enqueue(work, 3).get_result()
    listed = {each.workflow_id: each for each in DBOS.list_workflows()}
    assert {"odd", "good", "stranded"} <= listed.keys()
    assert 8 == listed["good"].output
    assert 1 == len(DBOS.list_workflow_steps("odd"))
    DBOS.delete_workflow("odd")
    assert DBOS.get_workflow_status("odd") is None


@pytest.mark.parametrize(
    "columns", [{"output": "gASVCg"}, {"serialization": "a_format_of_tomorrow"}, {"inputs": "gASV"}, {"inputs": None}]
)
def test_a_recovered_workflow_that_cannot_be_read_ends_in_an_error(
    app: App, rows: Rows, columns: dict[str, Any]
) -> None:
    """Not as an endless PENDING, and not in a hot loop."""
    work = define()
    app.launch()
    with SetWorkflowID("odd"):
        work(4)
    rows.interrupt("odd", **{key: value for key, value in columns.items() if key != "output"})
    if "output" in columns:
        rows.run("UPDATE {}operation_outputs SET output = :output WHERE workflow_uuid = 'odd'", **columns)
    app.restart()

    eventually(lambda: DBOS.get_workflow_status("odd").status in {"ERROR", "SUCCESS"})
    with pytest.raises(Exception, match=r"."):
        DBOS.retrieve_workflow("odd").get_result()


def test_odd_steps_harm_nobody_else(app: App, rows: Rows) -> None:
    work = define()
    app.launch()
    for name in ("odd", "good"):
        with SetWorkflowID(name):
            work(4)
    rows.run("UPDATE {}operation_outputs SET function_id = -3 WHERE workflow_uuid = 'odd'")
    rows.run("UPDATE {}operation_outputs SET child_workflow_id = 'odd' WHERE workflow_uuid = 'odd'")

    assert [-3] == [each["function_id"] for each in DBOS.list_workflow_steps("odd")]
    assert [8] == [each["output"] for each in DBOS.list_workflow_steps("good")]
    forked = DBOS.fork_workflow("odd", 1)
    assert 8 == forked.get_result()
