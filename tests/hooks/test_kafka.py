"""Workflows that messages of Kafka start: a real client of librdkafka, and the broker that librdkafka brings for tests."""

from __future__ import annotations

import pickle
import sqlite3
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from dbos import DBOS, KafkaMessage
from dbos._engine.runtime import Runtime
from dbos._faces.ambient import instance, registry, runtime
from dbos._hooks.kafka import Consumers
from dbos.error import DBOSException, DBOSInitializationError
from tests.compat.conftest import Log, log
from tests.conftest import App
from tests.waiting import eventually

__all__ = ["log"]

ID = "kafka-unique-id-{topic}-0-{group}-{offset}"


class Broker:
    """One that lives in this process, with one partition for each topic unless said otherwise."""

    def __init__(self) -> None:
        self.producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
        (broker,) = self.producer.list_topics(timeout=20).brokers.values()
        self.address = f"{broker.host}:{broker.port}"

    def send(self, topic: str, *values: str, partition: int = 0, **more: Any) -> None:
        for value in values:
            self.producer.produce(topic, value, partition=partition, **more)
        assert self.producer.flush(20) == 0

    def config(self, group: str | None) -> dict[str, Any]:
        made: dict[str, Any] = {
            "bootstrap.servers": self.address,
            "log_level": 0,
            "topic.metadata.refresh.interval.ms": 100,
            # This broker waits as long as a session lasts before a group whose member joined anew goes on.
            "session.timeout.ms": 6_000,
            "heartbeat.interval.ms": 500,
        }
        return made if group is None else {**made, "group.id": group}


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    made = Broker()
    yield made
    made.producer.flush(5)


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return "".join(each if each.isalnum() else "-" for each in request.node.name)


def ended(number: int) -> Callable[[], bool]:
    return lambda: len(DBOS.list_workflows(status="SUCCESS")) >= number


def consuming(broker: Broker, topic: str, **options: Any) -> list[KafkaMessage]:
    seen: list[KafkaMessage] = []

    @DBOS.kafka_consumer(broker.config(topic), [topic], **options)
    @DBOS.workflow(name="take")
    def take(message: KafkaMessage) -> str | bytes | None:
        seen.append(message)
        return message.value

    return seen


def test_each_message_starts_a_workflow(app: App, broker: Broker, topic: str) -> None:
    broker.send(topic, "a", "b", key="k", headers={"h": b"1"})
    seen = consuming(broker, topic)
    app.launch()
    broker.send(topic, "c")

    eventually(ended(3), 60)

    runs = DBOS.list_workflows()
    assert [ID.format(topic=topic, group=topic, offset=number) for number in range(3)] == sorted(
        each.workflow_id for each in runs
    )
    assert sorted(each.output for each in runs) == [b"a", b"b", b"c"]
    first = min(seen, key=lambda each: each.offset or 0)
    assert (first.topic, first.partition, first.offset, first.key, first.headers) == (topic, 0, 0, b"k", [("h", b"1")])


def test_a_message_that_comes_again_is_the_same_workflow(app: App, broker: Broker, topic: str) -> None:
    """As it does from a broker that has not heard how far the group is."""

    @DBOS.workflow(name="take")
    def take(message: KafkaMessage) -> None:
        return None

    broker.send(topic, "a", "b")
    DBOS.kafka_consumer(broker.config(topic), [topic])(take)
    app.launch()
    eventually(ended(2), 60)
    began = {each.workflow_id: each.created_at for each in DBOS.list_workflows()}

    same = Broker()
    same.send(topic, "a", "b", "c")
    DBOS.destroy()
    DBOS.kafka_consumer(same.config(topic), [topic])(take)
    app.launch()
    eventually(ended(3), 60)

    after = {each.workflow_id: each.created_at for each in DBOS.list_workflows()}
    assert len(after) == 3
    assert began.items() <= after.items()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_batch_that_cannot_be_stored_comes_again(app: App, broker: Broker, topic: str, log: Log) -> None:
    """The consumer has gone past it; what comes after it must not be taken for all there is."""
    consuming(broker, topic)
    app.launch(log_level="WARNING")
    file = sqlite3.connect(app.database.removeprefix("sqlite:///"), isolation_level=None, timeout=20)
    file.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON workflow_status WHEN NEW.workflow_uuid LIKE 'kafka%'"
        " BEGIN SELECT RAISE(ABORT, 'no kafka today'); END"
    )
    broker.send(topic, "a")
    eventually(lambda: log.says("no kafka today"), 60)
    file.execute("DROP TRIGGER refuse")
    file.close()
    broker.send(topic, "b")

    eventually(ended(2), 60)
    assert sorted(each.output for each in DBOS.list_workflows()) == [b"a", b"b"]


def running() -> Any:
    """The consumer that runs."""
    made = instance()
    assert made is not None
    assert made.launched is not None
    (service,) = (each for each in made.launched.services if isinstance(each, Consumers))
    (consumer,) = service._running.values()
    return consumer


@pytest.mark.parametrize("options", [{"in_order": True}, {"ordering": "topic"}, {"ordering": "partition"}], ids=str)
def test_messages_of_a_topic_run_one_after_the_other(
    app: App, broker: Broker, topic: str, options: dict[str, Any]
) -> None:
    values = [f"{number:02}" for number in range(20)]
    broker.send(topic, *values)
    running: list[int] = []
    most: list[int] = []
    order: list[bytes] = []

    @DBOS.kafka_consumer(broker.config(topic), [topic], **options)
    @DBOS.workflow(name="take")
    def take(message: KafkaMessage) -> None:
        running.append(1)
        most.append(len(running))
        assert isinstance(message.value, bytes)
        order.append(message.value)
        running.pop()

    app.launch()
    eventually(ended(20), 60)

    assert order == [each.encode() for each in values]
    assert max(most) == 1
    keys = {each.queue_partition_key for each in DBOS.list_workflows()}
    assert keys == {f"{topic}:{topic}" if options.get("ordering") != "partition" else f"{topic}:{topic}:0"}


def test_they_are_taken_where_only_other_queues_are_served(app: App, broker: Broker, topic: str) -> None:
    broker.send(topic, "a")
    consuming(broker, topic, in_order=True)
    DBOS.listen_queues(["another"])
    app.launch()

    eventually(ended(1), 60)


def test_a_consumer_that_is_declared_after_the_launch_begins_at_once(app: App, broker: Broker, topic: str) -> None:
    app.launch()
    broker.send(topic, "a")

    consuming(broker, topic)

    eventually(ended(1), 60)


def test_a_queue_of_the_user_holds_them(app: App, broker: Broker, topic: str) -> None:
    DBOS.listen_queues(["another"])
    broker.send(topic, "a")
    consuming(broker, topic, queue_name="mine")
    app.launch()

    eventually(lambda: [each.queue_name for each in DBOS.list_workflows(status="ENQUEUED")] == ["mine"])


def test_without_a_group_one_is_made(app: App, broker: Broker, topic: str, log: Log) -> None:
    broker.send(topic, "a")

    @DBOS.kafka_consumer(broker.config(None), [topic])
    @DBOS.workflow(name="take.it")
    def take(message: KafkaMessage) -> None:
        return None

    app.launch(log_level="WARNING")
    eventually(ended(1), 60)

    group = f"dbos-kafka-group-take-it-{topic}"
    assert log.says(group)
    assert [each.workflow_id for each in DBOS.list_workflows()] == [ID.format(topic=topic, group=group, offset=0)]


def test_deactivated_it_takes_no_more(app: App, broker: Broker, topic: str) -> None:
    consuming(broker, topic)
    app.launch()
    broker.send(topic, "a")
    eventually(ended(1), 60)
    here: Runtime = runtime()
    here.is_deactivated = True
    consumer = running()
    eventually(lambda: consumer._kafka is None)

    broker.send(topic, "b")

    assert len(DBOS.list_workflows()) == 1


def test_a_message_is_pickled_as_other_programs_read_it() -> None:
    message = KafkaMessage(None, b"k", None, None, 3, 0, (1, 2), "t", b"v")

    text = pickle.dumps(message)

    assert b"dbos._kafka_message" in text
    assert pickle.loads(text) == message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ordering": "random"}, "invalid Kafka ordering 'random'"),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"ordering": "topic", "queue_name": "q"}, "only supported with ordering"),
        ({"topics": []}, "a list of topics"),
        ({"topics": ["^t.*"], "in_order": True}, "cannot be consumed in order"),
        ({"in_order": True, "ordering": "partition"}, "only one of them"),
        ({"config": None}, "must be a dict"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_where_it_is_written(options: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"config": {}, "topics": ["t"], **options}

    with pytest.raises(DBOSInitializationError, match=words):
        DBOS.kafka_consumer(**given)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)

    with pytest.raises(DBOSException, match="dependency not found.*dbos-notebook.kafka"):
        DBOS.kafka_consumer({}, ["t"])


def test_its_configuration_is_not_shown(broker: Broker, topic: str) -> None:
    DBOS.kafka_consumer({**broker.config(topic), "sasl.password": "canary"}, [topic])(
        DBOS.workflow(name="w")(lambda message: None)
    )

    assert "canary" not in repr(list(registry.consumers.values()))
