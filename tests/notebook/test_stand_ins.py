"""A value whose class is not here appears as a stand-in with its fields; what is hostile or corrupt breaks no view."""

from __future__ import annotations

import base64
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, SetWorkflowID
from dbos_notebook import commands
from dbos_notebook.replay.travel import moment
from dbos_notebook.source import Source
from dbos_notebook.stored import StandIn, Unreadable, decoded, inert, preview, unpickled
from dbos_notebook.views.values import preview as previewed
from tests.compat.rows import Rows
from tests.conftest import App

MODULE = "a_module_that_goes"
HERE = "<Row: class not defined here> v=5, tag='a'"


class Row:
    def __init__(self, v: int, tag: str) -> None:
        self.v, self.tag = v, tag

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and vars(self) == vars(other)


class Slotted:
    __slots__ = ("v",)


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The classes are those of a module, until it is gone."""
    module = ModuleType(MODULE)
    monkeypatch.setitem(sys.modules, MODULE, module)
    for each in (Row, Slotted):
        setattr(module, each.__name__, each)
        monkeypatch.setattr(each, "__module__", MODULE)
    return lambda: monkeypatch.delitem(sys.modules, MODULE)


@pytest.fixture
def source(app: App, database: str, gone: Callable[[], None]) -> Iterator[Source]:
    """A run that took and returned rows of a class that is gone."""

    @DBOS.step(name="make")
    def make(tag: str) -> Row:
        return Row(5, tag)

    @DBOS.step(name="use")
    def use(row: Row) -> int:
        return 1

    @DBOS.workflow(name="work")
    def work(given: Row) -> Row:
        row = make("a")
        use(row)
        return row

    app.launch()
    for workflow_id in ("one", "two"):
        with SetWorkflowID(workflow_id):
            work(Row(5, "a"))
    gone()
    with DBOSClient(system_database_url=database) as client:
        yield Source(client)


def pickled(value: Any) -> str:
    return base64.b64encode(pickle.dumps(value, 4)).decode()


def test_frames_and_values_show_it_with_its_fields(source: Source) -> None:
    runs, steps = source.runs(decode=True), source.steps("one", decode=True)

    assert HERE == repr(runs.loc["one", "output"])
    assert HERE == repr(runs.loc["one", "input"]["args"][0])
    assert [HERE, "1"] == [repr(each) for each in steps["output"]]
    assert HERE == repr(source.value("one", 1))
    assert HERE == repr(source.value("one"))
    assert 5 == source.value("one").v
    assert HERE == source.steps("one")["output"].iloc[0]
    assert HERE in commands.show("one", at=source).text
    assert HERE == source.runs()["output"].loc["two"]
    assert HERE == source.runs()["input"].loc["two"]


def test_a_moment_of_the_past_has_it_too(source: Source) -> None:
    then = moment(source, "one", "use")

    assert HERE == repr(then.args[0])
    assert "class not defined here" in then.view.text


def test_runs_are_compared_by_its_fields(source: Source, rows: Rows) -> None:
    ((text,),) = rows.run("SELECT output FROM {}operation_outputs WHERE workflow_uuid = 'two' AND function_id = 1")
    other = base64.b64encode(base64.b64decode(text).replace(b"K\x05", b"K\x06")).decode()
    rows.run(
        "UPDATE {}operation_outputs SET output = :other WHERE workflow_uuid = 'two' AND function_id = 1", other=other
    )

    found = commands.diff("one", "two", decode=True, at=source)

    assert ["make"] == list(found.changes["name"])
    assert source.value("one", 1) == source.value("one")
    assert source.value("one", 1) != source.value("two", 1)


@pytest.fixture
def rows(database: str) -> Rows:
    return Rows(database)


CORRUPT = {
    "truncated": (pickled({"a": [1, 2, 3]})[:-9], "py_pickle"),
    "no base64": ("§§§", "py_pickle"),
    "empty": ("", "py_pickle"),
    "another format": (pickled(1), "no_such_format"),
    "broken JSON": ('{"a": ', "portable_json"),
    "deep JSON": ("[" * 100_000, "portable_json"),
    "no such name": (base64.b64encode(b"\x80\x04cno_such\nThing\n.").decode(), "py_pickle"),
    "deep": (base64.b64encode(b"\x80\x04" + b"]\x94" * 30_000 + b"a" * 29_999 + b".").decode(), "py_pickle"),
    "large": (pickled("x" * 10_000_000), "py_pickle"),
    "no output": (None, "py_pickle"),
}


@pytest.mark.parametrize("what", CORRUPT)
def test_what_is_corrupt_breaks_no_view(source: Source, rows: Rows, what: str) -> None:
    text, form = CORRUPT[what]
    change = "SET output = :text, serialization = :form WHERE workflow_uuid = 'one'"
    for table in ("workflow_status", "operation_outputs"):
        rows.run(f"UPDATE {{}}{table} {change}", text=text, form=form)

    for decode in (False, True):
        assert {"one", "two"} == set(source.runs(decode=decode).index)
        assert 2 == len(source.steps("one", decode=decode))
    for view in (commands.show("one", at=source), commands.diff("one", "two", at=source)):
        assert "gASV" not in repr(view)
    shown = previewed(source.value("one", 1))
    assert "gASV" not in shown
    assert HERE == repr(source.value("two", 1))


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil",)


def test_what_a_view_reads_is_never_run(source: Source, rows: Rows, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for column in ("output", "inputs", "error"):
        rows.run(f"UPDATE {{}}workflow_status SET {column} = :evil WHERE workflow_uuid = 'one'", evil=pickled(Evil()))
    rows.run("UPDATE {}workflow_status SET status = 'ERROR' WHERE workflow_uuid = 'one'")
    rows.run("UPDATE {}operation_outputs SET output = NULL, error = :evil", evil=pickled(Evil()))

    source.runs(), source.steps("one"), commands.show("one", at=source), commands.triage(at=source)
    commands.diff("one", "two", at=source), commands.tree("one", at=source)

    assert [] == list(tmp_path.glob("evil"))


def test_a_small_pickle_of_a_long_text_is_told_shortly() -> None:
    """Each level holds the one below it twice."""
    value: Any = "x"
    for _ in range(60):
        value = Row(value, value)  # type: ignore[arg-type]

    assert len(preview(pickled(value), None) or "") <= 200


def test_slots_and_keyword_arguments_are_fields(gone: Callable[[], None]) -> None:
    made = Slotted()
    made.v = 3
    text = pickled(made)
    gone()

    assert "<Slotted: class not defined here> v=3" == repr(inert(text))
    assert "<Slotted: class not defined here> v=3" == repr(unpickled(text))


def test_what_is_here_is_itself_and_only_the_rest_stands_in(gone: Callable[[], None]) -> None:
    text = pickled([Row(5, "a"), {1, 2}, Path("x")])
    gone()

    made = unpickled(text)

    assert [{1, 2}, Path("x")] == made[1:]
    assert isinstance(made[0], StandIn)
    with pytest.raises(AttributeError, match="has no field 'w'; it has v, tag"):
        made[0].w


def test_stand_ins_stand_in_sets_and_keys(gone: Callable[[], None]) -> None:
    key = Slotted()
    key.v = 1
    text = pickled({key: 1})
    gone()

    assert 1 == len(unpickled(text))


def test_what_cannot_be_read_says_why() -> None:
    found = decoded("xxx", "mine", lambda *_: 1 / 0)

    assert isinstance(found, Unreadable)
    assert "<3 characters that cannot be read: ZeroDivisionError: division by zero>" == repr(found)
    assert None is decoded(None, None, lambda *_: 1 / 0)
