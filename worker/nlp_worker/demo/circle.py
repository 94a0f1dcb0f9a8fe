"""The whole circle: a checkpoint serves, its mistakes are labelled, a better one is learned, judged and rolled over to.

All of it while a stream of requests goes on, and with commands that anybody can type.
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final

from kafka import KafkaProducer
from rich.console import Console

from nlp_schemas import TaskName, dead_letter_topic, requests_topic, results_topic
from nlp_schemas.labels import labels_topic
from nlp_worker.broker import EmbeddedBroker
from nlp_worker.demo.accuracy import Accuracy, AccuracyView
from nlp_worker.demo.commands import Command, typed
from nlp_worker.demo.sentences import load_sentences
from nlp_worker.demo.show import Show
from nlp_worker.demo.toys import HELD_OUT, Toy
from nlp_worker.demo.traffic import Asked, Traffic
from nlp_worker.demo.train import ensure_miniature
from nlp_worker.demo.workers import start_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nlp_worker.demo.workers import WorkerView

TASK: Final = TaskName.TEXT_CLASSIFICATION
LABELS: Final = labels_topic(TASK)
#: What the model is called, whichever checkpoint it is.
NAME: Final = "sentiment"
#: Of requests and of answers: half of them are the second worker's until the first one goes.
PARTITIONS: Final = 6

#: Sentences that the first checkpoint learns from: it gets some 70 % right. From 400 it learns nothing at all.
FEW: Final = 600
#: Sentences a second. A round of those held out takes 16 s, and the training keeps a core for itself.
RATE: Final = 30.0

#: Answers of the base before the training begins: five seconds to see how it is.
WATCHED: Final = 150

#: Of the training. A miniature takes forty times the usual rate; a third epoch gains two points, and costs six seconds.
TRAINING: Final = ("--learning-rate", "2e-3", "--epochs", "2", "--batch-rows", "32")
#: One core is the worker's and the broker's.
ON_ONE_CORE: Final = ("--device", "cpu", "--threads", "1")
#: Share of the labelled sentences that is not trained on, and that decides: the default of `nlp-worker train`.
JUDGED_ON: Final = "0.1"


class CircleError(Exception):
    """The circle cannot be closed."""


def run_circle(folder: Path) -> bool:
    """Run it all; return whether no request was lost and more of the answers are right.

    Args:
        folder: Where the miniatures are kept. What belongs to the circle goes into a folder in it.
    """
    console = Console(highlight=False, soft_wrap=True)
    # The README takes the last miniature of the folder above to be the one that `make demo` trained.
    home = folder / "train"
    home.mkdir(parents=True, exist_ok=True)
    base = ensure_miniature(TASK, home, sentences=FEW)
    how = "cached" if base.cached else "trained just now"
    console.print(f"base checkpoint ({how}): it has seen {FEW} sentences, and knows little")
    with ExitStack() as stack:
        try:
            return _Circle(console, stack, home, base.folder).run()
        except CircleError as error:
            console.print(f"the circle is not closed: {error}", markup=False)
            return False


class _Circle:
    """The phases, in their order.

    Args:
        console: Where it is told what happens.
        stack: Stops what is started.
        home: Of the logs and the new checkpoint.
        base: The first checkpoint.
    """

    def __init__(self, console: Console, stack: ExitStack, home: Path, base: Path) -> None:
        topics = {requests_topic(TASK): PARTITIONS, results_topic(TASK): PARTITIONS}
        broker = EmbeddedBroker(topics=topics | {dead_letter_topic(TASK): 1, LABELS: 1})
        self._servers = stack.enter_context(broker).bootstrap_servers
        self._console = console
        self._stack = stack
        self._home = home
        self._base = base
        # A folder around the new one: what a training that was cut off has left there goes too.
        shutil.rmtree(home / "new", ignore_errors=True)
        self._new = home / "new" / NAME
        self._workers: list[WorkerView] = []
        self._accuracy = Accuracy()
        self._traffic = Traffic(self._servers, to_ask(), RATE, endless=True, heard=self._accuracy.note)
        view = AccuracyView(self._workers, self._traffic, self._accuracy)
        self._show = Show(console, view, self._workers, self._traffic)

    def run(self) -> bool:
        old = self._serve_base()
        self._learn()
        self._roll_over(old)
        self._traffic.end()
        self._until(lambda: self._traffic.complete, "not all requests are answered")
        return self._tell_result()

    def _serve_base(self) -> WorkerView:
        self._say(f"1. A worker serves the base checkpoint under the name {NAME}.")
        worker = self._serve(self._base)
        rows = to_label()
        self._say(f"2. Meanwhile {len(rows):,} sentences that it has not seen get labels, records of {LABELS}:")
        self._tell(json.dumps(min(rows, key=lambda row: len(row["inputs"]))))
        _send(self._servers, rows)
        self._until(lambda: bool(worker.partitions), f"worker 1 did not start: see {worker.log}")
        self._say(f"A producer asks {RATE:.0f} other sentences a second, and knows what is right.")
        self._traffic.start()
        self._stack.callback(self._traffic.stop)
        self._until(lambda: self._answers(0) >= WATCHED, "the base checkpoint does not answer")
        return worker

    def _learn(self) -> None:
        self._say("3. A better checkpoint is learned from the labels.")
        self._command("train", TASK, "--base", str(self._base), "--data", LABELS, "--out", str(self._new), *TRAINING)
        self._say("4. Is it better, on labels that it was not trained on?")
        models = str(self._new), "--baseline", str(self._base)
        self._command("evaluate", TASK, *models, "--data", LABELS, "--held-out", JUDGED_ON, "--require", "better")

    def _roll_over(self, old: WorkerView) -> None:
        self._say("5. It is: a second worker serves it under the same name.")
        new = self._serve(self._new)
        self._until(lambda: bool(new.partitions), f"worker 2 did not start: see {new.log}")
        self._say("SIGTERM worker 1: it answers what it has begun, and worker 2 takes its partitions.")
        old.process.terminate()
        self._until(lambda: old.process.poll() is not None, "worker 1 did not stop")
        self._until(lambda: self._answers(1) >= len(to_ask()), "the new checkpoint does not answer")

    def _tell_result(self) -> bool:
        traffic = self._traffic
        (base, before), (new, after) = self._accuracy.whole().items()
        self._console.print(f"asked {traffic.submitted}, answered {len(traffic.answers)}")
        self._console.print(f"lost {traffic.lost}, repeated {traffic.repeated}")
        for when, revision, score in (("before", base, before), ("after", new, after)):
            self._console.print(f"{when}: {score.share:.1%} of {score.answers} answers right, by {revision}")
        return not traffic.lost and len(traffic.results) == len(traffic.answers) and after.share > before.share

    def _serve(self, checkpoint: Path) -> WorkerView:
        number = len(self._workers) + 1
        worker = start_worker(number, self._servers, [f"{NAME}:{TASK}={checkpoint}"], self._home)
        self._stack.callback(worker.stop)
        self._workers.append(worker)
        self._tell(f"$ {typed(worker.arguments)}")
        return worker

    def _command(self, *arguments: str) -> None:
        """Run a command and show its lines.

        Raises:
            CircleError: it failed, or the worker does not answer meanwhile.
        """
        whole = [*arguments, "--bootstrap-servers", self._servers, *ON_ONE_CORE]
        self._tell(f"$ {typed(whole)}")
        command = Command(whole, self._tell)
        self._stack.callback(command.stop)
        self._until(lambda: command.ended, "the worker does not answer")
        if code := command.stop():
            raise CircleError(f"nlp-worker {arguments[0]} ended with {code}")

    def _until(self, reached: Callable[[], bool], otherwise: str) -> None:
        if not self._show.until(reached):
            raise CircleError(otherwise)

    def _answers(self, number: int) -> int:
        """Return how many answers the first or the second revision gave."""
        scores = list(self._accuracy.whole().values())
        return scores[number].answers if number < len(scores) else 0

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, style="bold")

    def _tell(self, line: str) -> None:
        self._console.print(f"   {line}", markup=False)


def to_ask() -> list[Asked]:
    """Return the sentences of the stream: no checkpoint learns from them."""
    return [Asked(TASK, Toy(text, label)) for label, text in load_sentences()[::HELD_OUT]]


def to_label() -> list[dict[str, str]]:
    """Return the labelled sentences: not asked, and none of the few that the base has seen."""
    return [
        {"id": f"sentence-{number}", "inputs": text, "label": label}
        for number, (label, text) in enumerate(load_sentences())
        if number >= FEW and number % HELD_OUT
    ]


def _send(bootstrap_servers: str, rows: Sequence[dict[str, str]]) -> None:
    with closing(KafkaProducer(bootstrap_servers=bootstrap_servers, linger_ms=5)) as producer:
        for row in rows:
            producer.send(LABELS, key=row["id"].encode(), value=json.dumps(row).encode())
        producer.flush()
