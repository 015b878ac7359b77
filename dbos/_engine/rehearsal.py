"""Rehearsal: does this code fit what an earlier run of it has recorded? Nothing is run but the workflow's own function.

The function runs on the record: each operation is answered from it, the clock stands far in the future so that no
sleep lasts, and children that have ended give their results. At the first thing that would have to be done (a step
that is not recorded, a write, a wait) the rehearsal ends. So no step runs and no row is written: the store that it
stands on has no way to write.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from sqlalchemy import bindparam, select

from dbos._engine.runtime import Call, Runtime
from dbos._kernel.bell import Bell
from dbos._kernel.clock import Clock
from dbos._kernel.journal import load
from dbos._kernel.model import Recorded
from dbos._kernel.plan import arun, run
from dbos._kernel.scope import CALLER, NO_OPTIONS, OPTIONS, Run
from dbos._kernel.statement import statement
from dbos.error import DBOSNonExistentWorkflowError, DBOSUnexpectedStepError

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._engine.registry import WorkflowSpec
    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn, Row
    from dbos._kernel.store import Store

# A function that computes for longer between its steps is given up.
PATIENCE_SECONDS = 5.0
FAR_AWAY_MS = 1 << 50


class Rehearsal(NamedTuple):
    """What became of it."""

    workflow_id: str
    #: How many of the recorded steps were met in their order.
    steps: int
    #: Where code and record differ first, in words; None where they do not.
    difference: str | None
    #: Whether the function came to its end.
    is_complete: bool

    @property
    def fits(self) -> bool:
        return self.difference is None


@statement
def STORED(t: Tables) -> Executable:
    """What a workflow was called with."""
    c = t.status.c
    columns = (c.name, c.class_name, c.config_name, t.inputs, c.serialization, c.status)
    return select(*columns).where(c.workflow_uuid == bindparam("workflow_id"))


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


class _Future(Clock):
    """Time is long past everything that was recorded."""

    def now_ms(self) -> int:
        return FAR_AWAY_MS


class Stage(Runtime):
    """A runtime on which nothing can be done."""

    is_rehearsal = True

    def __init__(self, real: Runtime) -> None:
        store: Any = _Reader(real.store)
        super().__init__(
            store,
            Bell(),
            _Future(),
            real.codec,
            real.registry,
            executor_id=real.executor_id,
            app_version=real.app_version,
            app_id=real.app_id,
        )

    def expect_rings(self, until_ms: int | None) -> None:
        if until_ms is None:  # what has a moment to end at has ended long ago
            raise EndOfRecord("wait")


def rehearse(runtime: Runtime, workflow_id: str, code: Callable[..., Any] | None = None) -> Rehearsal:
    """Rehearse the code of a workflow, or other code, on what it has recorded."""

    def work(conn: Conn) -> tuple[Row | None, dict[int, Recorded]]:
        return conn.first(STORED, workflow_id=workflow_id), load(conn, [workflow_id])[workflow_id]

    row, journal = runtime.store.read(work)
    if row is None:
        raise DBOSNonExistentWorkflowError("target", workflow_id)
    spec = runtime.registry.workflow(row.name)
    args, kwargs = runtime.codec.decode_args(row.inputs, row.serialization)
    target = runtime.registry.target(row.class_name, row.config_name)
    actor = Run(Stage(runtime), workflow_id, "", row.name)
    actor.journal, actor.format, actor.is_recovered = dict(journal), row.serialization, True
    return _Performance(actor, spec, code or spec.fn, journal).give(
        (*(() if target is None else (target,)), *args), kwargs
    )


class _Performance:
    """One rehearsal, in a thread of its own: it may take too long, and has no place in the caller's context."""

    def __init__(self, actor: Run, spec: WorkflowSpec, code: Callable[..., Any], journal: dict[int, Recorded]) -> None:
        self.actor, self.spec, self.code, self.journal = actor, spec, code, journal
        self.end: BaseException | None = None
        self.is_over = threading.Event()

    def give(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rehearsal:
        thread = threading.Thread(
            target=contextvars.Context().run, args=(self._play, args, kwargs), name="dbos-rehearsal", daemon=True
        )
        thread.start()
        actor, journal = self.actor, self.journal
        if not self.is_over.wait(PATIENCE_SECONDS):
            return self._said(
                f"took more than {PATIENCE_SECONDS:g} s after step {actor.steps_taken}", is_complete=False
            )
        if isinstance(self.end, DBOSUnexpectedStepError):
            found = self.end
            said = f"step {found.step_id} is {found.expected_name!r}, where {found.recorded_name!r} is recorded"
            return self._said(said, is_complete=False)
        left = sorted(actor.journal)
        if isinstance(self.end, EndOfRecord):
            missed = [step_id for step_id in left if step_id > actor.steps_taken]
            if missed:
                return self._said(
                    f"step {actor.steps_taken} is not recorded, but step {missed[0]} is", is_complete=False
                )
            return self._said(None, is_complete=False)
        if left:
            name = journal[left[0]].name
            return self._said(f"step {left[0]} {name!r} is recorded, and the code ends before it", is_complete=True)
        return self._said(None, is_complete=True)

    def _said(self, difference: str | None, *, is_complete: bool) -> Rehearsal:
        met = len(self.journal) - len(self.actor.journal)
        return Rehearsal(self.actor.workflow_id, met, difference, is_complete)

    def _play(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        OPTIONS.set(NO_OPTIONS)
        CALLER.set(self.actor.caller)

        async def call() -> Any:
            return await Call(self.actor.here, self.code, args, kwargs, is_async=self.spec.is_async)

        try:
            if self.spec.is_async:
                asyncio.run(arun(call()))
            else:
                run(call())
        except BaseException as end:  # noqa: BLE001 - whatever ends it is what it came to
            self.end = end
        finally:
            self.is_over.set()
