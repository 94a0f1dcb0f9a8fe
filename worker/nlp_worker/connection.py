"""What all our Kafka clients share: their settings, the check at start, and why the broker cannot be reached."""

from __future__ import annotations

import contextlib
import logging
import re
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import urlparse

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType
from pydantic import SecretStr

from nlp_worker.errors import BrokerError, SettingsError, TopicError
from nlp_worker.record_headers import accept_any_key
from nlp_worker.topic_problems import topic_problems

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from types import TracebackType

    from nlp_worker.poll import Commit, Partition
    from nlp_worker.settings import Settings

Found = TypeVar("Found")

#: Milliseconds. Two tries of a broker that is just starting; the client's own 30 s keep an operator waiting for a typo.
BOOTSTRAP_TIMEOUT_MS: Final = 10_000

#: Bytes of one batch of records, as Kafka's own `message.max.bytes`.
DEFAULT_MAX_MESSAGE_BYTES: Final = 1_048_588

#: Seconds until a new cluster has a coordinator for each group, and between two looks for it.
COORDINATOR_SECONDS: Final = 20.0
COORDINATOR_LOOK_SECONDS: Final = 0.2

#: Settings that name a file; kafka-python reads them at each attempt to connect and logs an error without the name.
FILE_SETTINGS: Final = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")

#: What lines of kafka-python's log say (regular expressions), the telling ones first, and where the operator looks.
CAUSES: Final = (
    ("certificate", "a TLS certificate is not accepted: see kafka.ssl_cafile, ssl_check_hostname and ssl_certfile"),
    ("UnsupportedSaslMechanism", "it does not offer the mechanism of kafka.sasl_mechanism"),
    ("SaslAuthenticationFailed", "it refused the user or the password: see kafka.sasl_plain_username and _password"),
    ("Handshake failed", "the TLS handshake failed: see kafka.security_protocol, the port may be one without TLS"),
    ("refused", "nothing listens there: see bootstrap_servers"),
    ("Name or service not known|DNS|getaddrinfo", "the host name is unknown: see bootstrap_servers"),
    # It told its version and closed. kafka-python drops an answer that arrives together with the end of the
    # connection, so why a login failed often cannot be known.
    (
        r"broker_version=\([^)]*\) \(\w+\)>: Connection lost: \w+: socket disconnected",
        "it closed the connection at the login: see kafka.security_protocol, sasl_mechanism, the user and the password",
    ),
    (
        "Invalid frame length|disconnected|Connection lost",
        "it closed the connection: see kafka.security_protocol, the port may be one with TLS",
    ),
)


def client_settings(
    settings: Settings, client: Any, own: Mapping[str, Any], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Merge the operator's settings of a client with the worker's own, in the types that the client expects.

    Raises:
        SettingsError: the client has no setting of that name, or a file that is named cannot be read.
    """
    known: Mapping[str, Any] = client.DEFAULT_CONFIG
    merged: dict[str, Any] = {"bootstrap_servers": settings.bootstrap_servers.split(","), **own}
    for name, value in {**settings.kafka.common, **extra}.items():
        if name in known:
            merged[name] = _typed(name, value, known[name])
        elif name in extra or not _known_anywhere(name):
            raise SettingsError(f"kafka: {client.__name__} has no setting {name!r}")
    _check_files(merged)
    _check_certificate(merged)
    _check_proxy(merged)
    return merged


def _check_files(merged: Mapping[str, Any]) -> None:
    for name in FILE_SETTINGS:
        if path := merged.get(name):
            try:
                Path(path).read_bytes()
            except OSError as error:
                raise SettingsError(f"kafka.{name}: {path} cannot be read: {error.strerror}") from None


def _check_certificate(merged: Mapping[str, Any]) -> None:
    """See that the client's certificate and its key can be used.

    The client loads them at each attempt to connect: an encrypted key without a password would ask the terminal for it.
    """
    certificate, key = merged.get("ssl_certfile"), merged.get("ssl_keyfile")
    if not certificate:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, merged.get("ssl_password") or "")
    except (OSError, ValueError):  # what OpenSSL says of a wrong password differs, and is never clear
        problem = "it does not open with ssl_password, or is not the key of ssl_certfile"
        raise SettingsError(f"kafka.ssl_keyfile: the key in {key or certificate} cannot be used: {problem}") from None


def _check_proxy(merged: Mapping[str, Any]) -> None:
    """See that a proxy's URL is one: the client quotes one that it cannot read, and with it the password."""
    for name in ("proxy_url", "socks5_proxy"):
        if url := merged.get(name):
            try:
                usable = bool(urlparse(url).scheme and urlparse(url).hostname and urlparse(url).port)
            except ValueError:
                usable = False
            if not usable:
                raise SettingsError(f"kafka.{name} is no URL such as socks5://user:password@host:1080")


def _known_anywhere(name: str) -> bool:
    return any(name in client.DEFAULT_CONFIG for client in (KafkaConsumer, KafkaProducer, KafkaAdminClient))


def _typed(name: str, value: Any, default: Any) -> Any:
    """Read text from the environment as the type of the client's default; what is secret is plain only from here on."""
    shown = repr(value)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if not isinstance(value, str) or isinstance(default, str) or default is None:
        return value
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[value.lower()]
        return type(default)(value) if isinstance(default, (int, float)) else value
    except (ValueError, KeyError):
        raise SettingsError(f"kafka.{name}: {shown} is not a {type(default).__name__}") from None


class _ClientLog(logging.Handler):
    """Keeps the client's log: it raises only "unable to bootstrap", and logs why."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self) -> Self:
        logging.getLogger("kafka").addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        logging.getLogger("kafka").removeHandler(self)

    def cause(self) -> str:
        for sign, meaning in CAUSES:
            if any(re.search(sign, line, re.IGNORECASE) for line in self.lines):
                return meaning
        return f"its last word was: {self.lines[-1]}" if self.lines else "it did not answer in time"


def connect(settings: Settings) -> KafkaAdminClient:
    """Return an admin client that has reached the broker.

    Raises:
        BrokerError: it cannot be reached, or refused us; the message says why.
        SettingsError: a setting under [kafka] cannot be used.
    """
    own = {"bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS, "client_id": "nlp-worker"}
    return open_client(KafkaAdminClient, client_settings(settings, KafkaAdminClient, own, {}), "kafka")


def open_client(kind: Any, arguments: Mapping[str, Any], section: str) -> Any:
    """Return a client of this kind that has reached the broker; `section` is where its settings are.

    Raises:
        BrokerError: it cannot be reached, or refused us; the message says why.
        SettingsError: a setting cannot be used.
    """
    accept_any_key()
    with _ClientLog() as client_log, contextlib.ExitStack() as undo:

        def network(**configs: Any) -> Any:
            # A constructor that fails leaves its thread and its sockets open.
            client = kind.DEFAULT_CONFIG["kafka_client"](**configs)
            undo.callback(client.close)
            return client

        try:
            client = kind(**arguments, kafka_client=network)
        except kafka_errors.KafkaTimeoutError:
            servers = ",".join(arguments["bootstrap_servers"])
            raise BrokerError(f"cannot use the broker at {servers}: {client_log.cause()}") from None
        except (kafka_errors.KafkaConfigurationError, OSError, ValueError, AssertionError) as error:
            raise SettingsError(f"{section}: {error}") from None
        undo.pop_all()
        return client


def of_group(call: Callable[[], Found], group: str) -> Found:
    """Return what the broker says of a group, when its coordinator is there: on a new cluster that takes a while.

    Raises:
        BrokerError: it said nothing in time.
        TopicError: the group may not be seen.
    """
    deadline = time.monotonic() + COORDINATOR_SECONDS
    while True:
        try:
            return call()
        except kafka_errors.GroupAuthorizationFailedError:
            raise TopicError(f"group {group} may not be seen: allow READ on it") from None
        except kafka_errors.KafkaError as error:
            if not isinstance(error, kafka_errors.RetriableError) or time.monotonic() > deadline:
                raise BrokerError(
                    f"the broker says nothing of group {group}: {type(error).__name__}: {error}"
                ) from None
            time.sleep(COORDINATOR_LOOK_SECONDS)


def kafka_offsets(offsets: Mapping[Partition, Commit]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return what is to be committed in kafka-python's own types."""
    return {
        TopicPartition(*partition): OffsetAndMetadata(commit.offset, commit.metadata)
        for partition, commit in offsets.items()
    }


def check_topics(admin: KafkaAdminClient, *, read: Collection[str], write: Collection[str]) -> None:
    """See that every topic exists and that we may do what we must.

    Without this a missing topic, or one that may not be read, looks like a topic without records for ever.

    Raises:
        TopicError: names each topic and what is wrong with it.
    """
    described = {topic["name"]: topic for topic in admin.describe_topics(sorted({*read, *write}))}
    wanted = [*((topic, "READ") for topic in read), *((topic, "WRITE") for topic in write)]
    if problems := topic_problems(described, wanted):
        raise TopicError("; ".join(problems))


def existing_topics(admin: KafkaAdminClient, topics: Iterable[str]) -> list[str]:
    """Return those of the topics that exist and may be seen."""
    described = {topic["name"]: topic["error_code"] for topic in admin.describe_topics(sorted(topics))}
    return [topic for topic in topics if described.get(topic) == kafka_errors.NoError.errno]


def count_partitions(admin: KafkaAdminClient, topics: Collection[str]) -> dict[str, int]:
    """Return the number of partitions of topics that exist."""
    described = admin.describe_topics(sorted(topics)) if topics else []
    return {str(topic["name"]): len(topic["partitions"]) for topic in described}


def max_message_bytes(admin: KafkaAdminClient, topics: Collection[str]) -> dict[str, int]:
    """Return the `max.message.bytes` of each topic, Kafka's default where it may not be read."""
    found = topic_configs(admin, topics)
    return {topic: int(found[topic].get("max.message.bytes", DEFAULT_MAX_MESSAGE_BYTES)) for topic in topics}


def partitions_of(admin: KafkaAdminClient, topics: Collection[str]) -> list[TopicPartition]:
    """Return all partitions of topics that exist."""
    counts = count_partitions(admin, topics)
    return [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]


def topic_configs(admin: KafkaAdminClient, topics: Collection[str]) -> dict[str, dict[str, str]]:
    """Return the settings of each topic, none where they may not be read."""
    found: dict[str, dict[str, str]] = {topic: {} for topic in topics}
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
    with contextlib.suppress(kafka_errors.KafkaError):
        for topic, configs in admin.describe_configs(resources, config_filter="all").get("topic", {}).items():
            found[topic] = {name: config["value"] for name, config in configs.items() if config["value"] is not None}
    return found
