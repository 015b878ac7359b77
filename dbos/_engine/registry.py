"""Names and functions: what decorators registered, and the version that the code has.

A registry lives longer than a runtime: decorators run before `DBOS()` exists and survive `DBOS.destroy()`.
It is told apart by name only, because a name is all that a stored workflow has. Whoever waits for a name to be
registered (work found in the database whose code is not here yet) is told by `on_change`.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from dbos._engine.queue import QueueSpec
from dbos._kernel.codec import WorkflowSerializationFormat
from dbos._kernel.extension import guarded, installed
from dbos._kernel.model import STEP_WORKFLOW_PREFIX, TARGET_SEPARATOR
from dbos.error import DBOSConflictingRegistrationError, DBOSWorkflowFunctionNotFoundError

if TYPE_CHECKING:
    from dbos._engine.transaction import Apart
    from dbos._kernel.cron import Cron
    from dbos._kernel.extension import Extension

logger = logging.getLogger("dbos")

F = TypeVar("F", bound=Callable[..., Any])
Kind = Literal["workflow", "step", "transaction"]
Validator = Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]

# The attributes that decorators leave on what they decorate.
NAME_ATTRIBUTE, CLASS_ATTRIBUTE = "dbos_function_name", "dbos_class_name"
UNKNOWN_VERSION = "DEFAULT_VERSION"


@dataclass(slots=True, eq=False)
class WorkflowSpec:
    """A function that can run as a workflow."""

    name: str
    fn: Callable[..., Any]
    is_async: bool
    max_recovery_attempts: int | None = None
    format: WorkflowSerializationFormat | None = None
    validate: Validator | None = None
    #: Of its code, where an extension tells versions of workflows apart; None: the application's.
    version: str | None = None


@dataclass(slots=True, eq=False)
class Scheduled:
    """A function that is run by the clock as long as there is a process that has it."""

    fn: Callable[..., Any]
    cron: Cron


@dataclass(frozen=True, slots=True, repr=False)
class Consumed:
    """A function that is started by messages of Kafka. Its configuration may hold passwords, so it has no repr."""

    fn: Callable[..., Any]
    config: dict[str, Any]
    topics: list[str]
    ordering: str
    batch_size: int
    queue_name: str | None


class Registry:
    """Everything that is decorated in this process."""

    def __init__(self) -> None:
        self.workflows: dict[str, WorkflowSpec] = {}
        #: By version: what an extension told apart. Work of an earlier one goes on with the code it began with.
        self.versions: dict[str, WorkflowSpec] = {}
        self.classes: dict[str, type] = {}
        self.instances: dict[tuple[str, str], object] = {}
        self.queues: dict[str, QueueSpec] = {}
        self.scheduled: dict[str, Scheduled] = {}
        self.consumers: dict[str, Consumed] = {}
        #: The queues that this process serves besides the internal one; None: all that it knows.
        self.listened: frozenset[str] | None = None
        #: Who is told of alerts.
        self.alert_handler: Callable[[str, str, dict[str, str]], Any] | None = None
        #: The user's databases that keep records of transactions.
        self.datasources: list[Apart] = []
        self.on_change: list[Callable[[], None]] = []
        self._kinds: dict[str, Kind] = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget all functions, classes and instances."""
        with self._lock:
            for known in (self.workflows, self.classes, self.instances, self.queues, self._kinds):
                known.clear()
            self.scheduled.clear()
            self.consumers.clear()
            self.versions.clear()
            self.datasources.clear()
            self.listened = None
            self.alert_handler = None

    def add(self, kind: Kind, spec: WorkflowSpec) -> None:
        """Register a function. For a step or transaction, `spec` is the hidden workflow that runs it alone."""
        public = spec.name.removeprefix(STEP_WORKFLOW_PREFIX)
        extension = installed()
        with self._lock:
            known = self._kinds.get(public) if extension is None else None
            if known is not None and known != kind:
                raise DBOSConflictingRegistrationError(
                    f"Operation {public!r} is already registered with a conflicting function type: it is a {known} and "
                    f"is now decorated as a {kind}. Give one of them another name."
                )
            if known is not None:
                logger.warning("Duplicate registration of function '%s'. The later one replaces the earlier.", public)
            self._kinds[public] = kind
            earlier, self.workflows[spec.name] = self.workflows.get(spec.name), spec
            if extension is not None and kind == "workflow":
                self._tell_apart(extension, spec, earlier)
        self._changed()

    def _tell_apart(self, extension: Extension, spec: WorkflowSpec, earlier: WorkflowSpec | None) -> None:
        spec.version = guarded("An extension", lambda: extension.version(spec.name, spec.fn))
        if earlier is not None and earlier.version not in {None, spec.version}:
            earlier.fn = guarded("An extension", lambda: extension.earlier_code(earlier.fn), earlier.fn)
        if spec.version is not None:
            self.versions[spec.version] = spec

    def pin(self, name: str, version: str) -> None:
        """Have a workflow's code be of this version, whoever else says what versions there are."""
        with self._lock:
            spec = self.workflow(name)
            spec.version = version
            self.versions[version] = spec
        self._changed()

    def review(self) -> list[WorkflowSpec]:
        """Ask for the versions again, because what the code of workflows calls may have changed; those that did."""
        extension, changed = installed(), []
        if extension is None:
            return []
        with self._lock:
            for spec in list(self.workflows.values()):
                if spec.name.startswith(STEP_WORKFLOW_PREFIX):
                    continue
                earlier = replace(spec)
                self._tell_apart(extension, spec, earlier)
                if spec.version != earlier.version:
                    changed.append(spec)
                    if earlier.version is not None:
                        self.versions[earlier.version] = earlier
        if changed:
            self._changed()
        return changed

    def add_scheduled(self, fn: Callable[..., Any], cron: Cron) -> None:
        """Have a function run by the clock."""
        with self._lock:
            self.scheduled[getattr(fn, NAME_ATTRIBUTE, fn.__qualname__)] = Scheduled(fn, cron)
        self._changed()

    def add_consumer(self, consumed: Consumed, queue: QueueSpec | None) -> None:
        """Have a function started by messages, in order on this queue."""
        with self._lock:
            if queue is not None:
                self.queues[queue.name] = queue
            self.consumers[getattr(consumed.fn, NAME_ATTRIBUTE, consumed.fn.__qualname__)] = consumed
        self._changed()

    def add_queue(self, spec: QueueSpec) -> None:
        """Declare a queue."""
        with self._lock:
            if spec.name in self.queues and installed() is None:
                raise Exception(f"Queue {spec.name} has already been declared")  # noqa: TRY002 - as for classes
            self.queues[spec.name] = spec
        self._changed()

    def add_class(self, cls: type, name: str | None) -> None:
        """Register a class under a name that stored workflows of its methods carry."""
        name = name or cls.__qualname__
        with self._lock:
            if self.classes.get(name, cls) is not cls and installed() is None:
                raise Exception(  # noqa: TRY002 - the plain exception that such programs expect
                    f"Duplicate type registration for class '{name}'. Give one of them a class_name."
                )
            self.classes[name] = cls
            setattr(cls, CLASS_ATTRIBUTE, name)
        self._changed()

    def add_instance(self, instance: object, config_name: str) -> None:
        """Register an instance under the name that stored workflows of its methods carry."""
        class_name = class_name_of(type(instance))
        with self._lock:
            if self.instances.get((class_name, config_name), instance) is not instance and installed() is None:
                raise Exception(  # noqa: TRY002 - the plain exception that such programs expect
                    f"Duplicate instance registration for class '{class_name}' instance '{config_name}'"
                )
            self.instances[class_name, config_name] = instance
        self._changed()

    def _changed(self) -> None:
        for tell in list(self.on_change):
            tell()

    # -- finding -----------------------------------------------------------------------------------------------

    def workflow(self, name: str) -> WorkflowSpec:
        spec = self.workflows.get(name)
        if spec is None:
            raise DBOSWorkflowFunctionNotFoundError(
                f"The workflow function {name!r} is not registered in this process. Import or run its definition."
            )
        return spec

    def spec_of(self, fn: Callable[..., Any]) -> WorkflowSpec:
        """The workflow that a decorated function stands for; for a step, the hidden one that runs it."""
        name = getattr(fn, NAME_ATTRIBUTE, None)
        for candidate in (name, f"{STEP_WORKFLOW_PREFIX}{name}"):
            spec = self.workflows.get(candidate) if candidate is not None else None
            if spec is not None:
                return spec
        raise DBOSWorkflowFunctionNotFoundError(
            f"{getattr(fn, '__qualname__', fn)!r} is not a registered workflow function. Decorate it with @DBOS.workflow()."
        )

    def place_of(self, fn: Callable[..., Any]) -> tuple[WorkflowSpec, str | None]:
        """The workflow that runs a function which the runtime calls by itself, and the class whose method it is."""
        # Decorated below the other decorator, it is known as the function inside.
        inside = next((spec for spec in self.workflows.values() if spec.fn is fn), None)
        spec = inside or self.spec_of(fn)
        for name, cls in list(self.classes.items()):
            member = inspect.getattr_static(cls, fn.__name__, None)
            if isinstance(member, classmethod) and inspect.unwrap(member.__func__) is inspect.unwrap(fn):
                return spec, name
        return spec, None

    def target(self, class_name: str | None, config_name: str | None) -> object | None:
        """The instance or class that a stored workflow was called on; None for a plain function."""
        if not class_name:
            return None
        if config_name:
            instance = self.instances.get((class_name, config_name))
            if instance is None:
                raise DBOSWorkflowFunctionNotFoundError(
                    f"The configured class instance '{config_name}' is not registered for class '{class_name}'. "
                    "Create it before launch."
                )
            return instance
        cls = self.classes.get(class_name)
        if cls is None:
            raise DBOSWorkflowFunctionNotFoundError(
                f"The class '{class_name}' is not registered. Decorate it with @DBOS.dbos_class()."
            )
        return cls

    def targets(self) -> list[str]:
        """All that a stored workflow may have been called on, as `target_key` in the database writes it."""
        classes = [f"{name}{TARGET_SEPARATOR}" for name in self.classes]
        return [TARGET_SEPARATOR, *classes, *(TARGET_SEPARATOR.join(names) for names in list(self.instances))]

    def split_target(self, spec: WorkflowSpec, args: tuple[Any, ...]) -> tuple[str | None, str | None, object | None]:
        """The class and instance names of a call, and what it is called on: its first argument, for a method."""
        receiver = first_parameter(spec.fn)
        if not args or (receiver != "self" and not isinstance(args[0], type)):
            return None, None, None
        first = args[0]
        if isinstance(first, type):
            if self.classes.get(class_name_of(first)) is first:
                return class_name_of(first), None, first
            if receiver != "cls":
                return None, None, None  # a class given as an ordinary argument
            raise Exception(  # noqa: TRY002 - the plain exception that such programs expect
                f"The function target of {spec.name} appears to be a class, but is not properly registered"
            )
        if class_name_of(type(first)) not in self.classes:
            raise Exception(  # noqa: TRY002 - the plain exception that such programs expect
                f"The function target of {spec.name} appears to be a class instance, but is not properly registered"
            )
        config_name = getattr(first, "config_name", None)
        if config_name is None:
            raise Exception(  # noqa: TRY002 - the plain exception that such programs expect
                f"The function target of {spec.name} appears to be a class instance, but does not have `config_name` set"
            )
        return class_name_of(type(first)), config_name, first

    # -- version -----------------------------------------------------------------------------------------------

    def version(self, release: str) -> str:
        """A hash of the source of every registered workflow: the same code has the same version everywhere."""
        sources = []
        for spec in self.workflows.values():
            if spec.name.startswith(STEP_WORKFLOW_PREFIX):
                sources.append(STEP_WORKFLOW_PREFIX)  # that there is a step counts, what it does is its own affair
                continue
            try:
                sources.append(inspect.getsource(inspect.unwrap(spec.fn)))
            except (OSError, TypeError):
                logger.warning(
                    "The source of workflow '%s' is not available, so the application version is %s. "
                    "Set application_version in the configuration.",
                    spec.name,
                    UNKNOWN_VERSION,
                )
                return UNKNOWN_VERSION
        digest = hashlib.md5(usedforsecurity=False)
        for source in [*sorted(sources), release]:
            digest.update(source.encode())
        return digest.hexdigest()


def class_name_of(cls: type) -> str:
    """The name a class is registered under; a subclass does not inherit its parent's."""
    return str(cls.__dict__.get(CLASS_ATTRIBUTE, cls.__qualname__))


@functools.cache
def first_parameter(fn: Callable[..., Any]) -> str | None:
    """The name of a function's first parameter: all there is to tell a method by."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return code.co_varnames[0] if code is not None and code.co_argcount else None
