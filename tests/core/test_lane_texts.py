"""What texts may hold that go through the door, alone and in a batch: the same, or a clear error."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DataError

from dbos._kernel.statement import LONGEST_TEXT
from tests.core.door import Door, begun, stepped

TEXTS = {
    "plain": "abc",
    "empty": "",
    "quotes": """it's "quoted" `and` $1 ? :name %s %(x)s {} \\""",
    "json": '{"a": [1, "b\\u0000c"], "d": null}',
    "escape": "\\u0000 \\ud800 \\n",
    "control": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "unicode": "Grüße, 中文, עברית, \u202e, e\u0301, \ufeff, \uffff, \ue000",
    "emoji": "😀👩‍👩‍👧‍👦 \U0010ffff",
    "lines": "a\r\nb\nc\u2028d\u2029e",
}


@pytest.mark.parametrize("together", [False, True], ids=["alone", "together"])
def test_texts_come_back_as_they_went(door: Door, together: bool) -> None:
    door.write(*(begun(name) for name in TEXTS))
    jobs = [door.put(stepped(name, 1, output=text)) for name, text in TEXTS.items()]

    for batch in [jobs] if together else [[job] for job in jobs]:
        door.meet(*batch)

    assert [(True,)] * len(TEXTS) == [job.result for job in jobs]
    assert TEXTS == door.outputs()


def test_long_texts_come_back_as_they_went(door: Door) -> None:
    """What is too long to be packed with others goes by itself, in the same commit; order and verdicts stay."""
    sizes = (LONGEST_TEXT // 2 + 1, LONGEST_TEXT, 3, 2_000_000, 20_000_000)
    texts = {f"w-{number}": chr(97 + number) * size for number, size in enumerate(sizes)}
    door.write(*(begun(name) for name in texts))
    jobs = [door.put(stepped(name, 1, "stranger" if name == "w-2" else "me", output=texts[name])) for name in texts]

    door.meet(*jobs)

    assert [len(texts)] == door.transactions
    assert [(name != "w-2",) for name in texts] == [job.result for job in jobs]
    assert {name: text for name, text in texts.items() if name != "w-2"} == door.outputs()


@pytest.mark.parametrize("together", [False, True], ids=["alone", "together"])
def test_a_nul_is_stored_whole_or_refused_and_never_cuts_a_text(door: Door, together: bool) -> None:
    """SQLite stores it, Postgres has no such text; neither keeps only what stands before it."""
    door.write(*(begun(name) for name in "abc"))
    jobs = [door.put(stepped(name, 1, output=f"{name}\0tail" if name == "b" else name)) for name in "abc"]

    for batch in [jobs] if together else [[job] for job in jobs]:
        door.meet(*batch)

    expected = {"a": "a", "b": "b\0tail", "c": "c"}
    if door.store.dialect.has_schemas:
        del expected["b"]
        assert isinstance(jobs[1].error, DataError)
        assert "NUL" in str(jobs[1].error)
    assert expected == door.outputs()
    assert door.is_idle()


@pytest.mark.parametrize("together", [False, True], ids=["alone", "together"])
def test_half_a_character_is_refused_and_harms_no_other(door: Door, together: bool) -> None:
    """A lone surrogate is no text anywhere: its job fails, and nothing unreadable is stored."""
    door.write(*(begun(name) for name in "abc"))
    jobs = [door.put(stepped(name, 1, output="\ud800" if name == "b" else name)) for name in "abc"]

    for batch in [jobs] if together else [[job] for job in jobs]:
        door.meet(*batch)

    assert isinstance(jobs[1].error, UnicodeEncodeError)
    assert {"a": "a", "c": "c"} == door.outputs()
    assert door.is_idle()
