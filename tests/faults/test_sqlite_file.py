"""A SQLite file in trouble: held by another program, not writable, full, or no database at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dbos import DBOS, SetWorkflowID
from dbos._engine import ownership
from dbos._faces import ambient
from dbos.error import DBOSException
from tests.compat.acts import Stages, beside, status_of
from tests.compat.conftest import Log
from tests.conftest import App
from tests.coroner import Coroner
from tests.hand import Hand
from tests.waiting import Gate, eventually

ROOT = Path(__file__).parents[2]
VICTIMS = (sys.executable, "-m", "tests.faults.victims")


@pytest.fixture
def file(tmp_path: Path, sqlite_template: Path) -> Path:
    return Path(shutil.copy(sqlite_template, tmp_path / "test.sqlite"))


@pytest.fixture
def database(file: Path) -> str:
    return f"sqlite:///{file}"


class Victim:
    """A process that answers a line by a line."""

    def __init__(self, *arguments: object) -> None:
        command = [*VICTIMS, *map(str, arguments)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self) -> dict[str, Any]:
        self.send()
        return self.answer()

    def send(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        self.process.communicate(timeout=20)


@contextmanager
def held_by_another(file: Path) -> Iterator[None]:
    """Another process is writing in the file and does not come to an end."""
    victim = Victim("hold", file)
    try:
        assert victim.answer() == {"held": True}
        yield
    finally:
        victim.send()
        victim.end()


def _runtime() -> Any:
    return ambient.runtime()


def lane_is_busy() -> bool:
    """Whether somebody writes, or waits until the file lets them."""
    door = _runtime().store.lane._door  # noqa: SLF001 - as below
    is_open = bool(door.acquire(blocking=False))
    if is_open:
        door.release()
    return not is_open


def on_the_lane(sql: str) -> Any:
    """The first row of a statement on the connection that writes, when it is not busy."""
    lane = _runtime().store.lane
    with lane.stopped():
        return lane._ready().raw.execute(sql).fetchone()  # noqa: SLF001 - no other connection has these settings


# -- held ------------------------------------------------------------------------------------------------------


def test_a_running_workflow_waits_for_the_file(app: App, hand: Hand, file: Path, log: Log) -> None:
    """However long another program holds it, also beyond what SQLite waits by itself; reading goes on."""
    stages = Stages(hand)
    app.launch(log_level="WARNING")
    on_the_lane("PRAGMA busy_timeout = 1")
    with SetWorkflowID("w"):
        held = hand.start(stages.workflow)
    stages.gate.wait_reached()
    with held_by_another(file):
        stages.gate.open()
        eventually(lambda: log.says("busy or away"))
        assert "PENDING" == status_of("w")
        assert ["stage"] == [step["function_name"] for step in DBOS.list_workflow_steps("w")]

    assert [1, 2, 3] == held.result()
    assert [1, 2, 3] == stages.ran
    eventually(lambda: log.says("is back"))
    assert log.says("database is locked")


def test_starts_wait_for_the_file(app: App, hand: Hand, file: Path) -> None:
    """Nobody hears of it but by having waited."""

    @hand.workflow()
    async def echo(do: Any, x: int) -> int:
        return x

    def start(number: int) -> int:
        with SetWorkflowID(f"w-{number}"):
            return hand.start(echo, number).result()

    app.launch()
    with held_by_another(file):
        starting = [beside(start, number) for number in range(4)]
        eventually(lambda: len(_runtime().beginning) == 4)
        assert not any(each.done() for each in starting)

    assert [0, 1, 2, 3] == [each.result(20) for each in starting]
    assert {1} == {each.recovery_attempts for each in DBOS.list_workflows()}


def test_a_transaction_waits_for_the_file(app: App, file: Path) -> None:
    """It holds the door meanwhile, and is done once."""
    gate = Gate()

    @DBOS.transaction(name="insert")
    def insert() -> int:
        return DBOS.sql_session.execute(sa.text("INSERT INTO held DEFAULT VALUES RETURNING rowid")).scalar_one()

    @DBOS.workflow(name="transacts")
    def transacts() -> int:
        gate.pass_through()
        return insert()

    app.launch()
    on_the_lane("CREATE TABLE held (x INTEGER)")
    handle = DBOS.start_workflow(transacts)
    gate.wait_reached()
    with held_by_another(file):
        gate.open()
        eventually(lane_is_busy)

    assert 1 == handle.get_result()


def test_a_launch_waits_for_the_file(app: App, file: Path) -> None:
    with held_by_another(file):
        launching = beside(app.launch)
        eventually(lambda: ownership.living)  # about to write its lease
        assert not launching.done()

    launching.result(20)
    assert [] == DBOS.list_workflows()


# -- not ours --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that anybody may enter, and only its owner may write in."""
    made = Path(tempfile.mkdtemp(prefix="dbos-"))
    made.chmod(0o755)
    yield made
    made.chmod(0o755)
    shutil.rmtree(made)


@pytest.fixture
def stranger(folder: Path) -> Iterator[Victim]:
    """A process that may not write there."""
    victim = Victim("launch", folder / "test.sqlite")
    yield victim
    victim.end()


def test_a_folder_that_cannot_be_written_is_a_clear_error(folder: Path, stranger: Victim) -> None:
    """It names the file, leaves nothing behind, and the same process can launch when it is mended."""
    folder.chmod(0o555)
    found = stranger.ask()

    assert "unable to open database file" in found["says"]
    assert str(folder / "test.sqlite") in found["says"]
    assert 1 == found["threads"]
    assert [] == list(folder.iterdir())

    folder.chmod(0o777)
    assert {"workflows": 0} == stranger.ask()


@pytest.mark.parametrize("mode", [0o555, 0o777], ids=["in such a folder", "in an open folder"])
def test_a_file_that_cannot_be_written_is_a_clear_error(
    folder: Path, stranger: Victim, sqlite_template: Path, mode: int
) -> None:
    file = Path(shutil.copy(sqlite_template, folder / "test.sqlite"))
    file.chmod(0o444)
    folder.chmod(mode)
    found = stranger.ask()

    assert "attempt to write a readonly database" in found["says"]
    assert str(file) in found["says"]
    assert 1 == found["threads"]

    folder.chmod(0o777)
    for each in folder.iterdir():
        each.chmod(0o666)
    assert {"workflows": 0} == stranger.ask()


# -- no database -----------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "text": (lambda _: b"Dear diary, " * 500, "not a database"),
    "cut off": (lambda whole: whole[: len(whole) // 2], "malformed"),
    "without its pages": (lambda whole: whole[:4096] + bytes(len(whole) - 4096), "malformed"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_database_is_a_clear_error(name: str, app: App, file: Path, coroner: Coroner) -> None:
    """It says so and names the file, changes nothing, and leaves nothing behind."""
    coroner.excuse("C9 DBOS failed to launch", "C7")
    whole = file.read_bytes()
    spoil, says = BROKEN[name]
    file.write_bytes(spoil(whole))
    broken, before = file.read_bytes(), threading.active_count()

    with pytest.raises(sa.exc.DatabaseError, match=says) as caught:
        app.launch()

    assert str(file) in str(caught.value.__notes__)
    assert broken == file.read_bytes()
    eventually(lambda: threading.active_count() <= before)
    assert not ownership.living
    with pytest.raises(DBOSException, match="launched"):
        DBOS.list_workflows()

    for each in file.parent.glob("test.sqlite*"):
        each.unlink()
    file.write_bytes(whole)
    DBOS.launch()
    assert [] == DBOS.list_workflows()


def test_a_folder_is_no_database(app: App, tmp_path: Path, coroner: Coroner) -> None:
    coroner.excuse("C9 DBOS failed to launch")
    app.database = f"sqlite:///{tmp_path}"

    with pytest.raises(sa.exc.OperationalError, match="unable to open") as caught:
        app.launch()

    assert str(tmp_path) in str(caught.value.__notes__)


# -- full ------------------------------------------------------------------------------------------------------


def test_a_full_database_is_waited_for(app: App, hand: Hand, log: Log) -> None:
    """What does not fit waits, says why, and is written once there is room; what fits goes on meanwhile."""
    gate = Gate()

    @hand.step()
    def work(size: int) -> str:
        gate.pass_through()
        return "x" * size

    @hand.workflow()
    async def body(do: Any, size: int) -> int:
        return len(await do(work(size)))

    app.launch(log_level="WARNING")
    held = {}
    for size in (10, 2_000_000, 20):
        with SetWorkflowID(f"w-{size}"):
            held[size] = hand.start(body, size)
    gate.wait_reached(3)
    (pages,) = on_the_lane("PRAGMA page_count")
    on_the_lane(f"PRAGMA max_page_count = {pages + 50}")
    gate.open()
    eventually(lambda: log.says("wait for it: database or disk is full"))

    assert [10, 20] == [held[10].result(), held[20].result()]
    assert "PENDING" == status_of("w-2000000")
    on_the_lane("PRAGMA max_page_count = 1000000")
    assert 2_000_000 == held[2_000_000].result()
    assert 3 == gate.reached


def test_a_file_that_may_not_grow_is_waited_for(tmp_path: Path) -> None:
    """By a limit of the process: the workflow waits and says why, goes on when it may, and the file is whole."""
    command = [*VICTIMS, "fill", str(tmp_path / "test.sqlite")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(ended.stdout)

    status, ran, said = found["while_full"]
    assert ("PENDING", [1, 2]) == (status, ran)
    assert "disk I/O error" in said
    assert [20_000] * 3 == found["result"] == found["after"]
    assert [1, 2, 3, 1, 2, 3] == found["ran"]
    assert "ok" == found["integrity"]
