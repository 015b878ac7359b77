"""What other programs that listen to a Postgres database hear of ours."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from dbos import DBOS, SetWorkflowID
from dbos._kernel.herald import PEER_CHANNELS
from dbos._kernel.layout import Layout
from dbos.testing import FakeClock, use_clock
from tests.conftest import App
from tests.core.test_migration import make_tables
from tests.databases import admin, url_of


@pytest.fixture
def blank(postgres: str) -> Iterator[str]:
    name = f"announcements_{uuid.uuid4().hex[:8]}"
    admin(postgres, f"CREATE DATABASE {name}")
    yield url_of(postgres, name)
    DBOS.destroy(destroy_registry=True)
    use_clock(None)
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
    """By triggers; where later releases took that of events away, by us, who also tell of streams as they do."""
    make_tables(blank, layout, 60)
    with psycopg.connect(plain(blank), autocommit=True) as listener:
        if layout.split:
            listener.execute("DROP TRIGGER dbos_workflow_events_trigger ON dbos.workflow_events")
        for channel in PEER_CHANNELS.values():
            listener.execute(f"LISTEN {channel}")

        @DBOS.workflow(name="work")
        def work() -> None:
            DBOS.write_stream("values", 1)
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
    assert layout.split == (("streams_channel", "w::values") in notes)


def test_what_others_announce_of_a_stream_is_heard(blank: str) -> None:
    """At once: the clock stands still here, so that nothing is found by looking."""
    use_clock(FakeClock())
    make_tables(blank, Layout(split=True, extended=True), 60)
    written = threading.Event()

    @DBOS.workflow(name="work")
    def work() -> None:
        written.wait(30)

    App(blank).launch()
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(work)
    values = DBOS.read_stream("w", "s")
    with ThreadPoolExecutor() as pool, psycopg.connect(plain(blank), autocommit=True) as other:
        for number in range(2):
            value = pool.submit(next, values)
            other.execute(
                'INSERT INTO dbos.streams (workflow_uuid, key, value, "offset", function_id, serialization)'
                " VALUES ('w', 's', %s, %s, %s, 'portable_json')",
                (str(number), number, number + 1),
            )
            other.execute("SELECT pg_notify('dbos_streams_channel', 'w::s')")
            assert number == value.result(20)
    written.set()
    handle.get_result()


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
