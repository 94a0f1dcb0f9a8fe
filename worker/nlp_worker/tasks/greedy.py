"""Greedy search over rows that come and go: one that has ended leaves, and the next one takes its place.

Iteration-level scheduling (Orca, OSDI 2022) on transformers' own caches: transformers' continuous batching gives right
answers for some families only, and takes neither a row's own processors nor stop texts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn.functional import pad as pad_tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.utils import ModelOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nlp_worker.tasks.decoding import RowEnds, RowLogits

#: Part of the lines that has ended before it leaves. That copies the cache of those that stay, as one more token does
#: anyway, so rows that leave one by one would double the copying; the more wait, the more is computed in vain.
LEAVING: Final = 1 / 8


@dataclass(slots=True)
class _Lines:
    """The rows that are computed: each is a line of these tensors."""

    rows: list[int]
    """Which row of the batch each line is."""
    starts: list[int]
    """Of each line the column at which its new tokens begin."""
    ids: torch.Tensor
    """Padding, the prompt, the new tokens: int64, shape [lines, width]. The last is not in the cache yet."""
    inputs: dict[str, Any]
    """What the model takes beside: the cache, the mask of shape [lines, width], and so on."""
    ended: list[bool]


class GreedySearch:
    """What ``GenerationMixin._sample`` does without drawing; a draw is RowLogits' own.

    Args:
        model: A ``GenerationMixin``.
        begin: Returns, for some rows of the batch, the ids that their new tokens go behind, and what the model takes
            beside: as ``generate()`` prepares both.
        logits: Of the batch's rows.
        ends: Of the batch's rows.
        eos: Tokens that end a row.
    """

    def __init__(
        self,
        model: Any,
        begin: Callable[[Sequence[int]], tuple[torch.Tensor, dict[str, Any]]],
        logits: RowLogits,
        ends: RowEnds,
        eos: Sequence[int],
    ) -> None:
        self._model = model
        self._begin = begin
        self._logits = logits
        self._ends = ends
        self._eos = torch.tensor(eos, dtype=torch.long, device=model.device)
        self._sequences: dict[int, list[int]] = {}

    @torch.inference_mode()
    def run(self, rows: int, slots: int) -> list[list[int]]:
        """Generate until every row has ended.

        Args:
            rows: Of the batch.
            slots: Rows that are computed at once; the others wait for one to end.

        Returns:
            Of each row its new tokens, the last one being that which ended it.
        """
        waiting = deque(range(rows))
        lines = self._enter(waiting, slots)
        while lines.rows:
            if lines.ended.count(True) < LEAVING * len(lines.rows):
                self._compute(lines, next_sequence_length=1 if lines.inputs.get("use_cache") else None)
                continue
            _keep(lines, [line for line, ended in enumerate(lines.ended) if not ended], trim=slots < rows)
            if waiting:
                entering = self._enter(waiting, slots - len(lines.rows))
                lines = _join(lines, entering) if lines.rows else entering
            self._place(lines)
        return [self._sequences[row] for row in range(rows)]

    def _enter(self, waiting: deque[int], slots: int) -> _Lines:
        """Compute the first token of the next rows."""
        rows = [waiting.popleft() for _ in range(min(slots, len(waiting)))]
        ids, inputs = self._begin(rows)
        lines = _Lines(rows, [ids.shape[1]] * len(rows), ids, inputs, [False] * len(rows))
        self._place(lines)
        self._compute(lines, is_first_iteration=True)
        return lines

    def _place(self, lines: _Lines) -> None:
        self._logits.place(lines.rows, lines.starts)
        self._ends.place(lines.rows, lines.starts)

    def _compute(self, lines: _Lines, **how: Any) -> None:
        """Add a token to each line."""
        step = self._model.prepare_inputs_for_generation(lines.ids, **lines.inputs, **how)
        outputs = self._model(**step, return_dict=True)
        lines.inputs = self._model._update_model_kwargs_for_generation(  # noqa: SLF001 - families have their own; pinned
            outputs, lines.inputs, is_encoder_decoder=self._model.config.is_encoder_decoder
        )
        # A copy: the processors write into it, and what a prompt's outputs hold is large.
        scores = outputs.logits[:, -1].to(copy=True, dtype=torch.float32)
        del outputs
        chosen = self._logits(lines.ids, scores).argmax(dim=-1)
        lines.ids = torch.cat([lines.ids, chosen[:, None]], dim=1)
        over = zip(self._ends.over(lines.ids), torch.isin(chosen, self._eos).tolist(), strict=True)
        for line, is_over in enumerate(map(any, over)):
            if is_over and not lines.ended[line]:
                lines.ended[line] = True
                self._sequences[lines.rows[line]] = lines.ids[line, lines.starts[line] :].tolist()


def may_join(config: Any) -> bool:
    """Whether rows may join others: what is cached of a row are keys and values, from its first token on."""
    if config.is_encoder_decoder or config.model_type == "openai-gpt":  # which caches nothing
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


def _keep(lines: _Lines, stay: Sequence[int], *, trim: bool) -> None:
    """Leave out the other lines, and, where rows will join, the columns that no line needs any more."""
    stays = torch.tensor(stay, dtype=torch.long, device=lines.ids.device)
    count = len(lines.rows)
    for name, value in lines.inputs.items():
        if isinstance(value, Cache):
            value.reorder_cache(stays)
        elif isinstance(value, ModelOutput):  # the encoder's
            kept = {key: tensor[stays] for key, tensor in value.items() if isinstance(tensor, torch.Tensor)}
            lines.inputs[name] = type(value)(**kept)
        elif isinstance(value, torch.Tensor) and value.shape[0] == count:
            lines.inputs[name] = value[stays]
    lines.ids = lines.ids[stays]
    lines.rows = [lines.rows[line] for line in stay]
    lines.starts = [lines.starts[line] for line in stay]
    lines.ended = [False] * len(stay)
    if trim and stay:
        _shift(lines, -_unused(lines.inputs["attention_mask"]))


def _unused(mask: torch.Tensor) -> int:
    """Return how many columns on the left are padding of every line."""
    return int(mask.any(dim=0).int().argmax())


def _shift(lines: _Lines, columns: int) -> None:
    """Put columns of padding on the left of everything, or take them away where there are less than none."""
    if not columns:
        return
    lines.ids = pad_tensor(lines.ids, (columns, 0))
    lines.starts = [start + columns for start in lines.starts]
    for name, value in lines.inputs.items():
        if isinstance(value, Cache):
            for layer in value.layers:
                layer.keys = pad_tensor(layer.keys, (0, 0, columns, 0))
                layer.values = pad_tensor(layer.values, (0, 0, columns, 0))
        elif isinstance(value, torch.Tensor):
            lines.inputs[name] = pad_tensor(value, (columns, 0))


def _join(lines: _Lines, entering: _Lines) -> _Lines:
    """Return the lines of both, padded to the wider."""
    width = max(lines.ids.shape[1], entering.ids.shape[1])
    for one in (lines, entering):
        _shift(one, width - one.ids.shape[1])
    for name, value in lines.inputs.items():
        other = entering.inputs[name]
        if isinstance(value, Cache):
            for layer, new in zip(value.layers, other.layers, strict=True):
                layer.keys = torch.cat([layer.keys, new.keys])
                layer.values = torch.cat([layer.values, new.values])
        elif isinstance(value, torch.Tensor):
            lines.inputs[name] = torch.cat([value, other])
    ids = torch.cat([lines.ids, entering.ids])
    return _Lines(
        lines.rows + entering.rows,
        lines.starts + entering.starts,
        ids,
        lines.inputs,
        lines.ended + entering.ended,
    )
