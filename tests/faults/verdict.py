"""What is wrong with the answers to requests: the judgement of the ledger."""

from __future__ import annotations

import contextlib
import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from faults.reading import Seen


class Source(NamedTuple):
    """Where a request stands: what its answer and its dead letter name."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}-{self.offset}"


class Verdict(NamedTuple):
    """What is wrong; nothing is, where it equals CLEAN."""

    lost: tuple[str, ...] = ()
    """Acknowledged requests without an answer, and error answers without their dead letter."""
    invented: tuple[str, ...] = ()
    """Answers and dead letters of what was not asked, or with another's key or id."""
    lag: int = 0
    """Requests up to the end that the group has not committed."""
    dup: tuple[str, ...] = ()
    """Answers and dead letters beyond the first of a request, each as often as there are too many."""
    order: tuple[str, ...] = ()
    """Answers that first appear after the answer of a later request of the same key."""
    unstable: tuple[str, ...] = ()
    """Partitions that end in an open transaction: readers with read_committed wait."""
    disagreed: tuple[str, ...] = ()
    """Records that were read while they were written, or at the end, but not both times."""


CLEAN: Final = Verdict()


def source_of(seen: Seen) -> Source:
    """Return where the request of an answer or a dead letter stands."""
    if seen.topic.endswith(".results"):
        return Source(**json.loads(seen.value or b"")["source"])
    headers = dict(seen.headers)
    named = {name: headers[f"nlp-dead-letter-{name}"].decode() for name in Source._fields}
    return Source(named["topic"], int(named["partition"]), int(named["offset"]))


def lost(acknowledged: Collection[Source], answers: Collection[Seen], letters: Collection[Seen]) -> Iterator[str]:
    answered = {source_of(seen): json.loads(seen.value or b"") for seen in answers}
    kept = {source_of(seen) for seen in letters}
    for source in sorted(acknowledged):
        if source not in answered:
            yield str(source)
    for source, answer in sorted(answered.items()):
        # What came too late is nobody's fault to look into: it has no dead letter.
        if answer["status"] == "error" and answer["error"]["code"] != "deadline_exceeded" and source not in kept:
            yield f"dead letter of {source}"


def asked(seen: Seen, inputs: dict[Source, Seen]) -> bool:
    request = inputs.get(source_of(seen))
    if request is None or request.key != seen.key:
        return False
    if seen.topic.endswith(".results"):
        return bool(json.loads(seen.value or b"")["id"] == _id_of(request))
    return request.value == seen.value


def _id_of(request: Seen) -> str:
    with contextlib.suppress(ValueError):
        value = json.loads(request.value or b"")
        if isinstance(value, dict) and isinstance(value.get("id"), str):
            return str(value["id"])
    return str(Source(*request[:3]))


def repeated(outputs: Collection[Seen]) -> list[str]:
    counts = Counter((seen.topic, source_of(seen)) for seen in outputs)
    return [f"{topic} {source}" for (topic, source), count in sorted(counts.items()) for _ in range(count - 1)]


def out_of_order(answers: Collection[Seen]) -> list[str]:
    """Compare where there is an order: a key's requests of one partition, and their answers in one partition."""
    firsts: dict[Any, list[Source]] = defaultdict(list)
    known: set[Source] = set()
    for seen in answers:
        source = source_of(seen)
        if source not in known and seen.key is not None:
            firsts[seen.key, source.partition, seen.partition].append(source)
        known.add(source)
    late = []
    for sources in firsts.values():
        latest = sources[0]
        for source in sources:
            latest = max(latest, source)
            if source < latest:
                late.append(str(source))
    return late
