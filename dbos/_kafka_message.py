"""The path under which stored pickles name `KafkaMessage`; it lives in `dbos._hooks.kafka`."""

from dbos._hooks.kafka import KafkaMessage

__all__ = ["KafkaMessage"]
