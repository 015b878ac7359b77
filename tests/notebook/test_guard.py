"""The guard that a change of a workflow gets: only what is new stands under it."""

from __future__ import annotations

import textwrap

from dbos_notebook.cells.guard import guarded


def text(source: str) -> str:
    return textwrap.dedent(source).strip()


def test_the_new_statement_stands_under_the_patch() -> None:
    source = """
        @DBOS.workflow()
        def report(day):
            numbers = load(day)  # as before
            for number in numbers:
                numbers = normalise(
                    numbers,
                )
            return publish(numbers)
    """

    assert (
        text("""
        @DBOS.workflow()
        def report(day):
            numbers = load(day)  # as before
            for number in numbers:
                if DBOS.patch("normalise"):
                    numbers = normalise(
                        numbers,
                    )
            return publish(numbers)
    """)
        == (guarded(source, {"normalise"}, "normalise") or "").strip()
    )


def test_an_async_workflow_awaits_the_question() -> None:
    source = "async def report():\n    await DBOS.sleep_async(5)\n    return 1"

    assert (
        'async def report():\n    if await DBOS.patch_async("pause"):\n        await DBOS.sleep_async(5)\n    return 1'
        == guarded(source, {"DBOS.sleep_async"}, "pause")
    )


def test_what_is_not_there_is_not_guessed() -> None:
    assert guarded("def report():\n    return load()", {"normalise"}, "normalise") is None
    assert guarded("x = 1", {"load"}, "load") is None
    assert guarded("def report():\n    a = 1; load()", {"load"}, "load") is None
