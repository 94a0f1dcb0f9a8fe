"""The demo: a broker, two workers, some thousand sentences, a SIGKILL half-way, and the count at the end."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final

from kafka import KafkaAdminClient
from rich.console import Console
from rich.live import Live
from rich.table import Table

from nlp_schemas import dead_letter_topic, requests_topic, results_topic
from nlp_worker.broker import EmbeddedBroker
from nlp_worker.demo.sentences import load_sentences
from nlp_worker.demo.traffic import TASK, Traffic, lag
from nlp_worker.demo.train import ensure_demo_checkpoint
from nlp_worker.demo.workers import SESSION_TIMEOUT, WorkerView, start_worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Partitions: more than workers, so that there is something to share and to take over.
PARTITIONS: Final = 6

#: Seconds between two looks: a terminal's table is redrawn, a pipe gets a line.
TERMINAL_SECONDS: Final = 0.25
PIPE_SECONDS: Final = 2.0

#: Seconds without an answer after which the demo gives up: well above a session timeout and a model's load.
PATIENCE: Final = 60.0

#: Answers shown at the end.
SHOWN: Final = 5

#: Sentences and sentences a second: the miniature could do more, but there would be nothing to watch; the hub's model
#: on one core could not do so many.
MINIATURE: Final = (4000, 250.0)
HUB: Final = (300, 30.0)
HUB_MODEL: Final = "sst2:text-classification=distilbert/distilbert-base-uncased-finetuned-sst-2-english@714eb0f"


def run_demo(models: str, folder: Path) -> bool:
    """Run it all; return whether every request got its answer."""
    console = Console(highlight=False, soft_wrap=True)
    folder.mkdir(parents=True, exist_ok=True)
    count, rate = HUB if models == "hub" else MINIATURE
    model = HUB_MODEL if models == "hub" else _miniature(folder, console)
    texts = [text for _, text in load_sentences()][:count]
    topics = {requests_topic(TASK): PARTITIONS, results_topic(TASK): PARTITIONS, dead_letter_topic(TASK): 1}
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(topics=topics))
        admin = stack.enter_context(closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)))
        workers = [start_worker(number, broker.bootstrap_servers, model, folder) for number in (1, 2)]
        for worker in workers:
            stack.callback(worker.stop)
        traffic = Traffic(broker.bootstrap_servers, texts, rate)
        show = _Show(console, workers, traffic, admin)
        if not show.until(lambda: all(worker.ready.is_set() for worker in workers)):
            console.print(f"the workers did not start: see {folder}/worker-1.log")
            return False
        traffic.start()
        stack.callback(traffic.stop)
        show.until(lambda: len(traffic.answers) >= len(texts) / 2)
        console.print(
            f"kill -9 worker 1: its partitions go to worker 2 when its session of {SESSION_TIMEOUT:.0f} s is over"
        )
        workers[0].kill()
        show.until(lambda: traffic.complete)
        _show_answers(console, traffic)
    console.print(f"submitted {traffic.submitted}, answered {len(traffic.answers)}")
    console.print(f"lost {traffic.lost}, repeated {traffic.repeated}")
    return traffic.lost == 0


def _miniature(folder: Path, console: Console) -> str:
    checkpoint, accuracy, cached = ensure_demo_checkpoint(folder)
    how = "cached" if cached else "trained just now"
    console.print(f"miniature model ({how}): {accuracy:.1%} of held-out sentences as the lexicon labels them")
    return f"miniature:{TASK}={checkpoint}"


class _Show:
    """A live table on a terminal, plain lines in a pipe."""

    def __init__(self, console: Console, workers: list[WorkerView], traffic: Traffic, admin: KafkaAdminClient) -> None:
        self._console = console
        self._workers = workers
        self._traffic = traffic
        self._admin = admin
        self._before = [0 for _ in workers]
        self._looked = time.monotonic()

    def until(self, reached: Callable[[], bool]) -> bool:
        """Show until it is so; return False when nothing moved for too long, or no worker is left."""
        moved, answers = time.monotonic(), -1
        pause = TERMINAL_SECONDS if self._console.is_terminal else PIPE_SECONDS
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while not reached():
                time.sleep(pause)
                if self._console.is_terminal:
                    live.update(self._table(), refresh=True)
                else:
                    self._console.print(self._line())
                if len(self._traffic.answers) != answers:
                    moved, answers = time.monotonic(), len(self._traffic.answers)
                alive = any(worker.process.poll() is None for worker in self._workers)
                if not alive or time.monotonic() - moved > PATIENCE:
                    return False
        return True

    def _rates(self) -> list[float]:
        now, rows = time.monotonic(), [worker.rows for worker in self._workers]
        rates = [(new - old) / (now - self._looked) for new, old in zip(rows, self._before, strict=True)]
        self._before, self._looked = rows, now
        return rates

    def _totals(self) -> str:
        lag_now = lag(self._admin, "nlp-worker", self._traffic.submitted)
        return f"submitted {self._traffic.submitted}, answered {len(self._traffic.answers)}, lag {lag_now}"

    def _line(self) -> str:
        parts = [
            f"worker {number} {worker.state}: {len(worker.partitions)} partitions, {rate:.0f}/s, pad {_padding(worker)}"
            for number, (worker, rate) in enumerate(zip(self._workers, self._rates(), strict=True), 1)
        ]
        return " | ".join([self._totals(), *parts])

    def _table(self) -> Table:
        table = Table(title=self._totals())
        for heading in ("worker", "state", "partitions", "answers/s", "answered", "padding"):
            table.add_column(heading)
        for number, (worker, rate) in enumerate(zip(self._workers, self._rates(), strict=True), 1):
            partitions = " ".join(name.rpartition("-")[2] for name in worker.partitions)
            table.add_row(str(number), worker.state, partitions, f"{rate:.0f}", str(worker.rows), _padding(worker))
        return table


def _padding(worker: WorkerView) -> str:
    """Return the share of padding in what the device computed."""
    return f"{1 - worker.tokens / worker.padded_tokens:.0%}" if worker.padded_tokens else "-"


def _show_answers(console: Console, traffic: Traffic) -> None:
    for answer in list(traffic.samples.values())[:SHOWN]:
        text, best = traffic.text_of(answer.id), answer.outputs[0]
        console.print(f"{best.label:<8} {best.score:.3f}  {text[:90]}{'...' if len(text) > 90 else ''}", markup=False)  # noqa: PLR2004 - a line's width
