"""`%dbos diff`: two runs side by side."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from dbos import DBOS, SetWorkflowID
from dbos_notebook import commands, door
from dbos_notebook.replay import diff as replay_diff
from dbos_notebook.replay.diff import align
from dbos_notebook.replay.values import told_difference
from tests.notebook.shells import line, shell  # noqa: F401 - a fixture


@pytest.fixture
def run(shell: InteractiveShell) -> Callable[..., None]:  # noqa: F811 - the fixture
    @DBOS.step(name="load")
    def load(rows: int) -> pd.DataFrame:
        return pd.DataFrame({"age": [rows, 2, 3], "name": ["a", "b", "c"]})

    @DBOS.step(name="extra")
    def extra() -> None: ...

    @DBOS.step(name="fit")
    def fit(x: int) -> float:
        return 1 / x

    @DBOS.workflow(name="nightly")
    def nightly(rows: int, x: int, more: int) -> float:
        load(rows)
        for _ in range(more):
            extra()
        return fit(x)

    door.session().launch()

    def call(workflow_id: str, rows: int = 1, x: int = 1, more: int = 0) -> None:
        with SetWorkflowID(workflow_id):
            try:
                nightly(rows, x, more)
            except ZeroDivisionError:
                pass

    return call


def told(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    return [
        tuple(None if pd.isna(each) else each for each in row) for row in frame[["first", "second", "what"]].to_numpy()
    ]


def test_equal_runs_have_no_changes(run: Callable[..., None], shell: InteractiveShell) -> None:  # noqa: F811
    run("a")
    run("b")

    found = line(shell, "diff a b")

    assert 0 == len(found.changes)
    assert [(1, 1, "same"), (2, 2, "same")] == told(found.frame)
    assert "0 steps of 2 differ" in repr(found)


def test_steps_are_laid_side_by_side(run: Callable[..., None], shell: InteractiveShell) -> None:  # noqa: F811
    run("a", x=0)
    run("b", rows=7, more=2)

    found = line(shell, "diff a b")

    assert [
        (1, 1, "output differs"),
        (None, 2, "only in the second"),
        (None, 3, "only in the second"),
        (2, 4, "status differs"),
    ] == told(found.frame)
    assert "ZeroDivisionError" in found.frame["detail"].iloc[3]
    for form in found._repr_mimebundle_().values():
        assert "4 steps of 4 differ" in form


def test_values_are_told_apart_when_asked(run: Callable[..., None], shell: InteractiveShell) -> None:  # noqa: F811
    run("a")
    run("b", rows=7)

    found = line(shell, "diff a b --decode")

    assert "column age: 1 values" == found.changes["detail"].iloc[0]
    first, second = found.values(1)
    assert (1, 7) == (first["age"][0], second["age"][0])
    with pytest.raises(LookupError, match="none of the second beside it"):
        found.values(99)


def test_a_run_may_be_another_workflows(run: Callable[..., None], shell: InteractiveShell) -> None:  # noqa: F811
    @DBOS.workflow(name="empty")
    def empty() -> None: ...

    run("a")
    with SetWorkflowID("b"):
        empty()

    assert [(1, None, "only in the first"), (2, None, "only in the first")] == told(commands.diff("a", "b").frame)
    assert list(commands.diff("b", "b").frame.dtypes) == list(commands.diff("a", "b").frame.dtypes)


def test_of_many_that_differ_the_first_are_looked_into(
    run: Callable[..., None],
    shell: InteractiveShell,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay_diff, "MOST_LOOKED", 1)
    run("a")
    run("b", rows=7, more=3)

    found = line(shell, "diff a b --decode").frame

    assert ["output differs", *["only in the second"] * 3, "same"] == list(found["what"])
    assert [True, False, False, False] == list(found["detail"].notna()[:4])


def test_values_too_long_to_read_are_told_apart_when_asked(shell: InteractiveShell) -> None:  # noqa: F811
    @DBOS.step(name="write")
    def write(end: str) -> str:
        return "x" * 20_000 + end

    @DBOS.workflow(name="writes")
    def writes(end: str) -> None:
        write(end)

    door.session().launch()
    for workflow_id, end in (("a", "1"), ("b", "2")):
        with SetWorkflowID(workflow_id):
            writes(end)

    assert "too long to compare" == line(shell, "diff a b").frame["what"].iloc[0]
    assert "from character 20,001: " in line(shell, "diff a b --decode").frame["detail"].iloc[0]


# -- side by side --------------------------------------------------------------------------------------------------


def test_every_alignment_holds_both_in_their_order() -> None:
    chance = random.Random(5)
    for _ in range(300):
        one = [chance.choice("abc") for _ in range(chance.randrange(12))]
        other = [chance.choice("abc") for _ in range(chance.randrange(12))]

        pairs = align(one, other)

        assert list(range(len(one))) == [a for a, _ in pairs if a is not None]
        assert list(range(len(other))) == [b for _, b in pairs if b is not None]
        assert all(one[a] == other[b] for a, b in pairs if a is not None and b is not None)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("ab", "ab", [(0, 0), (1, 1)]),
        ("ac", "abc", [(0, 0), (None, 1), (1, 2)]),
        ("abc", "ac", [(0, 0), (1, None), (2, 1)]),
        ("", "a", [(None, 0)]),
        ("", "", []),
    ],
)
def test_alignments(one: str, other: str, expected: list[Any]) -> None:
    assert expected == align(one, other)


@pytest.mark.parametrize("other", ["ab" * 5_000, "b" * 10_000, "ba" * 5_000, "abc" * 3_000])
def test_long_runs_are_aligned_soon(other: str) -> None:
    begun = time.monotonic()

    pairs = align("ab" * 5_000, other)

    assert len([1 for _, b in pairs if b is not None]) == len(other)
    assert time.monotonic() - begun < 20  # it takes half a second, and hours without the cap on edits


# -- values --------------------------------------------------------------------------------------------------------


class Raises:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (1, 1, ""),
        (1, 2, "1 → 2"),
        (1, "1", "int → str: 1 → '1'"),
        ({"a": 1, "b": 2}, {"a": 3, "c": 4}, "without b, with c, 'a': 1 → 3"),
        ([1, 2], [1, 3, 4], "2 → 3 values, [1]: 2 → 3"),
        ("monday", "money", "from character 4: 'monday' → 'money'"),
        (np.zeros(3), np.array([0, 1, 0.0]), "1 of 3 values"),
        (np.zeros(3), np.zeros(4), "shape (3,) → (4,)"),
        (np.array([np.nan]), np.array([np.nan]), ""),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1, 2], "b": [1, 2]}), "1 → 2 rows, with columns b"),
        (pd.Series([1, 2]), pd.Series([1, 3]), "column values: 1 values"),
        (Raises(), Raises(), "cannot be compared, RuntimeError"),
    ],
)
def test_differences_of_values(one: Any, other: Any, expected: str) -> None:
    assert expected == told_difference(one, other)


def test_a_child_that_only_one_has_is_named(shell: InteractiveShell) -> None:  # noqa: F811 - the fixture
    @DBOS.workflow(name="child")
    def child() -> None: ...

    @DBOS.workflow(name="parent")
    def parent(number: int) -> None:
        for _ in range(number):
            DBOS.start_workflow(child).get_result()

    door.session().launch()
    for number, name in enumerate("ab"):
        with SetWorkflowID(name):
            parent(number)

    assert ["child b-1", "None"] == list(commands.diff("a", "b").frame["detail"])
