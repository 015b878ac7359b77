"""Queues: how much of them may run and start at once, over all processes, in one process, and in each partition.

A queue is either declared in code (`Queue(...)`) or registered in the database; the dispatcher knows only this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict

from dbos._kernel.model import INTERNAL_QUEUE
from dbos._kernel.naming import REJECT, RETURN_EXISTING, checked_id
from dbos.error import DBOSException

# The largest priority that other DBOS programs accept.
LAST_PRIORITY = 2**31 - 1
DuplicationPolicy = Literal["reject", "return-existing"]
DuplicationPolicy.__doc__ = (
    """What happens where another workflow holds the deduplication id: an error, or that one is meant."""
)
DEFAULT_INTERVAL_SECONDS = 1.0
# Names that begin so belong to the runtime.
RESERVED_PREFIX = "_dbos_"


class QueueRateLimit(TypedDict):
    """At most `limit` workflows are started in any `period` (in seconds)."""

    limit: int
    period: float


class Rate(NamedTuple):
    """At most so many starts in any stretch of so many milliseconds."""

    limit: int
    period_ms: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What may run at once, in all processes together and in each; and how fast it may start."""

    concurrency: int | None = None
    worker_concurrency: int | None = None
    rate: Rate | None = None

    def __bool__(self) -> bool:
        return (self.concurrency, self.worker_concurrency, self.rate) != (None, None, None)

    def allowance(self, running: int, mine: int, started: int) -> int:
        """How many more may start, where so many run, so many of them here, and so many were started lately."""
        room = [math.inf]
        if self.concurrency is not None:
            room.append(self.concurrency - running)
        if self.worker_concurrency is not None:
            room.append(self.worker_concurrency - mine)
        if self.rate is not None:
            room.append(self.rate.limit - started)
        least = min(room)
        return max(0, int(least)) if least != math.inf else UNBOUNDED


# More than anybody asks for at once.
UNBOUNDED = 2**31
NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue, as the dispatcher serves it."""

    name: str
    #: For the queue as a whole.
    whole: Limits = NO_LIMITS
    #: For each partition; None: it has none.
    each: Limits | None = None
    priority_enabled: bool = False
    polling_interval_sec: float = DEFAULT_INTERVAL_SECONDS

    @property
    def is_limited(self) -> bool:
        """Whether a claim must count first."""
        return bool(self.whole) or self.each is not None

    @property
    def is_freed_by_ends(self) -> bool:
        """Whether the end of a workflow may let another one start."""
        limits = [self.whole] if self.each is None else [self.whole, self.each]
        return any(each.concurrency is not None or each.worker_concurrency is not None for each in limits)

    @property
    def longest_period_ms(self) -> int:
        rates = (limits.rate for limits in (self.whole, self.each) if limits is not None)
        return max((rate.period_ms for rate in rates if rate is not None), default=0)

    @property
    def looks_every_ms(self) -> int | None:
        """How often it is looked at, if not whenever there is something: only where a long interval is wanted."""
        if self.polling_interval_sec <= DEFAULT_INTERVAL_SECONDS:
            return None
        return int(self.polling_interval_sec * 1000)


INTERNAL = QueueSpec(INTERNAL_QUEUE, priority_enabled=True)


# -- what may be asked for -------------------------------------------------------------------------------------


def declared(
    name: str,
    *,
    concurrency: int | None = None,
    limiter: QueueRateLimit | None = None,
    worker_concurrency: int | None = None,
    priority_enabled: bool = False,
    partition_queue: bool = False,
    polling_interval_sec: float = DEFAULT_INTERVAL_SECONDS,
) -> QueueSpec:
    """A queue as code declares it: its limits are those of each partition, if it has any."""
    limits = limits_of("", concurrency, worker_concurrency, limiter)
    return QueueSpec(
        checked_queue_name(name),
        NO_LIMITS if partition_queue else limits,
        limits if partition_queue else None,
        bool(priority_enabled),
        checked_interval(polling_interval_sec),
    )


def limits_of(
    prefix: str, concurrency: int | None, worker_concurrency: int | None, limiter: QueueRateLimit | None
) -> Limits:
    """Limits, checked; `prefix` is that of their names."""
    _check_count(f"{prefix}concurrency", concurrency)
    _check_count(f"{prefix}worker_concurrency", worker_concurrency)
    if concurrency is not None and worker_concurrency is not None and worker_concurrency > concurrency:
        raise ValueError(f"{prefix}worker_concurrency must be less than or equal to {prefix}concurrency")
    return Limits(concurrency, worker_concurrency, _rate(f"{prefix}limiter", limiter))


def _check_count(what: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"{what} must be a whole number greater than or equal to 0, or None, not {value!r}")


def _rate(what: str, limiter: Any) -> Rate | None:
    if limiter is None:
        return None
    if not isinstance(limiter, dict) or set(limiter) != {"limit", "period"}:
        raise ValueError(f'{what} must have the keys "limit" and "period", and is {limiter!r}')
    limit, period = limiter["limit"], limiter["period"]
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(f"the limit of {what} must be at least 1, not {limit!r}")
    if isinstance(period, bool) or not isinstance(period, (int, float)) or not 0 < period < math.inf:
        raise ValueError(f"the period of {what} must be a positive number of seconds, not {period!r}")
    return Rate(limit, max(1, math.ceil(period * 1000)))


def checked_interval(seconds: float) -> float:
    if not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise ValueError(f"polling_interval_sec must be positive, not {seconds!r}")
    return seconds


def checked_queue_name(name: Any) -> str:
    """A name that users may give to a queue."""
    checked_id(name, "A queue name")
    if name.startswith(RESERVED_PREFIX):
        raise ValueError(
            f"The queue name {name!r} is reserved: names that begin with {RESERVED_PREFIX} are the runtime's"
        )
    return str(name)


def checked_priority(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LAST_PRIORITY:
        raise DBOSException(f"Invalid priority {value!r}. Priority must be between 1 and {LAST_PRIORITY}.")
    return value


def returns_existing(policy: Any, deduplication_id: str | None) -> bool:
    """Whether the workflow that holds the deduplication id is wanted, instead of an error."""
    if policy not in (None, REJECT, RETURN_EXISTING):
        raise DBOSException(f"Invalid duplication_policy {policy!r}: it must be {REJECT!r} or {RETURN_EXISTING!r}")
    if policy == RETURN_EXISTING and deduplication_id is None:
        raise DBOSException(f"The duplication_policy {RETURN_EXISTING!r} requires a deduplication_id")
    return bool(policy == RETURN_EXISTING)


def check_place(
    spec: QueueSpec, *, deduplication_id: str | None, priority: int | None, partition_key: str | None
) -> None:
    """Raise if a workflow cannot be put on this queue so."""
    if priority is not None and not spec.priority_enabled:
        raise DBOSException(f"Priority is not enabled for queue {spec.name}: declare it with priority_enabled=True")
    if spec.each is None:
        if partition_key is not None:
            raise DBOSException(f"Queue {spec.name} has no partitions, but a queue_partition_key is given")
        return
    if partition_key is None:
        raise DBOSException(f"Queue {spec.name} is a partitioned queue: give a queue_partition_key (the partition key)")
    if deduplication_id is not None:
        raise DBOSException("Deduplication is not supported for partitioned queues")
