"""Rehearsal: does this code fit what an earlier run of it has recorded? Nothing is run but the workflow's own function.

The function runs on the record: each operation is answered from it, the clock stands far in the future so that no
sleep lasts, and children that have ended give their results. At the first thing that would have to be done (a step
that is not recorded, a write, a wait) the rehearsal ends. So no step runs and no row is written: the store that it
stands on has no way to write.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from sqlalchemy import select

from dbos._engine.runtime import Call, Runtime
from dbos._kernel.bell import Bell
from dbos._kernel.clock import Clock
from dbos._kernel.journal import load, replay
from dbos._kernel.model import Recorded
from dbos._kernel.plan import arun, run
from dbos._kernel.scope import CALLER, NO_OPTIONS, OPTIONS, Run
from dbos._kernel.slot import Slot
from dbos._kernel.statement import statement
from dbos.error import DBOSException, DBOSNonExistentWorkflowError, DBOSUnexpectedStepError

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._engine.registry import Registry
    from dbos._kernel.codec import Codec
    from dbos._kernel.schema import Tables
    from dbos._kernel.scope import Ground
    from dbos._kernel.statement import Conn, Row
    from dbos._kernel.store import Store

# A function that computes for longer between its steps is given up.
PATIENCE_SECONDS = 5.0
# After so many of those a series of rehearsals is given up.
MOST_ENDLESS = 3
# So many workflows are read at once.
PAGE = 250
FAR_AWAY_MS = 1 << 50
OURS = f"{Path(__file__).parents[1]}{os.sep}"


class Rehearsal(NamedTuple):
    """What became of it."""

    workflow_id: str
    #: How many of the recorded steps were met in their order.
    steps: int
    #: Where code and record differ first, in words; None where they do not.
    difference: str | None
    #: Whether the function came to its end.
    is_complete: bool
    #: Where a step has another name than its record: its id, its name in the code, and the recorded one. Where the code
    #: ends too soon, the first record that it leaves.
    step_id: int | None = None
    found: str | None = None
    recorded: str | None = None
    #: The file and line of the user's code that calls what is not recorded.
    place: tuple[str, int] | None = None

    @property
    def fits(self) -> bool:
        return self.difference is None


@statement
def STORED(t: Tables) -> Executable:
    """What workflows were called with."""
    c = t.status.c
    columns = (c.workflow_uuid, c.name, c.class_name, c.config_name, t.inputs, c.serialization, c.application_version)
    return select(*columns).where(t.dialect.among(c.workflow_uuid, "workflow_ids"))


class EndOfRecord(BaseException):
    """Something would have to be done that the record does not answer. Not an Exception: user code lets it pass."""


class _Reader:
    """A store that can only be read from."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, *args: Any, **kwargs: Any) -> Any:
        return self._store.read(*args, **kwargs)

    @property
    def tables(self) -> Tables:
        return self._store.tables

    def __getattr__(self, name: str) -> NoReturn:
        raise EndOfRecord(name)


class Journal(dict[int, Recorded]):
    """A journal that keeps the first step that was met under another name: user code may have caught the error."""

    def __init__(self, workflow_id: str, records: dict[int, Recorded]) -> None:
        super().__init__(records)
        self.workflow_id = workflow_id
        self.mismatch: DBOSUnexpectedStepError | None = None
        self.place: tuple[str, int] | None = None
        #: What was asked for last and is not recorded.
        self.missing: str | None = None

    def pop(self, step_id: int, default: Any = None) -> Any:
        self.reach(step_id)
        found = super().pop(step_id, default)
        asks = sys._getframe(1)  # noqa: SLF001 - nothing else tells what is asked for
        if self.mismatch is None and asks.f_code is replay.__code__:
            name = asks.f_locals["name"]
            if found is None or name != found.name:
                calls = next((each for each in outward(asks) if not is_ours(each.f_code.co_filename)), None)
                self.place = None if calls is None else (calls.f_code.co_filename, calls.f_lineno)
            if found is None:
                self.missing = name
            elif name != found.name:
                self.mismatch = DBOSUnexpectedStepError(self.workflow_id, step_id, name, found.name)
        return found

    def __delitem__(self, step_id: int) -> None:
        self.reach(step_id)
        super().__delitem__(step_id)

    def reach(self, step_id: int) -> None:
        """A step is asked for."""


def is_ours(file: str) -> bool:
    """Whether code of this file belongs to the runtime."""
    return file.startswith(OURS)


def outward(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames from this one to the outermost."""
    while frame is not None:
        yield frame
        frame = frame.f_back


class _Future(Clock):
    """Time is long past everything that was recorded."""

    def now_ms(self) -> int:
        return FAR_AWAY_MS


class Archive(NamedTuple):
    """Where records are read from, and by which code and codec they are understood."""

    #: The runtime, or a client of any database.
    ground: Ground
    registry: Registry
    codec: Codec


class Stage(Runtime):
    """A runtime on which nothing can be done."""

    is_rehearsal = True

    def __init__(self, archive: Archive) -> None:
        real = archive.ground
        store: Any = _Reader(real.store)
        super().__init__(
            store,
            Bell(),
            _Future(),
            archive.codec,
            archive.registry,
            executor_id=real.executor_id,
            app_version=real.app_version,
        )
        # A client knows neither an application's name nor its queues; its database of transactions it may know.
        self.application = getattr(real, "application", None)
        if isinstance(real, Runtime):
            self.app_id, self.registered_queues = real.app_id, real.registered_queues

    def leave_threads(self) -> None:
        """End the threads that the code may have had started."""
        self.loop.close()
        self.pool.close()

    def expect_rings(self, until_ms: int | None) -> None:
        if until_ms is None:  # what has a moment to end at has ended long ago
            raise EndOfRecord("wait")


def rehearse(
    archive: Archive,
    workflow_id: str,
    code: Callable[..., Any] | None = None,
    *,
    before: int | None = None,
    outputs: Mapping[int, Any] | None = None,
) -> Rehearsal:
    """Rehearse the code of a workflow, or other code, on what it has recorded, or on what a fork would keep of that."""
    stage = Stage(archive)
    try:
        script = read(archive, [workflow_id]).get(workflow_id)
        if script is None:
            raise DBOSNonExistentWorkflowError("target", workflow_id)
        script = _kept(archive, script, before, outputs or {})
        return Performance(stage, script, code).give().said
    finally:
        stage.leave_threads()


def rehearse_all(archive: Archive, workflow_ids: list[str]) -> list[Rehearsal]:
    """Rehearse the present code of many workflows. What cannot be rehearsed has that for its difference."""
    stage, made, endless = Stage(archive), list[Rehearsal](), 0
    try:
        for start in range(0, len(workflow_ids), PAGE):
            page = workflow_ids[start : start + PAGE]
            scripts = read(archive, page)
            for workflow_id in page:
                if endless >= MOST_ENDLESS:
                    made.append(_untried(workflow_id, f"not tried: {MOST_ENDLESS} others took too long"))
                    continue
                try:
                    performance = Performance(stage, scripts[workflow_id]).give()
                except KeyError:
                    made.append(_untried(workflow_id, "it is deleted"))
                except Exception as error:  # noqa: BLE001 - its arguments are the user's, and so is what they raise
                    made.append(_untried(workflow_id, str(error)))
                else:
                    endless += performance.is_endless
                    made.append(performance.said)
    finally:
        stage.leave_threads()
    return made


def _untried(workflow_id: str, why: str) -> Rehearsal:
    return Rehearsal(workflow_id, 0, why, is_complete=False)


class Script(NamedTuple):
    """What is played: how a workflow was called, and what it has recorded."""

    row: Row
    journal: dict[int, Recorded]


def read(archive: Archive, workflow_ids: list[str]) -> dict[str, Script]:
    """The scripts of those of these workflows that are there."""

    def work(conn: Conn) -> dict[str, Script]:
        journals = load(conn, workflow_ids)
        rows = conn.run(STORED, workflow_ids=workflow_ids)
        return {row.workflow_uuid: Script(row, journals[row.workflow_uuid]) for row in rows}

    found: dict[str, Script] = archive.ground.store.read(work)
    return found


def _kept(archive: Archive, script: Script, before: int | None, outputs: Mapping[int, Any]) -> Script:
    """The script of a fork: what is recorded before a step, with other outputs."""
    serializer = archive.codec.default
    kept = {step_id: each for step_id, each in script.journal.items() if before is None or step_id < before}
    for step_id, value in outputs.items():
        if step_id not in kept:
            raise DBOSException(
                f"there is no step {step_id} among those that are kept, so its output cannot be replaced"
            )
        slot = Slot.step_output(script.row.workflow_uuid, step_id)
        text = archive.codec.encode(value, serializer, slot, f"the output of step {step_id}")
        kept[step_id] = kept[step_id]._replace(output=text, error=None, child_id=None, serialization=serializer.name())
    return Script(script.row, kept)


class Performance:
    """One rehearsal, in a thread of its own: it may take too long, and has no place in the caller's context."""

    def __init__(self, stage: Stage, script: Script, code: Callable[..., Any] | None = None) -> None:
        row, self.journal = script
        self.spec = stage.registry.workflow(row.name)
        self.code = code or self.spec.fn
        self.version: str | None = row.application_version
        args, self.kwargs = stage.codec.decode_args(row.inputs, row.serialization, Slot.inputs(row.workflow_uuid))
        target = stage.registry.target(row.class_name, row.config_name)
        self.args = args if target is None else (target, *args)
        self.actor = Run(stage, row.workflow_uuid, "", row.name)
        self.record = self.actor.journal = Journal(row.workflow_uuid, self.journal)
        self.actor.format, self.actor.is_recovered = row.serialization, True
        #: What the function raised, if it did; `EndOfRecord` where it would have gone on.
        self.end: BaseException | None = None
        self.is_endless = False
        self.is_over = threading.Event()

    def give(self) -> Performance:
        """Play it to its end."""
        thread = threading.Thread(
            target=contextvars.Context().run, args=(self._play,), name="dbos-rehearsal", daemon=True
        )
        thread.start()
        self.is_endless = not self.is_over.wait(PATIENCE_SECONDS)
        return self

    @property
    def said(self) -> Rehearsal:
        """What became of it."""
        actor, end = self.actor, self.record.mismatch or self.end
        if self.is_endless:
            return self._said(f"took more than {PATIENCE_SECONDS:g} s after step {actor.steps_taken}")
        if isinstance(end, DBOSUnexpectedStepError):
            said = f"step {end.step_id} is {end.expected_name!r}, where {end.recorded_name!r} is recorded"
            found, recorded, place = end.expected_name, end.recorded_name, self.record.place
            return self._said(said, step_id=end.step_id, found=found, recorded=recorded, place=place)
        left = sorted(actor.journal)
        if isinstance(end, EndOfRecord):
            missed = [step_id for step_id in left if step_id > actor.steps_taken]
            if missed:
                said = f"step {actor.steps_taken} {self.record.missing!r} is not recorded, but step {missed[0]} is"
                return self._said(
                    said,
                    step_id=actor.steps_taken,
                    found=self.record.missing,
                    recorded=self.journal[missed[0]].name,
                    place=self.record.place,
                )
            return self._said(None)
        if left:
            name, ends = self.journal[left[0]].name, "ends"
            if end is not None:
                ends = f"raises {type(end).__name__}"
            said = f"step {left[0]} {name!r} is recorded, and the code {ends} before it"
            return self._said(said, is_complete=True, step_id=left[0], recorded=name)
        return self._said(None, is_complete=True)

    def _said(self, difference: str | None, *, is_complete: bool = False, **where: Any) -> Rehearsal:
        met = len(self.journal) - len(self.actor.journal)
        return Rehearsal(self.actor.workflow_id, met, difference, is_complete, **where)

    def _play(self) -> None:
        OPTIONS.set(NO_OPTIONS)
        CALLER.set(self.actor.caller)

        async def call() -> Any:
            return await Call(self.actor.here, self.code, self.args, self.kwargs, is_async=self.spec.is_async)

        try:
            if self.spec.is_async:
                asyncio.run(arun(call()))
            else:
                run(call())
        except BaseException as end:  # noqa: BLE001 - whatever ends it is what it came to
            self.end = end
        finally:
            self.is_over.set()
