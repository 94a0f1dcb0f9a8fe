"""kafka-python's consumers and producers as all of ours are, whoever opens them: what their guarantees rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kafka import KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from nlp_worker.connection import BOOTSTRAP_TIMEOUT_MS, client_settings, open_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nlp_worker.settings import Settings

#: Bytes of records that wait in the client, compressed as they came: what a backlog may cost in memory.
FETCH_MAX_BYTES: Final = 16 * 2**20

#: What every consumer of ours is; kafka-python's own defaults would lose requests (docs/design.md).
CONSUMER_SETTINGS: Final[Mapping[str, Any]] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "allow_auto_create_topics": False,
    # Eager assignors keep the position of a partition they take away and give back, so work that was given up in
    # between would never be fetched again.
    "partition_assignment_strategy": [CooperativeStickyAssignor],
    "isolation_level": "read_committed",
    "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
    # A broker that comes back is noticed within a second.
    "reconnect_backoff_max_ms": 1_000,
    "fetch_max_bytes": FETCH_MAX_BYTES,
    # How long an idle broker holds a fetch; it answers at once when there is a record.
    "fetch_max_wait_ms": 500,
}

#: Bytes. Kafka's largest request; the topics' own limits are what counts, and those are checked before sending.
MAX_REQUEST_SIZE: Final = 100 * 2**20

#: Milliseconds after which a send that is not acknowledged has failed: five times what a leader's failover takes.
DELIVERY_TIMEOUT_MS: Final = 60_000

#: Seconds above the delivery timeout after which a future is given up: the client leaves some unresolved for ever.
FUTURE_GRACE: Final = 5.0

#: Seconds for the client's threads to end; past that they are cut off, for with the broker down `close` never ends.
CLOSE_TIMEOUT: Final = 5.0

#: What every producer of ours is.
PRODUCER_SETTINGS: Final[Mapping[str, Any]] = {
    "acks": "all",
    "enable_idempotence": True,
    "allow_auto_create_topics": False,
    "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
    "delivery_timeout_ms": DELIVERY_TIMEOUT_MS,
    # A poll is published as a whole and flushed, so a batch has no reason to wait for more.
    "linger_ms": 0,
    # A partition has one batch at a time on its way: so few that a poll's answers need no further round trips, and what
    # a topic accepts by default.
    "batch_size": 2**20,
    "max_request_size": MAX_REQUEST_SIZE,
    # A broker that comes back is noticed within a second.
    "reconnect_backoff_max_ms": 1_000,
}


def open_consumer(settings: Settings, **own: Any) -> KafkaConsumer:
    """Return a consumer that has reached the broker.

    Raises:
        BrokerError: the broker cannot be reached.
        SettingsError: a setting under [kafka] or [kafka.consumer] cannot be used.
    """
    arguments = client_settings(settings, KafkaConsumer, {**CONSUMER_SETTINGS, **own}, settings.kafka.consumer)
    return open_client(KafkaConsumer, arguments, "kafka.consumer")


def producer_arguments(settings: Settings, limits: Iterable[int], **own: Any) -> dict[str, Any]:
    """Return a producer's settings, for topics that accept batches of these many bytes.

    Raises:
        SettingsError: a setting under [kafka] or [kafka.producer] cannot be used.
    """
    arguments = client_settings(settings, KafkaProducer, {**PRODUCER_SETTINGS, **own}, settings.kafka.producer)
    # A batch above a topic's limit is refused whole, and split only then.
    arguments["batch_size"] = min(arguments["batch_size"], *limits)
    return arguments


def open_producer(arguments: Mapping[str, Any]) -> KafkaProducer:
    """Return a producer of these `producer_arguments` that has reached the broker.

    Raises:
        BrokerError: the broker cannot be reached.
        SettingsError: a setting under [kafka] or [kafka.producer] cannot be used.
    """
    return open_client(KafkaProducer, arguments, "kafka.producer")


def close_producer(client: KafkaProducer, timeout: float) -> None:
    """Close a producer; what it still holds after `timeout` seconds is dropped."""
    try:
        client.close(timeout=timeout)
    except kafka_errors.KafkaError:
        # With the broker down the client's own `close` raises and closes nothing.
        client._sender.force_close()  # noqa: SLF001 - there is no other way to end its thread
