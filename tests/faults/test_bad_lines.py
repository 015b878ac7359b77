"""A Postgres that has no place left, refuses to write, answers late, or whose answers get lost."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbos import DBOS, SetWorkflowID
from dbos._engine import ownership
from dbos._faces import ambient
from tests.compat.acts import Stages, status_of, step_names
from tests.compat.conftest import Log
from tests.compat.rows import Rows
from tests.conftest import App
from tests.coroner import Coroner
from tests.databases import postgres_database
from tests.faults.proxy import Proxy, proxy_to
from tests.faults.server import own_server
from tests.hand import Hand
from tests.processes import programs
from tests.processes.test_processes import Start, lines, ready, start
from tests.waiting import eventually

__all__ = ["start"]

# A fifth of the real ones; what is late here is late by a fifth too.
LEASE_MS, HEARTBEAT_MS, SECONDS_LATE = 2_000, 600, 0.1


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    with postgres_database(postgres) as url:
        yield url


@pytest.fixture
def proxy(database: str) -> Iterator[Proxy]:
    with proxy_to(database) as made:
        yield made


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "LEASE_MS", LEASE_MS)
    monkeypatch.setattr(ownership, "HEARTBEAT_MS", HEARTBEAT_MS)


def leases(rows: Rows) -> dict[str, int]:
    """For how long each executor has been alive, and will be if nobody hears of it any more."""
    found = rows.run("SELECT executor_id, expires_at - started_at AS held FROM {}notebook_leases")
    return {row.executor_id: row.held for row in found}


# -- no place left ---------------------------------------------------------------------------------------------


@pytest.fixture
def small() -> Iterator[str]:
    """A server with very few places."""
    with own_server("max_connections = 12") as server:
        yield server.url


@contextlib.contextmanager
def crowded(url: str) -> Iterator[None]:
    """In the block all places of a server are taken by others, and the runtime has lost all of its own."""
    with contextlib.ExitStack() as crowd:
        admin = crowd.enter_context(psycopg.connect(url, autocommit=True))
        ours = "FROM pg_stat_activity WHERE application_name = 'dbos_transact'"

        def is_full() -> bool:
            admin.execute(f"SELECT pg_terminate_backend(pid, 5000) {ours}")
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    crowd.enter_context(psycopg.connect(url))
            return not admin.execute(f"SELECT 1 {ours}").fetchall()

        eventually(is_full)
        yield


@pytest.mark.timeout(120)
def test_a_place_is_waited_for(small: str, app: App, hand: Hand, log: Log, complaints: Callable[[], list[str]]) -> None:
    """F10: the server refuses every connection (53300) for a while; then all goes on, and every step ran once."""
    app.database = small
    stages = Stages(hand)
    app.launch(log_level="WARNING")
    with SetWorkflowID("w"):
        held = hand.start(stages.workflow)
    stages.gate.wait_reached()
    with crowded(small):
        stages.gate.open()
        eventually(lambda: log.says("too many clients already"))
        eventually(lambda: log.says("busy or away"))

    assert [1, 2, 3] == held.result()
    assert [1, 2, 3] == stages.ran
    assert [] == complaints()


# -- a full disk -----------------------------------------------------------------------------------------------


def test_a_full_disk_is_waited_for(
    app: App, hand: Hand, rows: Rows, log: Log, complaints: Callable[[], list[str]]
) -> None:
    """F14: the server says so (53100) at every record of a step, until there is room again."""
    stages = Stages(hand)
    app.launch(log_level="WARNING")
    with SetWorkflowID("w"):
        held = hand.start(stages.workflow)
    stages.gate.wait_reached()
    rows.run(
        """
        CREATE FUNCTION dbos.is_full() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$
        """
    )
    rows.run("CREATE TRIGGER is_full BEFORE INSERT ON dbos.operation_outputs EXECUTE FUNCTION dbos.is_full()")
    stages.gate.open()
    eventually(lambda: log.says("No space left on device"))
    assert "PENDING" == status_of("w")
    assert ["stage"] == step_names("w")
    rows.run("DROP TRIGGER is_full ON dbos.operation_outputs")

    assert [1, 2, 3] == held.result()
    assert [1, 2, 3] == stages.ran
    assert [] == complaints()


# -- late ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_leases")
def test_a_slow_database_costs_nobody_his_lease(
    app: App, hand: Hand, rows: Rows, proxy: Proxy, start: Start, complaints: Callable[[], list[str]]
) -> None:
    """F12: every request is late, and a neighbour to whom they are not takes nothing over."""
    stages = Stages(hand)
    app.database = proxy.url
    proxy.seconds_late = SECONDS_LATE
    app.launch(executor_id="slow")
    with SetWorkflowID("w"):
        held = hand.start(stages.workflow)
    stages.gate.wait_reached()
    ready(start("serve", rows.engine.url.render_as_string(hide_password=False), "neighbour"))
    eventually(lambda: leases(rows).get("slow", 0) > 4 * LEASE_MS)
    stages.gate.open()

    assert [1, 2, 3] == held.result()
    assert [1, 2, 3] == stages.ran
    assert ("slow", 1) == (rows.workflow("w").executor_id, rows.workflow("w").recovery_attempts)
    assert [] == complaints()


@pytest.mark.usefixtures("short_leases")
def test_a_statement_that_stalls_costs_nobody_his_lease(
    app: App, hand: Hand, rows: Rows, database: str, start: Start, complaints: Callable[[], list[str]]
) -> None:
    """F12: a record waits for three leases behind a lock of others, while the lease is renewed."""
    stages = Stages(hand)
    app.launch(executor_id="stalled")
    with SetWorkflowID("w"):
        held = hand.start(stages.workflow)
    stages.gate.wait_reached()
    ready(start("serve", database, "neighbour"))
    with psycopg.connect(database) as conn:
        conn.execute("LOCK TABLE dbos.operation_outputs IN EXCLUSIVE MODE")
        stages.gate.open()
        began = leases(rows)["stalled"]
        eventually(lambda: leases(rows).get("stalled", 0) > began + 3 * LEASE_MS)
        assert "PENDING" == rows.workflow("w").status

    assert [1, 2, 3] == held.result()
    assert [1, 2, 3] == stages.ran
    assert ("stalled", 1) == (rows.workflow("w").executor_id, rows.workflow("w").recovery_attempts)
    assert [] == complaints()


# -- lost ------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the programs of other processes write, which are then registered in this one too."""
    monkeypatch.chdir(tmp_path)
    importlib.reload(programs)


@pytest.mark.usefixtures("here", "short_leases")
def test_who_gets_no_answers_is_fenced_off(
    rows: Rows, database: str, proxy: Proxy, start: Start, coroner: Coroner
) -> None:
    """F11: its requests pass and the answers do not. Another takes its work; when it hears again it has lost it."""
    programs.launch(proxy.url, executor_id="deaf")
    with SetWorkflowID("w"):
        held = DBOS.start_workflow(programs.gated, "notes.txt", "gate")
    eventually(lambda: len(rows.steps("w")) >= 1)
    ready(start("serve", database, "hearing"))
    proxy.lose_answers()
    eventually(lambda: rows.workflow("w").executor_id == "hearing")
    Path("gate").touch()
    eventually(lambda: rows.workflow("w").status == "SUCCESS")
    steps = rows.steps("w")
    proxy.heal()

    assert 3 == held.get_result()
    assert steps == rows.steps("w")
    assert ("hearing", 2) == (rows.workflow("w").executor_id, rows.workflow("w").recovery_attempts)
    assert set(lines("notes.txt")) == {"1", "2"}
    assert 1 == lines("notes.txt").count("1")


def test_a_silent_server_is_given_up(app: App, proxy: Proxy) -> None:
    """F11: where packets vanish, the system breaks a connection in seconds, so that every wait comes to an end."""
    app.database = proxy.url
    app.launch()
    store: Any = ambient.runtime().store
    with socket.socket(fileno=os.dup(store.lane._conn.raw.fileno())) as line:
        asked = {
            name: line.getsockopt(level, getattr(socket, name))
            for level, name in (
                (socket.SOL_SOCKET, "SO_KEEPALIVE"),
                (socket.IPPROTO_TCP, "TCP_KEEPIDLE"),
                (socket.IPPROTO_TCP, "TCP_KEEPINTVL"),
                (socket.IPPROTO_TCP, "TCP_KEEPCNT"),
                (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT"),
            )
        }

    assert 25_000 == asked["TCP_USER_TIMEOUT"]
    assert asked["SO_KEEPALIVE"]
    assert 25 == asked["TCP_KEEPIDLE"] + asked["TCP_KEEPINTVL"] * asked["TCP_KEEPCNT"]
