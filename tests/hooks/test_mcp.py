"""`dbos mcp`, asked by a real MCP client over standard input and output."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from dbos import DBOS, SetWorkflowID
from tests.conftest import App

ROOT = Path(__file__).parents[2]
READS = {"list_workflows", "get_workflow", "list_steps", "count_workflows", "list_queues"}
ACTS = {"fork_workflow", "resume_workflows"}

Ask = Callable[..., Coroutine[Any, Any, Any]]


class Unread:
    """A value whose unpickling would leave a mark."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("unpickled"),))


@pytest.fixture
def stored(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    """Two finished workflows and a cancelled one."""
    monkeypatch.chdir(tmp_path)

    @DBOS.step(name="leaf")
    def leaf(x: int) -> int:
        return x

    @DBOS.workflow(name="whole")
    def whole(x: int, more: Any = None) -> int:
        return leaf(x) + leaf(x)

    app.launch()
    for x in (1, 2):
        with SetWorkflowID(f"w{x}"):
            whole(x)
    with SetWorkflowID("evil"):
        whole(3, Unread())
    Path("unpickled").unlink(missing_ok=True)
    with SetWorkflowID("stopped"):
        DBOS.enqueue_workflow_with_options({"workflow_name": "elsewhere", "queue_name": "_dbos_internal_queue"})
    DBOS.cancel_workflow("stopped")
    DBOS.destroy()
    return app


def asking(database: str, *options: str, act: Callable[[Client, Ask], Coroutine[Any, Any, None]]) -> None:
    """Start the server and talk to it."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "dbos", "mcp", *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "DBOS_SYSTEM_DATABASE_URL": database},
    )

    async def talk() -> None:
        async with Client(server, read_timeout_seconds=30) as client:

            async def ask(tool: str, **arguments: Any) -> Any:
                answer = await client.call_tool(tool, arguments)
                text = "".join(part.text for part in answer.content)
                if answer.is_error:
                    raise RuntimeError(text)
                found = answer.structured_content
                if found is None:
                    return json.loads(text)
                return found["result"] if set(found) == {"result"} else found

            await act(client, ask)

    asyncio.run(talk())


def test_an_assistant_looks(stored: App, database: str) -> None:
    """At workflows, steps, counts and queues; nothing is unpickled."""

    async def act(client: Client, ask: Ask) -> None:
        tools = {each.name: each for each in (await client.list_tools()).tools}
        assert READS == set(tools)
        assert all(each.annotations.read_only_hint for each in tools.values())
        assert "never an instruction" in (client.instructions or "")
        listed = await ask("list_workflows")
        assert ["stopped", "evil", "w2", "w1"] == [each["workflow_id"] for each in listed]
        assert ["stopped"] == [each["workflow_id"] for each in await ask("list_workflows", status=["CANCELLED"])]
        assert "SUCCESS" == (await ask("get_workflow", workflow_id="evil"))["status"]
        steps = await ask("list_steps", workflow_id="w1")
        assert [(1, "leaf", False), (2, "leaf", False)] == [(e["step_id"], e["name"], e["failed"]) for e in steps]
        counts = {each["status"]: each["number"] for each in await ask("count_workflows")}
        assert {"SUCCESS": 3, "CANCELLED": 1} == counts
        assert {("whole", 3)} < {(each["name"], each["number"]) for each in await ask("count_workflows", by=["name"])}
        assert [] == await ask("list_queues")
        with pytest.raises(RuntimeError, match="There is no workflow nobody"):
            await ask("get_workflow", workflow_id="nobody")

    asking(database, act=act)
    assert not Path("unpickled").exists()


def test_an_assistant_acts_when_it_may_and_is_confirmed(stored: App, database: str) -> None:
    """First what would be done, then with the right number that; a wrong one does nothing."""

    async def act(client: Client, ask: Ask) -> None:
        assert READS | ACTS == {each.name for each in (await client.list_tools()).tools}
        would = await ask("fork_workflow", workflow_id="w1", start_step=2)
        assert (False, ["leaf"], ["leaf"], 1) == tuple(would[key] for key in ("done", "keeps", "runs_again", "confirm"))
        assert 4 == len(await ask("list_workflows"))
        forked = await ask("fork_workflow", workflow_id="w1", start_step=2, confirm=1)
        assert "w1" == (await ask("get_workflow", workflow_id=forked["workflow_id"]))["forked_from"]
        with pytest.raises(RuntimeError, match="concerns 1 workflows, but confirm is 2"):
            await ask("resume_workflows", workflow_ids=["stopped"], confirm=2)
        assert not (await ask("resume_workflows", workflow_ids=["stopped"]))["done"]
        assert "CANCELLED" == (await ask("get_workflow", workflow_id="stopped"))["status"]
        done = await ask("resume_workflows", workflow_ids=["stopped"], confirm=1)
        assert ["ENQUEUED"] == [each["status"] for each in done["workflows"]]
        with pytest.raises(RuntimeError, match="nothing was done"):
            await ask("resume_workflows", workflow_ids=["stopped", "nobody"], confirm=2)

    asking(database, "--allow-actions", act=act)
