"""The layout of later releases, where inputs and outputs have tables of their own: each workflow gets its own."""

from __future__ import annotations

import json

from dbos import DBOS
from tests.compat.rows import INTERNAL_QUEUE, Rows
from tests.conftest import App
from tests.hand import Hand, Inside


def test_every_workflow_gets_its_own_arguments(app: App, hand: Hand, rows: Rows) -> None:
    """Also where one statement takes several from a queue."""
    rows.run("ALTER TABLE {}workflow_status ADD COLUMN completed_at BIGINT")
    rows.run("CREATE TABLE {}workflow_input (workflow_uuid TEXT, inputs TEXT)")
    rows.run("CREATE TABLE {}workflow_output (workflow_uuid TEXT, output TEXT, error TEXT)")
    for number in range(5):
        rows.add(f"w{number}", "work", inputs=None, queue_name=INTERNAL_QUEUE)
        stored = json.dumps({"positionalArgs": [number]})
        rows.run("INSERT INTO {}workflow_input VALUES (:id, :inputs)", id=f"w{number}", inputs=stored)

    @hand.workflow(name="work")
    async def work(do: Inside, number: int) -> int:
        return number

    app.launch()

    assert list(range(5)) == [DBOS.get_result(f"w{number}") for number in range(5)]
    assert list(range(5)) == [each.input["args"][0] for each in DBOS.list_workflows()]
