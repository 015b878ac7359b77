"""Signed values and JSON only: what was written by somebody else is refused before anything of it is read."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSClient,
    DBOSPortableJSONSerializer,
    JSONOnlySerializer,
    Serializer,
    SetWorkflowID,
    SignedSerializer,
    WorkflowSerializationFormat,
)
from dbos.error import DBOSInitializationError, DBOSSerializationError
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside

OLD, NEW = b"old-canary-" * 4, b"new-canary-" * 4
SIGNED = SignedSerializer({"k1": OLD}, application="test-app")
caught: list[str] = []


def catch(word: str) -> str:
    caught.append(word)
    return word


class Trap:
    """Whoever unpickles it is caught."""

    def __reduce__(self) -> Any:
        return (catch, ("unpickled",))


TRAP = base64.b64encode(pickle.dumps(Trap())).decode()


class Failure(Exception):
    pass


@pytest.fixture(autouse=True)
def nobody_caught() -> None:
    caught.clear()


def define(hand: Hand) -> Any:
    @hand.step(name="s")
    def s(x: Any) -> Any:
        return [x]

    @hand.step(name="fails")
    def fails() -> None:
        raise Failure("no")

    @hand.workflow(name="child")
    async def child(do: Inside) -> str:
        return "child"

    @hand.workflow(name="all")
    async def all_of_it(do: Inside, x: Any) -> Any:
        await do.set_event("e", x)
        await do.write_stream("t", x)
        try:
            await do(fails())
        except Exception as error:
            failure = str(error)
        handle = await do.start(child)
        return [await do(s(x)), await do.recv("topic", 5), await do(handle.get_result()), failure]

    return all_of_it


def play(hand: Hand, workflow: Any, x: Any) -> Any:
    with SetWorkflowID("w"):
        handle = hand.start(workflow, x)
    hand.do("send", "w", x, "topic")
    return handle.result()


@pytest.mark.parametrize(
    ("serializer", "x"),
    [
        (SIGNED, {"a": (1, {2})}),
        (SignedSerializer({"k": OLD}, inner=DBOSPortableJSONSerializer()), {"a": [1]}),
        (JSONOnlySerializer(), {"a": [1]}),
    ],
    ids=repr,
)
def test_everything_is_stored_so_and_read_back(
    app: App, hand: Hand, rows: Rows, serializer: Serializer, x: Any
) -> None:
    app.launch(serializer=serializer)
    workflow = define(hand)
    expected = [[x], x, "child", "no"]
    assert expected == play(hand, workflow, x)

    for table in ("workflow_status", "operation_outputs", "workflow_events", "streams", "notifications"):
        formats = {row.serialization for row in rows.run(f"SELECT serialization FROM {{}}{table}")}
        assert formats <= {serializer.name(), None, *(["portable_json"] if table == "streams" else [])}
    rows.interrupt("w")
    app.restart(serializer=serializer)

    assert expected == hand.do("retrieve_workflow", "w").result()
    assert {"e": x} == hand.do("get_all_events", "w")
    forked = hand.do("fork_workflow", "w", 99)
    assert expected == forked.result()


def test_a_failure_is_signed_too(app: App, hand: Hand) -> None:
    app.launch(serializer=SIGNED)

    @hand.workflow(name="broken")
    async def broken(do: Inside) -> None:
        raise Failure("as it was")

    with SetWorkflowID("w"):
        handle = hand.start(broken)
    with pytest.raises(Failure, match="as it was"):
        handle.result()
    app.restart(serializer=SIGNED)
    with pytest.raises(Failure, match="as it was"):
        hand.do("retrieve_workflow", "w").result()


@pytest.mark.parametrize("serializer", [SIGNED, JSONOnlySerializer()], ids=repr)
@pytest.mark.parametrize("name", ["py_pickle", "signed_py_pickle", None])
def test_a_pickle_of_somebody_else_is_never_read(
    app: App, rows: Rows, serializer: Serializer, name: str | None
) -> None:
    app.launch(serializer=serializer)

    @DBOS.workflow(name="takes")
    def takes(x: Any) -> Any:
        return x

    rows.add("done", "takes", status="SUCCESS", output=TRAP, serialization=name)
    rows.add("begun", "takes", inputs=TRAP, serialization=name, queue_name="_dbos_internal_queue")

    with pytest.raises((DBOSSerializationError, ValueError)):
        DBOS.retrieve_workflow("done").get_result()
    with pytest.raises((DBOSSerializationError, ValueError)):
        DBOS.retrieve_workflow("begun").get_result()
    assert TRAP == DBOS.list_workflows(workflow_ids=["done"])[0].output
    assert [] == caught


@pytest.mark.parametrize(
    "changed",
    [
        lambda text: text[:-2] + ("AA" if text[-2:] != "AA" else "BB"),
        lambda text: text.replace("k1:", "k2:", 1),
        lambda text: "k1::" + text.split(":", 2)[2],
        lambda text: text.split(":", 2)[2],
        lambda text: f"k1:{text.split(':', 2)[1]}:{TRAP}",
        lambda text: f"k1:{text.split(':', 2)[1]}\u00fc:{TRAP}",
        lambda text: "",
        lambda text: ":::",
    ],
)
def test_what_was_changed_is_refused(changed: Any) -> None:
    text = SIGNED.serialize({"x": 1})

    with pytest.raises(DBOSSerializationError):
        SIGNED.deserialize(changed(text))
    assert [] == caught
    assert {"x": 1} == SIGNED.deserialize(text)


def test_a_signature_is_for_one_application_and_one_format() -> None:
    text = SIGNED.serialize("x")
    json_text = SignedSerializer({"k1": OLD}, application="test-app", inner=DBOSPortableJSONSerializer()).serialize("x")

    for other, refused in (
        (SignedSerializer({"k1": OLD}, application="other"), text),
        (SignedSerializer({"k1": NEW}, application="test-app"), text),
        (SIGNED, json_text),
    ):
        with pytest.raises(DBOSSerializationError, match="signature"):
            other.deserialize(refused)


def test_keys_are_changed_one_after_the_other() -> None:
    before = SIGNED.serialize("x")
    both = SignedSerializer({"k2": NEW, "k1": OLD}, application="test-app")
    after = SignedSerializer({"k2": NEW}, application="test-app")

    assert "x" == both.deserialize(before) == after.deserialize(both.serialize("x"))
    with pytest.raises(DBOSSerializationError, match="key"):
        after.deserialize(before)


def test_a_client_needs_the_key(app: App, hand: Hand) -> None:
    app.launch(serializer=SIGNED)
    play(hand, define(hand), 1)

    with DBOSClient(system_database_url=app.database) as client, pytest.raises(TypeError, match="signed_py_pickle"):
        client.get_result("w")
    with DBOSClient(system_database_url=app.database, serializer=SIGNED) as client:
        assert [[1], 1, "child", "no"] == client.get_result("w")


@pytest.mark.parametrize("serializer", [SIGNED, JSONOnlySerializer()], ids=repr)
def test_pickle_cannot_be_asked_for(app: App, serializer: Serializer) -> None:
    app.launch(serializer=serializer)

    @DBOS.workflow(name="sends")
    def sends() -> None:
        DBOS.set_event("e", 1, serialization_type=WorkflowSerializationFormat.NATIVE)

    with pytest.raises(DBOSSerializationError, match="refuses"):
        sends()


def test_keys_come_from_the_environment_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entries = [f"k2:{base64.b64encode(NEW).decode()}", f"k1:{base64.b64encode(OLD).decode()}"]
    monkeypatch.setenv("DBOS_SERIALIZER_KEYS", ",".join(entries))
    (tmp_path / "keys").write_text("\n".join(entries) + "\n\n")

    for made in (
        SignedSerializer.from_environment(application="test-app"),
        SignedSerializer.from_file(tmp_path / "keys", application="test-app"),
    ):
        assert "x" == made.deserialize(SIGNED.serialize("x"))
        assert made.serialize("x").startswith("k2:")


@pytest.mark.parametrize(
    "make",
    [
        lambda: SignedSerializer({}),
        lambda: SignedSerializer({"a:b": OLD}),
        lambda: SignedSerializer({"k": b"canary"}),
        lambda: SignedSerializer({"k": "canary" * 9}),  # type: ignore[dict-item]
        lambda: SignedSerializer.from_environment("NOT_SET"),
        lambda: SignedSerializer.from_environment("BROKEN"),
        lambda: SignedSerializer.from_file("/not/there"),
    ],
)
def test_keys_that_make_no_sense_are_refused_and_not_told(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKEN", "k1:canary-that-is-no-base64!")
    with pytest.raises(DBOSInitializationError) as refused:
        make()
    assert "canary" not in str(refused.value)


def test_the_keys_are_in_no_text_and_in_no_pickle() -> None:
    assert "canary" not in repr(SIGNED)
    with pytest.raises(TypeError):
        pickle.dumps(SIGNED)
    with pytest.raises(DBOSSerializationError) as refused:
        SIGNED.deserialize("k1:x:y")
    assert "canary" not in f"{refused.value!r} {refused.value}"
