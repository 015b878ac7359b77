"""Runs, errors, queues and dbos's own objects, as they show themselves."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from dbos import DBOS, DBOSClient, Queue, WorkflowHandle, WorkflowStatus
from dbos.error import DBOSException, DBOSNonExistentWorkflowError
from dbos_notebook import door, frames
from dbos_notebook.source import Source
from dbos_notebook.views import errors, handle, html
from dbos_notebook.views.handle import queue_view, status_view
from dbos_notebook.views.run import run_view, snapshot_of
from dbos_notebook.views.view import View
from tests.conftest import App
from tests.notebook.drawn import BEGAN_MS, RUN_ID, runs, snapshot, steps
from tests.notebook.test_html import HOSTILE, Reader

BIG = "$x$ <script>" + "y" * 10_000_000


def forms(view: View) -> tuple[str, str]:
    """A view without its styles, and as text."""
    bundle = view._repr_mimebundle_()
    assert {"text/plain", "text/html"} == set(bundle)
    return Reader(bundle["text/html"]).words, bundle["text/plain"]


def in_budget(view: View) -> bool:
    return sum(len(each.encode()) for each in view.bundle().values()) <= html.BUDGET_BYTES


def test_a_run_shows_its_header_steps_and_output() -> None:
    view = run_view(snapshot({"started": BEGAN_MS, "completed": BEGAN_MS + 5000, "duration": 5000, "output": "42",
                              "input": "'2026-03-01'", "queue": "q", "code": "c0de"}, steps(3)))  # fmt: skip

    for text in forms(view):
        for word in (
            "nightly",
            "7f3a90c1",
            "✓ SUCCESS",
            "5.0 s",
            "42",
            "'2026-03-01'",
            "q",
            "c0de",
            "2 step_1",
            "1.0 s",
        ):
            assert word in text


@pytest.mark.parametrize("status", frames.STATUSES)
def test_a_run_of_every_status(status: str) -> None:
    for text in forms(run_view(snapshot({"status": status}, steps(1)))):
        assert status in text


def test_bars_stand_where_their_steps_were() -> None:
    """As characters: they are there where styles are taken away."""
    _, text = forms(run_view(snapshot(None, steps(5))))

    bars = [re.search(r"[ ▏▎▍▌▋▊▉█]*█+", line).group() for line in text.splitlines() if "█" in line]  # type: ignore[union-attr]
    ends = [len(each) for each in bars]
    assert ends == sorted(ends)
    assert len(set(ends)) == 5


def test_idle_time_is_folded() -> None:
    """Two busy seconds are seen beside two hours of waiting."""
    late = BEGAN_MS + 7_200_000
    spread = steps(2, lambda n: {"started": late, "completed": late + 1000} if n == 2 else {})

    for text in forms(run_view(snapshot({"started": BEGAN_MS, "completed": late + 1000}, spread))):
        assert "idle 1 h 59 min folded" in text
        assert 2 == len(re.findall("█{3,}", text))


def test_a_sleep_is_idle_time() -> None:
    slept = steps(3, lambda n: {"name": "DBOS.sleep", "completed": BEGAN_MS + 7_200_000} if n == 2 else
                  {"started": BEGAN_MS + 7_200_000, "completed": BEGAN_MS + 7_201_000} if n == 3 else {})  # fmt: skip

    assert "folded" in run_view(snapshot({"started": BEGAN_MS, "completed": BEGAN_MS + 7_201_000}, slept)).text


def test_attempts_errors_and_prints_stand_with_their_step() -> None:
    failed = {
        "status": "ERROR",
        "attempts": 3,
        "error": "ValueError: no",
        "output": None,
        "printed": "epoch 1\nepoch 2\n",
    }
    view = run_view(
        snapshot({"status": "ERROR", "error": "ValueError: no"}, steps(2, lambda n: failed if n == 2 else {}))
    )

    for text in forms(view):
        assert "(attempt 3)" in text
        assert 2 <= text.count("ValueError: no")
        assert text.index("2 step_1") < text.index("epoch 1") < text.index("epoch 2")


def test_what_the_body_printed_stands_between_the_steps() -> None:
    for text in forms(run_view(snapshot(None, steps(2), between={1: "half way"}))):
        assert text.index("1 step_0") < text.index("half way") < text.index("2 step_1")


def test_children_stand_under_the_step_that_started_them() -> None:
    child = {"workflow_id": "child-1", "name": "part", "status": "ERROR", "error": "KeyError: 'x'"}
    view = run_view(snapshot(None, steps(3, lambda n: {"child": "child-1"} if n > 1 else {}), runs(child)))

    for text in forms(view):
        assert 1 == text.count("child part child-1")
        assert text.index("2 step_1") < text.index("child part") < text.index("3 step_2")
        assert "KeyError" in text


def test_a_step_that_runs_says_since_when() -> None:
    view = run_view(snapshot({"status": "PENDING", "started": BEGAN_MS},
                             steps(2, lambda n: {"status": "PENDING", "completed": None, "duration": None} if n == 2 else {})))  # fmt: skip

    for text in forms(view):
        assert re.search(r"since \d\d:\d\d:\d\d", text)


def test_a_sleep_says_until_when() -> None:
    slept = steps(1, lambda _: {"name": "DBOS.sleep", "output": str(BEGAN_MS / 1000)})

    assert all(re.search(r"until \d\d:\d\d:\d\d", text) for text in forms(run_view(snapshot(None, slept))))


def test_clocks_that_disagree_are_no_error() -> None:
    odd = {"started": BEGAN_MS + 9000, "completed": BEGAN_MS, "duration": -9000}
    view = run_view(snapshot(odd, steps(2, lambda _: odd)))

    assert all("clocks differ" in text for text in forms(view))


def test_nothing_is_known_but_the_id() -> None:
    blank = {"name": None, "status": None, "created": None, "attempts": None}
    none = {name: None for name in frames.STEPS if name not in ("workflow_id", "step")}

    assert all("7f3a90c1" in text for text in forms(run_view(snapshot(blank, steps(3, lambda _: none)))))


def test_ten_thousand_steps_keep_the_budget_and_the_telling_ones() -> None:
    telling = {5000: "ERROR", 7001: "PENDING"}

    def change(number: int) -> dict[str, Any]:
        return {"status": telling.get(number, "SUCCESS"), "output": "x" * 200, "printed": "line\n" * 20}

    view = run_view(snapshot({"status": "PENDING", "started": BEGAN_MS}, steps(10_000, change)))

    assert in_budget(view)
    for text in forms(view):
        for word in ("1 step_0", "10000 step_9999", "5000 step_4999", "7001 step_7000"):
            assert word in text
        assert re.search(r"... [\d,]+ steps left out; all: %dbos steps 7f3a90c1", text)


def test_a_thousand_failed_steps_and_children_keep_the_budget() -> None:
    children = runs(*({"workflow_id": f"child-{n}", "name": "c" * 500} for n in range(1000)))
    view = run_view(
        snapshot(
            None,
            steps(1000, lambda n: {"status": "ERROR", "error": "E: " + "e" * 5000, "child": f"child-{n - 1}"}),
            children,
        )
    )

    assert in_budget(view)
    assert "left out" in view.html
    assert "1000 step_999" in view.html


@pytest.mark.parametrize("text", [HOSTILE, BIG], ids=["hostile", "ten megabytes"])
def test_hostile_texts_in_every_place(text: str) -> None:
    every = {name: text for name, kind in frames.RUNS.items() if kind == "text" and name != "workflow_id"}
    stepped = {
        name: text for name, kind in frames.STEPS.items() if kind == "text" and name not in ("workflow_id", "child")
    }
    shown = snapshot(every, steps(3, lambda _: stepped), runs({"workflow_id": text, "name": text}), {1: text})

    for view in (run_view(shown), errors.error_view(text, text), queue_view(text, frames.queues_frame({}, []))):
        assert in_budget(view)
        assert "script" not in Reader(view.html).tags
        assert "\x1b" not in view.html + view.text
        assert not re.search(r"\$\w", view.html)


def test_a_hostile_id_is_shown_safely() -> None:
    shown = snapshot({"workflow_id": HOSTILE + "x" * 100_000}, steps(1))

    assert in_budget(run_view(shown))
    assert "script" not in Reader(run_view(shown).html).tags


TRACEBACK = """Traceback (most recent call last):
  File "cell", line 3, in score
    return 1 / (len(xs) - 4)
           ~~^~~~~~~~~~~~~~~
ZeroDivisionError: division by zero
"""


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (TRACEBACK, "ZeroDivisionError", "division by zero"),
        ('Traceback (most recent call last):\n  File "c", line 1\n    x\nmy.mod.OddError: two\n  lines', "OddError", "two\n  lines"),
        ("".join(traceback.format_exception(ExceptionGroup("all", [ValueError("a")]))), "ExceptionGroup", "all (1 sub-exception)"),
        ("ValueError: bad", "ValueError", "bad"),
        ("KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("what: ever this is", "what", "ever this is"),
        ("not an error", "Error", "not an error"),
        ("", "Error", ""),
    ],
)  # fmt: skip
def test_an_error_is_read_from_its_text(text: str, kind: str, message: str) -> None:
    found = errors.told(text)

    assert (kind, message) == (found.kind, found.message)


def test_an_error_is_short_and_its_traceback_folded() -> None:
    view = errors.error_view(TRACEBACK, "step 3 score")

    assert view.text.startswith("ZeroDivisionError: division by zero   (step 3 score)")
    assert "details" in Reader(view.html).tags
    assert 'File "cell", line 3' in Reader(view.html).words


# -- dbos's own objects --------------------------------------------------------------------------------------------


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    made = InteractiveShell()
    handle.register(made)
    yield made
    handle.unregister(made)


@DBOS.step()
def load(day: str) -> list[int]:
    return [len(day)]


@pytest.fixture
def source(app: App, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    """The data of an application that is launched later."""
    with DBOSClient(system_database_url=app.database) as client:
        made = Source(client)
        monkeypatch.setattr(door, "source_if_launched", lambda: made)
        yield made


def bundle_of(shell: InteractiveShell, value: Any) -> dict[str, str]:
    return shell.display_formatter.format(value)[0]


def test_a_handle_shows_its_run(app: App, source: Source, shell: InteractiveShell) -> None:
    @DBOS.workflow()
    def nightly(day: str) -> int:
        return sum(load(day))

    app.launch()
    started = DBOS.start_workflow(nightly, "today")
    started.get_result()

    bundle = bundle_of(shell, started)
    assert "nightly" in bundle["text/plain"]
    assert "1 load" in Reader(bundle["text/html"]).words
    assert f"[<WorkflowHandle {started.workflow_id}>]" == bundle_of(shell, [started])["text/plain"]


def test_a_status_and_a_queue_show_themselves(app: App, source: Source, shell: InteractiveShell) -> None:
    queue = Queue("mail", concurrency=2)

    @DBOS.workflow()
    def nightly(day: str) -> str:
        return HOSTILE

    app.launch()
    nightly("today")
    (status,) = DBOS.list_workflows()

    assert "'today'" in bundle_of(shell, status)["text/plain"]
    assert "script" not in Reader(bundle_of(shell, status)["text/html"]).tags
    assert bundle_of(shell, [status])["text/plain"].endswith(" ✓ SUCCESS>]")
    assert "queue mail" in bundle_of(shell, queue)["text/plain"]


def test_an_error_of_dbos_shows_itself(shell: InteractiveShell) -> None:
    bundle = bundle_of(shell, DBOSNonExistentWorkflowError("target", "<script>"))

    assert "DBOSNonExistentWorkflowError" in bundle["text/plain"]
    assert "&lt;script&gt;" in bundle["text/html"]


def test_a_handle_of_nothing_says_its_own_words(app: App, source: Source, shell: InteractiveShell) -> None:
    app.launch()
    gone = DBOS.retrieve_workflow("gone", existing_workflow=False)

    bundle = bundle_of(shell, gone)
    assert {"text/plain": "<WorkflowHandle gone>"} == bundle


def test_values_that_cannot_be_shown_do_not_break_a_status() -> None:
    class Raising:
        def __repr__(self) -> str:
            raise ValueError

    loop: list[Any] = [BIG, Raising(), float("nan")]
    loop.append(loop)

    view = status_view(WorkflowStatus("id", "SUCCESS", HOSTILE, output=loop, error=Raising()))

    assert in_budget(view)
    assert "its repr raised" in view.text


def test_everything_is_taken_back() -> None:
    """The classes of dbos are as they were, and IPython shows them as before."""
    shell = InteractiveShell()
    before = {mime: dict(each.type_printers) for mime, each in shell.display_formatter.formatters.items()}

    handle.register(shell)
    handle.register(shell)
    handle.unregister(shell)

    assert before == {mime: each.type_printers for mime, each in shell.display_formatter.formatters.items()}
    assert not any(
        "_repr_html_" in name or "mimebundle" in name
        for name in (*vars(WorkflowHandle), *vars(WorkflowStatus), *vars(DBOSException))
    )


def test_a_run_that_is_not_there(source: Source) -> None:
    with pytest.raises(DBOSNonExistentWorkflowError):
        snapshot_of(source, RUN_ID)
