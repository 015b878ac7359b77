"""`frame.dbos`: filtered frames are drawn and acted on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

from dbos import DBOS, DBOSClient, SetWorkflowID
from dbos_notebook import session
from dbos_notebook.accessor import NotConfirmedError
from dbos_notebook.naming import NotFoundError
from dbos_notebook.source import Source
from tests.conftest import App


class Flows:
    def __init__(self) -> None:
        self.broken = True

        @DBOS.step(name="check")
        def check(number: int) -> int:
            if number < 0 and self.broken:
                raise ValueError("negative")
            return number

        @DBOS.workflow(name="work")
        def work(number: int) -> int:
            check(1)
            return check(number)

        self.work = work


@pytest.fixture
def flows(app: App) -> Flows:
    """Three runs, two of which failed."""
    made = Flows()
    app.launch()
    for number in (1, -2, -3):
        with SetWorkflowID(f"w{number}"):
            try:
                made.work(number)
            except ValueError:
                pass
    return made


@pytest.fixture
def source(flows: Flows, database: str) -> Iterator[Source]:
    with DBOSClient(system_database_url=database) as client:
        yield Source(client)


@pytest.fixture
def bad(source: Source) -> pd.DataFrame:
    runs = source.runs()
    return runs[runs["status"] == "ERROR"].sort_index()


def test_a_filtered_frame_knows_its_workflows(bad: pd.DataFrame) -> None:
    """As a column, too, and in a frame of steps."""
    assert ["w-2", "w-3"] == bad.dbos.ids == bad.reset_index().dbos.ids == bad.dbos.steps().dbos.ids
    assert ["w-2", "w-3"] == list(bad.dbos.runs().index)
    assert [] == bad.head(0).dbos.ids == list(bad.head(0).dbos.steps().index)


def test_a_frame_without_workflows_has_no_such_attribute() -> None:
    with pytest.raises(AttributeError, match="names no workflows"):
        _ = pd.DataFrame({"a": [1]}).dbos


def test_frames_are_drawn(bad: pd.DataFrame, source: Source) -> None:
    one = bad.head(1)
    figures = [one.dbos.timeline(), bad.dbos.timeline(theme="dark"), bad.dbos.steps().dbos.timeline(), one.dbos.tree()]
    figures += [bad.dbos.rates(), bad.dbos.queues(), bad[["name"]].dbos.rates(), bad.head(0).dbos.tree()]

    assert all(figure.layout.height for figure in figures)
    assert "2 steps" in figures[0].layout.title.text
    assert "2 workflows ended" in figures[4].layout.title.text == figures[6].layout.title.text


def test_a_failed_batch_is_forked(bad: pd.DataFrame, flows: Flows) -> None:
    flows.broken = False

    forks = bad.dbos.fork()

    assert [-3, -2] == sorted(DBOS.retrieve_workflow(each).get_result() for each in forks.index)
    assert ["w-2", "w-3"] == sorted(forks["forked_from"])
    assert [-2] == [DBOS.retrieve_workflow(each).get_result() for each in bad.head(1).dbos.fork(2).index]


def test_no_fork_is_made_if_one_is_not_possible(bad: pd.DataFrame, source: Source) -> None:
    with pytest.raises(NotFoundError, match="no step 'other'"):
        bad.dbos.fork("other")

    assert 3 == len(source.runs())


def test_what_destroys_is_to_be_confirmed(bad: pd.DataFrame, source: Source) -> None:
    for verb in ("delete", "cancel"):
        with pytest.raises(NotConfirmedError, match=rf"would {verb} 2 workflows; .* \.dbos\.{verb}\(confirm=True\)"):
            getattr(bad.dbos, verb)()

    assert ["w-2", "w-3"] == bad.dbos.cancel(confirm=True) == bad.dbos.delete(confirm=True)
    assert ["w1"] == list(source.runs().index)


def test_one_run_is_cancelled_without_a_question(bad: pd.DataFrame) -> None:
    assert ["w-2"] == bad.head(1).dbos.cancel()
    assert ["w-2"] == bad.head(1).dbos.resume()


def test_a_frame_survives_what_pandas_does_to_it(bad: pd.DataFrame, source: Source) -> None:
    """Its origin is a word that is copied and written to files."""
    for each in (bad.copy(), bad[["name"]], bad.sort_values("created"), pd.concat([bad, bad]), bad.iloc[::-1]):
        assert source is each.dbos.source
        assert {"w-2", "w-3"} == set(each.dbos.ids)


def test_a_frame_from_elsewhere_belongs_to_the_session(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, source: Any) -> None:
            self.source = source

    monkeypatch.setattr(session, "current", lambda: Session(source))

    assert source is pd.DataFrame({"workflow_id": ["w1"]}).dbos.source


def test_a_frame_whose_source_is_gone_says_so(bad: pd.DataFrame) -> None:
    bad.attrs["dbos_source"] = "gone"

    with pytest.raises(LookupError, match="read the frame again"):
        bad.dbos.steps()
