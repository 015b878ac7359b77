"""Application versions: computed from the code, listed, and honoured by who runs what."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSException
from dbos.testing import FakeClock
from tests.compat.acts import Stages, status_of
from tests.compat.conftest import Log
from tests.compat.rows import INTERNAL_QUEUE, Rows
from tests.conftest import App
from tests.hand import Hand, Inside


def computed(app: App, *define: Callable[[], None]) -> str:
    """The version of a program that makes these definitions in this order."""
    for each in define:
        each()
    app.launch(application_version=None, log_level="WARNING")
    version = DBOS.application_version
    DBOS.destroy(destroy_registry=True)
    return version


def one() -> None:
    @DBOS.workflow(name="one")
    def work() -> int:
        return 1


def one_changed() -> None:
    @DBOS.workflow(name="one")
    def work() -> int:
        return 11


def two() -> None:
    @DBOS.workflow(name="two")
    def work() -> int:
        return 2


def step() -> None:
    @DBOS.step(name="step")
    def work() -> int:
        return 3


def step_changed() -> None:
    @DBOS.step(name="step")
    def work() -> int:
        return 33


def transaction() -> None:
    @DBOS.transaction(name="transaction")
    def work() -> int:
        return 4


def without_source() -> None:
    space: dict = {}
    exec("def work():\n    return 5\n", space)
    DBOS.workflow(name="without source")(space["work"])


@pytest.fixture(autouse=True)
def no_version_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBOS__APPVERSION", raising=False)


def test_the_same_code_has_the_same_version(app: App) -> None:
    """A hash, whatever the order of the definitions."""
    first, second = computed(app, one, two, step), computed(app, step, two, one)

    assert first == second
    assert re.fullmatch(r"[0-9a-f]{32}", first)


def test_a_changed_workflow_is_another_version(app: App) -> None:
    assert computed(app, one, two) != computed(app, one_changed, two)


def test_another_workflow_is_another_version(app: App) -> None:
    assert computed(app, one) != computed(app, one, two)


def test_a_changed_step_is_the_same_version(app: App) -> None:
    assert computed(app, one, step) == computed(app, one, step_changed)


@pytest.mark.parametrize("more", [step, transaction])
def test_another_step_is_another_version(app: App, more: Callable[[], None]) -> None:
    assert computed(app, one) != computed(app, one, more)


def test_code_without_source_has_the_default_version(app: App, log: Log) -> None:
    assert "DEFAULT_VERSION" == computed(app, one, without_source)
    assert log.says("source")


def test_a_configured_version_goes_before_all(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then patching, then the environment, then the hash."""
    monkeypatch.setenv("DBOS__APPVERSION", "from-environment")
    found = []
    for config in ({"application_version": "mine", "enable_patching": True}, {"enable_patching": True}, {}):
        app.launch(**{"application_version": None, **config})
        found.append(DBOS.application_version)
        DBOS.destroy()

    assert ["mine", "PATCHING_ENABLED", "from-environment"] == found


def test_a_launch_enlists_its_version(app: App, hand: Hand, clock: FakeClock) -> None:
    """Once; the latest is the first."""
    for version in ("a", "b", "a"):
        app.launch(application_version=version)
        clock.advance(1)
        app.crash()
    app.launch(application_version="b")

    versions = hand.do("list_application_versions")
    assert ["b", "a"] == [each["version_name"] for each in versions]
    assert {"version_id", "version_name", "version_timestamp", "created_at"} <= set(versions[0])
    assert 1000 == versions[0]["version_timestamp"] - versions[1]["version_timestamp"]
    assert versions[0]["version_timestamp"] == versions[0]["created_at"]


def test_the_latest_version_can_be_set(app: App, hand: Hand, clock: FakeClock) -> None:
    app.launch(application_version="a")
    clock.advance(1)
    app.relaunch(application_version="b")
    assert "b" == hand.do("get_latest_application_version")["version_name"]
    clock.advance(1)
    hand.do("set_latest_application_version", "a")

    latest = hand.do("get_latest_application_version")
    assert ("a", clock.now_ms()) == (latest["version_name"], latest["version_timestamp"])
    assert ["a", "b"] == [each["version_name"] for each in hand.do("list_application_versions")]


def test_an_unknown_version_is_passed_over(app: App, hand: Hand) -> None:
    app.launch(application_version="a")
    before = hand.do("list_application_versions")
    hand.do("set_latest_application_version", "unknown")

    assert before == hand.do("list_application_versions")


def test_without_versions_there_is_no_latest(app: App, hand: Hand, rows: Rows) -> None:
    app.launch()
    rows.run("DELETE FROM {}application_versions")

    with pytest.raises(DBOSException):
        hand.do("get_latest_application_version")
    assert [] == hand.do("list_application_versions")


def test_a_launch_that_is_not_the_latest_version_is_noted(app: App, clock: FakeClock, log: Log) -> None:
    import logging

    app.launch(application_version="a", log_level="WARNING")
    assert not log.says("latest", logging.WARNING)
    clock.advance(1)
    app.relaunch(application_version="b")
    app.relaunch(application_version="a", log_level="WARNING")

    assert log.says("latest", logging.WARNING)


def test_unfinished_work_waits_for_its_version(app: App, hand: Hand) -> None:
    """Another version leaves it, and its own takes it up."""
    stages = Stages(hand)
    app.launch(application_version="a")
    with SetWorkflowID("w"):
        hand.start(stages.workflow)
    stages.gate.wait_reached()
    app.restart(application_version="b")
    assert [] == DBOS._recover_pending_workflows()
    stages.gate.open()
    with SetWorkflowID("other"):
        hand.call(stages.workflow)
    hand.do("fork_workflow", "other", 3).result()
    assert status_of("w") in ("PENDING", "ENQUEUED")
    assert 1 == hand.do("get_workflow_status", "w").recovery_attempts
    app.relaunch(application_version="a")

    assert [1, 2, 3] == hand.do("get_result", "w")
    assert "a" == hand.do("get_workflow_status", "w").app_version


def test_enqueued_work_waits_for_its_version(app: App, hand: Hand, rows: Rows) -> None:
    """That without a version is run by any, and has that one's afterwards."""

    @hand.workflow()
    async def work(do: Inside) -> str:
        return DBOS.application_version

    for workflow_id, version in (("a", "a"), ("any", None), ("b", "b")):
        rows.add(workflow_id, "work", queue_name=INTERNAL_QUEUE, application_version=version)
    app.launch(application_version="b")

    assert ["b", "b"] == [hand.do("get_result", each) for each in ("any", "b")]
    assert ("ENQUEUED", "b") == (status_of("a"), rows.workflow("any").application_version)


def test_the_result_of_another_version_can_be_waited_for(app: App, hand: Hand) -> None:
    """What has finished is the same to all versions."""
    stages = Stages(hand)
    stages.gate.open()
    app.launch(application_version="a")
    with SetWorkflowID("w"):
        hand.call(stages.workflow)
    app.relaunch(application_version="b")

    assert [1, 2, 3] == hand.do("get_result", "w")
    with SetWorkflowID("w"):
        assert [1, 2, 3] == hand.call(stages.workflow)
