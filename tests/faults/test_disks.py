"""What a disk may do to a SQLite file: fail, die with the process in the middle of a write, forget with the power."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import shutil
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS, DBOSConfig
from dbos._kernel.sqlite import SQLite
from dbos.testing import Ledger
from tests import coroner as laws
from tests.compat.rows import Rows
from tests.faults import diskful
from tests.faults.disk import FULL, IOERR_FSYNC, IOERR_WRITE, Change, Disk
from tests.faults.lives import differences, live
from tests.faults.programs import starts
from tests.hand import LIMIT_SECONDS, Hand

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.faults.diskful", "sqlalchemy.orm"])
POINTS = 24


@pytest.fixture
def database(tmp_path: Path, sqlite_template: Path) -> str:
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'test.sqlite')}"


def comes_back(file: Path, lines: list[str]) -> list[str]:
    """Launch on what is left of a file; what was promised and is not kept."""
    wrong = laws.autopsy(f"sqlite:///{file}")
    rows = Rows(f"sqlite:///{file}")
    recorded = {f"ran {row.workflow_uuid} {row.function_id}" for row in rows.run("SELECT * FROM {}operation_outputs")}
    ended = [line.split()[1] for line in lines if line.startswith("ended")]
    before = {row.workflow_uuid: row.status for row in rows.run("SELECT * FROM {}workflow_status")}
    wrong += laws.lost(dict.fromkeys(ended, "SUCCESS"), before)
    again = list(lines)
    diskful.define(again.append)
    diskful.launch(str(file))
    found = {workflow_id: DBOS.retrieve_workflow(workflow_id).get_result() for workflow_id in before}
    DBOS.destroy(destroy_registry=True)
    wrong += laws.lost({line.split()[1]: 6000 for line in lines if line.startswith("started")}, found)
    wrong += laws.repeated((line for line in again if line.startswith("ran")), deaths=1, at_once=1)
    return wrong + [f"C3 {each} again, though it was recorded" for each in recorded & set(again[len(lines) :])]


@pytest.mark.timeout(200)
def test_killed_inside_the_storage_engine(tmp_path: Path, sqlite_template: Path) -> None:
    """F02: in the middle of a write, and after whatever else is done to a file: nothing that was promised is lost."""

    def die_at(number: int) -> tuple[Path, list[str]]:
        file, ledger = tmp_path / f"{number}.sqlite", tmp_path / f"{number}.ledger"
        shutil.copy(sqlite_template, file)
        ledger.touch()
        process = processes.Process(target=diskful.live, args=(str(file), str(ledger), number))
        process.start()
        process.join(LIMIT_SECONDS)
        assert process.exitcode == (-signal.SIGKILL if number else 0)
        return file, ledger.read_text().splitlines()

    _, undisturbed = die_at(0)
    changes = int(undisturbed[-1].split()[1])
    assert changes > POINTS
    wrong = {number: comes_back(*die_at(number)) for number in range(1, changes, changes // POINTS)}

    assert {} == {number: found for number, found in wrong.items() if found}


class Memory:
    """What a disk was told, and what it has for sure: all that was written to a file before it was synchronised."""

    def __init__(self) -> None:
        self.changes: list[Change | str] = []

    def watch(self, change: Change) -> int:
        self.changes.append(change)
        return 0

    def forget(self, folder: Path, length: int, rng: random.Random) -> None:
        """The files as they are when the power goes after so many changes: of what was not safe, some is there."""
        safe: dict[str, int] = defaultdict(int)
        for number, change in enumerate(self.changes[:length]):
            if isinstance(change, Change) and change.kind == "sync":
                safe[change.path] = number
        for number, change in enumerate(self.changes[:length]):
            if isinstance(change, Change) and (number < safe[change.path] or rng.random() < 0.5):
                apply(change, folder / Path(change.path).name, rng if number > safe[change.path] else None)

    def promises(self, length: int) -> list[str]:
        return [each for each in self.changes[:length] if isinstance(each, str)]


def apply(change: Change, file: Path, tears: random.Random | None) -> None:
    """Do a change to another file, or as much of a write as came to the disk in sectors."""
    if change.kind == "delete":
        file.unlink(missing_ok=True)
    elif change.kind != "sync":
        file.touch()
        with file.open("r+b") as out:
            if change.kind == "truncate":
                out.truncate(change.place)
            for place in range(0, len(change.data), 512):
                if tears is None or tears.random() < 0.5:
                    out.seek(change.place + place)
                    out.write(change.data[place : place + 512])


def after_power_cuts(folder: Path, template: Path, seed: int) -> list[str]:
    """Let a program live on a disk, and cut its power at many moments: the promises that were not kept."""
    file, memory, rng = folder / "test.sqlite", Memory(), random.Random(seed)
    shutil.copy(template, file)
    act = diskful.define(memory.changes.append)
    with Disk(memory.watch).mounted():
        diskful.launch(str(file))
        act()
        DBOS.destroy(destroy_registry=True)
    wrong = []
    for number in range(1, len(memory.changes), len(memory.changes) // POINTS):
        left = folder / str(number)
        left.mkdir()
        shutil.copy(template, left / file.name)
        memory.forget(left, number, rng)
        found = comes_back(left / file.name, memory.promises(number))
        wrong += [f"after change {number}: {each}" for each in found]
    return wrong


@pytest.mark.timeout(200)
def test_the_power_goes(tmp_path: Path, sqlite_template: Path) -> None:
    """F23: of what was not synchronised some sectors are there and others not. What was promised is."""
    seed = random.randrange(10**6)

    assert [] == after_power_cuts(tmp_path, sqlite_template, seed), f"seed {seed}"


@pytest.mark.timeout(200)
def test_the_power_would_take_what_is_not_synchronised(
    tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what `synchronous = FULL` is for; and the disk of these tests does forget."""
    prepare = SQLite.prepare

    def carelessly(dialect: SQLite, raw: Any) -> None:
        prepare(dialect, raw)
        raw.execute("PRAGMA synchronous = NORMAL")

    monkeypatch.setattr(SQLite, "prepare", carelessly)

    assert any("C1" in each for each in after_power_cuts(tmp_path, sqlite_template, seed=1))


class Failing:
    """A disk that refuses one change of a kind."""

    def __init__(self, kind: str, code: int, number: int | None = None) -> None:
        self.kind, self.code, self.number = kind, code, number
        self.seen = 0
        self.struck = ""

    def watch(self, change: Change) -> int:
        if change.kind != self.kind:
            return 0
        self.seen += 1
        if self.seen != self.number:
            return 0
        self.struck = f"{change.kind} {Path(change.path).suffix}"
        return self.code

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with Disk(self.watch).mounted():
            yield


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "code", "stride"), [("sync", IOERR_FSYNC, 2), ("write", IOERR_WRITE, 9), ("write", FULL, 9)]
)
def test_a_change_that_fails(
    kind: str, code: int, stride: int, fresh: Callable[[], DBOSConfig], complaints: Callable[[], list[str]]
) -> None:
    """F15 and F13: whichever it is, nobody notices: what became of the commit is looked up, and it is not done twice."""
    ledger = Ledger()
    act = starts(Hand("sync"), ledger)
    expected = live(act, fresh(), ledger, Failing(kind, code).at_work())
    troubles: list[Any] = []

    for number in itertools.count(1, stride):
        disk = Failing(kind, code, number)
        try:
            found = live(act, fresh(), ledger, disk.at_work())
        except Exception as error:
            troubles.append((number, disk.struck, repr(error)))
        else:
            troubles.extend((number, disk.struck, each) for each in differences(expected, found))
        if not disk.struck:
            break

    assert not troubles, "\n".join(map(str, troubles))
    assert number > 5
    assert [] == complaints()
