"""The life of the runtime: made, launched, ended, and made again in the same process."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import make_url

from dbos import DBOS, SetWorkflowID
from dbos._faces.ambient import instance
from dbos._kernel.plan import set_probe
from dbos.error import DBOSException
from tests.compat.acts import Stages, beside, status_of
from tests.compat.conftest import Log
from tests.compat.rows import Rows
from tests.conftest import App
from tests.databases import admin
from tests.hand import Hand, Inside
from tests.waiting import eventually


def our_threads() -> list[str]:
    """Those that serve; one that waits in a step of a test may be left behind."""
    return [each.name for each in threading.enumerate() if each.name.startswith("dbos") and "executor" not in each.name]


# -- made ------------------------------------------------------------------------------------------------------


def test_there_is_one_instance(tmp_path: Path) -> None:
    """A second call gives the first, whatever its arguments."""
    first = DBOS(config={"name": "first", "system_database_url": f"sqlite:///{tmp_path}/first.sqlite"})
    second = DBOS(config={"name": "second", "system_database_url": f"sqlite:///{tmp_path}/second.sqlite"})
    DBOS.launch()

    assert first is second
    assert [True, False] == [(tmp_path / f"{name}.sqlite").exists() for name in ("first", "second")]


def test_the_constructor_takes_what_programs_give_it(tmp_path: Path) -> None:
    """Integrations that are left out, and keys of an outside service."""
    config = {"name": "some-app", "system_database_url": f"sqlite:///{tmp_path}/some.sqlite"}

    assert DBOS(config=config, fastapi=None, flask=None, conductor_url=None, conductor_key="key") is not None


def test_making_an_instance_opens_nothing(tmp_path: Path) -> None:
    before = our_threads()
    DBOS(config={"name": "some-app", "system_database_url": f"sqlite:///{tmp_path}/some.sqlite"})

    assert ([], before) == (list(tmp_path.iterdir()), our_threads())


def test_a_workflow_before_there_is_an_instance(hand: Hand) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    @DBOS.transaction(name="txn")
    def txn() -> None:
        return None

    with pytest.raises(DBOSException, match="Function work invoked before DBOS initialized"):
        hand.call(work)
    with pytest.raises(DBOSException, match="Function txn invoked before DBOS initialized"):
        txn()


def test_an_operation_before_there_is_an_instance(hand: Hand) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    for operation, arguments in (("list_workflows", ()), ("get_workflow_status", ("w",)), ("cancel_workflow", ("w",))):
        with pytest.raises(DBOSException, match="No DBOS was created yet"):
            hand.do(operation, *arguments)
    with pytest.raises(DBOSException):
        hand.start(work)


def test_anything_before_the_launch(hand: Hand, tmp_path: Path) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    DBOS(config={"name": "some-app", "system_database_url": f"sqlite:///{tmp_path}/some.sqlite"})

    for call in (lambda: hand.call(work), lambda: hand.start(work), lambda: hand.do("list_workflows")):
        with pytest.raises(DBOSException, match="launch"):
            call()


# -- launched --------------------------------------------------------------------------------------------------


def test_a_launch_needs_an_instance() -> None:
    with pytest.raises(DBOSException):
        DBOS.launch()


def test_a_second_launch_is_noted_and_does_nothing(app: App, log: Log) -> None:
    app.launch(log_level="WARNING")
    before = our_threads()
    DBOS.launch()

    assert log.says("already launched", logging.WARNING)
    assert before == our_threads()


def test_a_launch_says_so(app: App, log: Log) -> None:
    app.launch(log_level="INFO", executor_id="me", application_version="v7")

    assert log.says("DBOS launched!", logging.INFO)
    assert log.says("me")
    assert log.says("v7")


def test_a_launch_that_failed_can_be_repeated(tmp_path: Path, log: Log) -> None:
    """It says so, raises, and leaves nothing behind."""
    before = our_threads()
    folder = tmp_path / "not-yet"
    DBOS(config={"name": "some-app", "system_database_url": f"sqlite:///{folder}/some.sqlite", "log_level": "ERROR"})
    with pytest.raises(Exception, match=r"."):
        DBOS.launch()
    assert log.says("failed to launch", logging.ERROR)
    eventually(lambda: before == our_threads())
    folder.mkdir()
    DBOS.launch()

    assert [] == DBOS.list_workflows()


def test_a_launch_that_is_ended_before_it_is_through(app: App, log: Log) -> None:
    """As another thread can, for which the runtime is there already."""
    before, launching = our_threads(), threading.current_thread()

    def end(effect: object, moment: str) -> None:
        made = instance()
        if made is not None and made.launched is not None and threading.current_thread() is launching:
            set_probe(None)
            DBOS.destroy()

    set_probe(end)
    try:
        with pytest.raises(DBOSException, match="DBOS was destroyed; launch it again"):
            app.launch()
    finally:
        set_probe(None)
    eventually(lambda: before == our_threads())
    app.launch()

    assert [] == DBOS.list_workflows()


# -- ended -----------------------------------------------------------------------------------------------------


def test_ending_may_be_repeated(app: App) -> None:
    """And needs no instance, nor a launch."""
    DBOS.destroy()
    app.launch()
    DBOS.destroy()
    DBOS.destroy()
    DBOS(config={"name": "some-app", "system_database_url": app.database})
    DBOS.destroy()

    with pytest.raises(DBOSException, match="No DBOS was created yet"):
        DBOS.list_workflows()


def test_after_the_end_no_thread_is_left(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        await do.sleep(0.001)

    others = set(threading.enumerate())
    app.launch()
    hand.start(work).result()
    ours = {each for each in threading.enumerate() if each.name.startswith("dbos")} - others
    assert ours
    DBOS.destroy()

    eventually(lambda: not ours & set(threading.enumerate()))


def test_the_end_comes_although_the_database_is_gone(missing_database, postgres: str) -> None:
    url = missing_database()
    DBOS(config={"name": "orphan", "system_database_url": url})
    DBOS.launch()
    admin(postgres, f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    beside(DBOS.destroy).result(60)


def test_functions_outlive_the_runtime(app: App, hand: Hand) -> None:
    """They are forgotten on request only."""

    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    for _ in range(3):
        app.launch()
        assert 7 == hand.call(work)
        DBOS.destroy()
    DBOS.destroy(destroy_registry=True)
    app.launch()

    with pytest.raises(DBOSException):
        hand.start(work)


def test_what_is_forgotten_may_be_registered_as_another_kind() -> None:
    DBOS.step(name="same")(lambda: None)
    DBOS.destroy(destroy_registry=True)

    DBOS.workflow(name="same")(lambda: None)


def test_running_workflows_may_finish_before_the_end(app: App, hand: Hand) -> None:
    stages = Stages(hand)
    app.launch()
    with SetWorkflowID("w"):
        hand.start(stages.workflow)
    stages.gate.wait_reached()
    ending = beside(DBOS.destroy, workflow_completion_timeout_sec=30)
    stages.gate.open()
    ending.result(20)
    app.launch()

    assert ("SUCCESS", [1, 2, 3]) == (status_of("w"), stages.ran)


def test_the_end_does_not_wait_when_nothing_runs(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def work(do: Inside) -> None:
        return None

    app.launch()
    hand.start(work).result()
    began = time.monotonic()
    DBOS.destroy(workflow_completion_timeout_sec=60)

    assert time.monotonic() - began < 20


def test_the_end_waits_only_so_long(app: App, hand: Hand, log: Log) -> None:
    """It says how many workflows are left; they go on at the next launch."""
    stages = Stages(hand)
    app.launch(log_level="WARNING")
    with SetWorkflowID("w"):
        hand.start(stages.workflow)
    stages.gate.wait_reached()
    DBOS.destroy(workflow_completion_timeout_sec=0.01)
    assert log.says("1 workflow")
    app.launch()
    stages.gate.wait_reached(2)
    stages.gate.open()

    assert [1, 2, 3] == hand.do("get_result", "w")


def test_a_workflow_that_outlives_its_runtime_writes_nothing_more(app: App, hand: Hand) -> None:
    """Its next operation fails; whoever launches next finishes it."""
    stages = Stages(hand)
    app.launch()
    with SetWorkflowID("w"):
        hand.start(stages.workflow)
    stages.gate.wait_reached()
    DBOS.destroy()
    stages.gate.open()
    app.launch()

    assert [1, 2, 3] == hand.do("get_result", "w")
    assert 1 == stages.ran.count(1)


def test_a_runtime_may_be_made_again_for_another_database(app: App, hand: Hand, tmp_path: Path) -> None:
    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    app.relaunch(system_database_url=f"sqlite:///{tmp_path}/another.sqlite")

    assert hand.do("get_workflow_status", "w") is None
    assert 7 == hand.call(work)


# -- reset -----------------------------------------------------------------------------------------------------


def test_the_system_database_can_be_reset_before_the_launch(app: App, hand: Hand) -> None:
    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    app.launch()
    with SetWorkflowID("w"):
        hand.call(work)
    DBOS.destroy()
    DBOS(config={"name": "some-app", "system_database_url": app.database, "log_level": "ERROR"})
    DBOS.reset_system_database()
    DBOS.launch()

    assert [] == DBOS.list_workflows()
    assert 7 == hand.call(work)


def test_a_reset_may_leave_the_tables(app: App, hand: Hand, rows: Rows) -> None:
    """Of a database that is named, without any DBOS."""

    @hand.workflow(name="work")
    async def work(do: Inside) -> int:
        await do.set_event("k", 1)
        return 7

    app.launch()
    DBOS.register_queue("q")
    with SetWorkflowID("w"):
        hand.call(work)
    with pytest.raises(AssertionError):
        DBOS.reset_system_database(system_database_url=app.database, truncate=True)
    DBOS.destroy()
    DBOS.reset_system_database(system_database_url=app.database, truncate=True)

    assert [] == rows.run("SELECT * FROM {}workflow_status")
    app.launch(run_migrations=False)
    assert [] == DBOS.list_queues()
    with SetWorkflowID("w"):
        assert 7 == hand.call(work)
    assert 1 == DBOS.get_event("w", "k", 1)


def test_a_reset_deletes_the_file(tmp_path: Path) -> None:
    file = tmp_path / "some.sqlite"
    DBOS(config={"name": "some-app", "system_database_url": f"sqlite:///{file}", "log_level": "ERROR"})
    DBOS.launch()
    DBOS.destroy()
    assert file.exists()
    DBOS(config={"name": "some-app", "system_database_url": f"sqlite:///{file}", "log_level": "ERROR"})
    DBOS.reset_system_database()

    assert [] == [each for each in tmp_path.iterdir() if each.name.startswith("some.sqlite")]


def test_the_system_database_cannot_be_reset_after_the_launch(app: App, rows: Rows) -> None:
    app.launch()

    with pytest.raises(AssertionError):
        DBOS.reset_system_database()
    assert [] == rows.run("SELECT * FROM {}workflow_status")


def test_a_reset_without_an_instance_is_noted(log: Log) -> None:
    DBOS.reset_system_database()

    assert log.says("", logging.WARNING)
