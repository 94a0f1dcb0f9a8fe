"""How many requests of each task the worker answers a second in polls, beside the same requests one by one.

Without Kafka, and else as in the worker: bytes are decoded and tokenized, a poll is planned, its batches are computed,
and answers are made and encoded. One by one, each request is a poll of its own, so what differs is batching alone.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from benchmarks.lengths import SEED, natural
from benchmarks.models import Device, device_name, device_of, device_thread, file_name, quiet, serve
from benchmarks.report import Panel, Report, Spread, take_turns
from checkpoints import SENTENCES, build_checkpoint
from fakes import FakeRecord
from nlp_schemas import TaskName, requests_topic
from nlp_worker.answering import Answering
from nlp_worker.intake import Intake
from nlp_worker.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from nlp_worker.executor import Executor
    from nlp_worker.tasks.base import Task

#: Requests of a poll at most: the worker's default.
POLL: Final = load_settings({}).poll_records

#: Tokens that are generated for a row at most: a sentence or two.
NEW_TOKENS: Final = 32

#: Of each family, a model of about 10 million parameters: 4 layers of 384, half of them an encoder where there are two.
BERT: Final = {"hidden_size": 384, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 1_536}
GPT2: Final = {"n_embd": 384, "n_layer": 4, "n_head": 6}
BART: Final = {
    "d_model": 384,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 1_536,
    "decoder_ffn_dim": 1_536,
}
T5: Final = {"d_model": 384, "d_kv": 64, "d_ff": 1_536, "num_layers": 2, "num_heads": 6}


class Case(NamedTuple):
    """What a task is measured with."""

    family: str
    head: str
    config: Mapping[str, Any]
    inputs: Callable[[str], Any] = str
    """Of a request, made of its text."""
    parameters: Mapping[str, Any] = {}
    labels: Sequence[str] = ()
    generates: bool = False


CASES: Final[Mapping[TaskName, Case]] = {
    TaskName.TEXT_CLASSIFICATION: Case("bert", "sequence-classification", BERT),
    TaskName.ZERO_SHOT_CLASSIFICATION: Case(
        "bert",
        "sequence-classification",
        BERT,
        parameters={"candidate_labels": ["good", "bad", "a film"]},
        labels=("contradiction", "neutral", "entailment"),
    ),
    TaskName.TOKEN_CLASSIFICATION: Case("bert", "token-classification", BERT),
    TaskName.FILL_MASK: Case("bert", "masked-lm", BERT, lambda text: f"{text} [MASK]"),
    TaskName.QUESTION_ANSWERING: Case(
        "bert", "question-answering", BERT, lambda text: {"question": "What was the day like?", "context": text}
    ),
    TaskName.FEATURE_EXTRACTION: Case("bert", "base", BERT),
    TaskName.MULTIPLE_CHOICE: Case(
        "bert", "multiple-choice", BERT, lambda text: {"prompt": text, "choices": ["Yes.", "No.", "Never again."]}
    ),
    # With the beams and the limits that their families' checkpoints have.
    TaskName.SUMMARIZATION: Case("bart", "seq2seq-lm", BART, parameters={"max_new_tokens": NEW_TOKENS}, generates=True),
    TaskName.TRANSLATION: Case(
        "t5",
        "seq2seq-lm",
        T5,
        parameters={"src_lang": "en", "tgt_lang": "de", "max_new_tokens": NEW_TOKENS},
        generates=True,
    ),
    TaskName.TEXT_GENERATION: Case(
        "gpt2", "causal-lm", GPT2, parameters={"max_new_tokens": NEW_TOKENS}, generates=True
    ),
}


@click.command(context_settings={"show_default": True})
@click.option(
    "--task", "names", type=click.Choice([str(name) for name in CASES]), multiple=True, default=list(map(str, CASES))
)
@click.option("--requests", default=128, help="Of each task, in each round.")
@click.option("--generating", default=32, help="As many of the tasks that generate text, which take longer.")
@click.option("--rounds", default=3)
@click.option("--threads", type=int, help="As the worker's setting.")
@click.option("--device", default="auto", help="As the worker's setting.")
def main(
    *,
    names: Sequence[str],
    requests: int,
    generating: int,
    rounds: int,
    threads: int | None,
    device: str,
) -> None:
    """Measure each task, in polls and one by one in turn."""
    quiet()
    where = device_of(device)
    rows: list[dict[str, str | float]] = []
    bars = {}
    with device_thread() as thread:
        for name in map(TaskName, names):
            print(f"{name}:", file=sys.stderr)
            case = CASES[name]
            with tempfile.TemporaryDirectory() as folder:
                path = build_checkpoint(case.family, case.head, Path(folder), labels=case.labels, **case.config)
                task = serve(name, path, threads=threads, device=device)
            count = generating if case.generates else requests
            bench = Bench(task, thread, where, _values(case, count))
            polls, one_by_one = take_turns(
                {"polls": partial(bench.answer, POLL), "one by one": partial(bench.answer, 1)}, rounds
            ).values()
            rows.append(
                {
                    "task": name.value,
                    "model": case.family,
                    "requests": count,
                    **polls.columns("requests/s"),
                    "one by one": one_by_one.median,
                    "/ one by one": polls.median / one_by_one.median,
                }
            )
            bars[name.value] = Spread(*(value / one_by_one.median for value in polls))
    report = Report(
        name=file_name("tasks", where),
        title="Every task, in polls",
        settings={
            "device": device_name(where),
            "new tokens": NEW_TOKENS,
            "rounds": rounds,
        },
        rows=rows,
        panels=[Panel("", bars)],
        axis="requests/s, over one by one",
    )
    report.show()
    report.write()


class Bench:
    """What lies between consumer and publisher, for one task and its requests.

    Args:
        task: What they ask for.
        thread: The device's.
        device: Where.
        values: The requests, as records have them.
    """

    def __init__(self, task: Task, thread: Executor, device: torch.device, values: Sequence[bytes]) -> None:
        topic = requests_topic(task.name)
        self._records = [FakeRecord(topic, 0, offset, 1_000, b"k", value, ()) for offset, value in enumerate(values)]
        self._intake = Intake({topic: task.name}, {task.name: {"bench": task}}, time)
        self._answering = Answering("nlp", "bench", lambda _: True)
        self._device = Device(task, thread, device)

    def answer(self, poll: int) -> float:
        """Return requests per second, in polls of so many.

        Raises:
            RuntimeError: one was answered with an error.
        """
        began = time.monotonic()
        for start in range(0, len(self._records), poll):
            entries = [self._intake.entry(record) for record in self._records[start : start + poll]]
            self._intake.read(entries)
            self._device.compute(entries)
            for entry in entries:
                self._answering.messages(entry)
                if entry.error is not None:
                    raise RuntimeError(f"a request failed, so the figures would mean nothing: {entry.error}")
        return len(self._records) / (time.monotonic() - began)


def _values(case: Case, count: int) -> list[bytes]:
    """Return requests with texts of natural lengths, in words."""
    draw = random.Random(SEED)  # noqa: S311 - texts, not secrets
    words = [word for sentence in SENTENCES for word in sentence.split()]
    texts = [" ".join(draw.choices(words, k=length)) for length in natural(count)]
    return [json.dumps({"inputs": case.inputs(text), "parameters": dict(case.parameters)}).encode() for text in texts]


if __name__ == "__main__":
    main()
