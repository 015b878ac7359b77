"""The admin server: each endpoint, and its answers to what cannot be done."""

from __future__ import annotations

import base64
import pickle
import threading

import pytest

from dbos import DBOS, Queue, SetWorkflowID
from dbos._engine.scheduler import Scheduler
from dbos._faces.ambient import instance
from tests.compat.rows import Rows
from tests.hooks.conftest import Launch
from tests.waiting import Gate, eventually


@pytest.fixture
def rows(database: str) -> Rows:
    return Rows(database)


caught: list[str] = []


def catch(word: str) -> str:
    caught.append(word)
    return word


class Trap:
    """Whoever unpickles it is caught."""

    def __reduce__(self):
        return (catch, ("unpickled",))


def define() -> None:
    @DBOS.step(name="double")
    def double(x: int) -> int:
        return 2 * x

    @DBOS.workflow(name="work")
    def work(x: int) -> int:
        return double(x) + 1

    with SetWorkflowID("w-1"):
        assert 7 == work(3)


def test_health_and_deactivation_are_told_in_plain_words(admin: Launch) -> None:
    client = admin()

    assert (200, b"healthy") == client.ask("GET", "/dbos-healthz")[::2]
    for _ in range(2):
        assert (200, b"deactivated") == client.ask("GET", "/deactivate")[::2]


def test_deactivation_stops_what_the_code_schedules_and_nothing_else(admin: Launch) -> None:
    client = admin()
    fired: list[int] = []

    @DBOS.scheduled("* * * * * *")
    @DBOS.workflow(name="each-second")
    def each_second(_scheduled, _actual) -> None:
        fired.append(1)

    eventually(lambda: fired)
    client.ask("GET", "/deactivate")
    eventually(lambda: not DBOS.list_workflows(status=["PENDING", "ENQUEUED"]))
    (scheduler,) = (each for each in instance().launched.services if isinstance(each, Scheduler))
    eventually(lambda: not scheduler._coded)
    define()


def test_a_workflow_is_shown_without_decoding_anything(admin: Launch) -> None:
    client = admin()
    define()

    shown = client.ask("GET", "/workflows/w-1").json

    assert ("w-1", "SUCCESS", "work") == (shown["WorkflowUUID"], shown["Status"], shown["WorkflowName"])
    assert (None, None, None) == (shown["Input"], shown["Output"], shown["Error"])
    assert {type(value) for value in shown.values()} == {str, type(None)}


def test_values_are_shown_by_their_repr_when_asked_for(admin: Launch) -> None:
    client = admin()
    define()

    shown = client.ask("GET", "/workflows/w-1?load_input=true&load_output=true").json
    listed = client.ask("POST", "/workflows", {"load_input": True, "load_output": True}).json
    steps = client.ask("GET", "/workflows/w-1/steps?load_output=true").json

    assert ("{'args': (3,), 'kwargs': {}}", "7") == (shown["Input"], shown["Output"])
    assert [shown] == listed
    assert [("double", "6", 1)] == [(each["function_name"], each["output"], each["function_id"]) for each in steps]


def test_nothing_is_unpickled_unless_asked_for(admin: Launch, rows: Rows) -> None:
    client, trap = admin(), base64.b64encode(pickle.dumps(Trap())).decode()
    rows.add("trap", "work", status="SUCCESS", inputs=trap, output=trap, serialization="py_pickle")
    rows.run(
        "INSERT INTO {}operation_outputs (workflow_uuid, function_id, function_name, output, serialization)"
        " VALUES ('trap', 1, 's', :text, 'py_pickle')",
        text=trap,
    )
    caught.clear()

    for method, path in (
        ("GET", "/workflows/trap"),
        ("GET", "/workflows/trap/steps"),
        ("POST", "/workflows"),
        ("POST", "/queues"),
    ):
        assert 200 == client.ask(method, path, {} if method == "POST" else None).status
    assert [] == caught

    client.ask("GET", "/workflows/trap/steps?load_output=true")
    assert ["unpickled"] == caught


def test_what_is_stored_as_json_is_shown_as_it_is_stored(admin: Launch, rows: Rows) -> None:
    client = admin()
    rows.add("plain", "work", status="SUCCESS", output='{"a":1}', serialization="portable_json")

    assert '{"a":1}' == client.ask("GET", "/workflows/plain").json["Output"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, ["w-1", "w-2", "x-3"]),
        ({"sort_desc": True, "limit": 1}, ["x-3"]),
        ({"limit": 1, "offset": 1}, ["w-2"]),
        ({"workflow_uuids": ["w-2", "none"]}, ["w-2"]),
        ({"status": "ERROR"}, ["w-2"]),
        ({"status": ["ERROR", "SUCCESS"], "workflow_id_prefix": "w-"}, ["w-1", "w-2"]),
        ({"workflow_name": "b", "authenticated_user": None}, ["x-3"]),
        ({"start_time": "1970-01-01T00:00:02Z", "end_time": "1970-01-01T00:00:02.500+00:00"}, ["w-2"]),
        ({"application_version": "v9"}, ["x-3"]),
    ],
)
def test_workflows_are_listed_by_filters(admin: Launch, rows: Rows, body: dict, expected: list[str]) -> None:
    for number, (workflow_id, name, status) in enumerate(
        [("w-1", "a", "SUCCESS"), ("w-2", "a", "ERROR"), ("x-3", "b", "CANCELLED")], 1
    ):
        version = "v9" if name == "b" else "v0"
        rows.add(workflow_id, name, status=status, created_at=1000 * number, application_version=version)

    assert expected == [each["WorkflowUUID"] for each in admin().ask("POST", "/workflows", body).json]


def test_queues_and_what_is_on_them_are_listed(admin: Launch, rows: Rows) -> None:
    client = admin()
    Queue("slow", concurrency=5, worker_concurrency=2, limiter={"limit": 3, "period": 1.5})
    rows.add("waits", "unknown", queue_name="slow")

    known = {each["name"]: each for each in client.ask("GET", "/dbos-workflow-queues-metadata").json}
    listed = client.ask("POST", "/queues", {"queue_name": "slow"}).json

    assert {"name": "_dbos_internal_queue"} == known["_dbos_internal_queue"]
    assert known["slow"] == {
        "name": "slow",
        "concurrency": 5,
        "workerConcurrency": 2,
        "rateLimit": {"limit": 3, "period": 1.5},
    }
    assert [("waits", "slow")] == [(each["WorkflowUUID"], each["QueueName"]) for each in listed]


def test_a_workflow_is_cancelled_resumed_restarted_and_forked(admin: Launch) -> None:
    client, gate = admin(), Gate()

    @DBOS.step(name="first")
    def first() -> str:
        return "first"

    @DBOS.step(name="second")
    def second() -> str:
        gate.pass_through()
        return "second"

    @DBOS.workflow(name="two")
    def two() -> list[str]:
        return [first(), second()]

    with SetWorkflowID("two"):
        handle = DBOS.start_workflow(two)
    gate.wait_reached()
    assert (204, b"") == client.ask("POST", "/workflows/two/cancel")[::2]
    assert "CANCELLED" == handle.get_status().status
    gate.open()
    assert 204 == client.ask("POST", "/workflows/two/resume").status
    assert ["first", "second"] == DBOS.retrieve_workflow("two").get_result()

    restarted = client.ask("POST", "/workflows/two/restart").json["workflow_id"]
    forked = client.ask("POST", "/workflows/two/fork", {"start_step": 2, "new_workflow_id": "mine"}).json

    assert {"workflow_id": "mine"} == forked
    for each in (restarted, "mine"):
        assert ["first", "second"] == DBOS.retrieve_workflow(each).get_result()
        assert "two" == client.ask("GET", f"/workflows/{each}").json["ForkedFrom"]


def test_recovery_lists_what_these_executors_left(admin: Launch, rows: Rows) -> None:
    client = admin()
    define()
    rows.interrupt("w-1")

    assert ["w-1"] == client.ask("POST", "/dbos-workflow-recovery", ["local"]).json
    assert [] == client.ask("POST", "/dbos-workflow-recovery", ["nobody"]).json
    assert 7 == DBOS.retrieve_workflow("w-1").get_result()


def test_old_workflows_are_forgotten_and_late_ones_cancelled(admin: Launch, rows: Rows) -> None:
    client = admin()
    rows.add("old", "unknown", status="SUCCESS", created_at=1_000)
    rows.add("older-but-waiting", "unknown", queue_name="nowhere", created_at=500)

    assert 204 == client.ask("POST", "/dbos-garbage-collect", {"cutoff_epoch_timestamp_ms": 2_000}).status
    assert 404 == client.ask("GET", "/workflows/old").status
    assert "ENQUEUED" == client.ask("GET", "/workflows/older-but-waiting").json["Status"]

    assert 204 == client.ask("POST", "/dbos-global-timeout", {"cutoff_epoch_timestamp_ms": 2_000}).status
    assert "CANCELLED" == client.ask("GET", "/workflows/older-but-waiting").json["Status"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("GET", "/nothing", None, 404, "no such path"),
        ("GET", "/workflows", None, 405, "POST"),
        ("HEAD", "/workflows", None, 405, ""),
        ("BREW", "/dbos-healthz", None, 405, "GET"),
        ("POST", "/workflows/none/resume", None, 404, "none"),
        ("POST", "/workflows/none/restart", None, 404, "none"),
        ("POST", "/workflows/none/fork", {}, 404, "none"),
        ("POST", "/workflows", b"{", 400, "Invalid JSON input"),
        ("POST", "/workflows/none/fork", b"nothing", 500, "Invalid JSON input"),
        ("POST", "/workflows", b"[" * 100_000, 400, "Invalid JSON input"),
        ("POST", "/workflows", b"NaN", 400, "Invalid JSON input"),
        ("POST", "/workflows", b"\xff\xfe", 400, "Invalid JSON input"),
        ("POST", "/workflows", [], 400, "must be of type object"),
        ("POST", "/workflows", {"stauts": "ERROR"}, 400, "stauts"),
        ("POST", "/workflows", {"status": "FAILED"}, 400, "FAILED"),
        ("POST", "/workflows", {"status": ["FAILED"]}, 400, "FAILED"),
        ("POST", "/workflows", {"limit": -1}, 400, "limit"),
        ("POST", "/workflows", {"limit": True}, 400, "limit"),
        ("POST", "/workflows", {"offset": 10**30}, 400, "offset"),
        ("POST", "/workflows", {"start_time": "soon"}, 400, "start_time"),
        ("POST", "/workflows", {"workflow_name": "a\0b"}, 400, "workflow_name"),
        ("POST", "/workflows", b'{"workflow_name": "\\ud800"}', 400, "workflow_name"),
        ("POST", "/dbos-workflow-recovery", b"", 400, "Invalid JSON input"),
        ("POST", "/dbos-workflow-recovery", [1], 400, "[0]"),
        ("POST", "/dbos-garbage-collect", {"rows_threshold": -1}, 400, "rows_threshold"),
        ("POST", "/dbos-global-timeout", {}, 400, "cutoff_epoch_timestamp_ms"),
        ("POST", "/workflows/none/fork", {"new_workflow_id": "a\nb"}, 400, "new_workflow_id"),
        ("GET", "/workflows/none?load_input=maybe", None, 400, "load_input"),
        ("GET", "/workflows/%00", None, 400, "path"),
        ("GET", "/workflows/%ff", None, 400, "UTF-8"),
        ("GET", "http://elsewhere/dbos-healthz", None, 400, "path"),
    ],
)
def test_what_cannot_be_done_is_told_in_json(
    admin: Launch, method: str, path: str, body: object, status: int, says: str
) -> None:
    answer = admin().ask(method, path, body)

    assert status == answer.status, answer
    assert "application/json" == answer.headers["content-type"]
    if method != "HEAD":
        assert says in answer.json["error"]


def test_of_an_unknown_workflow_nothing_is_said(admin: Launch) -> None:
    answer = admin().ask("GET", "/workflows/none")

    assert (404, b"") == (answer.status, answer.body)


def test_a_list_is_as_long_as_it_is_asked_for(admin: Launch, rows: Rows) -> None:
    client = admin()
    rows.add("one", "work", status="SUCCESS")

    assert 1 == len(client.ask("POST", "/workflows", {"limit": 2**63 - 1}).json)


def test_an_id_may_have_any_characters(admin: Launch, rows: Rows) -> None:
    client = admin()
    rows.add("a/b?c=ü", "work", status="SUCCESS")

    assert "a/b?c=ü" == client.ask("GET", "/workflows/a%2Fb%3Fc=%C3%BC").json["WorkflowUUID"]


def test_a_post_needs_no_length_where_it_needs_no_body(admin: Launch) -> None:
    client = admin()

    assert 200 == client.ask("POST", "/workflows", None, Content_Length=None).status
    assert 204 == client.ask("POST", "/workflows/none/cancel", None, Content_Length=None).status
    assert (
        411
        == client.ask(
            "POST", "/workflows", b"2\r\n{}\r\n0\r\n\r\n", Content_Length=None, Transfer_Encoding="chunked"
        ).status
    )


def test_the_server_ends_with_the_runtime_and_leaves_no_thread(admin: Launch) -> None:
    client = admin()
    waiting = client.connect()
    waiting.sendall(b"GET /dbos")
    eventually(lambda: any(each.name.startswith("dbos-admin-") for each in threading.enumerate()))

    DBOS.destroy()

    eventually(lambda: not any(each.name.startswith("dbos-admin") for each in threading.enumerate()))
    waiting.close()
    with pytest.raises(OSError):
        client.connect()
