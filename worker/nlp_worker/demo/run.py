"""The demo: a broker, two workers, some thousand requests, a SIGKILL half-way, and the count at the end."""

from __future__ import annotations

import itertools
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final

from kafka import KafkaAdminClient
from rich.console import Console

from nlp_schemas import TaskName, TextClassificationResult, dead_letter_topic, requests_topic, results_topic
from nlp_worker.broker import EmbeddedBroker
from nlp_worker.demo.answers import read_answers
from nlp_worker.demo.sentences import load_sentences
from nlp_worker.demo.show import Show, WorkersView
from nlp_worker.demo.toys import HELD_OUT, Toy, toys_to_ask
from nlp_worker.demo.traffic import Asked, Traffic
from nlp_worker.demo.train import ensure_miniature
from nlp_worker.demo.workers import SESSION_TIMEOUT, start_worker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: Partitions of a topic: more than workers, so that there is something to share and to take over.
PARTITIONS: Final = 6
#: Ten tasks have twenty of these to share.
PARTITIONS_OF_SEVERAL: Final = 2

#: Answers shown at the end, and of each task where there are several.
SHOWN: Final = 5
SHOWN_OF_SEVERAL: Final = 2
#: Characters of a sentence, in a line that shows its answer, and of a toy, which is to be seen whole.
TEXT_WIDTH: Final = 90
TOY_WIDTH: Final = 140

#: Sentences and sentences a second: the miniature could do more, but there would be nothing to watch; the hub's model
#: on one core could not do so many.
MINIATURE: Final = (4000, 250.0)
HUB: Final = (300, 30.0)
HUB_MODEL: Final = "sst2:text-classification=distilbert/distilbert-base-uncased-finetuned-sst-2-english@714eb0f"

EXPLANATION: Final = (
    "toys: each miniature knows one small grammar and nothing else, and is asked sentences that it was not trained on"
)

#: Toys of a task, near the most that the smallest grammar holds out; and toys a second, of one task and of all.
TOYS: Final = 120
TOY_RATE: Final = 10.0
TOY_RATE_OF_ALL: Final = 30.0


def run_demo(models: str, folder: Path, tasks: Sequence[TaskName] = ()) -> bool:
    """Run it all; return whether every request got its answer.

    Args:
        models: ``miniature`` or ``hub``.
        folder: Where the miniatures and the workers' logs are kept.
        tasks: What to ask toys for; if there is none, the sentences are classified.
    """
    console = Console(highlight=False, soft_wrap=True)
    folder.mkdir(parents=True, exist_ok=True)
    if tasks:
        console.print(EXPLANATION)
    asked_for = tasks or [TaskName.TEXT_CLASSIFICATION]
    served = {task: HUB_MODEL if models == "hub" else _miniature(task, folder, console) for task in asked_for}
    if tasks:
        asked, rate = _toys(tasks), TOY_RATE if len(tasks) == 1 else TOY_RATE_OF_ALL
    else:
        count, rate = HUB if models == "hub" else MINIATURE
        asked = [Asked(TaskName.TEXT_CLASSIFICATION, Toy(text, label)) for label, text in load_sentences()[:count]]
    traffic = _watch(console, served, asked, rate, folder)
    if traffic is None:
        return False
    if tasks:
        _show_toys(console, traffic, tasks)
    else:
        _show_sentences(console, traffic)
    console.print(f"submitted {traffic.submitted}, answered {len(traffic.answers)}")
    console.print(f"lost {traffic.lost}, repeated {traffic.repeated}")
    return traffic.lost == 0


def _watch(
    console: Console, models: Mapping[TaskName, str], asked: Sequence[Asked], rate: float, folder: Path
) -> Traffic | None:
    """Show two workers answer, one of which is killed half-way; return None if they do not start."""
    partitions = PARTITIONS if len(models) == 1 else PARTITIONS_OF_SEVERAL
    topics = {name(task): partitions for task in models for name in (requests_topic, results_topic)}
    topics |= {dead_letter_topic(task): 1 for task in models}
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(topics=topics))
        admin = stack.enter_context(closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)))
        workers = [start_worker(number, broker.bootstrap_servers, list(models.values()), folder) for number in (1, 2)]
        for worker in workers:
            stack.callback(worker.stop)
        traffic = Traffic(broker.bootstrap_servers, asked, rate)
        show = Show(console, WorkersView(workers, traffic, admin), workers, traffic)
        if not show.until(lambda: all(worker.ready.is_set() for worker in workers)):
            console.print(f"the workers did not start: see {folder}/worker-1.log")
            return None
        traffic.start()
        stack.callback(traffic.stop)
        show.until(lambda: len(traffic.answers) >= len(asked) / 2)
        console.print(
            f"kill -9 worker 1: its partitions go to worker 2 when its session of {SESSION_TIMEOUT:.0f} s is over"
        )
        workers[0].kill()
        show.until(lambda: traffic.complete)
    return traffic


def _miniature(task: TaskName, folder: Path, console: Console) -> str:
    miniature = ensure_miniature(task, folder)
    how = "cached" if miniature.cached else "trained just now"
    if task is TaskName.TEXT_CLASSIFICATION:
        console.print(
            f"miniature model ({how}): {miniature.accuracy:.1%} of held-out sentences as the lexicon labels them"
        )
    else:
        right = f"{miniature.accuracy:.1%} of held-out toys right"
        console.print(f"miniature {miniature.family} for {task} ({how}): {right}")
    return f"miniature:{task}={miniature.folder}"


def _toys(tasks: Sequence[TaskName]) -> list[Asked]:
    """Return what no miniature was trained on, the tasks by turns."""
    of_tasks = [[Asked(task, toy) for toy in _toys_of(task)] for task in tasks]
    return list(itertools.chain.from_iterable(zip(*of_tasks, strict=True)))


def _toys_of(task: TaskName) -> list[Toy]:
    if task is TaskName.TEXT_CLASSIFICATION:
        return [Toy(text, label) for label, text in load_sentences()[::HELD_OUT][:TOYS]]
    return toys_to_ask(task, TOYS)


def _show_sentences(console: Console, traffic: Traffic) -> None:
    for name, result in list(traffic.results.items())[:SHOWN]:
        if isinstance(result, TextClassificationResult):
            best, text = result.outputs[0], _shortened(traffic.asked[name].toy.inputs, TEXT_WIDTH)
            console.print(f"{best.label:<8} {best.score:.3f}  {text}", markup=False)


def _show_toys(console: Console, traffic: Traffic, tasks: Sequence[TaskName]) -> None:
    for task in tasks:
        mine = [(traffic.asked[name].toy, result) for name, result in traffic.results.items() if result.task is task]
        read = read_answers(mine)
        console.print(f"{task}: {sum(one.right for one in read)} of {TOYS} as expected")
        for one in read[: SHOWN if len(tasks) == 1 else SHOWN_OF_SEVERAL]:
            console.print(
                f"  {_shortened(one.question, TOY_WIDTH)}  ->  {_shortened(one.answer, TOY_WIDTH)}", markup=False
            )


def _shortened(text: str, width: int) -> str:
    return f"{text[:width]}{'...' if len(text) > width else ''}"
