"""Diff: how two runs differ, step by step: what only one of them did, what came out otherwise, and the code.

Steps are laid side by side in the order of their ids, and where names part, by the longest order that both have.
Values are compared as they are stored and shown by their previews; only where it is asked for they are decoded.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile, zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from dbos_notebook import frames, stored
from dbos_notebook.bulk import uncollected
from dbos_notebook.replay.travel import kept_sources
from dbos_notebook.replay.values import told_difference
from dbos_notebook.views import errors, words
from dbos_notebook.views.html import element, fitting, fold, line, page, pre, table
from dbos_notebook.views.view import Shown, View

if TYPE_CHECKING:
    from dbos import StoredStep
    from dbos_notebook.frames import Kind
    from dbos_notebook.source import Source

Pair = tuple[int | None, int | None]

SAME, ONLY_FIRST, ONLY_SECOND = "same", "only in the first", "only in the second"
COLUMNS: dict[str, Kind] = {
    "first": "number", "second": "number", "name": "text", "what": "text", "detail": "text", "first_took": "span",
    "second_took": "span",
}  # fmt: skip
# So many steps that differ are looked into.
MOST_LOOKED = 400
# Sequences that differ more are laid side by side by their ids alone.
MOST_EDITS = 400
MOST_ROWS, MOST_CODE = 80, 12_000
NAME_LIMIT, VALUE_LIMIT = 80, 90


@dataclass(frozen=True, slots=True, repr=False)
class Diff(Shown):
    """How two runs differ. `frame` has a row for each step of either, `code` the lines that differ."""

    source: Source
    runs: pd.DataFrame
    frame: pd.DataFrame
    code: str

    @property
    def ids(self) -> tuple[str, str]:
        first, second = self.runs.index
        return str(first), str(second)

    @property
    def changes(self) -> pd.DataFrame:
        """The rows of steps that differ."""
        return self.frame[self.frame["what"] != SAME]

    def values(self, step: int) -> tuple[Any, Any]:
        """What a step of the first run and the step beside it returned, decoded."""
        mine = self.frame[self.frame["first"] == step]
        if mine.empty or mine["second"].isna().any():
            raise LookupError(f"step {step} of the first run has none of the second beside it")
        ids = (step, int(mine["second"].iloc[0]))
        first, second = (self.source.value(run, each) for run, each in zip(self.ids, ids, strict=True))
        return first, second

    @property
    def view(self) -> View:
        heads = ["", *map(words.short, self.ids)]
        rows = [(name, *(line(each, VALUE_LIMIT) for each in pair)) for name, pair in self._facts() if any(pair)]
        changes = self.changes
        shown = [_cells(each) for each in changes.head(MOST_ROWS).itertuples(index=False)]
        told = f"{words.count(len(changes), 'step')} of {len(self.frame):,} differ"
        more = f"; the first {MOST_ROWS} are shown, .changes has all" if len(changes) > MOST_ROWS else ""
        columns = ["step", "name", "what", "took", "difference"]
        code = self.code if len(self.code) <= MOST_CODE else f"{self.code[:MOST_CODE]}\n... .code has all of it"
        parts = [
            table("two runs", heads, rows),
            table(told + more, columns, shown) if shown else element("p", told),
            fold("code that differs", pre(code)) if code else None,
        ]
        lines = ["  ".join([heads[0].ljust(10), *(each.ljust(VALUE_LIMIT // 3) for each in heads[1:])])]
        lines += [f"{name.ljust(10)}  {one.ljust(VALUE_LIMIT // 3)}  {other}" for name, one, other in rows]
        lines += [told + more, *(f"  {'  '.join(each for each in row if each)}" for row in shown)]
        lines += ["code that differs:", *code.splitlines()] if code else []
        return View(page(*parts), fitting(lines))

    def _facts(self) -> Iterable[tuple[str, list[str]]]:
        for name in ("name", "status", "duration", "input", "output", "error", "version", "code", "forked_from"):
            column = self.runs[name]
            if name == "duration":
                yield "took", [words.duration(words.seconds_of(each)) for each in column]
            else:
                yield name.replace("_", " "), [words.text(each) for each in column]


def _cells(row: Any) -> tuple[str, ...]:
    ids = [words.text(each) or "-" for each in (row.first, row.second)]
    took = [words.duration(words.seconds_of(each)) or "-" for each in (row.first_took, row.second_took)]
    step = ids[0] if ids[0] == ids[1] else " | ".join(ids)
    detail = line(words.text(row.detail), 3 * VALUE_LIMIT)
    return step, line(row.name, NAME_LIMIT), row.what, " | ".join(took), detail


def diff(source: Source, one: str, other: str, *, decode: bool = False) -> Diff:
    """Compare two runs. With `decode` the values of steps that differ are unpickled, and told apart in detail.

    Of very many that differ only the first are looked into; the others have no detail.
    """
    ids = [source.run(each).workflow_id for each in (one, other)]
    runs = source.runs(workflow_ids=ids).reindex(ids)
    with uncollected():
        steps = [_Steps(source, each) for each in ids]
        code, changed = _code_difference(*(kept_sources(source, each) for each in ids))
        compare = _Comparison(source, steps, changed, decode=decode)
        listed = [held.listed for held in steps]
        rows = [
            compare.row(*(None if at is None else of[at] for at, of in zip(places, listed, strict=True)))
            for places in align(*([step.name for step in each] for each in listed))
        ]
    return Diff(source, runs, frames.frame(COLUMNS, rows, 0), code)


class _Steps:
    """The steps of one run, with the previews that were kept of them."""

    def __init__(self, source: Source, workflow_id: str) -> None:
        self._source, self._workflow_id = source, workflow_id
        self.listed = source.client.list_steps([workflow_id], longest=stored.LONGEST_STORED)
        self._inputs = {each.step_id: each.text for each in source.notes([workflow_id], ["input"])}

    def given(self, step: StoredStep) -> str:
        """The inputs of a step, as they were shown."""
        return self._inputs.get(step.step_id, "")

    @functools.cached_property
    def _ends(self) -> dict[tuple[int, str], str]:
        # Read only when steps differ: there are as many as steps.
        kept = self._source.notes([self._workflow_id], ["error", "output"])
        return {(each.step_id, each.kind): each.text for each in kept}

    def came_to(self, step: StoredStep) -> str:
        """What a step came to, in a few words."""
        if step.failed:
            # The traceback tells what was raised; the record of a step that was retried, that it was.
            if traceback := self._ends.get((step.step_id, "error")):
                return errors.told(traceback).headline
            return stored.preview_error(step.error, step.serialization, self._source.mask) or "an error"
        kept = self._ends.get((step.step_id, "output")) or stored.preview(
            step.output, step.serialization, self._source.mask
        )
        if kept is None and step.child_workflow_id is not None:  # the step that started it has no value
            return f"child {words.short(step.child_workflow_id)}"
        return kept or "a value too long to be shown"


class _Change(NamedTuple):
    what: str
    detail: str | None = None


class _Comparison:
    """The steps of two runs, two at a time."""

    def __init__(self, source: Source, steps: list[_Steps], changed: Collection[str], *, decode: bool) -> None:
        self._source, self._steps, self._changed, self._decode = source, steps, changed, decode
        self._looks = 0

    def row(self, first: StoredStep | None, second: StoredStep | None) -> tuple[Any, ...]:
        """What `COLUMNS` say of two steps, of which one may be missing."""
        if first is None or second is None:
            alone, held, what = (second, 1, ONLY_SECOND) if first is None else (first, 0, ONLY_FIRST)
            assert alone is not None
            name, found = alone.name, _Change(what, self._steps[held].came_to(alone) if self._may_look() else None)
        else:
            name, found = first.name, self._change(first, second)
        ids = [None if each is None else each.step_id for each in (first, second)]
        return (*ids, name, found.what, found.detail, _took(first), _took(second))

    def _may_look(self) -> bool:
        """Reading a stored value takes a while, so that is done for as many as anybody looks at."""
        self._looks += 1
        return self._looks <= MOST_LOOKED

    def _change(self, first: StoredStep, second: StoredStep) -> _Change:
        """The first thing in which two steps differ."""
        inputs = [held.given(step) for held, step in zip(self._steps, (first, second), strict=True)]
        is_same = _is_same(first, second) if first.failed == second.failed else False
        has_other_code = first.name.rpartition(".")[2] in self._changed
        also = "; code differs" if has_other_code else ""
        if is_same:
            if all(inputs) and inputs[0] != inputs[1]:
                return _Change(f"input differs{also}", _beside(*inputs))
            return _Change("code differs" if has_other_code else SAME)
        kind = "status" if first.failed != second.failed else "error" if first.failed else "output"
        what = f"{kind} differs" if is_same is False else "too long to compare"
        if not self._may_look():
            return _Change(f"{what}{also}")
        if _is_told_same(first, second):
            return _Change("code differs" if has_other_code else SAME)
        detail = _beside(*(held.came_to(step) for held, step in zip(self._steps, (first, second), strict=True)))
        if self._decode and kind == "output":
            detail = told_difference(*(self._source.value(each.workflow_id, each.step_id) for each in (first, second)))
            if not detail:
                return _Change("code differs" if has_other_code else SAME)
        return _Change(f"{what}{also}", detail)


def _is_same(first: StoredStep, second: StoredStep) -> bool | None:
    """Whether two steps came to the same; None where that is too long to be read."""
    texts = _texts(first, second)
    if texts == [None, None] and None not in (first.serialization, second.serialization):
        return None
    return texts[0] == texts[1]


def _is_told_same(first: StoredStep, second: StoredStep) -> bool:
    """Equal values may be stored in different words. What is shown tells where nothing of it is left out."""
    one, other = (
        stored.preview(text, each.serialization)
        for text, each in zip(_texts(first, second), (first, second), strict=True)
    )
    return one is not None and one == other and not any(dots in one for dots in ("...", "…"))


def _texts(first: StoredStep, second: StoredStep) -> list[str | None]:
    return [each.error if each.failed else each.output for each in (first, second)]


def _beside(one: str, other: str) -> str:
    return f"{line(one, VALUE_LIMIT)} → {line(other, VALUE_LIMIT)}"


def _took(step: StoredStep | None) -> int | None:
    if step is None or step.started_at is None or step.completed_at is None:
        return None
    return step.completed_at - step.started_at


def _code_difference(one: dict[str, str], other: dict[str, str]) -> tuple[str, frozenset[str]]:
    """The lines of code that differ, and the names of the functions that they are in."""
    if not (one and other):
        return "", frozenset()
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    texts = [
        "\n".join(difflib.unified_diff(
            one.get(name, "").splitlines(), other.get(name, "").splitlines(), name, name, n=2, lineterm=""
        ))
        for name in names
    ]  # fmt: skip
    return "\n".join(texts), frozenset(name.rpartition(".")[2] for name in names)


# -- side by side ------------------------------------------------------------------------------------------------


def align(one: Sequence[str], other: Sequence[str]) -> list[Pair]:
    """The places of two sequences side by side; None where one has nothing."""
    head = _common(one, other)
    tail = min(_common(one[::-1], other[::-1]), len(one) - head, len(other) - head)
    ends = len(one) - tail, len(other) - tail
    middle = _edits(one[head : ends[0]], other[head : ends[1]])
    shifted = [tuple(None if each is None else each + head for each in pair) for pair in middle]
    begin: list[Pair] = [(each, each) for each in range(head)]
    return [*begin, *((a, b) for a, b in shifted), *((ends[0] + each, ends[1] + each) for each in range(tail))]


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _edits(one: Sequence[str], other: Sequence[str]) -> list[Pair]:
    """The shortest way from one to the other, found by the greedy search of Myers (1986)."""
    furthest, past = {1: 0}, list[dict[int, int]]()
    for edits in range(min(len(one) + len(other), MOST_EDITS) + 1):
        past.append(dict(furthest))
        for diagonal in range(-edits, edits + 1, 2):
            goes_down = _goes_down(furthest, diagonal, edits)
            x = furthest[diagonal + 1] if goes_down else furthest[diagonal - 1] + 1
            y = x - diagonal
            while x < len(one) and y < len(other) and one[x] == other[y]:
                x, y = x + 1, y + 1
            furthest[diagonal] = x
            if x >= len(one) and y >= len(other):
                return _way_back(past, len(one), len(other))
    return [
        pair
        for place, (a, b) in enumerate(zip_longest(one, other))
        for pair in _by_place(place, a, b)
    ]  # fmt: skip


def _goes_down(furthest: dict[int, int], diagonal: int, edits: int) -> bool:
    return diagonal == -edits or (diagonal != edits and furthest[diagonal - 1] < furthest[diagonal + 1])


def _way_back(past: list[dict[int, int]], x: int, y: int) -> list[Pair]:
    pairs: list[Pair] = []
    for edits in range(len(past) - 1, -1, -1):
        furthest, diagonal = past[edits], x - y
        before = diagonal + 1 if _goes_down(furthest, diagonal, edits) else diagonal - 1
        from_x = furthest[before]
        from_y = from_x - before
        while x > from_x and y > from_y:
            x, y = x - 1, y - 1
            pairs.append((x, y))
        if edits:
            pairs.append((None, from_y) if x == from_x else (from_x, None))
        x, y = from_x, from_y
    return pairs[::-1]


def _by_place(place: int, one: str | None, other: str | None) -> list[Pair]:
    if one == other:
        return [(place, place)]
    left: list[Pair] = [] if one is None else [(place, None)]
    return left if other is None else [*left, (None, place)]
