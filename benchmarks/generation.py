"""How many tokens a second are generated that somebody asked for, by each way to batch rows of different lengths.

The lengths of the outputs are log-uniform, from 4 to 200 tokens. What is asked for is known to the planner where each
request names its own length; where all allow 200 and end of themselves, it is not.

- Static: transformers' ``generate()`` over 32 rows in the order in which they come, padded on the left, until the
  longest has ended.
- Continuous: transformers' continuous batching, which fills the place of a row that has ended with the next one.
- The worker's own: planned batches, which a row leaves when it has ended.
"""

from __future__ import annotations

import json
import math
import os
import random
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from transformers import ContinuousBatchingConfig, GenerationConfig

from benchmarks.lengths import SEED, natural
from benchmarks.models import device_name, device_of, file_name, quiet, serve
from benchmarks.report import Panel, Report, take_turns
from checkpoints import SENTENCES, build_checkpoint
from nlp_schemas import REQUESTS, TaskName
from nlp_worker.batching import Batch
from nlp_worker.errors import RequestError
from nlp_worker.executor import Executor
from nlp_worker.models import CACHE_TOKENS
from nlp_worker.planner import Planner
from nlp_worker.poll import Entry, Poll

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Task

TASK: Final = TaskName.TEXT_GENERATION

#: Tokens of an output: the fewest and the most.
OUTPUT: Final = (4, 200)

#: Of the static batches.
ROWS: Final = 32

#: Tokens of a block of continuous batching's cache, its default.
PAGE: Final = 256


@click.command(context_settings={"show_default": True})
@click.option("--requests", default=96, help="In each round.")
@click.option("--rounds", default=3)
@click.option("--layers", default=6, help="Of a GPT-2.")
@click.option("--width", default=512, help="Of each layer.")
@click.option("--threads", default=len(os.sched_getaffinity(0)), help="Of torch.")
@click.option("--device", default="auto", help="As the worker's setting.")
def main(*, requests: int, rounds: int, layers: int, width: int, threads: int, device: str) -> None:
    """Measure all contestants, in turn."""
    quiet()
    where = device_of(device)
    cache_tokens = CACHE_TOKENS[where.type]
    with tempfile.TemporaryDirectory() as folder:
        task = _task(Path(folder), layers, width, threads, device)
    contest = Contest(task, requests, cache_tokens)
    rates = take_turns(
        {
            f"static, batches of {ROWS}": contest.static,
            "continuous batching": contest.continuous,
            "worker, lengths unknown": partial(contest.worker, known=False),
            "worker, lengths asked for": partial(contest.worker, known=True),
        },
        rounds,
    )
    static = next(iter(rates.values())).median
    report = Report(
        name=file_name("generation", where),
        title="Text generation, outputs of 4 to 200 tokens",
        settings={
            "requests": requests,
            "model": f"GPT-2, {layers} layers of {width}",
            "device": device_name(where),
            "cache_tokens": cache_tokens,
            "threads": threads,
            "rounds": rounds,
        },
        rows=[
            {"contestant": name, **spread.columns("useful tokens/s"), "/ static": spread.median / static}
            for name, spread in rates.items()
        ],
        panels=[Panel("", rates)],
        axis="useful tokens/s",
    )
    report.show()
    report.write()


class Contest:
    """The contestants on one checkpoint; each of them returns useful tokens per second."""

    def __init__(self, task: Task, requests: int, cache_tokens: int) -> None:
        draw = random.Random(SEED)  # noqa: S311 - lengths, not secrets
        self._task = task
        self._model: Any = task._generator._model  # type: ignore[attr-defined]
        self._cache_tokens = cache_tokens
        low, high = map(math.log, OUTPUT)
        self.lengths = [round(math.exp(draw.uniform(low, high))) for _ in range(requests)]
        words = [word for sentence in SENTENCES for word in sentence.split()]
        self._texts = [" ".join(draw.choices(words, k=length)) for length in natural(requests)]
        self._executor, self._planner = Executor(), Planner(cache_tokens=cache_tokens)
        self._planner.warm_up(task, self._executor)

    def rows(self) -> list[Row]:
        """Return a row of each request."""
        # A prompt for which there are too few positions loses its beginning.
        same = {"do_sample": False, "handle_long_generation": "hole"}
        parameters = ({"max_new_tokens": length, **same} for length in self.lengths)
        requests = [
            REQUESTS[TASK].model_validate({"inputs": text, "parameters": asked})
            for text, asked in zip(self._texts, parameters, strict=True)
        ]
        rows = []
        for prepared in self._task.preprocess(requests):
            if isinstance(prepared, RequestError):
                raise prepared
            rows += prepared.rows
        return rows

    def static(self) -> float:
        rows = self.rows()
        began = time.monotonic()
        for start in range(0, len(rows), ROWS):
            batch = rows[start : start + ROWS]
            inputs: Any = self._task.collate(Batch(self._task, batch))
            config = GenerationConfig(
                max_new_tokens=max(row.new_tokens for row in batch), do_sample=False, pad_token_id=0
            )
            self._model.generate(**inputs.tensors, generation_config=config)
        return sum(self.lengths) / (time.monotonic() - began)

    def continuous(self) -> float:
        rows = self.rows()
        config = ContinuousBatchingConfig(
            num_blocks=self._cache_tokens // PAGE + len(rows), page_size=PAGE, max_batch_tokens=self._cache_tokens
        )
        with self._model.continuous_batching_context_manager(
            GenerationConfig(do_sample=False), continuous_batching_config=config
        ) as manager:
            began = time.monotonic()
            for number, row in enumerate(rows):
                manager.add_request(
                    row.features["input_ids"], str(number), max_new_tokens=row.new_tokens, eos_token_id=-1
                )
            tokens = 0
            for _ in rows:
                result = manager.get_result()
                if result is None or result.error:
                    raise RuntimeError(f"continuous batching failed: {result and result.error}")
                tokens += len(result.generated_tokens)
            seconds = time.monotonic() - began
        _expect(tokens, self.lengths)
        return tokens / seconds

    def worker(self, *, known: bool) -> float:
        rows = self.rows()
        if not known:
            for row in rows:
                row.new_tokens = OUTPUT[1]
        entry = Entry(None, TASK, task=self._task, rows=rows)  # type: ignore[arg-type]  # no record: nothing reads it
        began = time.monotonic()
        work = [(self._executor.submit(batch), batch) for batch in self._planner.plan(Poll([entry], {}))]
        runs = [(batch, future.result()) for future, batch in work]
        seconds = time.monotonic() - began
        for batch, run in runs:
            self._planner.learn(batch, run)
        outputs = [output for _, run in runs for output in run.outputs]
        _expect(sum(len(sequence) for output in outputs for sequence in output.sequences), self.lengths)
        return sum(self.lengths) / seconds


def _expect(tokens: int, lengths: Sequence[int]) -> None:
    if tokens != sum(lengths):
        raise RuntimeError(f"{tokens} tokens were generated instead of {sum(lengths)}: the figures would mean nothing")


def _task(folder: Path, layers: int, width: int, threads: int, device: str) -> Task:
    config: dict[str, Any] = {"n_layer": layers, "n_embd": width, "n_head": width // 64, "n_positions": 1024}
    build_checkpoint("gpt2", "causal-lm", folder, **config)
    # No text ends but where it is told to.
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"eos_token_id": None}), encoding="utf-8")
    return serve(TASK, folder, threads=threads, device=device)


if __name__ == "__main__":
    main()
