"""Where am I, for whom, and how shall the next workflow start: three values, each in a ContextVar.

`Here` says which workflow, step or transaction the code is in. `Caller` says on whose behalf. `StartOptions`
says what the enclosing `with` blocks want of workflows started in them. All are replaced and never changed, so
parallel tasks cannot see each other's.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from dbos._kernel.bell import Wait, Waiter, stop
from dbos._kernel.codec import PORTABLE
from dbos._kernel.job import Put, Tx
from dbos._kernel.store import PATIENCE_SECONDS, Read
from dbos.error import DBOSException

if TYPE_CHECKING:
    from dbos._kernel.bell import Bell, Channel
    from dbos._kernel.clock import Clock
    from dbos._kernel.codec import Codec, Serializer, WorkflowSerializationFormat
    from dbos._kernel.extension import Observer
    from dbos._kernel.model import Recorded
    from dbos._kernel.statement import Conn, Entry
    from dbos._kernel.store import Store

T = TypeVar("T")


class Ground:
    """What every plan stands on: the database, the bell, time, the serializers, and who we are."""

    def __init__(
        self, store: Store, bell: Bell, clock: Clock, codec: Codec, executor_id: str, app_version: str
    ) -> None:
        self.store, self.bell, self.clock, self.codec = store, bell, clock, codec
        self.executor_id, self.app_version = executor_id, app_version

    #: Nothing is done here: code is only tried on what it has recorded.
    is_rehearsal = False
    #: What was launched on the same database after this one had ended: handles go on there.
    successor: Ground | None = None
    #: What the listener looks at every second, because other programs change it without a word.
    impatient: tuple[str, ...] = ("queue",)

    @property
    def here(self) -> Here:
        """Outside of any workflow."""
        return Here(self)

    def running(self, workflow_id: str) -> Run | None:
        """The run of this workflow in this process, if it has one; a client has none."""
        return None

    def expect(self, workflow_id: str) -> Awaited | None:
        """What will be told of this workflow's ending, where it may run in this process."""
        return None

    def made_room(self) -> None:
        """A run begins to wait, or ends."""

    def look_around(self) -> None:
        """The listener takes a full look."""

    def expect_rings(self, until_ms: int | None) -> None:
        """Somebody begins to wait: a client listens from now on. Its place at the bell is taken already."""


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf something runs."""

    user: str | None = None
    roles: tuple[str, ...] | None = None
    assumed_role: str | None = None


NOBODY = Caller()
CALLER: ContextVar[Caller] = ContextVar("dbos_caller", default=NOBODY)


class StepStatus(NamedTuple):
    """The step that is running, as `DBOS.step_status` shows it."""

    #: Its position in the workflow, from 1.
    step_id: int
    #: The attempt, from 0; None where the step is not retried.
    current_attempt: int | None = None
    max_attempts: int | None = None


class Awaited:
    """A workflow whose handle somebody here holds: told of the ending when it runs here."""

    __slots__ = ("__weakref__", "failure", "is_over", "result")

    def __init__(self) -> None:
        self.is_over = False
        self.result: Any = None
        self.failure: BaseException | None = None


class Promise(NamedTuple):
    """A record that is on its way to the database, and what its refusal would mean."""

    job: Put
    explain: Callable[[], Coroutine[Any, Any, None]]


class Run:
    """One execution of a workflow by this process: what it has recorded, and by what right it writes."""

    __slots__ = (
        "caller",
        "carrier",
        "confirmed_at",
        "deadline_ms",
        "enqueued_ms",
        "failure",
        "format",
        "frees",
        "ground",
        "here",
        "is_over",
        "is_recovered",
        "is_waiting",
        "journal",
        "name",
        "notes",
        "observer",
        "owner",
        "queue",
        "result",
        "steps_taken",
        "stops",
        "unsettled",
        "workflow_id",
    )

    def __init__(self, ground: Ground, workflow_id: str, owner: str, name: str) -> None:
        self.ground, self.workflow_id, self.name = ground, workflow_id, name
        #: The fence: every write of this run names it, and is refused once the row has another.
        self.owner = owner
        #: Hears all the while the run lasts that its workflow was cancelled or taken over.
        self.stops = Waiter()
        self.steps_taken = 0
        #: The records of earlier executions, by step id; each is taken out when its step is replayed.
        self.journal: dict[int, Recorded] = {}
        self.deadline_ms: int | None = None
        self.format: str | None = None
        self.caller = NOBODY
        #: The queue and the partition it was taken from, and what is rung when it ends: others may start then.
        self.queue: tuple[str, str] | None = None
        #: Records that are on their way to the database: awaited before anything outside can depend on them.
        self.unsettled: list[Promise] = []
        self.frees: tuple[Channel, ...] = ()
        #: When it was put on its queue, for its first run; and the tracer's context of who did that, if it was kept.
        self.enqueued_ms: int | None = None
        self.carrier: dict[str, Any] = {}
        #: When a write or read last showed that the row is ours and PENDING, by the monotonic clock.
        self.confirmed_at = float("-inf")
        self.here = Here(ground, self)
        #: Taken from the database: an earlier execution may have left records.
        self.is_recovered = False
        self.is_over = self.is_waiting = False
        #: What operations keep for as long as the run lasts, each under a key of its own.
        self.notes: dict[Any, Any] = {}
        #: Of the extension that is installed, if it watches this run.
        self.observer: Observer | None = None
        self.result: Any = None
        self.failure: BaseException | None = None

    def next_step(self) -> int:
        """Take the next step id. Ids are taken when a call starts, so their order is the program's."""
        self.steps_taken += 1
        return self.steps_taken

    def confirm(self) -> None:
        self.confirmed_at = self.ground.clock.monotonic()

    def doubt(self) -> None:
        """Something may have happened to the row: look before the next step, whatever was seen otherwise."""
        self.confirmed_at = float("-inf")
        self.stops.heard.add(stop(self.workflow_id))


class Here:
    """Where code is: outside, in a workflow's body, in a step, or in a transaction; and how it reaches the database."""

    __slots__ = ("ground", "run", "session", "step")

    def __init__(
        self, ground: Ground, run: Run | None = None, step: StepStatus | None = None, session: Any = None
    ) -> None:
        self.ground, self.run, self.step, self.session = ground, run, step, session

    @property
    def in_body(self) -> bool:
        """In the body of a workflow, where operations are recorded."""
        return self.run is not None and self.step is None

    def within(self, step: StepStatus, session: Any = None) -> Here:
        """Inside that step of the same workflow."""
        return Here(self.ground, self.run, step, session)

    def serializer(self, choice: WorkflowSerializationFormat | None) -> Serializer:
        """That of a value for others: as chosen, else portable in a portable workflow, else the configured one."""
        portable = self.run is not None and self.run.format == PORTABLE
        return self.ground.codec.chosen(choice, PORTABLE if portable else None)

    # The effects, with the patience that fits: a workflow waits as long as the database is away, because
    # nothing else would be right; a caller outside is told.

    @property
    def _patience(self) -> float | None:
        return PATIENCE_SECONDS if self.run is None else None

    def put(self, *entries: Entry, rings: Iterable[Channel] = ()) -> Put:
        return Put(self.ground.store.lane, entries, rings, self._patience)

    def tx(self, work: Callable[[Conn], T], rings: Iterable[Channel] = ()) -> Tx[T]:
        return Tx(self.ground.store.lane, work, rings, self._patience)

    def read(self, work: Callable[[Conn], T]) -> Read[T]:
        return Read(self.ground.store, work, self._patience)

    def wait(self, waiter: Waiter, until_ms: int | None = None) -> Wait:
        self.ground.expect_rings(until_ms)
        return Wait(waiter, self.ground.clock, until_ms)


class Elsewhere(Here):
    """In a step that runs on an executor: there is no workflow and nothing to reach."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.run = self.step = self.session = None
        self.name = name

    @property
    def ground(self) -> Ground:  # type: ignore[override]  # there is none
        raise DBOSException(
            f"DBOS cannot be used in step {self.name}, which runs on an executor: there is no workflow there. Return what "
            "is to be done and do it in the workflow, or use a DBOSClient."
        )


HERE: ContextVar[Here | None] = ContextVar("dbos_here", default=None)


class AssignedId:
    """The id of a `SetWorkflowID` block: for the first workflow started in it."""

    __slots__ = ("is_new", "taken", "workflow_id")

    def __init__(self, workflow_id: str, *, is_new: bool = False) -> None:
        self.workflow_id = workflow_id
        #: No workflow may have it already.
        self.is_new = is_new
        self.taken = False


@dataclass(frozen=True, slots=True)
class StartOptions:
    """What the enclosing `with` blocks want of a workflow that is started in them."""

    assigned: AssignedId | None = None
    #: Whether a `SetWorkflowTimeout` block encloses us; without one a child takes its parent's deadline.
    has_timeout: bool = False
    timeout_ms: int | None = None
    deduplication_id: str | None = None
    #: Attach to the workflow that holds the deduplication id, instead of raising.
    returns_existing: bool = False
    priority: int | None = None
    app_version: str | None = None
    queue_partition_key: str | None = None
    delay_until_ms: int | None = None
    #: What is noted of it, as JSON.
    attributes: str | None = None


NO_OPTIONS = StartOptions()
OPTIONS: ContextVar[StartOptions] = ContextVar("dbos_start_options", default=NO_OPTIONS)
