"""Steps on executors: process pools that are really killed, and a real Dask cluster."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, SetWorkflowTimeout
from dbos.error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSException,
    DBOSMaxStepRetriesExceeded,
    DBOSStepTimeoutError,
    DBOSStepWorkerLostError,
)
from tests.compat.acts import step_names
from tests.conftest import App
from tests.coroner import Coroner
from tests.hand import Hand, Inside
from tests.processes import away
from tests.waiting import eventually


@pytest.fixture(scope="module")
def shared() -> Iterator[ProcessPoolExecutor]:
    with away.pool() as made:
        yield made


@pytest.fixture
def database(sqlite_template: Path, tmp_path: Path) -> str:
    """Where a step runs is nothing to the database."""
    shutil.copy(sqlite_template, tmp_path / "test.sqlite")
    return f"sqlite:///{tmp_path}/test.sqlite"


class Runs:
    """A workflow of one step on an executor."""

    def __init__(self, hand: Hand) -> None:
        # Neither is an argument of the workflow: executors cannot be stored, and not every function.
        self.hand, self.options, self.fn = hand, {}, None

        @hand.workflow(name="remote")
        async def remote(do: Inside, *args: Any) -> Any:
            return await do.run_step(self.options, self.fn, *args)

        self.workflow = remote

    def __call__(self, executor: Any, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self.options, self.fn = {"executor": executor, **options}, fn
        return self.hand.call(self.workflow, *args)

    def start(self, executor: Any, fn: Callable[..., Any], *args: Any) -> Any:
        self.options, self.fn = {"executor": executor}, fn
        return self.hand.start(self.workflow, *args)


@pytest.fixture
def runs(app: App, hand: Hand) -> Runs:
    made = Runs(hand)
    app.launch()
    return made


@pytest.mark.parametrize("fn", [away.square, away.square_async])
def test_a_step_runs_in_another_process(runs: Runs, shared: Executor, fn: Callable[..., Any]) -> None:
    value, pid = runs(shared, fn, 7)

    assert 49 == value
    assert os.getpid() != pid


def test_its_result_is_recorded_here(runs: Runs, shared: Executor, hand: Hand) -> None:
    with SetWorkflowID("w"):
        first = runs(shared, away.square, 7)
    with SetWorkflowID("w"):
        again = runs(shared, away.square, 7)

    assert first == again
    assert ["square"] == step_names("w")


def test_a_decorated_step_runs_on_its_pool(app: App) -> None:
    """In a sync workflow; outside of one it is a plain call."""
    importlib.reload(away)  # other tests empty the registry

    @DBOS.workflow(name="whole")
    def whole() -> int:
        return away.decorated(3, plus=1)

    app.launch()

    assert 10 == whole() == away.decorated(3, plus=1)


@pytest.mark.parametrize(
    ("which", "kind", "message"), [("value", ValueError, "no"), ("awkward", Exception, "number 3")]
)
def test_what_it_raises_is_raised_here(runs: Runs, shared: Executor, which: str, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        runs(shared, away.raises, which)
    assert 4 == runs(shared, away.square, 2)[0]


def test_a_killed_worker_is_a_failed_attempt(runs: Runs, tmp_path: Path) -> None:
    """The pool is made anew by the function that makes it."""
    made: list[Executor] = []

    def make() -> Executor:
        made.append(away.pool())
        return made[-1]

    file = str(tmp_path / "died")

    assert 5 == runs(make, away.die_once, file, 5, retries_allowed=True, interval_seconds=0)
    assert 2 == len(made)


def test_without_retries_it_is_what_the_step_came_to(runs: Runs, tmp_path: Path) -> None:
    with away.pool() as broken, pytest.raises(DBOSStepWorkerLostError, match="give the step a function that makes one"):
        runs(broken, away.die_once, str(tmp_path / "died"), 5)


def test_a_worker_that_leaves_is_lost(runs: Runs, shared: Executor) -> None:
    with pytest.raises(DBOSMaxStepRetriesExceeded) as caught:
        runs(shared, away.leave, 1, retries_allowed=True, interval_seconds=0, max_attempts=2)
    assert [DBOSStepWorkerLostError] * 2 == [type(each) for each in caught.value.errors]


def test_a_cancel_ends_the_wait(runs: Runs, hand: Hand, tmp_path: Path) -> None:
    """At once, though not what runs in the worker."""
    reached, gate = tmp_path / "reached", tmp_path / "gate"
    with away.pool() as executor:
        with SetWorkflowID("w"):
            held = runs.start(executor, away.wait_for, str(reached), str(gate))
        eventually(reached.exists)
        hand.do("cancel_workflow", "w")
        with pytest.raises(DBOSAwaitedWorkflowCancelledError):
            held.result()
        assert [] == hand.do("list_workflow_steps", "w")
        gate.touch()
        hand.do("resume_workflow", "w").result()
        assert ["wait_for"] == [step["function_name"] for step in hand.do("list_workflow_steps", "w")]


def test_a_deadline_ends_the_wait(runs: Runs, hand: Hand, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with away.pool() as executor:
        with SetWorkflowTimeout(0.5):
            held = runs.start(executor, away.wait_for, str(tmp_path / "reached"), str(gate))
        with pytest.raises(DBOSAwaitedWorkflowCancelledError):
            held.result()
        gate.touch()


def test_a_timeout_is_for_sync_functions_too(runs: Runs, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with away.pool() as executor:
        with pytest.raises(DBOSStepTimeoutError):
            runs(executor, away.wait_for, str(tmp_path / "reached"), str(gate), timeout_seconds=0.2)
        gate.touch()


@pytest.mark.parametrize("which", ["list", "sleep", "send", "event"])
def test_dbos_is_refused_over_there(runs: Runs, shared: Executor, which: str) -> None:
    with pytest.raises(DBOSException, match=r"no workflow there|from within a workflow"):
        runs(shared, away.uses_dbos, which)


@pytest.mark.parametrize("threads", [False, True])
def test_nobody_is_anywhere_over_there(runs: Runs, shared: Executor, threads: bool) -> None:
    """A step that is called there is a plain function call, also in threads of this process."""
    with ThreadPoolExecutor(1) as here:
        executor = here if threads else shared
        assert (None, None, None) == runs(executor, away.uses_dbos, "where")
        assert 9 == runs(executor, away.uses_dbos, "step")


def test_what_cannot_travel_is_said(runs: Runs, shared: Executor) -> None:
    with pytest.raises(DBOSException, match="at the top of a module"):
        runs(shared, local)
    with pytest.raises(DBOSException, match="cannot be sent back"):
        runs(shared, away.lock)
    assert 4 == runs(shared, away.square, 2)[0]


def _made() -> Callable[[], int]:
    def inner() -> int:
        return 1

    return inner


# A function that no other process finds by its name.
local = _made()


def test_an_executor_is_one(app: App) -> None:
    with pytest.raises(DBOSException, match="a function that makes one"):
        DBOS.step(executor="processes")(away.square)


@pytest.mark.timeout(240)
def test_a_dask_cluster_sums_up_a_frame(runs: Runs, tmp_path: Path, coroner: Coroner) -> None:
    """By name and by value; a killed worker is a failed attempt here too, once Dask has given up."""
    coroner.excuse("C9 Task _call.* 1 workers died")
    import dask
    import pandas as pd
    from distributed import Client, LocalCluster

    frame = pd.DataFrame({"city": ["Rome", "Oslo", "Rome"], "amount": [1, 2, 3]})
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        summed = runs(client.get_executor, away.sums, frame)
        value, pid = runs(client.get_executor, away.square, 7)
        assert 1 == runs(client.get_executor, local)
        retried = {"retries_allowed": True, "interval_seconds": 0}
        assert 5 == runs(client.get_executor, away.die_once, str(tmp_path / "died"), 5, **retried)
        with pytest.raises(DBOSStepWorkerLostError, match="KilledWorker"):
            runs(client.get_executor, away.die_once, str(tmp_path / "again"), 5)
        DBOS.destroy()  # while there is a cluster to take leave of

    assert {"Rome": 4, "Oslo": 2} == dict(zip(summed["city"], summed["amount"], strict=True))
    assert (49, True) == (value, pid != os.getpid())


class RayTaskError(Exception):
    """As Ray has it, around the error of a function."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("a traceback from far away")
        self.cause = cause


class Wrapping(ThreadPoolExecutor):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        def call() -> Any:
            try:
                return fn(*args, **kwargs)
            except Exception as error:
                raise RayTaskError(error) from None

        return super().submit(call)


def test_an_error_of_the_function_comes_without_what_was_put_around_it(runs: Runs) -> None:
    with Wrapping(1) as executor, pytest.raises(ValueError, match="no"):
        runs(executor, away.raises, "value")
