"""The loop in which the demo's models learn."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Batch = Mapping[str, torch.Tensor]

#: Share of the steps in which the learning rate rises; then it falls to almost 0.
WARM_UP: Final = 0.15
GRADIENT_NORM: Final = 1.0
#: More gain nothing on batches this small, and would be taken from whatever else runs.
THREADS: Final = 1


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[random.Random]:
    """Make what is computed inside the same for the same seed, up to float noise; yield what to shuffle with."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield random.Random(seed)  # noqa: S311 - shuffles
    finally:
        torch.set_num_threads(threads)


def fit(
    model: Any,
    batches: Sequence[Batch],
    shuffler: random.Random,
    progress: Callable[[float], None],
    *,
    epochs: int,
    rate: float,
    word_rate: float,
    loss: Callable[[Any, Batch], torch.Tensor] = lambda model, batch: model(**batch).loss,
) -> None:
    """Train the model on the batches, in another order in each epoch.

    Args:
        model: Of transformers.
        batches: What the model's forward takes.
        shuffler: Decides the order.
        progress: Called after every step with the share of the training that is done, up to 1.
        epochs: How often each batch is seen.
        rate: The highest learning rate of all weights but the words'.
        word_rate: That of the embeddings of the words, which learn faster than layers can.
        loss: Of a batch.
    """
    words = model.get_input_embeddings().weight
    others = [parameter for parameter in model.parameters() if parameter is not words]
    optimizer = torch.optim.AdamW([{"params": [words]}, {"params": others}], lr=rate)
    steps = epochs * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [word_rate, rate], total_steps=steps, pct_start=WARM_UP)
    order = list(batches)
    model.train()
    for step in range(steps):
        if step % len(order) == 0:
            shuffler.shuffle(order)
        optimizer.zero_grad()
        torch.autograd.backward(loss(model, order[step % len(order)]))
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        progress((step + 1) / steps)
    model.eval()
