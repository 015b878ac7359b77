"""Tools for testing durable programs: a clock that jumps, a death that can be chosen, and a sweep over all deaths.

    with launched(config):                        a runtime for the length of a block
    clock = FakeClock(); use_clock(clock)         time stands still until clock.advance(seconds)
    crash()                                       this process's runtime dies like by kill -9
    crash_sweep(scenario)                         kill it before and after everything it does, and compare

A crash here is of the runtime and not of the process: nothing more is written, everything that waits is woken
into a `Crash`, and the next launch finds the database as a killed process would have left it.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from sqlalchemy import NullPool, create_engine, select

from dbos._faces import ambient
from dbos._faces.config import parsed
from dbos._faces.dbos import DBOS
from dbos._kernel.clock import Clock, Lock
from dbos._kernel.plan import set_probe
from dbos._kernel.schema import Tables
from dbos._kernel.store import dialect_of

if TYPE_CHECKING:
    import asyncio

    from sqlalchemy import Engine, Table

    from dbos._faces.config import DBOSConfig
    from dbos._kernel.model import WorkflowStatus
    from dbos._kernel.plan import Effect

Moment = Literal["before", "after"]
MOMENTS: tuple[Moment, Moment] = ("before", "after")


class Crash(BaseException):
    """What code sees whose runtime was killed."""


class FakeClock(Clock):
    """A clock that stands still, and wakes who waits when it is moved."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        super().__init__()
        self._now_ms = now_ms
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Condition()

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic(self) -> float:
        return self._now_ms / 1000

    def align(self, asked_ms: int, database_now_ms: int | None) -> None:
        """This clock takes its time from nobody."""

    def pause(self, seconds: float) -> None:
        """Between two tries of the same thing real time passes."""
        threading.Event().wait(seconds)

    def block(self, lock: Lock, until_ms: int | None) -> bool:
        if until_ms is None:
            return lock.acquire()
        if until_ms <= self._now_ms:
            return lock.acquire(blocking=False)
        came: list[bool] = []

        def ring() -> None:
            came.append(True)
            try:
                lock.release()  # type: ignore[attr-defined]  # every lock that is waited on can be released
            except RuntimeError:
                return

        self._at(until_ms, ring)
        lock.acquire()
        return not came

    def alarm(self, loop: asyncio.AbstractEventLoop, until_ms: int, wake: Callable[[], None]) -> Callable[[], None]:
        alive = [True]

        def ring() -> None:
            if alive[0]:
                loop.call_soon_threadsafe(wake)

        self._at(until_ms, ring)
        return lambda: alive.__setitem__(0, False)

    def _at(self, moment_ms: int, ring: Callable[[], None]) -> None:
        with self._lock:
            due = moment_ms <= self._now_ms
            if not due:
                heapq.heappush(self._timers, (moment_ms, next(self._numbers), ring))
                self._lock.notify_all()
        if due:
            ring()

    def advance(self, seconds: float) -> None:
        """Let so much time pass, and wake everything that is due by then."""
        due = []
        with self._lock:
            self._now_ms += int(seconds * 1000)
            while self._timers and self._timers[0][0] <= self._now_ms:
                due.append(heapq.heappop(self._timers)[2])
        for ring in due:
            ring()

    def wait_for_sleeper(self, until_ms: int, seconds: float = 10) -> None:
        """Wait in real time until somebody waits for exactly that moment of this clock."""
        with self._lock:
            came = self._lock.wait_for(lambda: any(moment == until_ms for moment, _, _ in self._timers), seconds)
        if not came:
            raise TimeoutError(f"nobody waits for {until_ms}; waited for: {sorted(each[0] for each in self._timers)}")


def use_clock(clock: Clock | None) -> None:
    """Give the next launches this clock; None: real time again."""
    ambient.set_clock(clock)


@contextmanager
def launched(config: DBOSConfig) -> Iterator[None]:
    """A launched runtime for the length of the block."""
    DBOS(config={"run_admin_server": False, **config})
    DBOS.launch()
    try:
        yield
    finally:
        DBOS.destroy()


def crash() -> None:
    """Kill the runtime: from now on nothing more is written, and nothing is said to anybody."""
    made = ambient.instance()
    ambient.set_instance(None)
    if made is not None and made.launched is not None:
        made.launched.kill(lambda _: Crash("the runtime was killed"))
        made.say_farewell()


# -- the sweep over all deaths ---------------------------------------------------------------------------------


class Ledger:
    """What step bodies did in the world: how often each of them ran, over all lives of the program."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, int], int] = {}

    def note(self) -> None:
        """Say, in a step, that its body runs."""
        where = DBOS.workflow_id, DBOS.step_id
        with self._lock:
            key = (str(where[0]), int(where[1] or 0))
            self._counts[key] = self._counts.get(key, 0) + 1

    def counts(self) -> dict[tuple[str, int], int]:
        """How often the body of each step ran, by workflow and step id."""
        with self._lock:
            return dict(self._counts)

    def clear(self) -> None:
        with self._lock:
            self._counts.clear()


@dataclass(frozen=True)
class Death:
    """A moment to die at: before or after the effect of that number, of all effects or of those that count."""

    number: int
    moment: Moment = "before"
    counts: Callable[[Effect[Any]], bool] = lambda _: True

    def __str__(self) -> str:
        return f"{self.moment} effect {self.number}"


class Killer:
    """A probe that kills the runtime at one moment; without one it only counts."""

    def __init__(self, death: Death | None = None) -> None:
        self.death = death
        self.seen = 0
        self.fired = False
        self._lock = threading.Lock()

    def __call__(self, effect: Effect[Any], moment: Moment) -> None:
        death = self.death
        counts = death is None or death.counts(effect)
        with self._lock:
            if moment == "before" and counts:
                self.seen += 1
            due = (
                death is not None and counts and not self.fired and (self.seen, moment) == (death.number, death.moment)
            )
            self.fired = self.fired or due
            dead = self.fired
        if due:
            self._kill()
        if dead:
            raise Crash(f"killed {death}")

    def _kill(self) -> None:
        made = ambient.instance()
        if made is not None and made.launched is not None:
            made.launched.runtime.close(lambda _: Crash("the runtime was killed"))


@dataclass(frozen=True)
class Divergence:
    """A death after which the program did not come to where it comes undisturbed."""

    moment: str
    expected: object
    found: object


@dataclass
class Sweep:
    """What a sweep found."""

    #: How many lives of those that were to be killed came to the moment of their death.
    deaths: int = 0
    divergences: list[Divergence] = field(default_factory=list)


class Database(Protocol):
    """Gives an empty system database for each life of a program under test."""

    def __call__(self) -> DBOSConfig: ...


def crash_sweep(
    act: Callable[[], object], database: Database, ledger: Ledger, *, stride: int = 1, after: Death | None = None
) -> Sweep:
    """Run a program; kill it before and after each of its effects; let it recover; compare.

    `act` is what the program does after its launch, under fixed workflow ids, so that doing it again is what a
    restarted program does. Its steps note themselves in the ledger. After each death the program is started again and
    must come to the same statuses, results and recorded steps; no step that was recorded may have run again, and no
    other more than once more for each death.

    With `after`, every program has died that death before, and the life that is killed is the one which recovers.
    """
    sweep = Sweep()
    ledger.clear()
    config = database()
    expected, effects = _live(act, config)
    usual = ledger.counts()
    if after is not None:
        config = database()
        _die(act, config, Killer(after), ledger)
        _, effects = _live(act, config)
    for number in range(1, effects + 1, stride):
        for moment in MOMENTS:
            config = database()
            ledger.clear()
            killers = [Killer(death) for death in (after, Death(number, moment)) if death is not None]
            ends = [_die(act, config, killer, ledger) for killer in killers]
            found, _ = _live(act, config)
            sweep.deaths += all(killer.fired for killer in killers)
            name = " and ".join(str(killer.death) for killer in killers)
            if found != expected:
                sweep.divergences.append(Divergence(name, expected, found))
            excess = _excess(ledger.counts(), usual, ends)
            if excess:
                sweep.divergences.append(Divergence(name, usual, excess))
    return sweep


def _live(act: Callable[[], object], config: DBOSConfig) -> tuple[object, int]:
    """The program undisturbed: where it comes to, and how many effects that takes."""
    counter = Killer()
    set_probe(counter)
    try:
        _launch(config)
        found = _settle(act)
    finally:
        set_probe(None)
        DBOS.destroy()
    return found, counter.seen


class End(NamedTuple):
    """What had happened by the time of a death."""

    recorded: set[tuple[str, int]]
    ran: dict[tuple[str, int], int]


def _die(act: Callable[[], object], config: DBOSConfig, killer: Killer, ledger: Ledger) -> End:
    """Run the program into its death."""
    set_probe(killer)
    try:
        _launch(config)
        _settle(act)
    except Crash:
        pass
    finally:
        crash()
        set_probe(None)
    return End(_recorded(config), ledger.counts())


def _recorded(config: DBOSConfig) -> set[tuple[str, int]]:
    engine, steps = _place(str(config["system_database_url"]))
    with engine.connect() as conn:
        rows = conn.execute(select(steps.c.workflow_uuid, steps.c.function_id)).all()
    return {(row[0], row[1]) for row in rows}


@functools.lru_cache(maxsize=4)
def _place(url: str) -> tuple[Engine, Table]:
    """Where steps are recorded. It is asked after each death, and the first connection of an engine costs much."""
    engine = create_engine(parsed(url), poolclass=NullPool)
    return engine, Tables(dialect_of(engine), "dbos").steps


def _launch(config: DBOSConfig) -> None:
    DBOS(config={"run_admin_server": False, **config})
    try:
        DBOS.launch()
    except BaseException:
        ambient.set_instance(None)
        raise


def _settle(act: Callable[[], object]) -> object:
    """Do what the program does, wait until nothing is unfinished, and describe where that came to."""
    with contextlib.suppress(Exception):  # a workflow's error: it is in the description
        act()
    ids = [each.workflow_id for each in DBOS.list_workflows(load_input=False, load_output=False)]
    for workflow_id in ids:
        with contextlib.suppress(Exception):
            DBOS.get_result(workflow_id)
    return {each.workflow_id: _described(each) for each in DBOS.list_workflows()}


def _described(status: WorkflowStatus) -> object:
    found = DBOS.list_workflow_steps(status.workflow_id)
    # Whether these had to wait is chance: the record of the wait comes only with it.
    waiting = {each["function_id"] + 1 for each in found if each["function_name"] in ("DBOS.recv", "DBOS.getEvent")}
    steps = [
        (
            step["function_id"],
            step["function_name"],
            "..." if step["function_name"] in ("DBOS.sleep", "DBOS.getStatus") else repr(step["output"]),
            repr(step["error"]),
            step["child_workflow_id"],
        )
        for step in found
        if step["function_id"] not in waiting
    ]
    return status.status, status.name, repr(status.output), repr(status.error), steps


def _excess(
    counts: dict[tuple[str, int], int], usual: dict[tuple[str, int], int], ends: list[End]
) -> dict[tuple[str, int], str]:
    """The steps that ran too often, or not at all."""
    excess = {}
    for step, expected in usual.items():
        found = counts.get(step, 0)
        at_record = [end.ran.get(step, 0) for end in ends if step in end.recorded]
        if at_record and found != at_record[0]:
            excess[step] = f"recorded after {at_record[0]} executions, then run again: {found}"
        elif not expected <= found <= expected + len(ends):
            excess[step] = f"ran {found} times"
    return excess
