"""A database that only other programs have opened: a client does what it can there, and says what it cannot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbos import DBOSClient
from dbos.error import DBOSSchemaError
from tests.compat.rows import Rows

OURS = ("attributes", "queues", "schedules", "sources")
NIGHTLY = {"schedule_name": "nightly", "workflow_name": "work", "schedule": "0 0 * * *"}


@pytest.fixture
def client(database: str) -> Iterator[DBOSClient]:
    rows = Rows(database)
    for each in OURS:
        rows.run(f"DROP TABLE {{}}notebook_{each}")
    with DBOSClient(system_database_url=database) as made:
        yield made


def test_schedules_are_made_changed_paused_resumed_and_deleted(client: DBOSClient) -> None:
    """Who fires there keeps no moment from which a schedule counts."""
    client.create_schedule(**NIGHTLY)
    client.apply_schedules([{**NIGHTLY, "schedule": "0 1 * * *"}, {**NIGHTLY, "schedule_name": "another"}])
    client.pause_schedule("nightly")
    client.resume_schedule("nightly")

    found = {each["schedule_name"]: (each["schedule"], each["status"]) for each in client.list_schedules()}
    assert {"nightly": ("0 1 * * *", "ACTIVE"), "another": ("0 0 * * *", "ACTIVE")} == found

    client.delete_schedule("nightly")
    client.delete_schedule("another")
    assert [] == client.list_schedules()


def test_what_has_no_place_there_is_refused_in_words_of_ours(client: DBOSClient) -> None:
    with pytest.raises(DBOSSchemaError, match="launch the application once"):
        client.register_queue("q", concurrency=1)
    with pytest.raises(DBOSSchemaError, match="launch the application once"):
        client.keep_source("v", "work", "def work(): ...")
    client.delete_queue("q")
    assert [] == client.list_queues()
