"""Labelled rows from a Kafka topic: all that stands in it when the command begins, in a group of nobody."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

from nlp_worker import connection
from nlp_worker.record_ranges import Position, RangeReader
from nlp_worker.training.examples import Row
from nlp_worker.training.problems import Kind, Problem
from nlp_worker.training.sources import NO_OBJECT, Rows, not_json

if TYPE_CHECKING:
    from nlp_worker.poll import Record
    from nlp_worker.settings import Settings

#: What the names of topics of labels end with (nlp_schemas.labels.labels_topic).
SUFFIX: Final = ".labels"


def read_topic(settings: Settings, topic: str) -> Rows:
    """Read a topic from its beginning to where it ends now; what comes while it is read waits for the next time.

    A record without a value takes back the label whose id is the record's key.

    Raises:
        BrokerError: the broker cannot be reached, or stopped answering.
        TopicError: the topic is missing, not allowed, or cannot be read.
    """
    with contextlib.closing(connection.connect(settings)) as admin:
        connection.check_topics(admin, read=[topic], write=[])
        partitions = connection.partitions_of(admin, [topic])
    rows: list[tuple[int, Row | Problem]] = []
    with contextlib.closing(RangeReader(settings)) as reader:
        starts, ends = reader.offsets(partitions)
        for partition in sorted(partitions):
            # Of a partition's records the offset says which is later, whatever its producers' clocks say.
            latest = 0
            for record in reader.records(partition, starts[partition], ends[partition]):
                latest = max(latest, record.timestamp)
                rows.append((latest, _row(record)))
    rows.sort(key=lambda row: row[0])
    return Rows(topic, [row for _, row in rows])


def _row(record: Record) -> Row | Problem:
    place = str(Position(record.topic, record.partition, record.offset))
    if record.value is None:
        return Row(place, None, (record.key or b"").decode(errors="replace"))
    try:
        columns: Any = json.loads(record.value)
    except (ValueError, RecursionError) as error:
        return Problem(Kind.UNREADABLE, place, not_json(error))
    if not isinstance(columns, dict):
        return Problem(Kind.UNREADABLE, place, NO_OBJECT)
    return Row(place, columns, place)
