"""`SQLAlchemyDatasource` and its async twin: a database of the user's whose transactions are steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypedDict, TypeVar, cast, overload

from sqlalchemy import URL, Engine, NullPool, create_engine, text

from dbos._engine.transaction import ISOLATION_LEVELS, TransactionSpec, begin_immediately
from dbos._faces.ambient import instance, registry
from dbos._faces.config import engine_for, parsed, read_url
from dbos._features.datasources import SESSION, Datasource, async_sessions_of, perform, sessions_of
from dbos._kernel.plan import arun, in_its_colour, refuse_to_block, run
from dbos._kernel.scope import HERE
from dbos.error import DBOSException, DBOSInitializationError, DBOSMisuseError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

    from dbos._engine.transaction import IsolationLevel
    from dbos._kernel.codec import Serializer

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_SCHEMA = "dbos"


class TransactionOptions(TypedDict, total=False):
    """How a transaction of a datasource is named and isolated."""

    #: The name of its step. Default: the function's qualified name.
    name: str | None
    #: "SERIALIZABLE" (the default), "REPEATABLE READ" or "READ COMMITTED"; SQLite knows only the first.
    isolation_level: IsolationLevel


class _Base:
    """What both colours share."""

    _source: Datasource

    def __init__(self) -> None:
        raise DBOSException(f"Make a {type(self).__name__} by its create()")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._source.engine.url!r}>"

    @classmethod
    def _made(cls, source: Datasource, *, run_migrations: bool, owns_pool: bool = False) -> Self:
        made = cls.__new__(cls)
        made._source = source  # noqa: SLF001 - its own
        try:
            if run_migrations:
                source.prepare()
            else:
                source.check()
        except BaseException:  # whatever it is: nobody else knows of these connections
            if owns_pool:
                source.close()
            raise
        registry.datasources.append(source)
        return made

    @classmethod
    def migrate(
        cls, database_url: str | URL, *, schema: str | None = None, application_role: str | None = None
    ) -> None:
        """Make the table of records in a database, for programs that may not when they start.

        `application_role` is granted what they need.
        """
        engine = create_engine(_sync_url(database_url), poolclass=NullPool)
        source = Datasource(engine, lambda _: None, schema=schema or DEFAULT_SCHEMA, serializer=None, is_async=False)
        source.prepare()
        if application_role is not None and source.dialect.has_schemas:
            quote = engine.dialect.identifier_preparer.quote
            role, where = quote(application_role), quote(schema or DEFAULT_SCHEMA)
            with engine.begin() as conn:
                conn.execute(text(f"GRANT USAGE ON SCHEMA {where} TO {role}"))
                conn.execute(text(f"GRANT SELECT, INSERT, DELETE ON {where}.datasource_outputs TO {role}"))
        engine.dispose()

    @overload
    def transaction(self, fn: F, /) -> F: ...

    @overload
    def transaction(
        self, *, name: str | None = None, isolation_level: IsolationLevel = "SERIALIZABLE"
    ) -> Callable[[F], F]: ...

    def transaction(
        self,
        fn: Any = None,
        *,
        name: str | None = None,
        isolation_level: IsolationLevel = "SERIALIZABLE",
    ) -> Any:
        """Make a function such a transaction whenever it is called; see `run_tx_step` and `run_tx_step_async`."""

        def make(fn: Callable[..., Any]) -> Callable[..., Any]:
            spec = self._spec({"name": name, "isolation_level": isolation_level}, fn)

            def plan(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                return perform(HERE.get(), self._source, spec, fn, args, kwargs)

            return in_its_colour(fn, self._source.is_async, plan)

        return make if fn is None else make(fn)

    def _session(self) -> Any:
        found = SESSION.get()
        if found is None or found[0] is not self._source:
            raise DBOSMisuseError("sql_session() may only be called in a transaction of this datasource")
        return found[1]

    def _spec(self, options: TransactionOptions | None, fn: Callable[..., Any]) -> TransactionSpec:
        given = {key: value for key, value in (options or {}).items() if value is not None}
        unknown = sorted(set(given) - set(TransactionOptions.__annotations__))
        if unknown:
            raise TypeError(f"a transaction has no such option: {', '.join(unknown)}")
        name = given.get("name") or getattr(fn, "__qualname__", None) or type(fn).__qualname__
        level = given.get("isolation_level", ISOLATION_LEVELS[0])
        if inspect.iscoroutinefunction(fn) is not self._source.is_async:
            wants, is_ = ("a", "is not one") if self._source.is_async else ("no", "is one")
            raise DBOSException(f"{type(self).__name__} takes {wants} coroutine function, but {name} {is_}")
        return TransactionSpec(str(name), cast("IsolationLevel", level))


class SQLAlchemyDatasource(_Base):
    """A database of yours, in which functions run as transactions that are done exactly once.

    Make it with `create`, before `DBOS.launch()`. What a transaction of a workflow returned is kept beside your
    tables, in the table `datasource_outputs`, until the workflow has ended.
    """

    @classmethod
    def create(
        cls,
        database_url: str | URL | None = None,
        engine_kwargs: dict[str, Any] | None = None,
        engine: Engine | None = None,
        schema: str | None = None,
        serializer: Serializer | None = None,
        sessionmaker: Callable[..., Session] | None = None,
        run_migrations: bool = True,
    ) -> Self:
        """Connect to the database, and make the table of records unless `run_migrations` is off.

        Give a URL, or an engine, which stays yours. `sessionmaker` makes the sessions, on the engine that is used here.
        `schema` is that of the table of records on Postgres, "dbos" if none is given.
        """
        from sqlalchemy.orm import Session  # only those who use transactions wait for this import

        _refuse_after_launch()
        _refuse_binds(sessionmaker)
        made = engine if engine is not None else engine_for(parsed(_given(database_url)), engine_kwargs)
        source = Datasource(
            made,
            sessions_of(made, sessionmaker or Session),
            schema=schema or DEFAULT_SCHEMA,
            serializer=serializer,
            is_async=False,
        )
        if engine is None and source.dialect.single_writer:
            begin_immediately(made)
        return cls._made(source, run_migrations=run_migrations, owns_pool=engine is None)

    def sql_session(self) -> Session:
        """The SQLAlchemy session of the transaction that this code is in; it commits when the function returns."""
        session: Session = self._session()
        return session

    def run_tx_step(
        self, options: TransactionOptions | None, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a function as a transaction: a recorded step of the workflow, outside of one just a transaction.

        It is repeated when it meets another transaction, and must not commit or roll back by itself.
        """
        refuse_to_block("run_tx_step")
        return run(perform(HERE.get(), self._source, self._spec(options, fn), fn, args, kwargs))  # type: ignore[no-any-return]  # it is what `fn` returns

    async def run_tx_step_async(
        self, options: TransactionOptions | None, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a function as a transaction, in a thread; see `run_tx_step`."""
        return await arun(perform(HERE.get(), self._source, self._spec(options, fn), fn, args, kwargs))

    def close(self) -> None:
        """Close its connections, also those of an engine that was given. Nothing can be done by it any more."""
        self._source.close()


class AsyncSQLAlchemyDatasource(_Base):
    """The same for coroutine functions, with `AsyncSession`. Make it with `await create(...)`.

    It needs `sqlalchemy[asyncio]`, and an async driver: for SQLite that is `aiosqlite`.
    """

    _engine: AsyncEngine

    @classmethod
    async def create(
        cls,
        database_url: str | URL | None = None,
        engine_kwargs: dict[str, Any] | None = None,
        engine: AsyncEngine | None = None,
        schema: str | None = None,
        serializer: Serializer | None = None,
        sessionmaker: Callable[..., AsyncSession] | None = None,
        run_migrations: bool = True,
    ) -> Self:
        """Connect to the database; see `SQLAlchemyDatasource.create`."""
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine  # needs greenlet

        _refuse_after_launch()
        _refuse_binds(sessionmaker)
        made = engine
        if made is None:
            made = create_async_engine(_async_url(_given(database_url)), hide_parameters=True, **(engine_kwargs or {}))
        # What is kept is read and deleted by threads; NullPool: seldom, so no connection waits for it.
        source = Datasource(
            create_engine(_sync_url(made.url), poolclass=NullPool, hide_parameters=True),
            async_sessions_of(made, sessionmaker or AsyncSession),
            schema=schema or DEFAULT_SCHEMA,
            serializer=serializer,
            is_async=True,
        )
        if engine is None and source.dialect.single_writer:
            begin_immediately(made.sync_engine)
        ready = await source.pool.call(lambda: cls._made(source, run_migrations=run_migrations))
        ready._engine = made  # noqa: SLF001 - its own
        return ready

    def sql_session(self) -> AsyncSession:
        """The SQLAlchemy session of the transaction that this code is in; it commits when the function returns."""
        session: AsyncSession = self._session()
        return session

    async def run_tx_step_async(
        self,
        options: TransactionOptions | None,
        fn: Callable[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Run a coroutine function as a transaction; see `SQLAlchemyDatasource.run_tx_step`."""
        return await arun(perform(HERE.get(), self._source, self._spec(options, fn), fn, args, kwargs))

    async def close(self) -> None:
        """Close its connections, also those of an engine that was given. Nothing can be done by it any more."""
        await self._engine.dispose()
        self._source.close()


def _given(url: str | URL | None) -> str | URL:
    if url is None:
        raise DBOSInitializationError("A datasource needs the address of a database: give database_url or engine")
    return url


def _refuse_after_launch() -> None:
    made = instance()
    if made is not None and made.launched is not None:
        raise DBOSException("A datasource must be created before DBOS.launch()")


def _refuse_binds(sessionmaker: Any) -> None:
    if sessionmaker is not None and getattr(sessionmaker, "kw", {}).get("binds"):
        raise DBOSException(
            "The sessionmaker has binds=: its sessions would write to several databases, and a transaction is of one"
        )


def _async_url(url: str | URL) -> URL:
    made = read_url(url)
    if made.get_backend_name() == "sqlite":
        return made.set(drivername="sqlite+aiosqlite")
    return made if "+" in made.drivername else parsed(made)


def _sync_url(url: str | URL) -> URL:
    made = read_url(url)
    if made.get_backend_name() == "sqlite":
        return parsed(made.set(drivername="sqlite"))
    return parsed(made.set(drivername="postgresql+psycopg"))
