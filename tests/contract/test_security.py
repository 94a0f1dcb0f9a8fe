"""A secured Apache Kafka that refuses the worker: the worker names the cause, and where it is set."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import signal
import uuid
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ACLOperation, ACLResourcePatternType, ResourceType
from kafka.errors import TransactionalIdAuthorizationFailedError
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.structs import ConsumerGroupMetadata

from apache_kafka import why_not
from clients import PATIENCE, received
from nlp_worker.connection import DEFAULT_MAX_MESSAGE_BYTES, check_topics, client_settings, connect, open_client
from nlp_worker.errors import BrokerError, ExitCode, SettingsError, TopicError
from nlp_worker.poll import Commit, Partition
from nlp_worker.settings import load_settings
from nlp_worker.transactions import TransactionalPublisher
from processes import Topics, WorkerProcess
from secure_kafka import KEY_PASSWORD, MECHANISMS, OPENSSL, SecureKafka

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nlp_worker.settings import Settings

pytestmark = pytest.mark.kafka

#: Milliseconds: some tries of a broker that refuses each of them at once.
BOOTSTRAP_MS = 1_000

#: A password that is nobody's, and that no other word of a log has in it.
WRONG = secrets.token_hex(8)


class NoTokens(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python is untyped
    """What OAUTHBEARER needs before it is refused."""

    def token(self) -> str:
        return ""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def secure_kafka(certificates: Path) -> Iterator[SecureKafka]:
    """One broker of our own for all tests; where there can be none they skip or fail as those with `real_kafka`."""
    if "KAFKA_BOOTSTRAP" in os.environ:
        pytest.skip("the broker of KAFKA_BOOTSTRAP has users and rights of its own")
    if (reason := why_not()) is not None:
        if os.environ.get("REQUIRE_KAFKA") == "1":
            pytest.fail(f"no Apache Kafka: {reason}")
        pytest.skip(f"no Apache Kafka: {reason}")
    if OPENSSL is None:
        pytest.skip("no certificates: openssl is missing")
    with SecureKafka(certificates) as broker:
        yield broker


class SecureTopics(Topics):
    """Topics of which the user `worker` may do nothing yet, with a producer and a reader that log in as `admin`."""

    def __init__(self, broker: SecureKafka) -> None:
        self.prefix = f"test-{uuid.uuid4().hex[:8]}"
        self.servers = broker.bootstrap_servers
        for kind in ("requests", "results", "dead-letter"):
            broker.create_topic(self.name(kind))
        admin = broker.credentials("admin")
        login = {
            "bootstrap.servers": self.servers,
            "security.protocol": admin["security_protocol"],
            "sasl.mechanism": admin["sasl_mechanism"],
            "sasl.username": admin["sasl_plain_username"],
            "sasl.password": admin["sasl_plain_password"],
            "ssl.ca.location": admin["ssl_cafile"],
        }
        self._producer = Producer(login)
        self._reader = Consumer(login | {"group.id": f"{self.prefix}-reader", "auto.offset.reset": "earliest"})
        self.answers = defaultdict(list)
        self.dead_letters = []


def settings(broker: SecureKafka, **kafka: Any) -> Settings:
    options = {"bootstrap_servers": broker.bootstrap_servers}
    return load_settings(options | {"kafka": {"bootstrap_timeout_ms": BOOTSTRAP_MS, **kafka}})


def environment(kafka: dict[str, Any]) -> dict[str, str]:
    return {f"NLP_WORKER_KAFKA__{name.upper()}": str(value) for name, value in kafka.items()}


def allow_topics(broker: SecureKafka, topics: Topics) -> None:
    """Allow what docs/running.md asks for, but for the group."""
    broker.allow(ResourceType.TOPIC, topics.name("requests"), ACLOperation.READ)
    for kind in ("results", "dead-letter"):
        broker.allow(ResourceType.TOPIC, topics.name(kind), ACLOperation.WRITE)


def secret_file(folder: Path, secret: str) -> str:
    """Write a secret the way Docker and Kubernetes hand it over; an editor leaves a new line behind it."""
    path = folder / "secret"
    path.write_text(f"{secret}\n", encoding="ascii")
    return str(path)


@pytest.mark.parametrize("login", ["password", "certificate"])
def test_a_worker_answers_with_no_more_than_its_rights(
    secure_kafka: SecureKafka, tiny_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], login: str
) -> None:
    """READ on the requests and on the group, WRITE on the results and the dead letters: nothing else is needed.

    The secret is read from a file, and stands in nothing that the worker prints at log level debug: with SASL PLAIN,
    where the password itself is sent, and with mutual TLS, whose secret is the password of the client's key.
    """
    with SecureTopics(secure_kafka) as topics:
        allow_topics(secure_kafka, topics)
        secure_kafka.allow(ResourceType.GROUP, topics.prefix, ACLOperation.READ)
        if login == "password":
            kafka, name = secure_kafka.credentials("worker", "PLAIN"), "sasl_plain_password"
        else:
            kafka, name = secure_kafka.certificate(), "ssl_password"
            topics.servers = secure_kafka.mutual_bootstrap_servers
        secret = kafka.pop(name)
        given = environment(kafka | {f"{name}_file": secret_file(tmp_path, secret)})
        with WorkerProcess(topics, tiny_checkpoint, tmp_path, "--log-level", "debug", **given) as worker:
            topics.send([{"id": "good", "inputs": "a good day"}, {"id": "bad", "inputs": 5}])
            topics.read_until(lambda: len(topics.answers) == 2 and len(topics.dead_letters) == 1, worker)
            assert [topics.answers[name][0]["status"] for name in ("good", "bad")] == ["ok", "error"]
            worker.process.send_signal(signal.SIGTERM)
            assert worker.end() == ExitCode.DRAINED
    printed = worker.log() + capfd.readouterr().out
    # kafka-python's own lines are among them.
    assert ("Connected" in printed, secret in printed) == (True, False)


@pytest.mark.parametrize("login", [*MECHANISMS, "certificate"])
def test_both_clients_of_a_worker_log_in(secure_kafka: SecureKafka, login: str) -> None:
    """By every mechanism, and by mutual TLS: what the producer sends the consumer reads, as the user `worker`."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    secure_kafka.create_topic(name)
    for operation in (ACLOperation.READ, ACLOperation.WRITE):
        secure_kafka.allow(ResourceType.TOPIC, name, operation)
    kafka = secure_kafka.certificate() if login == "certificate" else secure_kafka.credentials("worker", login)
    servers = secure_kafka.mutual_bootstrap_servers if login == "certificate" else secure_kafka.bootstrap_servers
    using = load_settings({"bootstrap_servers": servers, "kafka": kafka})
    earliest = {"auto_offset_reset": "earliest"}
    with (
        contextlib.closing(open_client(KafkaProducer, client_settings(using, KafkaProducer, {}, {}), "")) as producer,
        contextlib.closing(
            open_client(KafkaConsumer, client_settings(using, KafkaConsumer, earliest, {}), "")
        ) as reader,
    ):
        producer.send(name, b"value").get(PATIENCE)
        reader.assign([TopicPartition(name, 0)])
        assert [record.value for record in received(reader, 1)] == [b"value"]


def test_a_transactional_id_is_allowed_by_its_prefix(secure_kafka: SecureKafka) -> None:
    """WRITE on ids that begin with the group's name is enough for a transaction, and one of another name is refused."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    secure_kafka.create_topic(name)
    secure_kafka.allow(ResourceType.TOPIC, name, ACLOperation.WRITE)
    prefixed = ACLResourcePatternType.PREFIXED
    secure_kafka.allow(ResourceType.TRANSACTIONAL_ID, f"{name}/", ACLOperation.WRITE, prefixed)
    login = {"bootstrap_servers": secure_kafka.bootstrap_servers, **secure_kafka.credentials("worker")}
    with contextlib.closing(KafkaProducer(**login, transactional_id=f"{name}/1")) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(name, b"value")
        producer.commit_transaction()
    with (
        contextlib.closing(KafkaProducer(**login, transactional_id=f"other-{name}")) as producer,
        pytest.raises(TransactionalIdAuthorizationFailedError),
    ):
        producer.init_transactions()


def test_a_transaction_names_the_right_that_is_missing(secure_kafka: SecureKafka) -> None:
    """As where READ on the group is taken away from a worker: no retry mends that, and it is not tried for minutes."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    secure_kafka.allow(ResourceType.TRANSACTIONAL_ID, f"{name}/", ACLOperation.WRITE, ACLResourcePatternType.PREFIXED)
    using, offsets = settings(secure_kafka, **secure_kafka.credentials("worker")), {Partition(name, 0): Commit(1)}
    publisher = TransactionalPublisher(using, lambda: {name: DEFAULT_MAX_MESSAGE_BYTES}, f"{name}/1")
    with contextlib.closing(publisher), pytest.raises(TopicError, match="READ on the group is not allowed"):
        publisher.transact([], offsets, ConsumerGroupMetadata(name, -1, "", None), PATIENCE)


def test_a_worker_without_the_right_on_its_group_ends(
    secure_kafka: SecureKafka, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Only joining the group shows it; the worker ends instead of waiting for records that never come."""
    with SecureTopics(secure_kafka) as topics:
        allow_topics(secure_kafka, topics)
        login = environment(secure_kafka.credentials("worker"))
        with WorkerProcess(topics, tiny_checkpoint, tmp_path, **login) as worker:
            assert worker.end() == ExitCode.TOPICS, worker.log()[-2000:]
    told = worker.log().splitlines()[-1]
    assert ("READ on the group is not allowed: allow it" in told, topics.prefix in told) == (True, True)


def test_a_worker_with_a_wrong_password_ends(
    secure_kafka: SecureKafka, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A named exit code and one line with the cause, before any checkpoint is looked for, and without the password."""
    with SecureTopics(secure_kafka) as topics:
        wrong = secure_kafka.credentials("worker", "PLAIN") | {"bootstrap_timeout_ms": BOOTSTRAP_MS}
        given = environment(wrong | {"sasl_plain_password": WRONG})
        with WorkerProcess(topics, tmp_path / "none", tmp_path, "--log-level", "debug", **given) as worker:
            assert worker.end() == ExitCode.BROKER
    assert "password" in worker.log().splitlines()[-1]
    assert WRONG not in worker.log() + capfd.readouterr().out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sasl_plain_password": WRONG}, "the password"),
        ({"sasl_plain_username": "nobody"}, "the user"),
        ({"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": NoTokens()}, "sasl_mechanism"),
        ({"security_protocol": "PLAINTEXT"}, "see kafka.security_protocol, the port may be one with TLS"),
        ({"security_protocol": "SASL_PLAINTEXT"}, "see kafka.security_protocol, the port may be one with TLS"),
        ({"security_protocol": "SSL"}, "at the login: see kafka.security_protocol"),
    ],
    ids=["password", "user", "mechanism", "plaintext", "login-without-tls", "tls-without-login"],
)
def test_a_refused_connection_names_its_cause(secure_kafka: SecureKafka, change: dict[str, Any], told: str) -> None:
    """kafka-python raises "unable to bootstrap" for each of these; we name the setting to look at."""
    with pytest.raises(BrokerError) as refused:
        connect(settings(secure_kafka, **secure_kafka.credentials("worker") | change))
    assert told in str(refused.value)


# kafka-python drops the socket of a handshake that failed without closing it.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("side", ["broker", "worker"])
def test_a_certificate_that_is_not_accepted_is_told(
    secure_kafka: SecureKafka, certificates: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """The broker's is of an authority that ssl_cafile does not have; or the worker shows none where it has to."""
    monkeypatch.setattr(logging.getLogger("kafka"), "propagate", False)  # pytest keeps records, and those the sockets
    if side == "broker":
        login = secure_kafka.credentials("worker") | {"ssl_cafile": str(certificates / "other-ca.pem")}
        servers = secure_kafka.bootstrap_servers
    else:
        login = {"security_protocol": "SSL", "ssl_cafile": str(certificates / "ca.pem")}
        servers = secure_kafka.mutual_bootstrap_servers
    kafka = login | {"bootstrap_timeout_ms": BOOTSTRAP_MS}
    with pytest.raises(BrokerError, match=r"a TLS certificate is not accepted: see kafka\.ssl_cafile"):
        connect(load_settings({"bootstrap_servers": servers, "kafka": kafka}))
    gc.collect()  # their warnings come now, not in a later test


@pytest.mark.parametrize(
    "change",
    [{"ssl_password": WRONG}, {"ssl_password": None}, {"ssl_keyfile": None}],
    ids=["wrong-password", "no-password", "no-key"],
)
def test_a_key_that_does_not_open_is_told(secure_kafka: SecureKafka, change: dict[str, Any]) -> None:
    """Before the client loads it at each attempt to connect, where OpenSSL would ask the terminal for a password."""
    with pytest.raises(SettingsError, match=r"kafka\.ssl_keyfile: the key in .*worker\.\w+ cannot be used") as raised:
        connect(settings(secure_kafka, **secure_kafka.certificate() | change))
    assert (WRONG in str(raised.value), KEY_PASSWORD in str(raised.value)) == (False, False)


@pytest.mark.parametrize("name", ["ssl_cafile", "ssl_certfile"])
def test_a_missing_file_is_told_by_its_name(secure_kafka: SecureKafka, tmp_path: Path, name: str) -> None:
    """It is a mistake in the settings, and no refusal of the broker."""
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(SettingsError, match=f"kafka.{name}: {missing} cannot be read: No such file"):
        connect(settings(secure_kafka, **secure_kafka.credentials("worker") | {name: missing}))


@pytest.mark.parametrize(
    ("kind", "allowed", "told"),
    [
        ("requests", None, "topic {} may not be seen: allow READ on it"),
        ("requests", ACLOperation.DESCRIBE, "topic {} does not allow READ: allow it"),
        ("results", None, "topic {} may not be seen: allow WRITE on it"),
        ("results", ACLOperation.READ, "topic {} does not allow WRITE: allow it"),
        ("requests", ACLOperation.ALL, None),
    ],
    ids=["requests-unseen", "requests-unread", "results-unseen", "results-unwritten", "all"],
)
def test_a_missing_right_on_a_topic_is_told_before_the_start(
    secure_kafka: SecureKafka, kind: str, allowed: ACLOperation | None, told: str | None
) -> None:
    """Without the check the worker would wait for ever, or lose its first answers; the right on ALL is enough."""
    topic = f"test-{uuid.uuid4().hex[:8]}.{kind}"
    secure_kafka.create_topic(topic)
    if allowed is not None:
        secure_kafka.allow(ResourceType.TOPIC, topic, allowed)
    read, write = ([topic], []) if kind == "requests" else ([], [topic])
    with contextlib.closing(connect(settings(secure_kafka, **secure_kafka.credentials("worker")))) as admin:
        if told is None:
            check_topics(admin, read=read, write=write)
            return
        with pytest.raises(TopicError) as refused:
            check_topics(admin, read=read, write=write)
    assert str(refused.value) == told.format(topic)
