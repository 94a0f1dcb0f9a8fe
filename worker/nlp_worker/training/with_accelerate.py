"""Training by an explicit loop with Accelerate: what the Trainer does for the same settings, in the open."""

from __future__ import annotations

import contextlib
import itertools
import math
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers.trainer_pt_utils import get_parameter_names

from nlp_worker.training.job import GRADIENT_NORM, LOSS_STEPS, counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nlp_worker.training.job import Job

    Batch = dict[str, Any]

#: Names of weights that do not decay: the Trainer's.
NO_DECAY: Final = (r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)")


def train(job: Job, *, resume: bool) -> None:
    """Train until the job's epochs are over, or no longer improve."""
    settings, history = job.settings, job.history
    transformers.set_seed(settings.seed)
    accelerator = Accelerator(mixed_precision="bf16" if job.bfloat16 else "no", cpu=job.on_cpu)
    optimizer = torch.optim.AdamW(_groups(job.learner.model, settings.weight_decay), lr=settings.learning_rate)
    rows: Any = DataLoader(
        job.features,  # type: ignore[arg-type]  # a list is a data set to it
        batch_size=settings.batch_rows,
        sampler=job.sampler(accelerator.num_processes),
        collate_fn=job.collate,
        pin_memory=not job.on_cpu,
    )
    model, optimizer, rows = accelerator.prepare(job.learner.model, optimizer, rows)
    steps_of_epoch = math.ceil(len(rows) / settings.accumulate)
    steps = steps_of_epoch * settings.epochs
    # Not prepared: Accelerate would step it once for each process.
    warm_up = job.warm_up_steps(accelerator.num_processes)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, warm_up, steps)
    accelerator.register_for_checkpointing(schedule)

    step = job.resumed() if resume else 0
    if step:
        accelerator.load_state(str(job.state(step)))
    losses: list[Any] = []
    while step < steps and not history.exhausted:
        epoch, done = divmod(step, steps_of_epoch)
        rows.set_epoch(epoch)
        for batches in _batches(accelerator, rows, settings.accumulate, done):
            losses.append(_step(accelerator, model, batches))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            job.show.step(step, steps)
            ends = step % steps_of_epoch == 0
            if step % LOSS_STEPS == 0 or ends:
                history.losses.append((step, float(accelerator.reduce(sum(losses) / len(losses), "mean"))))
                losses.clear()
            if ends:
                job.end_epoch(step, main=accelerator.is_main_process)
            if ends or (settings.save_steps and step % settings.save_steps == 0):
                _save(accelerator, job, step)


def _step(accelerator: Accelerator, model: Any, batches: Sequence[Batch]) -> torch.Tensor:
    """Add up the gradients of batches, each row or token with the same weight; return their loss."""
    model.train()
    counts = [counted(batch) for batch in batches]
    whole = accelerator.reduce(sum(counts), "mean")
    total: torch.Tensor = torch.zeros((), device=accelerator.device)
    for number, (batch, count) in enumerate(zip(batches, counts, strict=True), 1):
        # Gradients go from process to process with the last batch alone.
        alone = number < len(batches)
        with accelerator.no_sync(model) if alone else contextlib.nullcontext():
            loss = model(**batch).loss * (count / whole)
            accelerator.backward(loss)
        total += loss.detach()
    accelerator.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
    return total


def _batches(accelerator: Accelerator, rows: Any, size: int, done: int) -> Iterator[list[Batch]]:
    """Give the batches of each step of an epoch but the first ones, which are done."""
    batches = iter(accelerator.skip_first_batches(rows, done * size) if done else rows)
    # A DataLoader draws a number when it begins. The run that is gone on with had drawn it before its state was kept.
    with torch.random.fork_rng(range(torch.cuda.device_count()), enabled=bool(done)):
        chunk = list(itertools.islice(batches, size))
    while chunk:
        yield chunk
        chunk = list(itertools.islice(batches, size))


def _groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    decaying = frozenset(get_parameter_names(model, [torch.nn.LayerNorm], list(NO_DECAY)))
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return [
        {"params": [weight for name, weight in named if name in decaying], "weight_decay": weight_decay},
        {"params": [weight for name, weight in named if name not in decaying], "weight_decay": 0.0},
    ]


def _save(accelerator: Accelerator, job: Job, step: int) -> None:
    accelerator.save_state(str(job.state(step)))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        job.seal(step)
    accelerator.wait_for_everyone()
