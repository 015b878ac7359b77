"""Kafka: a workflow for every message of some topics. Needs the extra `kafka`, and imports nothing of it before.

The id of the workflow is made from the place of its message, so that a message that the broker delivers twice is one
workflow. A batch of messages is enqueued in one transaction, and the broker is told of it after that: who dies between
gets it again. The broker is told by librdkafka, in a thread of its own.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from dbos._engine.queue import NO_LIMITS, Limits, QueueSpec
from dbos._engine.row import Order, row_of
from dbos._kernel.bell import queued
from dbos._kernel.job import Put
from dbos._kernel.model import INTERNAL_QUEUE
from dbos._kernel.naming import checked_id
from dbos._kernel.plan import perform
from dbos._kernel.service import Service
from dbos.error import DBOSException, DBOSInitializationError

if TYPE_CHECKING:
    from dbos._engine.registry import Consumed, WorkflowSpec
    from dbos._engine.runtime import Runtime
    from dbos._kernel.statement import Entry

logger = logging.getLogger("dbos")

# One message at a time of each partition of the queue: a topic, or a partition of one.
ORDERED = QueueSpec("_dbos_kafka_ordered_queue", NO_LIMITS, Limits(concurrency=1))
Ordering = Literal["none", "partition", "topic"]
ORDERINGS = get_args(Ordering)
# So long the consumer waits for messages before it looks whether it is to end; they do not wait for anything.
WAIT_SECONDS = 0.5
# Longer ids of groups are cut, as other DBOS programs cut them.
LONGEST_GROUP = 255
ID_PREFIX = "kafka-unique-id"


@dataclass
class KafkaMessage:
    """A message, as the workflow gets it that it starts."""

    headers: list[tuple[str, str | bytes]] | None
    key: str | bytes | None
    latency: float | None
    leader_epoch: int | None
    offset: int | None
    partition: int | None
    #: Its sort, and milliseconds since 1970.
    timestamp: tuple[int, int]
    topic: str | None
    value: str | bytes | None


KafkaMessage.__module__ = "dbos._kafka_message"


# -- declaring -------------------------------------------------------------------------------------------------


def checked(config: Any, topics: Any, in_order: bool, ordering: Any, batch_size: Any, queue_name: Any) -> str:
    """The ordering, if all of it makes sense: it would be found out in a thread otherwise."""
    try:
        import confluent_kafka  # noqa: F401 - only who consumes has it
    except ImportError as error:
        raise DBOSException(
            "confluent_kafka dependency not found. Install it: pip install 'dbos-notebook[kafka]'"
        ) from error
    if not isinstance(config, dict):
        raise DBOSInitializationError(
            f"The configuration of a Kafka consumer must be a dict, not {type(config).__name__}"
        )
    if not isinstance(topics, list) or not topics or not all(isinstance(each, str) and each for each in topics):
        raise DBOSInitializationError(f"A Kafka consumer needs a list of topics, not {topics!r}")
    if ordering is not None and in_order:
        raise DBOSInitializationError("in_order=True is ordering='topic': give only one of them")
    wanted: str = ordering or ("topic" if in_order else "none")
    if wanted not in ORDERINGS:
        raise DBOSInitializationError(f"invalid Kafka ordering {wanted!r}: it must be one of {', '.join(ORDERINGS)}")
    if wanted == "topic" and any(each.startswith("^") for each in topics):
        raise DBOSInitializationError("Topics that are given by a pattern (^...) cannot be consumed in order")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise DBOSInitializationError(f"batch_size must be positive, not {batch_size!r}")
    if queue_name is not None:
        if wanted != "none":
            raise DBOSInitializationError("queue_name is only supported with ordering='none'")
        checked_id(queue_name, "A queue name")
    return wanted


def _group(name: str, consumed: Consumed) -> str:
    """The consumer group: all processes that have the same share the messages."""
    given = consumed.config.get("group.id")
    if given is not None:
        return checked_id(given, "The group.id of a Kafka consumer")
    made = re.sub(r"[^A-Za-z0-9-]", "-", f"dbos-kafka-group-{name}-{'-'.join(consumed.topics)}")[:LONGEST_GROUP]
    logger.warning("The Kafka consumer of %s has no group.id in its configuration; it is %s", name, made)
    return made


# -- consuming -------------------------------------------------------------------------------------------------


class Consumers(Service):
    """Has a consumer run for each function that wants one, also for those that are declared later.

    It needs no thread: the registry says when something is declared.
    """

    name = "kafka"

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bell, runtime.clock)
        self.runtime = runtime
        self._running: dict[str, Consumer] = {}

    def start(self) -> None:
        self.runtime.registry.on_change.append(self.review)
        self.review()

    def tick(self) -> None:
        """It has none."""

    def review(self) -> None:
        """Start and stop what is declared now, and is not any more."""
        wanted = dict(self.runtime.registry.consumers)
        for name, consumer in list(self._running.items()):
            if wanted.get(name) is not consumer.consumed:
                self._running.pop(name).stop()
        for name in wanted.keys() - self._running.keys():
            self._running[name] = Consumer(self.runtime, name, wanted[name])
            self._running[name].start()

    def stop(self) -> None:
        if self.review in self.runtime.registry.on_change:
            self.runtime.registry.on_change.remove(self.review)
        for consumer in self._running.values():
            consumer.stop()

    def join(self, seconds: float) -> bool:
        return all(each.join(seconds) for each in self._running.values())


class Consumer(Service):
    """Takes the messages of one function's topics."""

    def __init__(self, runtime: Runtime, name: str, consumed: Consumed) -> None:
        super().__init__(runtime.bell, runtime.clock)
        self.name, self.runtime, self.consumed = f"kafka-{name}", runtime, consumed
        self._group = _group(name, consumed)
        #: When the last workflow was made: in order, no two are of one millisecond.
        self._made_ms = 0
        #: None: not connected, or after a fatal error not any more.
        self._kafka: Any = None

    def tick(self) -> int | None:
        if self.runtime.is_deactivated:
            self._leave()
            return None
        # Asked before anything is taken: where the function is no workflow, its messages wait until it is one.
        spec, class_name = self.runtime.registry.place_of(self.consumed.fn)
        if self._kafka is None:
            self._kafka = self._connected()
        try:
            messages = self._kafka.consume(self.consumed.batch_size, WAIT_SECONDS)
            taken = [each for each in messages if self._is_message(each)]
            if taken:
                self._place(taken, spec, class_name)
        except BaseException:
            # It has gone past what it gave us: connected anew, it begins again after what the broker was told of.
            self._leave()
            raise
        return self.clock.now_ms()

    def _connected(self) -> Any:
        from confluent_kafka import Consumer as Kafka

        settings = {
            "auto.offset.reset": "earliest",
            **self.consumed.config,
            "group.id": self._group,
            # The broker hears of what is enqueued, and of nothing else.
            "enable.auto.commit": True,
            "enable.auto.offset.store": False,
        }
        kafka = Kafka(settings)
        kafka.subscribe(self.consumed.topics)
        return kafka

    def _is_message(self, message: Any) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.fatal():
            raise DBOSException(f"The Kafka consumer failed and connects anew: {error}")
        logger.warning("The %s heard of an error: %s", self.name, error)
        return False

    def _place(self, messages: list[Any], spec: WorkflowSpec, class_name: str | None) -> None:
        """Enqueue a workflow for each message, then let the broker know."""
        entries = [entry for each in messages if (entry := self._entry(each, spec, class_name)) is not None]
        if entries:
            perform(Put(self.runtime.store.lane, tuple(entries), [queued(self._queue)]))
        from confluent_kafka import KafkaException, TopicPartition

        last = {(each.topic(), each.partition()): each.offset() for each in messages}
        for (topic, partition), offset in last.items():
            try:
                self._kafka.store_offsets(offsets=[TopicPartition(topic, partition, offset + 1)])
            except KafkaException as error:  # it is another's by now, who gets them again
                logger.debug("The place in %s [%d] cannot be stored: %s", topic, partition, error)

    @property
    def _queue(self) -> str:
        return ORDERED.name if self.consumed.ordering != "none" else self.consumed.queue_name or INTERNAL_QUEUE

    def _entry(self, message: Any, spec: WorkflowSpec, class_name: str | None) -> Entry | None:
        """The workflow of a message. None: it cannot be stored now or ever, and would hold up those after it."""
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        workflow_id = f"{ID_PREFIX}-{topic}-{partition}-{self._group}-{offset}"
        place = {"none": None, "topic": f"{self._group}:{topic}", "partition": f"{self._group}:{topic}:{partition}"}
        try:
            order = Order(
                name=spec.name,
                class_name=class_name,
                queue=self._queue,
                args=(_as_argument(message),),
                partition_key=place[self.consumed.ordering],
                # It runs the code that consumes, whatever version is the latest.
                app_version=self.runtime.app_version,
                format=spec.format,
            )
            row = row_of(self.runtime, order, checked_id(workflow_id, "A workflow ID"))
            if order.partition_key is not None:
                self._made_ms = max(self._made_ms + 1, row.created_at)
                row = row._replace(created_at=self._made_ms)
            return row.entry
        except Exception:
            logger.exception("The message %d of %s [%d] starts no workflow", offset, topic, partition)
            return None

    def _leave(self) -> None:
        kafka, self._kafka = self._kafka, None
        if kafka is not None:
            kafka.close()

    def _close(self) -> None:
        super()._close()
        try:
            self._leave()
        except Exception as error:  # noqa: BLE001 - the broker may be gone; whoever is in the group takes over
            logger.warning("The %s could not say farewell: %s", self.name, error)


def _as_argument(message: Any) -> KafkaMessage:
    return KafkaMessage(
        headers=message.headers(),
        key=message.key(),
        latency=message.latency(),
        leader_epoch=message.leader_epoch(),
        offset=message.offset(),
        partition=message.partition(),
        timestamp=message.timestamp(),
        topic=message.topic(),
        value=message.value(),
    )
