"""The archive: what leaves a database comes back as it was, and nothing runs, is lost or decoded on the way."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, SetWorkflowAttributes, SetWorkflowID
from dbos.error import DBOSException, DBOSNonExistentWorkflowError
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside

OWNED = (
    "operation_outputs",
    "notifications",
    "workflow_events",
    "workflow_events_history",
    "streams",
    "notebook_notes",
)


def content(rows: Rows, workflow_id: str) -> dict[str, Any]:
    """Everything that a database has of a workflow, but for its owner."""
    found: dict[str, Any] = {}
    for table in ("workflow_status", *OWNED, "notebook_attributes"):
        key = "destination_uuid" if table == "notifications" else "workflow_uuid"
        read = rows.run(f"SELECT * FROM {{}}{table} WHERE {key} = :id", id=workflow_id)
        found[table] = sorted(
            (sorted((name, value) for name, value in row._mapping.items() if name != "owner_xid") for row in read),
            key=str,
        )
    return found


def define(hand: Hand) -> Any:
    @hand.step(name="s")
    def s(x: int) -> dict:
        return {"x": x, "text": "ü \N{SNOWMAN}"}

    @hand.workflow(name="child")
    async def child(do: Inside, x: int) -> int:
        return x + 1

    @hand.workflow(name="whole")
    async def whole(do: Inside, x: int) -> int:
        await do(s(x))
        await do.set_event("e", x)
        await do.set_event("e", x + 1)
        await do.write_stream("t", "value")
        await do.recv("topic", 1)
        handle = await do.start(child, x)
        return await do(handle.get_result())

    return whole


def make(hand: Hand, workflow_id: str = "w") -> None:
    whole = define(hand)
    with SetWorkflowID(workflow_id), SetWorkflowAttributes({"customer": 5}):
        handle = hand.start(whole, 1)
    hand.do("send", workflow_id, "hello", "topic")
    assert 2 == handle.result()


def forget(*workflow_ids: str) -> None:
    DBOS.delete_workflows(list(workflow_ids), delete_children=True)
    assert [] == DBOS.list_workflows(workflow_ids=list(workflow_ids))


def test_what_is_exported_comes_back_as_it_was(app: App, hand: Hand, rows: Rows, tmp_path: Path) -> None:
    app.launch()
    make(hand)
    rows.run("INSERT INTO {}notebook_notes (workflow_uuid, function_id, kind, text) VALUES ('w', 1, 'output', 'shown')")
    (child,) = DBOS.list_workflows(parent_workflow_id="w")
    before = {each: content(rows, each) for each in ("w", child.workflow_id)}
    assert all(before["w"][table] for table in OWNED)

    counts = hand.do("export_workflows", tmp_path / "archive.jsonl", ["w"])
    forget("w")
    imported = hand.do("import_workflows", tmp_path / "archive.jsonl")

    assert {"w", child.workflow_id} == set(imported)
    assert 2 == counts["workflow"]
    assert before == {each: content(rows, each) for each in before}
    assert 2 == hand.do("retrieve_workflow", "w").result()
    assert [] == hand.do("import_workflows", tmp_path / "archive.jsonl")


def test_an_archive_moves_to_a_database_of_the_other_kind(
    app: App, hand: Hand, postgres: str, sqlite_template: Path, tmp_path: Path
) -> None:
    import shutil

    from tests.databases import postgres_database

    app.launch()
    make(hand)
    DBOS.export_workflows(tmp_path / "archive", ["w"])
    shutil.copy(sqlite_template, tmp_path / "other.sqlite")
    with postgres_database(postgres) as other_postgres:
        other = other_postgres if app.database.startswith("sqlite") else f"sqlite:///{tmp_path}/other.sqlite"
        with DBOSClient(system_database_url=other) as client:
            assert 2 == len(client.import_workflows(tmp_path / "archive"))
            assert 2 == client.get_result("w")
            assert {"e": 2} == client.get_all_events("w")
            assert ["value"] == list(client.read_stream("w", "t"))
            client.export_workflows(tmp_path / "again", ["w"])

    assert (tmp_path / "archive").read_text().splitlines() == (tmp_path / "again").read_text().splitlines()


def test_new_ids_make_a_copy_that_names_only_itself(app: App, hand: Hand, rows: Rows) -> None:
    app.launch()
    make(hand)
    file = io.StringIO()
    DBOS.export_workflows(file, ["w"])

    copies = [DBOS.import_workflows(io.StringIO(file.getvalue()), new_ids=True) for _ in range(2)]

    assert 4 == len({each for copy in copies for each in copy})
    for ids in copies:
        (whole,) = DBOS.list_workflows(workflow_ids=ids, name="whole")
        (child,) = DBOS.list_workflows(workflow_ids=ids, name="child")
        assert whole.workflow_id == child.parent_workflow_id
        assert {child.workflow_id, None} == {
            each["child_workflow_id"] for each in DBOS.list_workflow_steps(whole.workflow_id)
        }
        assert "w" not in json.dumps([whole.workflow_id, child.workflow_id, child.parent_workflow_id])


@pytest.mark.parametrize(
    ("status", "resume", "expected"),
    [
        ("PENDING", False, "CANCELLED"),
        ("ENQUEUED", False, "CANCELLED"),
        ("DELAYED", False, "CANCELLED"),
        ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", False, "MAX_RECOVERY_ATTEMPTS_EXCEEDED"),
        ("ERROR", True, "ERROR"),
        ("PENDING", True, "ENQUEUED"),
        ("DELAYED", True, "DELAYED"),
    ],
)
def test_what_had_not_ended_does_not_run_by_surprise(
    app: App, rows: Rows, status: str, resume: bool, expected: str
) -> None:
    app.launch()
    rows.add(
        "w", "unknown", status=status, queue_name="q", deduplication_id="d", delay_until_epoch_ms=9_000_000_000_000
    )
    file = io.StringIO()
    DBOS.export_workflows(file)
    forget("w")

    for _ in range(2):
        DBOS.import_workflows(io.StringIO(file.getvalue()), resume=resume)

    found = rows.workflow("w")
    assert expected == found.status
    assert (None if expected == "CANCELLED" else "q") == found.queue_name


def test_a_resumed_import_goes_on_after_its_last_step(app: App, hand: Hand, rows: Rows) -> None:
    calls: list[int] = []
    app.launch()

    @hand.step(name="counted")
    def counted() -> int:
        calls.append(1)
        return 7

    @hand.workflow(name="resumable")
    async def resumable(do: Inside) -> int:
        return await do(counted())

    with SetWorkflowID("w"):
        assert 7 == hand.call(resumable)
    rows.interrupt("w", executor_id="elsewhere")
    file = io.StringIO()
    DBOS.export_workflows(file)
    forget("w")
    DBOS.import_workflows(io.StringIO(file.getvalue()), resume=True)

    assert 7 == hand.do("retrieve_workflow", "w").result()
    assert [1] == calls


def test_another_content_under_the_same_id_is_refused(app: App, rows: Rows) -> None:
    app.launch()
    for each in ("a", "b"):
        rows.add(each, "unknown", status="SUCCESS", output="1")
    file = io.StringIO()
    DBOS.export_workflows(file)
    rows.change("b", output="2")
    forget("a")

    with pytest.raises(DBOSException, match="'b'.*another content"):
        DBOS.import_workflows(io.StringIO(file.getvalue()))

    assert ("1", "2") == (rows.workflow("a").output, rows.workflow("b").output)


def test_conditions_choose_what_is_exported(app: App, rows: Rows) -> None:
    app.launch()
    for number in range(250):
        rows.add(f"w-{number:03}", "odd" if number % 2 else "even", status="SUCCESS", created_at=1000 + number // 7)
    rows.add("child", "other", status="SUCCESS", parent_workflow_id="w-001", created_at=5000)

    def ids(**conditions: Any) -> list[str]:
        file = io.BytesIO()
        DBOS.export_workflows(file, **conditions)
        lines = [json.loads(line) for line in file.getvalue().splitlines()]
        return [each["workflow"]["workflow_uuid"] for each in lines if "workflow" in each]

    assert [f"w-{number:03}" for number in range(250)] + ["child"] == ids()
    assert sorted([f"w-{number:03}" for number in range(1, 250, 2)] + ["child"]) == sorted(ids(name="odd"))
    assert [f"w-{number:03}" for number in range(1, 250, 2)] == ids(name="odd", with_children=False)
    assert ["child", "w-249", "w-248"] == ids(sort_desc=True, limit=3, with_children=False)
    assert ["w-001"] == ids(workflow_ids=["w-001", "w-001"], with_children=False)
    assert [] == ids(status=[])
    with pytest.raises(DBOSNonExistentWorkflowError, match="nobody"):
        ids(workflow_ids=["w-001", "nobody"])
    with pytest.raises(TypeError, match="stauts"):
        ids(stauts="x")


def test_a_file_appears_whole_or_not_at_all(app: App, rows: Rows, tmp_path: Path) -> None:
    app.launch()
    rows.add("w", "unknown", status="SUCCESS")
    path = tmp_path / "archive"
    path.write_text("the one before")

    def die(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DBOS.export_workflows(path, progress=die)
    assert ["archive"] == [each.name for each in tmp_path.iterdir() if "sqlite" not in each.name]
    assert "the one before" == path.read_text()

    DBOS.export_workflows(path)
    assert 0o600 == path.stat().st_mode & 0o777


HEADER = '{"header":{"format":"dbos-archive","version":1}}'
ROW = '{"workflow":{"workflow_uuid":"w","status":"SUCCESS","name":"n","created_at":1,"updated_at":1}}'
FOOTER = '{"footer":{"workflow":1}}'


def row(**values: Any) -> str:
    return json.dumps({"workflow": {**json.loads(ROW)["workflow"], **values}})


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "Line 0.*footer"),
        ([HEADER, ROW], "Line 2.*footer"),
        ([HEADER, ROW, FOOTER, ROW], "Line 4.*after the footer"),
        ([HEADER, FOOTER], "Line 2.*counts"),
        ([HEADER, ROW, '{"footer":{"workflow":2}}'], "Line 3.*counts"),
        ([ROW, FOOTER], "Line 1.*header"),
        ([HEADER, HEADER], "Line 2.*header"),
        (['{"header":{"format":"other"}}'], "Line 1.*'other'"),
        (['{"header":{"format":"dbos-archive","version":2}}'], "Line 1.*version 1.*2"),
        ([HEADER, "{"], "Line 2.*JSON"),
        ([HEADER, "[" * 100_000], "Line 2.*JSON"),
        ([HEADER, "[]"], "Line 2.*one row"),
        ([HEADER, '{"workflow":{},"step":{}}'], "Line 2.*one row"),
        ([HEADER, '{"secret":{}}'], "Line 2.*'secret'"),
        ([HEADER, row(color="red")], "Line 2.*'color'"),
        ([HEADER, row(owner_xid="x")], "Line 2.*'owner_xid'"),
        ([HEADER, row(created_at="1")], "Line 2.*created_at.*int"),
        ([HEADER, row(created_at=True)], "Line 2.*created_at.*int"),
        ([HEADER, row(created_at=2**63)], "Line 2.*created_at.*large"),
        ([HEADER, row(inputs="a\0b")], "Line 2.*inputs"),
        ([HEADER, row(inputs="\ud800")], "Line 2.*inputs"),
        ([HEADER, row(status="DONE")], "Line 2.*'DONE'"),
        ([HEADER, row(workflow_uuid=" ")], "Line 2.*id"),
        ([HEADER, row(attributes="[1]")], "Line 2.*attributes"),
        ([HEADER, '{"workflow":{"workflow_uuid":"w"}}'], "Line 2.*created_at, name, status, updated_at"),
        ([HEADER, ROW, ROW], "Line 3.*line 2 already"),
        ([HEADER, '{"step":{"workflow_uuid":"w","function_id":1}}'], "Line 2.*must follow"),
        ([HEADER, ROW, '{"step":{"workflow_uuid":"v","function_id":1}}'], "Line 3.*'v'.*must follow"),
        ([HEADER, ROW, '{"step":{"workflow_uuid":"w"}}'], "Line 3.*function_id"),
        ([HEADER, row(parent_workflow_id="w"), FOOTER], "Line 2.*ancestor"),
        (
            [HEADER, row(forked_from="v"), row(workflow_uuid="v", forked_from="w"), '{"footer":{"workflow":2}}'],
            "Line 2.*ancestor by forked_from",
        ),
    ],
)
def test_what_is_no_archive_is_refused_and_nothing_is_written(app: App, lines: list[str], says: str) -> None:
    app.launch()

    with pytest.raises(DBOSException, match=f"(?s){says}"):
        DBOS.import_workflows(io.StringIO("\n".join(lines)))

    assert [] == DBOS.list_workflows()


def test_half_a_workflow_is_never_there(app: App, rows: Rows) -> None:
    app.launch()
    message = (
        '{"message":{"message_uuid":"m","destination_uuid":"w","message":"1","created_at_epoch_ms":1,"consumed":false}}'
    )
    rows.add("other", "unknown", status="SUCCESS")
    rows.run("INSERT INTO {}notifications (message_uuid, destination_uuid, message) VALUES ('m', 'other', '2')")

    with pytest.raises(DBOSException, match=r"message of workflow 'w' \(line 2"):
        DBOS.import_workflows(io.StringIO(f'{HEADER}\n{ROW}\n{message}\n{{"footer":{{"workflow":1,"message":1}}}}'))

    assert [] == DBOS.list_workflows(workflow_ids=["w"])


def test_the_code_of_a_version_goes_along(app: App, rows: Rows) -> None:
    app.launch()
    for each in ("a", "b"):
        rows.add(each, "unknown", status="SUCCESS", application_version="v-7")
    DBOS.keep_source("v-7", "unknown", "def unknown(): ...")
    file = io.StringIO()
    counts = DBOS.export_workflows(file)
    forget("a", "b")
    rows.run("DELETE FROM {}notebook_sources")

    DBOS.import_workflows(io.StringIO(file.getvalue()))

    assert {"source": 1, "workflow": 2} == counts
    assert ["def unknown(): ..."] == [each.text for each in DBOS.list_sources(["v-7"])]


def test_memory_does_not_grow_with_the_number_of_workflows(app: App, rows: Rows, tmp_path: Path) -> None:
    app.launch()
    for number in range(60):
        rows.add(f"w-{number}", "unknown", status="SUCCESS", output='"' + "x" * 500_000 + '"')

    tracemalloc.start()
    DBOS.export_workflows(tmp_path / "archive")
    DBOS.import_workflows(tmp_path / "archive")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert 60 * 500_000 < (tmp_path / "archive").stat().st_size
    assert most < 25_000_000


def test_the_null_of_json_is_no_attribute(app: App, rows: Rows) -> None:
    """Later releases write it where a workflow has none."""
    rows.run(f"ALTER TABLE {{}}workflow_status ADD COLUMN attributes {'JSONB' if rows.is_postgres else 'TEXT'}")
    rows.add("none", "unknown", status="SUCCESS", attributes="null")
    rows.add("some", "unknown", status="SUCCESS", attributes='{"a": 1}')
    app.launch()
    file = io.StringIO()
    DBOS.export_workflows(file)

    assert [] == DBOS.import_workflows(io.StringIO(file.getvalue()))
    copies = DBOS.import_workflows(io.StringIO(file.getvalue()), new_ids=True)

    assert [None, {"a": 1}] == [DBOS.get_workflow_status(each).attributes for each in copies]


def test_an_archive_knows_both_layouts(app: App, rows: Rows) -> None:
    """Inputs and outcomes that have tables of their own leave with their workflow, and come back with its row."""
    rows.run("ALTER TABLE {}workflow_status ADD COLUMN completed_at BIGINT")
    rows.run("CREATE TABLE {}workflow_input (workflow_uuid TEXT, inputs TEXT)")
    rows.run("CREATE TABLE {}workflow_output (workflow_uuid TEXT, output TEXT, error TEXT)")
    rows.add("w", "unknown", status="SUCCESS", inputs=None, completed_at=77)
    rows.run("INSERT INTO {}workflow_input VALUES ('w', :inputs)", inputs='{"positionalArgs":[1]}')
    rows.run("INSERT INTO {}workflow_output VALUES ('w', :output, NULL)", output='"done"')
    app.launch()
    file = io.StringIO()
    DBOS.export_workflows(file)

    assert 1 == DBOS.garbage_collect(rows_threshold=0)
    assert [] == rows.run("SELECT * FROM {}workflow_input") + rows.run("SELECT * FROM {}workflow_output")
    for expected in (["w"], []):
        assert expected == DBOS.import_workflows(io.StringIO(file.getvalue()))

    (found,) = DBOS.list_workflows()
    assert ((1,), "done", 77) == (found.input["args"], found.output, found.completed_at)
