"""Transaction steps: the user's work and its record in one transaction, so the work is done exactly once.

Where the user's tables are in the system database, the step's own record commits with the work. Where they are in
another one, a record in `transaction_outputs` there commits with the work and decides; the step's record follows.
A conflict with another transaction repeats the whole function, as often as it takes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    event,
    exists,
    inspect,
    literal_column,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.schema import CreateSchema

from dbos._engine.outside import Outside
from dbos._engine.runtime import Runtime
from dbos._kernel.bell import Wait, Waiter
from dbos._kernel.clock import Clock
from dbos._kernel.journal import RECORD, answer, commit, ensure_running, explain_refusal, is_mine, record, replay
from dbos._kernel.migrate import ADVISORY_LOCK, ensure_database
from dbos._kernel.plan import Effect
from dbos._kernel.scope import HERE, StepStatus
from dbos._kernel.slot import Slot
from dbos._kernel.statement import statement
from dbos._kernel.store import dialect_of
from dbos._kernel.trace import happened, span
from dbos._kernel.waiting import nothing, wait_until
from dbos.error import DBOSMisuseError, DBOSSchemaError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.dialect import Dialect
    from dbos._kernel.schema import Tables
    from dbos._kernel.scope import Ground, Here, Run
    from dbos._kernel.statement import Entry
    from dbos._kernel.store import Store

T = TypeVar("T")

logger = logging.getLogger("dbos")

IsolationLevel = Literal["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"]
ISOLATION_LEVELS = ("SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED")

# Waits between two tries of a transaction that met another one.
FIRST_WAIT_MS, LAST_WAIT_MS, WAIT_GROWTH = 1, 2_000, 1.5


@dataclass(frozen=True, slots=True)
class TransactionSpec:
    """How a transaction is named and isolated."""

    name: str
    isolation_level: IsolationLevel = "SERIALIZABLE"

    def __post_init__(self) -> None:
        if self.isolation_level not in ISOLATION_LEVELS:
            raise ValueError(
                f"isolation_level must be one of {', '.join(ISOLATION_LEVELS)}, not {self.isolation_level!r}"
            )


class Application:
    """The database of the user's tables."""

    def __init__(self, engine: Engine, store: Store, *, is_system: bool, owns_engine: bool) -> None:
        self.engine, self.store, self.is_system, self.owns_engine = engine, store, is_system, owns_engine
        self.dialect = dialect_of(engine)
        self._closed = self._prepared = False
        schema = store.schema if self.dialect.has_schemas else None
        self.outputs = Table(
            "transaction_outputs",
            MetaData(schema=schema),
            Column("workflow_uuid", Text, primary_key=True),
            Column("function_id", Integer, primary_key=True, autoincrement=False),
            Column("output", Text),
            Column("error", Text),
            Column("txn_id", Text),
            Column("txn_snapshot", Text),
            Column("executor_id", Text),
            Column("function_name", Text, nullable=False, server_default=""),
            Column("created_at", BigInteger, nullable=False),
        )
        if self.dialect.single_writer and owns_engine:
            begin_immediately(engine)

    def prepare(self) -> None:
        """Make the table of records, where it is needed."""
        self._prepared = True
        if not self.is_system:
            make_table(self.engine, self.outputs)

    def check(self) -> None:
        """See that it is there, where it is needed."""
        self._prepared = True
        if not self.is_system and not inspect(self.engine).has_table(self.outputs.name, schema=self.outputs.schema):
            raise DBOSSchemaError(
                f"The database {self.engine.url.database!r} lacks the table transaction_outputs, and run_migrations is "
                "False. Run `dbos migrate` or call run_dbos_database_migrations() with app_database_url once."
            )

    def forget(self, workflow_ids: list[str], from_step: int, before_ms: int | None = None) -> None:
        """Delete the records of these workflows' transactions, from a step on; or only those that are so old."""
        c = self.outputs.c
        age = () if before_ms is None else (c.created_at < before_ms,)
        with self.engine.begin() as conn:
            if not self._has_outputs(conn):
                return
            for first in range(0, len(workflow_ids), 1000):  # a statement has room for so many parameters, and more
                some = workflow_ids[first : first + 1000]
                conn.execute(self.outputs.delete().where(c.workflow_uuid.in_(some), c.function_id >= from_step, *age))

    def recorded_ids(self, after: str, before_ms: int) -> list[str]:
        """The next workflows, by id, of which something is recorded that is so old."""
        c = self.outputs.c
        query = select(c.workflow_uuid).distinct().where(c.workflow_uuid > after, c.created_at < before_ms)
        with self.engine.connect() as conn:
            if not self._has_outputs(conn):
                return []
            return list(conn.execute(query.order_by(c.workflow_uuid).limit(1000)).scalars())

    def _has_outputs(self, conn: Connection) -> bool:
        """A client may know the database of an application that has no transactions."""
        return self._prepared or inspect(conn).has_table(self.outputs.name, schema=self.outputs.schema)

    def close(self) -> None:
        if self.owns_engine:
            self._closed = True
            self.engine.dispose()

    @contextmanager
    def session(self, isolation_level: str) -> Iterator[Session]:
        """A session in a transaction, which commits at the end of the block."""
        from sqlalchemy.orm import Session  # only those who use transactions wait for this import

        engine = (
            self.engine
            if self.dialect.single_writer
            else self.engine.execution_options(isolation_level=isolation_level)
        )
        # One writer at a time: while this process's other writes wait at their door, ours need not fight them.
        alone = self.store.lane.stopped() if self.is_system and self.dialect.single_writer else nullcontext()
        pool = engine.pool
        try:
            with alone, Session(engine) as session, session.begin():
                yield session
        finally:
            if self._closed:  # meanwhile: the pool is given up, and nobody else closes what went back to it
                pool.dispose()


def make_table(engine: Engine, table: Table) -> None:
    """Make a table of records in a database of the user's, and that database, where they are missing."""
    ensure_database(engine)
    with engine.begin() as conn:
        if table.schema is not None:
            conn.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
            conn.execute(CreateSchema(table.schema, if_not_exists=True))
        table.create(conn, checkfirst=True)


def begin_immediately(engine: Engine) -> None:
    """Make SQLite transactions writers from their first moment: one that reads first could not write later."""

    @event.listens_for(engine, "connect")
    def connected(raw: Any, _: object) -> None:
        raw.isolation_level = None
        for pragma in ("busy_timeout = 60000", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            raw.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(conn: Any) -> None:
        conn.exec_driver_sql("BEGIN IMMEDIATE")


@statement
def MY_OUTPUT(t: Tables) -> Executable:
    """What a step recorded of a workflow that is PENDING and ours."""
    workflow_id: BindParameter[str] = bindparam("workflow_id")
    c = t.steps.c
    mine = exists(select(literal_column("1")).where(is_mine(t, workflow_id, bindparam("owner"))))
    return select(c.output).where(c.workflow_uuid == workflow_id, c.function_id == bindparam("step_id"), mine)


class Apart(Protocol):
    """A database other than the system's that has records of workflows."""

    def forget(self, workflow_ids: list[str], from_step: int) -> None: ...


class Forget(Effect[None]):
    """Delete what another database recorded of these workflows, from a step on."""

    __slots__ = ("apart", "from_step", "here", "workflow_ids")

    def __init__(self, here: Here, apart: Apart, workflow_ids: list[str], from_step: int = 0) -> None:
        self.here, self.apart, self.workflow_ids, self.from_step = here, apart, workflow_ids, from_step

    def block(self) -> None:
        self.apart.forget(self.workflow_ids, self.from_step)

    async def wait(self) -> None:
        await self.here.ground.store.readers.call(self.block)


def databases_apart(ground: Ground) -> list[Apart]:
    """The databases besides the system's that have records of workflows, as far as they are known here."""
    databases: list[Apart] = list(ground.registry.datasources) if isinstance(ground, Runtime) else []
    application = application_apart(ground)
    return databases if application is None else [*databases, application]


def application_apart(ground: Ground) -> Application | None:
    """The database of transactions, where that is another one than the system's and known here."""
    application = ground.application if isinstance(ground, Runtime | Outside) else None
    return None if application is None or application.is_system else application


class _Refused(Exception):  # noqa: N818 - never leaves this file
    """The step's record was not accepted, so the work must not commit."""


class Transact(Effect[str]):
    """Run the user's function in a transaction that records it; the text of its output."""

    __slots__ = ("application", "args", "fn", "here", "kwargs", "spec", "started_ms", "tries", "value")

    def __init__(
        self,
        application: Application,
        here: Here,
        spec: TransactionSpec,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.application, self.here, self.spec, self.fn = application, here, spec, fn
        self.args, self.kwargs = args, kwargs
        self.started_ms = here.ground.clock.now_ms()
        self.value: Any = None
        self.tries = 0

    async def wait(self) -> str:
        assert isinstance(self.here.ground, Runtime)
        return await self.here.ground.pool.call(self.block)

    def block(self) -> str:
        run = self.here.run
        self.tries += 1
        # An earlier execution may have recorded it beside the user's tables; an earlier try, whose answer was lost, anywhere.
        elsewhere = not self.application.is_system
        doubtful = self.tries > 1 or (elsewhere and run is not None and run.is_recovered)
        earlier = self._earlier() if doubtful else None
        if earlier is not None:
            return earlier
        try:
            return self._perform()
        except (IntegrityError, _Refused):
            earlier = self._earlier() if elsewhere or self.tries > 1 else None
            if earlier is None:
                raise  # the user's own error, or a refusal that means what it says
            return earlier  # another execution of this step was faster, or the commit of an earlier try came late

    def _perform(self) -> str:
        here, run, step = self.here, self.here.run, self.here.step
        assert run is not None
        assert step is not None
        codec = here.ground.codec
        with self.application.session(self.spec.isolation_level) as session:
            token = HERE.set(here.within(step, session))
            try:
                self.value = self.fn(*self.args, **self.kwargs)
            finally:
                HERE.reset(token)
            slot, what = (
                Slot.step_output(run.workflow_id, step.step_id),
                f"the output of transaction {self.spec.name!r}",
            )
            output = codec.encode(self.value, codec.default, slot, what)
            if self.application.is_system:
                self._record_step(session, self.entry(output))
            else:
                self._record_apart(session, run, step.step_id, output)
        return output

    def _earlier(self) -> str | None:
        """The output that an earlier execution or try of this step recorded."""
        application, run, step = self.application, self.here.run, self.here.step
        if run is None or step is None:
            return None
        output: str | None
        if application.is_system:
            mine = {"workflow_id": run.workflow_id, "step_id": step.step_id, "owner": run.owner}
            found = application.store.read(lambda conn: conn.first(MY_OUTPUT, **mine), None)
            output = None if found is None else found.output
        else:
            c = application.outputs.c
            query = select(c.output).where(c.workflow_uuid == run.workflow_id, c.function_id == step.step_id)
            with application.engine.connect() as conn:
                output = conn.execute(query).scalar()
        if output is not None:
            self.value = run.ground.codec.decode(output, None, Slot.step_output(run.workflow_id, step.step_id))
        return output

    def entry(self, output: str) -> Entry:
        run, step = self.here.run, self.here.step
        assert run is not None
        assert step is not None
        name = run.ground.codec.default.name()
        return record(run, step.step_id, self.spec.name, output=output, serialization=name, started_ms=self.started_ms)

    def _record_step(self, session: Session, entry: Entry) -> None:
        tables = self.application.store.tables
        given = tables.dialect.rows(RECORD.columns, many=False)
        values = {f"given_{name}": value for name, value in zip(RECORD.names, entry.row, strict=True)}
        if session.execute(RECORD.build(tables, given), values).first() is None:
            raise _Refused

    def _record_apart(self, session: Session, run: Run, step_id: int, output: str) -> None:
        session.execute(
            self.application.outputs.insert().values(
                workflow_uuid=run.workflow_id,
                function_id=step_id,
                output=output,
                executor_id=run.ground.executor_id,
                function_name=self.spec.name,
                created_at=run.ground.clock.now_ms(),
            )
        )


async def perform_transaction(
    here: Here, spec: TransactionSpec, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run the function as a transaction step of the workflow whose body this is."""
    assert here.run is not None
    with span(spec.name, "transaction", here.run):
        return await _as_step(here, here.run, spec, fn, args, kwargs)


async def _as_step(
    here: Here,
    run: Run,
    spec: TransactionSpec,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Do it as a step, or answer it from its record."""
    runtime = here.ground
    assert isinstance(runtime, Runtime)
    application = runtime.application
    if application is None:
        raise DBOSMisuseError(f"The transaction {spec.name!r} needs a database: set application_database_url")
    step_id = run.next_step()
    found = replay(run, step_id, spec.name)
    if found is not None:
        return answer(run, found)
    await ensure_running(run)
    effect = Transact(application, here.within(StepStatus(step_id)), spec, fn, args, kwargs)
    try:
        output = await insist(here, effect, application.dialect, spec.name)
    except _Refused:
        await explain_refusal(run, effect.entry(""))
        raise
    except Exception as error:
        slot = Slot.step_error(run.workflow_id, step_id)
        text = runtime.codec.encode_error(error, runtime.codec.default, slot)
        name = runtime.codec.default.name()
        await commit(
            here, record(run, step_id, spec.name, error=text, serialization=name, started_ms=effect.started_ms)
        )
        raise
    if application.is_system:
        run.confirm()
    else:
        await commit(here, effect.entry(output))
    return effect.value


async def insist(here: Here | None, attempt: Effect[T], dialect: Dialect, name: str) -> T:
    """Repeat a transaction until it meets no other."""
    wait_ms, clock = float(FIRST_WAIT_MS), Clock() if here is None else here.ground.clock
    while True:
        try:
            return await attempt
        except DBAPIError as error:
            if not dialect.is_transient(error):
                raise
            logger.info("Transaction %s is repeated: %s", name, error.orig)
            happened("Transaction Failure", retry_wait_seconds=wait_ms / 1000)
        until_ms = clock.now_ms() + int(wait_ms)
        if here is None:
            await Wait(Waiter(), clock, until_ms)
        else:
            await wait_until(here, nothing, until_ms=until_ms)
        wait_ms = min(wait_ms * WAIT_GROWTH, LAST_WAIT_MS)
