"""Live views: they follow what happens, write seldom, and end with the final state."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, Queue
from dbos.error import DBOSNonExistentWorkflowError
from dbos_notebook.source import Source
from dbos_notebook.views import live as views
from dbos_notebook.views import progress
from dbos_notebook.views.html import fitting, page
from dbos_notebook.views.live import Live, Seen, stop_all, watch_run
from dbos_notebook.views.tail import Stream, Tail
from dbos_notebook.views.view import View
from tests.conftest import App
from tests.waiting import Gate, eventually


class Paper:
    """A screen that keeps what was put on it."""

    def __init__(self) -> None:
        self.views: list[View] = []
        self.firsts: list[bool] = []

    def put(self, view: View, *, is_first: bool) -> None:
        self.views.append(view)
        self.firsts.append(is_first)

    @property
    def last(self) -> str:
        return self.views[-1].text


class Counted:
    """A subject that changes when it is told to."""

    def __init__(self) -> None:
        self.value, self.looks, self.is_final = 0, 0, False
        self.error: Exception | None = None

    def look(self) -> Seen:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return Seen(self.value, self.is_final)

    def draw(self, *, is_live: bool) -> View:
        text = f"{self.value}{' live' if is_live else ''}"
        return View(page(text), fitting([text]))


@pytest.fixture(autouse=True)
def no_view_is_left() -> Iterator[None]:
    yield
    stop_all()
    assert not threads()


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "dbos-views" and each.is_alive()]


@pytest.fixture
def source(app: App) -> Iterator[Source]:
    with DBOSClient(system_database_url=app.database) as client:
        yield Source(client)


def test_it_writes_only_when_something_changed() -> None:
    subject, paper = Counted(), Paper()
    live = Live(subject, paper, 0.01).show()

    eventually(lambda: subject.looks > 5)
    assert ["0 live"] == [each.text for each in paper.views]

    subject.value = 1
    eventually(lambda: len(paper.views) == 2)
    live.stop()
    assert ["0 live", "1 live", "1"] == [each.text for each in paper.views]
    assert [True, False, False] == paper.firsts


def test_it_ends_with_the_final_state_and_is_never_written_again() -> None:
    subject, paper = Counted(), Paper()
    live = Live(subject, paper, 0.01).show()
    subject.value, subject.is_final = 2, True

    assert live.ended.wait(10)
    assert "2" == paper.last
    subject.value = 3
    live.tick()
    live.stop()
    live.follow()
    assert "2" == paper.last
    eventually(lambda: not threads())


def test_what_has_ended_already_is_shown_once_and_not_followed() -> None:
    subject, paper = Counted(), Paper()
    subject.is_final = True

    live = Live(subject, paper).show()

    assert live.ended.is_set()
    assert ["0"] == [each.text for each in paper.views]
    assert not threads()


def test_no_more_than_four_updates_a_second() -> None:
    subject, paper = Counted(), Paper()
    live = Live(subject, paper)
    live.show()
    for subject.value in range(1, 100):
        live.subject.look()

    assert len(paper.views) <= 2
    assert views.PAUSE_SECONDS >= 0.25


def test_long_looks_are_taken_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view of a long run takes a fifth of the time at most."""
    now = [100.0]
    monkeypatch.setattr(views.time, "monotonic", lambda: now[0])
    subject = Counted()
    live = Live(subject, Paper(), 0.25)

    def look() -> Seen:
        now[0] += 1.0
        return Seen(now[0], is_final=False)

    subject.look = look  # type: ignore[method-assign]
    live.tick()

    assert live.due - now[0] == pytest.approx(5.0)


def test_one_thread_writes_all_views() -> None:
    papers = [Paper() for _ in range(5)]
    subjects = [Counted() for _ in papers]
    for subject, paper in zip(subjects, papers, strict=True):
        Live(subject, paper, 0.01).show()

    assert 1 == len(threads())
    for subject in subjects:
        subject.value, subject.is_final = 7, True
    eventually(lambda: all(paper.last == "7" for paper in papers))


def test_an_error_of_reading_is_shown_and_it_goes_on() -> None:
    subject, paper = Counted(), Paper()
    live = Live(subject, paper, 0.01).show()
    subject.error = OSError("no database <b>")

    eventually(lambda: "cannot be read now: OSError: no database <b>" in paper.last)
    assert "&lt;b&gt;" in paper.views[-1].html
    assert "0 live" in paper.last
    subject.error, subject.is_final = None, True
    assert live.ended.wait(10)
    assert "0" == paper.last


def test_a_screen_that_fails_ends_its_view_only() -> None:
    class Torn(Paper):
        def put(self, view: View, *, is_first: bool) -> None:
            if not is_first:
                raise RuntimeError("torn")

    torn, whole = Counted(), Counted()
    broken, paper = Live(torn, Torn(), 0.01).show(), Paper()
    Live(whole, paper, 0.01).show()
    torn.value = whole.value = 1

    assert broken.ended.wait(10)
    eventually(lambda: paper.last == "1 live")


def test_unloading_ends_all_views_with_what_is_true_then() -> None:
    subject, paper = Counted(), Paper()
    Live(subject, paper, 60).show()
    subject.value = 5

    stop_all()

    assert "5" == paper.last
    assert not threads()


# -- runs ----------------------------------------------------------------------------------------------------------


def test_a_run_is_followed_to_its_end(app: App, source: Source) -> None:
    gate, paper = Gate(), Paper()

    @DBOS.step()
    def first() -> str:
        return "done"

    @DBOS.step()
    def second() -> str:
        gate.pass_through()
        return "too"

    @DBOS.workflow()
    def nightly() -> str:
        return first() + second()

    app.launch()
    handle = DBOS.start_workflow(nightly)
    live = watch_run(source, handle.workflow_id, paper, 0.01)
    live.show()
    gate.wait_reached()
    eventually(lambda: "first" in paper.last and "· live" in paper.last)
    gate.open()

    assert live.ended.wait(20)
    assert "✓ SUCCESS" in paper.last
    assert "second" in paper.last
    assert "live" not in paper.last


def test_progress_of_many_runs(app: App, source: Source) -> None:
    queue = Queue("many")

    @DBOS.workflow(name="work")
    def work(number: int) -> None:
        if number == 3:
            raise ValueError("no <script>")

    app.launch()
    ids = [queue.enqueue(work, number).workflow_id for number in range(10)]
    frame = progress.wait(source, ids, 30)
    subject = progress.Progress(source, ids)
    seen = subject.look()
    view = subject.draw(is_live=False)

    assert ids == list(frame.index)
    assert 1 == (frame["status"] == "ERROR").sum()
    assert seen.is_final
    assert "10 of 10 runs" in view.text
    assert "✓ SUCCESS 9" in view.text
    assert "ValueError: no <script>" in view.text
    assert "<script>" not in view.html


def test_a_wait_that_takes_too_long_says_what_is_missing(app: App, source: Source) -> None:
    gate = Gate()

    @DBOS.workflow()
    def slow() -> None:
        gate.pass_through()

    app.launch()
    handle = DBOS.start_workflow(slow)
    with pytest.raises(TimeoutError, match=f"1 run not ended after 0.2 s: {handle.workflow_id[:8]}. They go on."):
        progress.wait(source, [handle.workflow_id], 0.2)

    gate.open()
    assert "SUCCESS" == asyncio.run(progress.wait_async(source, [handle.workflow_id], 20))["status"].iloc[0]


def test_an_interrupted_wait_leaves_no_view(app: App, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()

    @DBOS.workflow()
    def slow() -> None:
        gate.pass_through()

    app.launch()
    handle = DBOS.start_workflow(slow)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    shown = Paper()
    monkeypatch.setattr(views, "CellOutput", lambda: shown)
    monkeypatch.setattr(views, "can_update", lambda: True)
    monkeypatch.setattr(progress, "can_update", lambda: True)
    monkeypatch.setattr(progress, "_in_time", interrupt)
    with pytest.raises(KeyboardInterrupt):
        progress.wait(source, [handle.workflow_id])

    eventually(lambda: not threads())
    assert "0 of 1 run · live" in shown.views[0].text
    assert "0 of 1 run · as of " in shown.last
    gate.open()
    handle.get_result()


def test_a_wait_for_nobody(source: Source) -> None:
    assert progress.wait(source, []).empty
    with pytest.raises(DBOSNonExistentWorkflowError):
        progress.wait(source, ["nobody"])


def test_a_stream_is_followed_until_it_is_closed(app: App, source: Source) -> None:
    gate = Gate()

    @DBOS.workflow()
    def talk() -> None:
        DBOS.write_stream("tokens", "one <b>")
        gate.pass_through()
        DBOS.write_stream("tokens", "two")
        DBOS.close_stream("tokens")

    app.launch()
    handle = DBOS.start_workflow(talk)
    gate.wait_reached()
    stream = Stream(source, handle.workflow_id, "tokens")
    # What a workflow wrote may be on its way while the code goes on.
    eventually(lambda: not stream.look().is_final and "1 value · open · live" in stream.draw(is_live=True).text)
    gate.open()
    handle.get_result()

    assert stream.look().is_final
    assert "2 values · closed" in stream.draw(is_live=False).text
    assert "<b>" not in stream.draw(is_live=False).html
    assert 2 == len(Tail(source, handle.workflow_id, "tokens", 1.0).frame())


# -- in a kernel ---------------------------------------------------------------------------------------------------

DEFINITIONS = """
%load_ext dbos_notebook
from dbos import DBOS

@DBOS.step()
def fit(epochs):
    for number in range(epochs):
        print("epoch", number)
    return epochs

@DBOS.workflow()
def nightly(day):
    DBOS.recv("go", timeout_seconds=30)
    return fit(3)
"""


def test_a_saved_notebook_holds_the_final_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view of an earlier cell goes on while a later one waits; nobody is needed to look at it."""
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    cells = [
        DEFINITIONS,
        "handle = DBOS.start_workflow(nightly, '<b>today')\nhandle",
        "%dbos send {handle.workflow_id} True --topic go",
        "done = %dbos wait {handle.workflow_id} --timeout 30",
        "%unload_ext dbos_notebook\nimport threading\n[t.name for t in threading.enumerate() if t.name == 'dbos-views']",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()

    (view,) = notebook.cells[1].outputs
    (waited,) = notebook.cells[3].outputs
    assert "✓ SUCCESS" in view.data["text/plain"]
    assert "epoch 2" in view.data["text/plain"]
    assert "live" not in view.data["text/plain"]
    assert "<b>today" not in view.data["text/html"]
    assert "1 of 1 run" in waited.data["text/plain"]
    assert "[]" == notebook.cells[4].outputs[-1].data["text/plain"]
    assert "widgets" not in notebook.metadata
