"""How values are stored: pickle, serializers of the user, and what cannot be read."""

from __future__ import annotations

import base64
import copyreg
import json
import pickle
from typing import Any

import pytest
import tblib.pickling_support

from dbos import DBOS, Serializer, SetWorkflowID, WorkflowSerializationFormat
from tests.compat.acts import again
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside


class Json(Serializer):
    """As in the documentation: it has no name of its own."""

    def serialize(self, data: Any) -> str:
        return json.dumps(data, default=str)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data)


class Named(Json):
    def name(self) -> str:
        return "my-json"


def unpickled(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))


def run_echo(hand: Hand, workflow_id: str = "w", *args: Any, **kwargs: Any) -> Any:
    """A workflow with one step, run."""

    @hand.step()
    def step(x: Any) -> Any:
        return x

    @hand.workflow()
    async def echo(do: Inside, *args: Any, **kwargs: Any) -> Any:
        return await do(step([list(args), kwargs]))

    with SetWorkflowID(workflow_id):
        return hand.call(echo, *args, **kwargs)


def test_values_are_pickled_by_default(app: App, hand: Hand, rows: Rows) -> None:
    """Base64 text of protocol 4; the name of the format is on the row."""
    app.launch()
    run_echo(hand, "w", 1, b={2})

    row, (step,) = rows.workflow("w"), rows.steps("w")
    assert ("py_pickle", "py_pickle") == (row.serialization, step.serialization)
    assert {"args": (1,), "kwargs": {"b": {2}}} == unpickled(row.inputs)
    assert [[1], {"b": {2}}] == unpickled(row.output) == unpickled(step.output)
    assert base64.b64decode(row.inputs)[:2] == b"\x80\x04"


def test_nothing_is_stored_as_a_value(app: App, hand: Hand, rows: Rows) -> None:
    """None is a pickle too, not the absence of one."""

    @hand.workflow()
    async def nothing(do: Inside) -> None:
        return None

    app.launch()
    with SetWorkflowID("w"):
        hand.call(nothing)

    assert "gAROLg==" == rows.workflow("w").output


def test_an_error_is_pickled_by_default(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow()
    async def fail(do: Inside) -> None:
        raise KeyError("no", 7)

    app.launch()
    with SetWorkflowID("w"), pytest.raises(KeyError):
        hand.call(fail)

    error = unpickled(rows.workflow("w").error)
    assert (KeyError, ("no", 7)) == (type(error), error.args)


def test_a_library_that_changes_how_errors_are_pickled_changes_no_record(app: App, hand: Hand, rows: Rows) -> None:
    """Dask installs tblib, and would make the errors of all workflows unreadable where that is missing."""
    registered = dict(copyreg.dispatch_table)
    tblib.pickling_support.install()
    try:

        @DBOS.workflow()
        def fails() -> None:
            raise ValueError("bad")

        app.launch()
        with SetWorkflowID("w"), pytest.raises(ValueError, match="bad"):
            hand.call(fails)
        assert b"tblib" not in base64.b64decode(rows.workflow("w").error)
    finally:
        copyreg.dispatch_table.clear()
        copyreg.dispatch_table.update(registered)


@pytest.mark.parametrize(
    ("serializer", "name"), [(Json(), "custom_serializer"), (Named(), "my-json")], ids=["plain", "named"]
)
def test_values_are_stored_by_the_serializer_of_the_configuration(
    app: App, hand: Hand, rows: Rows, serializer: Serializer, name: str
) -> None:
    """Inputs, outputs and steps, under its name."""
    app.launch(serializer=serializer)
    assert [[1], {"b": 2}] == run_echo(hand, "w", 1, b=2)

    row, (step,) = rows.workflow("w"), rows.steps("w")
    assert (name, name) == (row.serialization, step.serialization)
    assert {"args": [1], "kwargs": {"b": 2}} == json.loads(row.inputs)
    assert [[1], {"b": 2}] == json.loads(row.output) == json.loads(step.output)


def test_a_workflow_is_recovered_with_the_serializer_of_the_user(app: App, hand: Hand, rows: Rows) -> None:
    app.launch(serializer=Named())
    run_echo(hand, "w", 1, b=2)

    assert [[1], {"b": 2}] == again(rows, "w").get_result()
    rows.run("DELETE FROM {}operation_outputs")
    assert [[1], {"b": 2}] == again(rows, "w").get_result()


def test_what_a_serializer_of_the_user_cannot_store_raises(app: App, hand: Hand) -> None:
    """Its own error, at the call."""

    class Strict(Named):
        def serialize(self, data: Any) -> str:
            return json.dumps(data)

    app.launch(serializer=Strict())

    with pytest.raises(TypeError, match="not JSON serializable"):
        run_echo(hand, "w", {1})
    assert [] == DBOS.list_workflows()


def test_an_error_is_stored_by_a_serializer_that_knows_no_errors(app: App, hand: Hand) -> None:
    """Its text is not lost."""

    @hand.workflow()
    async def fail(do: Inside) -> None:
        raise ValueError("it fell down")

    app.launch(serializer=Named())
    with SetWorkflowID("w"), pytest.raises(ValueError, match="it fell down"):
        hand.call(fail)
    app.relaunch(serializer=Named())

    with pytest.raises(Exception, match="it fell down"):
        hand.do("get_result", "w")


def test_old_values_are_read_after_the_serializer_was_changed(app: App, hand: Hand) -> None:
    """The names that are built in are always known."""
    app.launch()
    run_echo(hand, "w", {1})
    app.relaunch(serializer=Named())

    assert [[{1}], {}] == hand.do("get_result", "w")
    assert {"args": ({1},), "kwargs": {}} == hand.do("get_workflow_status", "w").input
    assert [[{1}], {}] == hand.do("list_workflow_steps", "w")[0]["output"]


def test_an_old_workflow_is_recovered_after_the_serializer_was_changed(app: App, hand: Hand, rows: Rows) -> None:
    app.launch()
    run_echo(hand, "w", 1)
    app.relaunch(serializer=Named())

    assert [[1], {}] == again(rows, "w").get_result()


def test_a_value_of_an_unknown_serializer_is_named(app: App, hand: Hand) -> None:
    """Asking for the result raises; a listing shows the text as it is stored."""
    app.launch(serializer=Named())
    run_echo(hand, "w", 1)
    app.relaunch()

    with pytest.raises(TypeError, match="my-json is not available"):
        hand.do("get_result", "w")
    status = hand.do("get_workflow_status", "w")
    assert ("[[1], {}]", '{"args": [1], "kwargs": {}}') == (status.output, status.input)
    assert ["[[1], {}]"] == [step["output"] for step in hand.do("list_workflow_steps", "w")]


def test_a_workflow_of_an_unknown_serializer_cannot_run(app: App, hand: Hand, rows: Rows) -> None:
    """It ends in an ERROR that says why."""

    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    rows.add("w", "work", queue_name="_dbos_internal_queue", serialization="my-json")
    app.launch()

    with pytest.raises(TypeError, match="my-json is not available"):
        hand.do("get_result", "w")
    from tests.waiting import eventually

    eventually(lambda: "ERROR" == rows.workflow("w").status)


def test_a_value_without_a_name_is_of_the_configured_serializer(app: App, hand: Hand, rows: Rows) -> None:
    rows.add("w", "work", status="SUCCESS", inputs='{"args": [1], "kwargs": {}}', output="[2]", serialization=None)
    app.launch(serializer=Json())

    assert [2] == hand.do("get_result", "w")
    assert {"args": (1,), "kwargs": {}} == hand.do("get_workflow_status", "w").input


def test_the_formats_have_their_names() -> None:
    assert ["portable", "native"] == [each.value for each in WorkflowSerializationFormat][:2]
    assert "portable" == WorkflowSerializationFormat.PORTABLE
    assert "native" == WorkflowSerializationFormat.NATIVE
    assert "None" == str(WorkflowSerializationFormat.DEFAULT.value)


def test_a_native_workflow_is_pickled_whatever_is_configured(app: App, hand: Hand, rows: Rows) -> None:
    @hand.workflow(serialization_type=WorkflowSerializationFormat.NATIVE)
    async def native(do: Inside, x: set) -> set:
        return x

    app.launch(serializer=Named())
    with SetWorkflowID("w"):
        assert {1} == hand.call(native, {1})

    assert "py_pickle" == rows.workflow("w").serialization
    assert {1} == again(rows, "w").get_result() == unpickled(rows.workflow("w").output)


def test_a_serializer_must_say_how() -> None:
    """Both directions are abstract."""

    class Half(Serializer):
        def serialize(self, data: Any) -> str:
            return ""

    with pytest.raises(TypeError, match="abstract"):
        Half()
