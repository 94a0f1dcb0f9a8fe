"""The demo's producer and its reader: an id for every request, and a ledger of what came back."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from nlp_schemas import RESULT, ErrorResult, TaskName, requests_topic, results_topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlp_schemas import Ok
    from nlp_worker.demo.toys import Toy

#: Milliseconds that the reader waits for answers before it looks whether it shall stop.
READ_MS: Final = 200


class Asked(NamedTuple):
    """A request, and what it is expected to be answered."""

    task: TaskName
    toy: Toy


class Traffic:
    """Submits requests at a steady rate and reads the answers, each on its own thread."""

    def __init__(self, bootstrap_servers: str, asked: Sequence[Asked], rate: float) -> None:
        self.asked = {f"{one.task}-{number}": one for number, one in enumerate(asked)}
        self.submitted = 0
        self.answers: Counter[str] = Counter()
        self.results: dict[str, Ok] = {}
        self._servers = bootstrap_servers
        self._rate = rate
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._submit, self._read)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def lost(self) -> int:
        return self.submitted - len(self.answers)

    @property
    def repeated(self) -> int:
        return self.answers.total() - len(self.answers)

    @property
    def complete(self) -> bool:
        return len(self.answers) == len(self.asked)

    def answered(self) -> dict[TaskName, tuple[int, int]]:
        """Return for each task how many requests were answered, and how many there are."""
        answered = Counter(self.asked[one].task for one in list(self.answers))
        return {task: (answered[task], count) for task, count in Counter(a.task for a in self.asked.values()).items()}

    def _submit(self) -> None:
        producer = KafkaProducer(bootstrap_servers=self._servers, linger_ms=5)
        began = time.monotonic()
        for number, (name, (task, toy)) in enumerate(self.asked.items()):
            request: dict[str, Any] = {"id": name, "inputs": toy.inputs}
            if toy.parameters:
                request["parameters"] = toy.parameters
            producer.send(requests_topic(task), value=json.dumps(request).encode(), key=str(number).encode())
            self.submitted = number + 1
            if self._stop.wait(max(began + number / self._rate - time.monotonic(), 0)):
                break
        producer.flush()
        producer.close()

    def _read(self) -> None:
        topics = {results_topic(one.task) for one in self.asked.values()}
        reader = KafkaConsumer(*topics, bootstrap_servers=self._servers, auto_offset_reset="earliest")
        while not self._stop.is_set():
            for records in reader.poll(READ_MS).values():
                for record in records:
                    self._note(record.value)
        reader.close()

    def _note(self, value: bytes) -> None:
        answer = RESULT.validate_json(value)
        self.answers[answer.id] += 1
        if not isinstance(answer, ErrorResult):
            self.results.setdefault(answer.id, answer)


def lag(admin: KafkaAdminClient, group: str, submitted: int) -> int:
    """Return the requests that are submitted and not yet committed."""
    offsets: dict[Any, Any] = admin.list_group_offsets(group).get(group, {})
    return submitted - sum(max(int(offset.offset), 0) for offset in offsets.values())
