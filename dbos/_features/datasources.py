"""Datasources: transactions in databases of the user's, each done exactly once.

What a transaction came to is kept in the user's database, in the same transaction; the step's record follows. An
execution that finds it there takes it and does nothing. Before it commits, a run looks whether the workflow is still
its own: one that lost it rolls back. What it kept is deleted when the workflow has ended, or is deleted.

Outside of a workflow's body a function just runs in a transaction, and nothing is kept.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text, delete, inspect, select
from sqlalchemy.exc import IntegrityError

from dbos._engine.transaction import insist, make_table
from dbos._engine.workflow import AFTERWARDS
from dbos._kernel.codec import Codec
from dbos._kernel.journal import (
    STANDING,
    answer,
    check_standing,
    ensure_running,
    record_error,
    record_value,
    refuse_in_transaction,
    replay,
)
from dbos._kernel.plan import Effect
from dbos._kernel.pool import Pool
from dbos._kernel.scope import HERE, Here, StepStatus
from dbos._kernel.slot import Slot
from dbos._kernel.store import dialect_of
from dbos._kernel.trace import span
from dbos.error import DBOSSchemaError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dbos._engine.transaction import TransactionSpec
    from dbos._kernel.codec import Serializer
    from dbos._kernel.scope import Run

logger = logging.getLogger("dbos")

# So many ids go into one statement.
BATCH = 1000
# The session that this code is in, and whose it is.
SESSION: ContextVar[tuple[Datasource, Any] | None] = ContextVar("dbos_datasource_session", default=None)


class Datasource:
    """A database of the user's, and what is kept in it."""

    def __init__(
        self,
        engine: Engine,
        open_session: Callable[[str], Any],
        *,
        schema: str,
        serializer: Serializer | None,
        is_async: bool,
    ) -> None:
        #: For what is kept; an async datasource has another one for its sessions.
        self.engine, self.is_async = engine, is_async
        #: Opens a session of the isolation level: a context manager of the datasource's colour.
        self.open_session = open_session
        self.dialect = dialect_of(engine)
        #: None: the serializers of the application.
        self.codec = None if serializer is None else Codec(serializer)
        self.pool = Pool("dbos-datasource")
        self._closed = False
        self.kept = Table(
            "datasource_outputs",
            MetaData(schema=schema if self.dialect.has_schemas else None),
            Column("workflow_id", Text, primary_key=True),
            Column("step_id", Integer, primary_key=True, autoincrement=False),
            Column("output", Text),
            Column("error", Text),
            Column("serialization", Text),
            Column("created_at", BigInteger, nullable=False),
        )

    def prepare(self) -> None:
        """Make the table, where it is missing."""
        make_table(self.engine, self.kept)

    def check(self) -> None:
        """See that the table is there."""
        if not inspect(self.engine).has_table(self.kept.name, schema=self.kept.schema):
            raise DBOSSchemaError(
                f"The database {self.engine.url.database!r} is at datasource schema version 0: it lacks the table "
                "datasource_outputs. Call migrate() on it once, or create the datasource with run_migrations=True."
            )

    def find(self, workflow_id: str, step_id: int) -> Any:
        """What an execution of this step kept."""
        c = self.kept.c
        query = select(c.output, c.serialization).where(c.workflow_id == workflow_id, c.step_id == step_id)
        with self.engine.connect() as conn:
            return conn.execute(query).first()

    def forget(self, workflow_ids: list[str], from_step: int = 0) -> None:
        """Delete what was kept for these workflows, from a step on."""
        c = self.kept.c
        pool = self.engine.pool
        try:
            with self.engine.begin() as conn:
                for first in range(0, len(workflow_ids), BATCH):
                    some = workflow_ids[first : first + BATCH]
                    conn.execute(delete(self.kept).where(c.workflow_id.in_(some), c.step_id >= from_step))
        finally:
            if self._closed:  # meanwhile: the pool is given up, and nobody else closes what went back to it
                pool.dispose()

    def clean_up(self, workflow_id: str) -> None:
        """Delete what was kept for a workflow that has ended: its steps are on record."""
        try:
            self.forget([workflow_id])
        except Exception as error:  # noqa: BLE001 - the rows do no harm, and go when the workflow is deleted
            logger.warning("What was kept for workflow %s was not deleted: %s", workflow_id, error)

    def close(self) -> None:
        """Close the connections of the engine."""
        self._closed = True
        self.engine.dispose()
        self.pool.close()

    def alone(self, here: Here | None) -> AbstractContextManager[None]:
        """While this process's other writes to one SQLite file wait at their door, ours need not fight them."""
        if here is None or not self.dialect.single_writer:
            return nullcontext()
        store = here.ground.store
        is_same = store.dialect.single_writer and store.engine.url.database == self.engine.url.database
        return store.lane.stopped() if is_same else nullcontext()


class Attempt(Effect[Any]):
    """Run the user's function in a transaction, which keeps what it came to."""

    __slots__ = ("args", "fn", "here", "kwargs", "source", "spec", "tries")

    def __init__(
        self,
        source: Datasource,
        here: Here | None,
        spec: TransactionSpec,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.source, self.here, self.spec, self.fn = source, here, spec, fn
        self.args, self.kwargs = args, kwargs
        self.tries = 0

    def block(self) -> Any:
        earlier = self._earlier() if self._is_doubtful() else None
        if earlier is not None:
            return self._read(earlier)
        try:
            return self._perform()
        except IntegrityError:
            earlier = self._earlier()
            if earlier is None:
                raise  # the user's own error
            return self._read(earlier)  # another execution of this step was faster

    async def wait(self) -> Any:
        call = self.source.pool.call
        if not self.source.is_async:
            return await call(self.block)
        earlier = await call(self._earlier) if self._is_doubtful() else None
        if earlier is not None:
            return self._read(earlier)
        try:
            return await self._perform_async()
        except IntegrityError:
            earlier = await call(self._earlier)
            if earlier is None:
                raise
            return self._read(earlier)

    # -- one try -----------------------------------------------------------------------------------------------

    def _perform(self) -> Any:
        with self.source.alone(self.here), self.source.open_session(self.spec.isolation_level) as session:
            with self._inside(session):
                value = self.fn(*self.args, **self.kwargs)
            if self._run is not None:
                session.execute(self._keep(self._run, value))
                self._ensure_mine()
        return value

    async def _perform_async(self) -> Any:
        async with self.source.open_session(self.spec.isolation_level) as session:
            with self._inside(session):
                value = await self.fn(*self.args, **self.kwargs)
            if self._run is not None:
                await session.execute(self._keep(self._run, value))
                await self.source.pool.call(self._ensure_mine)
        return value

    @contextmanager
    def _inside(self, session: Any) -> Iterator[None]:
        place = None if self.here is None else self.here.within(self.here.step or StepStatus(0), session)
        tokens = SESSION.set((self.source, session)), HERE.set(place)
        try:
            yield
        finally:
            SESSION.reset(tokens[0])
            HERE.reset(tokens[1])

    def _keep(self, run: Run, value: Any) -> Any:
        assert self.here is not None
        assert self.here.step is not None
        theirs, ours = run.ground.codec, self.source.codec
        slot, what = self._slot(run), f"the output of transaction {self.spec.name!r}"
        # Both must be able to store it: after the commit it is too late to find out.
        text, name = theirs.encode(value, theirs.default, slot, what), theirs.default.name()
        if ours is not None:
            text, name = ours.encode(value, ours.default, slot, what), ours.default.name()
        return self.source.kept.insert().values(
            workflow_id=run.workflow_id,
            step_id=self.here.step.step_id,
            output=text,
            serialization=name,
            created_at=run.ground.clock.now_ms(),
        )

    def _ensure_mine(self) -> None:
        """Raise, and so roll back, if the workflow was cancelled or taken over meanwhile."""
        run = self._run
        assert run is not None
        found = run.ground.store.read(
            lambda conn: conn.first(STANDING, workflow_id=run.workflow_id, step_id=0), patience_seconds=None
        )
        check_standing(run, found)

    # -- what is known of earlier ones ---------------------------------------------------------------------------

    @property
    def _run(self) -> Run | None:
        """The run whose step this is; None where nothing is kept."""
        return None if self.here is None or self.here.step is None or not self.is_recorded else self.here.run

    #: Whether this is a recorded step of a workflow; see `perform`.
    is_recorded = False

    def _is_doubtful(self) -> bool:
        """Whether an earlier execution may have kept something, or an earlier try whose answer was lost."""
        self.tries += 1
        return self._run is not None and (self.tries > 1 or self._run.is_recovered)

    def _earlier(self) -> Any:
        run, here = self._run, self.here
        if run is None or here is None or here.step is None:
            return None
        return self.source.find(run.workflow_id, here.step.step_id)

    def _read(self, earlier: Any) -> Any:
        run = self._run
        assert run is not None
        codec = self.source.codec or run.ground.codec
        return codec.decode(earlier.output, earlier.serialization, self._slot(run))

    def _slot(self, run: Run) -> Slot:
        assert self.here is not None
        assert self.here.step is not None
        return Slot.step_output(run.workflow_id, self.here.step.step_id)


class RecordedAttempt(Attempt):
    """The same as a step of a workflow."""

    __slots__ = ()
    is_recorded = True


async def perform(
    here: Here | None,
    source: Datasource,
    spec: TransactionSpec,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run the function in a transaction: as a step in a workflow's body, and just so elsewhere."""
    if here is not None:
        refuse_in_transaction(here, spec.name)
    if here is None or not here.in_body:
        return await insist(here, Attempt(source, here, spec, fn, args, kwargs), source.dialect, spec.name)
    assert here.run is not None
    with span(spec.name, "transaction", here.run):
        return await _as_step(here, here.run, source, spec, fn, args, kwargs)


async def _as_step(
    here: Here,
    run: Run,
    source: Datasource,
    spec: TransactionSpec,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Do it as a step, or answer it from its record."""
    step_id = run.next_step()
    found = replay(run, step_id, spec.name)
    if found is not None:
        return answer(run, found)
    await ensure_running(run)
    started_ms = here.ground.clock.now_ms()
    acts = run.notes.setdefault(AFTERWARDS, [])
    if source.clean_up not in acts:
        acts.append(source.clean_up)
    attempt = RecordedAttempt(source, here.within(StepStatus(step_id)), spec, fn, args, kwargs)
    try:
        value = await insist(here, attempt, source.dialect, spec.name)
    except Exception as error:
        await record_error(here, step_id, spec.name, error, started_ms)
        raise
    await record_value(here, step_id, spec.name, value, started_ms)
    return value


# -- sessions --------------------------------------------------------------------------------------------------


def sessions_of(engine: Engine, make_session: Callable[..., Any]) -> Callable[[str], Any]:
    """Opens sessions on an engine, each in a transaction that commits at the end of its block."""
    takes_level = not dialect_of(engine).single_writer

    @contextmanager
    def open_session(level: str) -> Iterator[Any]:
        bind = engine.execution_options(isolation_level=level) if takes_level else engine
        with make_session(bind=bind) as session, session.begin():
            yield session

    return open_session


def async_sessions_of(engine: Any, make_session: Callable[..., Any]) -> Callable[[str], Any]:
    """The same for an async engine."""
    takes_level = not dialect_of(engine.sync_engine).single_writer

    @asynccontextmanager
    async def open_session(level: str) -> AsyncIterator[Any]:
        bind = engine.execution_options(isolation_level=level) if takes_level else engine
        async with make_session(bind=bind) as session, session.begin():
            yield session

    return open_session
