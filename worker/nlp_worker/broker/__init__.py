"""A small Kafka broker for development and tests; it keeps nothing."""

from nlp_worker.broker.embedded import EmbeddedBroker

__all__ = ["EmbeddedBroker"]
