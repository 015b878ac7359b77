"""`dbos schedule` and `dbos version`."""

from __future__ import annotations

import pytest

from dbos import DBOS, DBOSClient
from tests.cli.conftest import Run
from tests.conftest import App


@pytest.fixture
def scheduled(app: App) -> App:
    """A schedule that fires at New Year, in UTC."""

    @DBOS.workflow(name="yearly")
    def yearly(moment: object, context: object) -> None: ...

    app.launch()
    with DBOSClient(system_database_url=app.database) as client:
        client.create_schedule(schedule_name="s", workflow_name="yearly", schedule="0 0 1 1 *")
    return app


def test_schedules_are_shown(scheduled: App, dbos: Run) -> None:
    (listed,) = dbos("schedule", "list", "--json").document
    one = dbos("schedule", "get", "s", "--json").document

    assert ("s", "yearly", "ACTIVE") == (listed["schedule_name"], listed["workflow_name"], listed["status"])
    assert (1, 10) == (len(listed["next_fires"]), len(one["next_fires"]))
    assert "context" not in one
    assert ["SCHEDULE", "STATUS", "WORKFLOW"] == dbos("schedule", "list").out.split()[:3]
    assert "cron      0 0 1 1 *" in dbos("schedule", "get", "s").out.replace("cron       ", "cron      ")


def test_a_schedule_is_paused_and_resumed(scheduled: App, dbos: Run) -> None:
    paused = dbos("schedule", "pause", "s", "--json").document
    resumed = dbos("schedule", "resume", "s", "--json").document

    assert ("PAUSED", []) == (paused["status"], paused["next_fires"])
    assert ("ACTIVE", 10) == (resumed["status"], len(resumed["next_fires"]))


def test_a_schedule_is_fired(scheduled: App, dbos: Run) -> None:
    """Now, and for what it missed; what was started for a moment is not started again."""
    now = dbos("schedule", "trigger", "s", "--json").document["workflow_id"]
    past = ["schedule", "backfill", "s", "2019-06-01T00:00Z", "2022-06-01T00:00Z"]
    first, again = dbos(*past, "--json").document["workflow_ids"], dbos(*past).out.split()

    assert first == again
    assert 3 == len(first)
    for each in [now, *first]:
        DBOS.retrieve_workflow(each).get_result()
    assert 4 == len(dbos("workflow", "list", "--name", "yearly", "--json").document)


def test_a_schedule_is_deleted_when_told(scheduled: App, dbos: Run) -> None:
    assert 2 == dbos("schedule", "delete", "s").code
    assert {"deleted": "s"} == dbos("schedule", "delete", "s", "-y", "--json").document
    assert [] == dbos("schedule", "list", "--json").document


@pytest.mark.parametrize("verb", ["get", "pause", "resume", "trigger", "delete -y", "backfill"])
def test_an_unknown_schedule_is_an_error(scheduled: App, dbos: Run, verb: str) -> None:
    moments = ["2020-01-01", "2020-01-02"] if verb == "backfill" else []

    said = dbos("schedule", *verb.split(), "nope", *moments)

    assert (1, 1) == (said.code, len(said.err.splitlines()))
    assert "nope" in said.err


def test_versions(app: App, dbos: Run) -> None:
    """The latest stands first, and any that was launched can be made the latest."""
    app.launch()
    app.relaunch(application_version="v2")

    assert ["v2", "v1"] == [each["version_name"] for each in dbos("version", "list", "--json").document]
    assert "v2\n" == dbos("version", "latest").out
    assert 0 == dbos("version", "set", "v1").code
    assert "v1" == dbos("version", "latest", "--json").document["version_name"]
    assert (1, "") == dbos("version", "set", "v3")[:2]
    assert ["VERSION", "LATEST"] == dbos("version", "list").out.split()[:2]


def test_the_version_of_the_command(run: Run) -> None:
    assert run("version").out.startswith("DBOS CLI version: ")
