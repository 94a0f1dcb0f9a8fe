"""The demo's producer and its reader: an id for every request, and a ledger of what came back."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from nlp_schemas import RESULT, ErrorResult, TaskName, requests_topic, results_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nlp_schemas import Ok
    from nlp_worker.demo.toys import Toy

#: Milliseconds that the reader waits for answers before it looks whether it shall stop.
READ_MS: Final = 200


class Asked(NamedTuple):
    """A request, and what it is expected to be answered."""

    task: TaskName
    toy: Toy


class Traffic:
    """Submits requests at a steady rate and reads the answers, each on its own thread.

    Args:
        bootstrap_servers: Of the broker.
        requests: In their order.
        rate: Requests a second.
        endless: Whether to begin again behind the last one, until `end`.
        heard: Told the first answer to each request, on the reader's thread.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        requests: Sequence[Asked],
        rate: float,
        *,
        endless: bool = False,
        heard: Callable[[Asked, Ok], None] = lambda _asked, _answer: None,
    ) -> None:
        self.asked: dict[str, Asked] = {}
        self.submitted = 0
        self.answers: Counter[str] = Counter()
        self.results: dict[str, Ok] = {}
        self._servers = bootstrap_servers
        self._requests = requests
        self._rate = rate
        self._endless = endless
        self._heard = heard
        self._end = threading.Event()
        self._stop = threading.Event()
        self._submitting = threading.Thread(target=self._submit, daemon=True)
        self._reading = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        self._submitting.start()
        self._reading.start()

    def end(self) -> None:
        """Submit nothing more; what is submitted is still waited for."""
        self._end.set()
        self._submitting.join()

    def stop(self) -> None:
        self.end()
        self._stop.set()
        self._reading.join()

    @property
    def lost(self) -> int:
        return self.submitted - len(self.answers)

    @property
    def repeated(self) -> int:
        return self.answers.total() - len(self.answers)

    @property
    def complete(self) -> bool:
        """Whether all that was to be submitted is, and is answered."""
        return not self._submitting.is_alive() and not self.lost

    def answered(self) -> dict[TaskName, tuple[int, int]]:
        """Return for each task how many requests were answered, and how many there are."""
        answered = Counter(self.asked[one].task for one in list(self.answers))
        return {task: (answered[task], count) for task, count in Counter(one.task for one in self._requests).items()}

    def _submit(self) -> None:
        producer = KafkaProducer(bootstrap_servers=self._servers, linger_ms=5)
        began = time.monotonic()
        stream = itertools.cycle(self._requests) if self._endless else self._requests
        for number, asked in enumerate(stream):
            task, toy = asked
            name = f"{task}-{number}"
            request: dict[str, Any] = {"id": name, "inputs": toy.inputs}
            if toy.parameters:
                request["parameters"] = toy.parameters
            self.asked[name] = asked
            producer.send(requests_topic(task), value=json.dumps(request).encode(), key=str(number).encode())
            self.submitted = number + 1
            if self._end.wait(max(began + number / self._rate - time.monotonic(), 0)):
                break
        producer.flush()
        producer.close()

    def _read(self) -> None:
        topics = {results_topic(one.task) for one in self._requests}
        reader = KafkaConsumer(*topics, bootstrap_servers=self._servers, auto_offset_reset="earliest")
        while not self._stop.is_set():
            for records in reader.poll(READ_MS).values():
                for record in records:
                    self._note(record.value)
        reader.close()

    def _note(self, value: bytes) -> None:
        answer = RESULT.validate_json(value)
        self.answers[answer.id] += 1
        if not isinstance(answer, ErrorResult) and answer.id not in self.results:
            self.results[answer.id] = answer
            self._heard(self.asked[answer.id], answer)


def lag(admin: KafkaAdminClient, group: str, submitted: int) -> int:
    """Return the requests that are submitted and not yet committed."""
    offsets: dict[Any, Any] = admin.list_group_offsets(group).get(group, {})
    return submitted - sum(max(int(offset.offset), 0) for offset in offsets.values())
