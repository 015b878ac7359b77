"""What other programs that listen to a Postgres database hear of ours."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from dbos import DBOS, SetWorkflowID
from dbos._kernel.layout import Layout
from tests.conftest import App
from tests.core.test_migration import make_tables
from tests.databases import admin, url_of


@pytest.fixture
def blank(postgres: str) -> Iterator[str]:
    name = f"announcements_{uuid.uuid4().hex[:8]}"
    admin(postgres, f"CREATE DATABASE {name}")
    yield url_of(postgres, name)
    DBOS.destroy(destroy_registry=True)
    admin(postgres, f"DROP DATABASE {name} WITH (FORCE)")


def heard(listener: psycopg.Connection[Any], last: str) -> list[tuple[str, str]]:
    """What is heard until that is."""
    notes: list[tuple[str, str]] = []
    for note in listener.notifies(timeout=20):
        notes.append((note.channel.removeprefix("dbos_"), note.payload))
        if note.payload == last:
            break
    return notes


@pytest.mark.parametrize("layout", [Layout(), Layout(split=True, extended=True)], ids=["classic", "split"])
def test_messages_and_events_are_announced(blank: str, layout: Layout) -> None:
    """By triggers; where later releases took that of events away, by us."""
    make_tables(blank, layout, 60)
    plain = make_url(blank).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as listener:
        if layout.split:
            listener.execute("DROP TRIGGER dbos_workflow_events_trigger ON dbos.workflow_events")
        listener.execute("LISTEN dbos_notifications_channel")
        listener.execute("LISTEN dbos_workflow_events_channel")

        @DBOS.workflow(name="work")
        def work() -> None:
            DBOS.set_event("key", 1)
            DBOS.send("w", 1, "topic")

        App(blank).launch()
        with SetWorkflowID("w"):
            work()
        with SetWorkflowID("last"):
            work()

        notes = heard(listener, "last::key")
    assert ("workflow_events_channel", "w::key") in notes
    assert ("notifications_channel", "w::topic") in notes
