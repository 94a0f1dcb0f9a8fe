"""What only the embedded broker can show: its refusals, its limits, its life. The rest is in tests/contract."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import confluent_kafka
import psutil
import pytest
from kafka.errors import KafkaError
from kafka.producer import KafkaProducer
from kafka.protocol.metadata import ApiVersionsRequest, FindCoordinatorRequest, MetadataRequest
from kafka.protocol.producer import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)

from nlp_worker.broker import EmbeddedBroker
from wire import PATIENCE, Wire, batch, fetch_request, idempotent, join_request, produce_request, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_TXN = 53  # TRANSACTIONAL_ID_AUTHORIZATION_FAILED


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(topics={"t": 1}) as broker:
        yield broker


@pytest.fixture
def wire(broker: EmbeddedBroker) -> Iterator[Wire]:
    with Wire(broker) as wire:
        yield wire


def test_every_transaction_api_is_refused(wire: Wire) -> None:
    """No request of a transaction gets through, whichever a client starts with."""
    ids = {"transactional_id": "x", "producer_id": 1, "producer_epoch": 0}
    init = InitProducerIdRequest(transactional_id="x", transaction_timeout_ms=1_000)
    assert wire.ask(init, 4).error_code == NO_TXN
    find = FindCoordinatorRequest(key_type=1, coordinator_keys=["x"])
    assert wire.ask(find, 4).coordinators[0].error_code == NO_TXN
    assert wire.ask(AddOffsetsToTxnRequest(group_id="g", **ids), 3).error_code == NO_TXN
    assert wire.ask(EndTxnRequest(committed=True, **ids), 3).error_code == NO_TXN
    add_topic = AddPartitionsToTxnRequest.AddPartitionsToTxnTopic(name="t", partitions=[0])
    add = AddPartitionsToTxnRequest(
        v3_and_below_topics=[add_topic], **{f"v3_and_below_{name}": value for name, value in ids.items()}
    )
    topics = wire.ask(add, 3).results_by_topic_v3_and_below
    assert topics[0].results_by_partition[0].partition_error_code == NO_TXN
    commit_topic = TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic
    partition = commit_topic.TxnOffsetCommitRequestPartition(partition_index=0, committed_offset=1)
    commit = TxnOffsetCommitRequest(group_id="g", topics=[commit_topic(name="t", partitions=[partition])], **ids)
    assert wire.ask(commit, 3).topics[0].partitions[0].error_code == NO_TXN
    assert wire.produce(idempotent(0, transactional=True)).error_code == 48


def test_transactional_clients_fail_at_once(broker: EmbeddedBroker) -> None:
    """Both clients take the refusal as final; neither waits or tries again."""
    started = time.monotonic()
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id="x")
    with pytest.raises(KafkaError):
        producer.init_transactions()
    producer.close()
    other = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": "x"})
    with pytest.raises(confluent_kafka.KafkaException):
        other.init_transactions(PATIENCE)
    assert time.monotonic() - started < PATIENCE


def test_damaged_records_are_refused(wire: Wire) -> None:
    """A batch with one flipped bit, cut short, doubled or absent is not stored."""
    good = batch()
    damaged = good[:-1] + bytes([good[-1] ^ 1])
    assert wire.produce(damaged).error_code == 2
    assert wire.produce(good[:-1]).error_code == 2
    assert wire.produce(None).error_code == 2
    assert wire.produce(good + good).error_code == 87
    assert wire.end_offset() == 0
    assert wire.produce(good).error_code == 0


def test_the_checksum_survives_the_broker(wire: Wire) -> None:
    """The broker writes its offsets into a batch and leaves what the checksum covers alone."""
    first, second = batch(values=3), batch(size=20)
    wire.produce(first)
    wire.produce(second)
    response = wire.ask(fetch_request(3, 0), 12)
    data = response.responses[0].partitions[0].records
    assert data[:8] == (3).to_bytes(8)
    assert data[16:] == second[16:]


def test_a_repeated_batch_is_stored_once(wire: Wire) -> None:
    """A producer whose ack got lost is told the offset of the first time."""
    assert [wire.produce(idempotent(n)).base_offset for n in range(6)] == [0, 1, 2, 3, 4, 5]
    repeated = wire.produce(idempotent(1))
    assert (repeated.error_code, repeated.base_offset) == (0, 1)
    assert wire.end_offset() == 6
    assert wire.produce(idempotent(0)).error_code == 45, "only the last five batches are remembered"


def test_a_gap_in_the_sequence_is_refused(wire: Wire) -> None:
    """A batch that comes before its predecessor is refused, until the predecessor is there."""
    wire.produce(idempotent(0, values=2))
    assert wire.produce(idempotent(3)).error_code == 45
    assert wire.produce(idempotent(2)).error_code == 0
    assert wire.produce(idempotent(3)).error_code == 0


def test_an_old_producer_epoch_is_refused(wire: Wire) -> None:
    """A new epoch starts its sequence anew and shuts the old one out."""
    wire.produce(idempotent(0))
    assert wire.produce(idempotent(1, epoch=1)).error_code == 45
    assert wire.produce(idempotent(0, epoch=1)).error_code == 0
    assert wire.produce(idempotent(1, epoch=0)).error_code == 47


def test_no_acks_means_no_answer(wire: Wire) -> None:
    """With acks=0 the next thing on the connection is the answer to the next request."""
    wire.post(produce_request(batch(), acks=0), 9)
    assert wire.end_offset() == 1


def test_a_fetch_is_woken_by_an_append(broker: EmbeddedBroker, wire: Wire) -> None:
    """A long poll ends with the first record, not with its time."""
    request = fetch_request(0, max_wait_ms=60_000)
    wire.post(request, 12)
    with Wire(broker) as other:
        other.produce(batch())
    assert wire.read(request, 12).responses[0].partitions[0].high_watermark == 1


def test_offsets_are_found_by_time(wire: Wire) -> None:
    """The first record not older than asked for, inside its batch; -1 where there is none."""
    wire.produce(batch(values=3, timestamp=1_000))
    wire.produce(batch(values=3, timestamp=2_000))
    assert [wire.end_offset(at) for at in (0, 1_001, 1_500, 2_002, 2_003)] == [0, 1, 3, 5, -1]
    assert [wire.end_offset(at) for at in (-1, -2, -3)] == [6, 0, 5]


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\x00\x00\x00\x10" + bytes(range(200, 216)), id="unknown API"),
        pytest.param(b"\x7f\xff\xff\xff", id="too long"),
        pytest.param(b"\xff\xff\xff\xff", id="negative length"),
        pytest.param(b"\x00\x00\x00\x01\x00", id="too short for a header"),
        pytest.param(b"\x00\x00\x00\x0c\x00\x00\x00\x09\x00\x00\x00\x01\xff\xff\x00\x00", id="cut off"),
        pytest.param(b"\x00\x00\x00\x0a\x00\x00\x00\x63\x00\x00\x00\x01\xff\xff", id="unknown version"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
    ],
)
def test_garbage_ends_its_connection_alone(
    broker: EmbeddedBroker, wire: Wire, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Nonsense closes the connection it came over, with one line in the log; the others go on."""
    with Wire(broker) as hostile:
        hostile.socket.sendall(garbage)
        with pytest.raises(ConnectionError):
            hostile.receive()
    assert wire.produce(batch()).error_code == 0
    lines = [record for record in caplog.records if "closing a connection" in record.message]
    assert [record.levelno for record in lines] == [logging.WARNING]


def test_a_newer_client_is_told_the_versions(wire: Wire) -> None:
    """ApiVersions beyond what is offered is answered in version 0 with UNSUPPORTED_VERSION and the offer (KIP-511)."""
    wire.post(ApiVersionsRequest(client_software_name="new", client_software_version="9"), 4)
    answer = wire.receive()
    assert answer[4:6] == (35).to_bytes(2)
    assert (18).to_bytes(2) + (0).to_bytes(2) + (3).to_bytes(2) in answer


def test_missing_topics_are_created_only_where_that_is_wanted() -> None:
    """auto_create_partitions decides, and a client may still decline."""
    name = MetadataRequest.MetadataRequestTopic(name="new")
    for setting, allowed, partitions in ((None, True, 0), (3, False, 0), (3, True, 3)):
        with EmbeddedBroker(auto_create_partitions=setting) as broker, Wire(broker) as wire:
            topic = wire.ask(MetadataRequest(topics=[name], allow_auto_topic_creation=allowed), 12).topics[0]
        assert (topic.error_code, len(topic.partitions)) == (0 if partitions else 3, partitions)


def test_a_port_that_is_taken_is_an_os_error(broker: EmbeddedBroker) -> None:
    """The caller gets the error itself, from both ways to start."""
    port = int(broker.bootstrap_servers.split(":")[1])
    second = EmbeddedBroker(port=port)
    with pytest.raises(OSError, match="in use"):
        second.__enter__()
    with pytest.raises(OSError, match="in use"):
        second.run()


def test_it_listens_on_loopback_alone(broker: EmbeddedBroker) -> None:
    """A broker that checks nobody is not reachable from elsewhere."""
    port = int(broker.bootstrap_servers.split(":")[1])
    listening = [
        connection.laddr.ip
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    ]
    assert listening == ["127.0.0.1"]


def test_it_says_loudly_what_it_is(broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody takes it for a real broker by mistake."""
    with caplog.at_level(logging.WARNING), EmbeddedBroker() as other:
        wait_until(lambda: "FOR DEVELOPMENT ONLY" in caplog.text and other.bootstrap_servers in caplog.text)
    assert other.bootstrap_servers != broker.bootstrap_servers


def test_it_stops_while_requests_wait() -> None:
    """Parked joins and long polls do not hold up the end; their connections are closed."""
    with EmbeddedBroker(topics={"t": 1}) as broker, Wire(broker) as joining, Wire(broker) as fetching:
        joining.sync(joining.join_twice(), b"all")
        joining.post(join_request(60_000, 60_000, instance_id="new"), 7)
        fetching.post(fetch_request(0, 60_000), 12)
        broker.__exit__(None, None, None)
        for waiting in (joining, fetching):
            with pytest.raises(ConnectionError):
                waiting.receive()


def test_in_the_foreground_it_runs_until_it_is_told_to_stop() -> None:
    """SIGTERM ends `run` orderly."""
    program = "from nlp_worker.broker import EmbeddedBroker; EmbeddedBroker(topics={'t': 1}).run()"
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "FOR DEVELOPMENT ONLY" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
