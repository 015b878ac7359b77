"""Clients of one package and applications of another, on one database."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import make_url

from tests.interop.conftest import Begin
from tests.interop.sides import Process, Refused, Sql
from tests.waiting import eventually

# The package that runs the application, and the one of its client.
PAIRS = [("ours", "2.18.0"), ("2.18.0", "ours"), ("3.4.0", "ours"), ("ours", "ours")]
STEPS_OF_TALKS = [
    "DBOS.setEvent",
    "DBOS.recv",
    "DBOS.sleep",
    "DBOS.recv",
    "DBOS.sleep",
    "DBOS.writeStream",
    "DBOS.writeStream",
    "DBOS.closeStream",
]


def converse(client: Process | Sql, executor_id: str) -> None:
    """Everything that a client and an application say to each other, in portable JSON."""
    client("enqueue", name="talks", workflow_id="talks")
    # In short questions: the client of 2.18.0 sleeps for as long as it may, whatever comes meanwhile.
    assert {"a": [1]} == eventually(lambda: client("event", workflow_id="talks", key="ready", seconds=0.2))
    for _ in range(2):
        client("send", workflow_id="talks", message={"m": "ü"}, topic="t", key="once")
    client("send", workflow_id="talks", message=[2])
    assert [{"m": "ü"}, [2]] == client("result", workflow_id="talks")
    status = client("status", workflow_id="talks")
    assert ("SUCCESS", "talks", executor_id) == (status["status"], status["name"], status["executor_id"])
    assert [{"m": "ü"}, [2]] == status["output"]
    assert [1, {"b": None}] == client("stream", workflow_id="talks", key="s")[:2]
    steps = [name for _, name in client("steps", workflow_id="talks")]
    assert [name for name in STEPS_OF_TALKS if name != "DBOS.sleep"] == [name for name in steps if name != "DBOS.sleep"]

    given: dict[str, Any] = {"args": [1, "a", None, [2.5]], "kwargs": {"k": {"deep": [True]}}}
    assert given == client("result", workflow_id=client("enqueue", name="echo", **given))
    client("enqueue", name="echo", workflow_id="same", args=[1])
    client("enqueue", name="echo", workflow_id="same", args=[2])
    assert [1] == client("result", workflow_id="same")["args"]

    client("enqueue", name="fails", workflow_id="fails", args=["no luck"])
    with pytest.raises(Refused, match="no luck"):
        client("result", workflow_id="fails")


@pytest.mark.parametrize(("application", "client"), PAIRS)
def test_a_client_and_an_application(place: str, begin: Begin, application: str, client: str) -> None:
    app, caller = begin(application), begin(client)
    app("launch", url=place, executor_id="x1")
    caller("connect", url=place)
    converse(caller, "x1")

    # What a client of Python does besides, and in the format of Python.
    caller("enqueue", name="echo", workflow_id="native", args=[{"n": 1}], portable=False)
    assert [{"n": 1}] == caller("result", workflow_id="native")["args"]
    forked = caller("fork", workflow_id="native", step=1)
    assert [{"n": 1}] == caller("result", workflow_id=forked)["args"]
    caller("enqueue", name="gated", workflow_id="stuck", args=["/dev/null", "/no/such/gate"])
    caller("cancel", workflow_id="stuck")
    with pytest.raises(Refused, match="cancelled"):
        caller("result", workflow_id="stuck")
    assert {"talks", "same", "native", "fails", "stuck"} <= set(caller("listed"))
    caller("end")


@pytest.mark.parametrize("client", ["typescript", "sql"])
def test_a_client_of_another_language(postgres_place: str, begin: Begin, client: str) -> None:
    app, caller = begin("ours"), begin(client, postgres_place)
    app("launch", url=postgres_place, executor_id="x1")
    if client == "typescript":
        # A URL without a host is none there; the query, which names the socket, goes before it.
        caller("connect", url=make_url(postgres_place).set(host="localhost").render_as_string(hide_password=False))
    converse(caller, "x1")
    caller("end")


def test_a_client_that_was_there_before_the_upgrade(place: str, begin: Begin) -> None:
    """An application of a later release migrates the database under a client of ours."""
    first, later, caller = begin("ours"), begin("3.4.0"), begin("ours")
    first("launch", url=place)
    caller("connect", url=place)
    caller("enqueue", name="echo", workflow_id="before", args=[1])
    assert [1] == caller("result", workflow_id="before")["args"]
    first("end")
    later("launch", url=place)
    later("start", name="echo", workflow_id="after", args=[2])
    assert [2] == later("application_result", workflow_id="after")["args"]

    assert [2] == caller("result", workflow_id="after")["args"]
    caller("enqueue", name="echo", workflow_id="asked", args=[3])
    assert [3] == caller("result", workflow_id="asked")["args"]
    caller("end")
