"""Connections that the server ends under running workflows: of every kind, and before every statement."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from dbos import DBOS, DBOSConfig, SetWorkflowID
from dbos._faces import ambient
from dbos.testing import FakeClock, Ledger
from tests.compat.acts import Stages, beside
from tests.compat.rows import Rows
from tests.conftest import App
from tests.coroner import Coroner
from tests.databases import postgres_database
from tests.faults.line import Terminator, terminate
from tests.faults.lives import differences, live
from tests.faults.programs import DELETED_ON_PURPOSE, PROGRAMS
from tests.hand import Hand
from tests.waiting import eventually


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    with postgres_database(postgres) as url:
        yield url


@pytest.fixture
def admin(postgres: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres, autocommit=True) as conn:
        yield conn


def _launched() -> Any:
    made = ambient.instance()
    assert made is not None
    return made.launched


def pids() -> dict[str, set[int]]:
    """The server's processes behind our connections, by what they are for."""
    store = _launched().runtime.store
    (listener,) = (each._conn for each in _launched().services if each.name == "listener")
    conns = {"writer": [store.lane._conn], "listener": [listener], "reader": list(store._idle)}
    return {kind: {conn.raw.info.backend_pid for conn in each if conn is not None} for kind, each in conns.items()}


def listening() -> int:
    """The server's process that tells us, as soon as there is one."""
    (pid,) = eventually(lambda: pids()["listener"])
    return pid


@pytest.mark.parametrize("kinds", [("writer",), ("reader",), ("listener",), ("writer", "reader", "listener")])
def test_a_running_workflow_does_not_notice(
    kinds: tuple[str, ...], app: App, hand: Hand, admin: psycopg.Connection[Any], complaints: Callable[[], list[str]]
) -> None:
    """It goes on over new connections; every step ran once."""
    stages = Stages(hand)
    app.launch()
    with SetWorkflowID("w"):
        held = hand.start(stages.workflow)
    stages.gate.wait_reached()
    eventually(lambda: all(pids().values()))
    doomed = set().union(*(pids()[kind] for kind in kinds))
    terminate(admin, *doomed)
    stages.gate.open()

    assert [1, 2, 3] == held.result()
    assert [1, 2, 3] == stages.ran
    assert ["stage"] * 3 == [step["function_name"] for step in hand.do("list_workflow_steps", "w")]
    assert 1 == held.status().recovery_attempts
    # A reader that nobody has used since may still lie there: whoever takes it finds out.
    for kind in ("writer", "listener"):
        eventually(lambda kind=kind: pids()[kind] - doomed)
    assert [] == complaints()


@pytest.fixture
def waits(rows: Rows, hand: Hand) -> Callable[[], Any]:
    """Somebody waits for a workflow of another program, while our clock stands still: nothing is looked at by itself."""

    def begin() -> Any:
        rows.add("theirs", "theirs", status="PENDING", owner_xid="another-program")
        waiting = beside(hand.do, "get_result", "theirs")
        eventually(lambda: "theirs" in _launched().runtime.bell.awaited().get("done", []))
        return waiting

    return begin


def finish(rows: Rows) -> None:
    rows.change("theirs", status="SUCCESS", output="7", serialization="portable_json", owner_xid=None)


def test_a_wait_ends_that_was_not_told_while_nobody_listened(
    clock: FakeClock, app: App, rows: Rows, waits: Callable[[], Any], admin: psycopg.Connection[Any]
) -> None:
    """What was missed is looked for when the listener is back."""
    app.launch()
    waiting = waits()
    old = listening()
    finish(rows)
    assert not waiting.done()
    terminate(admin, old)

    assert 7 == waiting.result(20)


def test_a_listener_that_is_back_hears(
    clock: FakeClock, app: App, rows: Rows, waits: Callable[[], Any], admin: psycopg.Connection[Any]
) -> None:
    app.launch()
    waiting = waits()
    old = listening()
    terminate(admin, old)
    eventually(lambda: pids()["listener"] - {old})
    finish(rows)
    rows.run("""SELECT pg_notify('notebook_bell', '[["done", "theirs"]]')""")

    assert 7 == waiting.result(20)


def test_what_is_rung_while_nobody_listens_is_passed_on_later(
    app: App, hand: Hand, admin: psycopg.Connection[Any], database: str
) -> None:
    """The end of a workflow is told to other processes, though the connection that tells them was gone."""

    @DBOS.workflow(name="short")
    def short() -> int:
        return 1

    app.launch()
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("LISTEN notebook_bell")
        terminate(admin, listening())
        with SetWorkflowID("told"):
            short()
        heard = next(note for note in other.notifies(timeout=20) if "told" in note.payload)

    assert "done" in heard.payload


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "stride"), [("starts", 1), ("controls", 2), ("takes_up", 2), ("runs_late", 3)])
def test_no_statement_is_a_bad_moment(
    name: str,
    stride: int,
    fresh: Callable[[], DBOSConfig],
    admin: psycopg.Connection[Any],
    complaints: Callable[[], list[str]],
    coroner: Coroner,
) -> None:
    """The server ends a connection just before each statement: no error, nothing twice, nothing missing."""
    coroner.excuse(DELETED_ON_PURPOSE)
    ledger = Ledger()
    act = PROGRAMS[name](Hand("sync"), ledger)
    expected = live(act, fresh(), ledger, Terminator(admin).at_work())
    troubles: list[object] = []

    for number in itertools.count(1, stride):
        terminator = Terminator(admin, number)
        try:
            found = live(act, fresh(), ledger, terminator.at_work())
        except Exception as error:
            troubles.append((number, terminator.struck_at, repr(error)))
        else:
            troubles.extend((number, terminator.struck_at, each) for each in differences(expected, found))
        if not terminator.struck_at:
            break

    assert not troubles, "\n".join(map(str, troubles))
    assert number > 20
    assert [] == complaints()
