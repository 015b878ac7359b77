"""The decorators: what makes workflows, steps and transactions of functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from dbos._engine import decorate
from dbos._engine.executors import ExecutorSource
from dbos._engine.registry import Consumed, WorkflowSpec
from dbos._engine.roles import require, require_of_class
from dbos._engine.step import ShouldRetry, StepSpec
from dbos._engine.transaction import IsolationLevel, TransactionSpec
from dbos._faces.ambient import instance, registry, runtime_for
from dbos._faces.logs import logger
from dbos._faces.validation import Validator, make_pydantic_args_validator, pydantic_args_validator
from dbos._hooks import kafka
from dbos._kernel.codec import WorkflowSerializationFormat
from dbos._kernel.cron import Cron
from dbos._kernel.naming import checked_id
from dbos.error import DBOSException

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=type[Any])
F = TypeVar("F", bound=Callable[..., Any])


class Decorators:
    """The decorators of `DBOS`."""

    @staticmethod
    def workflow(
        *,
        name: str | None = None,
        max_recovery_attempts: int | None = 100,
        serialization_type: WorkflowSerializationFormat | None = None,
        validate_args: Validator | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Make a function a workflow: calling it runs it durably.

        `name` is what stored runs call it (default: its qualified name). It is started at most
        `max_recovery_attempts` + 1 times (None: without limit), then dead-lettered. `serialization_type` PORTABLE
        stores its values as JSON that every language reads. `validate_args` is called with the arguments of a run
        that is taken from the database, and returns them as the function wants them.
        """
        if max_recovery_attempts is not None and max_recovery_attempts < 0:
            raise DBOSException(f"max_recovery_attempts must be 0 or more, or None, not {max_recovery_attempts}")

        def make(fn: Callable[P, R]) -> Callable[P, R]:
            wants_pydantic = validate_args is pydantic_args_validator
            spec = WorkflowSpec(
                checked_id(name or fn.__qualname__, "A name"),
                fn,
                is_async=inspect.iscoroutinefunction(fn),
                max_recovery_attempts=max_recovery_attempts,
                format=serialization_type,
                validate=make_pydantic_args_validator(fn) if wants_pydantic else validate_args,
            )
            return decorate.workflow(registry, runtime_for, spec)

        return make

    @staticmethod
    def step(
        *,
        name: str | None = None,
        retries_allowed: bool = False,
        interval_seconds: float = 1.0,
        max_attempts: int = 3,
        backoff_rate: float = 2.0,
        should_retry: ShouldRetry | None = None,
        timeout_seconds: float | None = None,
        preemptible: bool = False,
        executor: ExecutorSource | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Make a function a step: a workflow that calls it records what it returned or raised, and never repeats it.

        With `retries_allowed` an exception is followed by another attempt, `max_attempts` in all, after
        `interval_seconds`, then `backoff_rate` times as long each time; when all failed, DBOSMaxStepRetriesExceeded
        is raised. `should_retry` is given the exception; if it says no, that is what the step came to.

        For async steps only: `timeout_seconds` is how long each attempt may take, before DBOSStepTimeoutError is raised
        in its place; a `preemptible` step is interrupted at once when its workflow is cancelled, and a resumed workflow
        runs it again. Outside of a workflow a step is a plain function call.

        With an `executor` (any `concurrent.futures.Executor`, or a function that makes one when the first step wants it)
        the function runs there, in a process of a pool or on another machine, and its result is recorded here. There is
        no workflow over there: operations of DBOS raise. A worker that is lost is a failed attempt,
        DBOSStepWorkerLostError. `timeout_seconds` may be given for sync functions too, and a cancel of the workflow is
        obeyed at once; what has begun over there runs on, and what it returns is dropped.
        """

        def make(fn: Callable[P, R]) -> Callable[P, R]:
            spec = StepSpec(
                checked_id(name or fn.__qualname__, "A name"),
                retries_allowed=retries_allowed,
                interval_seconds=interval_seconds,
                max_attempts=max_attempts,
                backoff_rate=backoff_rate,
                should_retry=should_retry,
                timeout_seconds=timeout_seconds,
                preemptible=preemptible,
                executor=executor,
            )
            return decorate.step(registry, spec.fitting(fn), fn)

        return make

    @staticmethod
    def transaction(
        isolation_level: IsolationLevel = "SERIALIZABLE", *, name: str | None = None
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Make a function a step that is one database transaction, done exactly once; see `DBOS.sql_session`.

        When it meets another transaction it is repeated from the start. It must not be async, and must not commit
        or roll back by itself.
        """

        def make(fn: Callable[P, R]) -> Callable[P, R]:
            spec = TransactionSpec(checked_id(name or fn.__qualname__, "A name"), isolation_level)
            return decorate.transaction(registry, runtime_for, spec, fn)

        return make

    @staticmethod
    def scheduled(cron: str) -> Callable[[F], F]:
        """Run a workflow, step or transaction by the clock, in UTC, as long as a process has it.

        It is called with the scheduled and the actual moment, each time once over all processes. What is missed while
        no process runs is skipped. `cron` is an expression as for `DBOS.create_schedule`, which keeps schedules in
        the database; ValueError says that it is none, or never fires.
        """

        def make(fn: F) -> F:
            registry.add_scheduled(fn, _cron(cron, fn.__qualname__))
            return fn

        _cron(cron, "")  # refused where it is written, also when nothing is decorated
        return make

    @staticmethod
    def kafka_consumer(
        config: dict[str, Any],
        topics: list[str],
        in_order: bool = False,
        *,
        ordering: kafka.Ordering | None = None,
        batch_size: int = 250,
        queue_name: str | None = None,
    ) -> Callable[[F], F]:
        """Start a workflow for every message of these Kafka topics, with a `KafkaMessage` as its argument.

        Each message is one workflow, however often it is delivered. `config` is that of librdkafka (`bootstrap.servers`,
        `group.id` ...); where it says nothing, topics are read from their beginning. `ordering` "partition" lets one
        message at a time run of each partition, "topic" (or `in_order=True`) of each topic; else as many run as there are,
        on `queue_name` if one is given. Up to `batch_size` are enqueued in one transaction. Needs the extra `kafka`.
        """
        wanted = kafka.checked(config, topics, in_order, ordering, batch_size, queue_name)

        def make(fn: F) -> F:
            consumed = Consumed(fn, dict(config), list(topics), wanted, batch_size, queue_name)
            registry.add_consumer(consumed, None if wanted == "none" else kafka.ORDERED)
            return fn

        return make

    @staticmethod
    def alert_handler(fn: Callable[[str, str, dict[str, str]], R]) -> Callable[[str, str, dict[str, str]], R]:
        """Call this function when something is wrong: with a rule, a sentence, and facts.

        The rules are `WorkflowFailure`, `SlowQueue` and `UnresponsiveApplication`; the keys `alert_...` of the
        configuration say from when on. Each condition is told by one process of the application, until it is over. There
        is one handler, declared before launch; it is called in a thread of its own. If it raises, that is logged and it
        is asked again, three times in all; if its process dies meanwhile, another one is asked, or its next launch: it may
        hear of the same twice.
        """
        made = instance()
        if made is not None and made.launched is not None:
            raise DBOSException("The alert handler must be defined before DBOS is launched")
        if registry.alert_handler is not None:
            raise DBOSException("An alert handler is already defined; there can be one")
        registry.alert_handler = fn
        return fn

    @staticmethod
    def dbos_class(class_name: str | None = None) -> Callable[[T], T]:
        """Register a class, so that workflows may be its static, class and instance methods.

        Its stored name is `class_name`, else the class's qualified name.
        """

        def make(cls: T) -> T:
            registry.add_class(cls, class_name)
            return cls

        return make

    @staticmethod
    def required_roles(roles: list[str]) -> Callable[[F], F]:
        """Let a workflow, step or transaction run only for a user who has one of these roles; none: for everybody."""

        def make(fn: F) -> F:
            require(fn, roles)
            return fn

        return make

    @staticmethod
    def default_required_roles(roles: list[str]) -> Callable[[T], T]:
        """Give the methods of a class these required roles, where they do not name their own."""

        def make(cls: T) -> T:
            require_of_class(cls, roles)
            return cls

        return make

    @staticmethod
    def register_instance(inst: object) -> None:
        """Register an instance that has a `config_name`, without inheriting from DBOSConfiguredInstance."""
        config_name = getattr(inst, "config_name", None)
        if not config_name:
            raise DBOSException(f"{inst!r} has no config_name to register it under")
        _warn_if_launched(config_name)
        registry.add_instance(inst, config_name)


class DBOSConfiguredInstance:
    """The base of classes whose instance methods are workflows; each instance is found again by its name."""

    def __init__(self, config_name: str) -> None:
        self.config_name = checked_id(config_name, "config_name")
        _warn_if_launched(config_name)
        registry.add_instance(self, config_name)


def _cron(text: str, name: str) -> Cron:
    try:
        return Cron(text, name=name)
    except ValueError as error:
        raise ValueError(f'Invalid crontab "{text}": {error}') from None


def _warn_if_launched(config_name: str) -> None:
    made = instance()
    if made is not None and made.launched is not None:
        logger.warning(
            "The configured instance %s was created after launch; its unfinished workflows waited for it", config_name
        )
