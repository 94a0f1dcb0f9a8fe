"""Generation on the device: the new tokens of a batch's rows, greedily, drawn, or by beam search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from nlp_worker.errors import InferenceFailedError
from nlp_worker.tasks.decoding import RowEnds, RowLogits
from nlp_worker.tasks.encoder import pad
from nlp_worker.tasks.greedy import GreedySearch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.poll import Row
    from nlp_worker.tasks.decoding import Decoding


class Inputs(NamedTuple):
    """A batch on the device."""

    tensors: dict[str, torch.Tensor]
    """Of the rows that begin."""
    rows: Sequence[Row]
    slots: int
    """Rows that are computed at once."""


class Generated(NamedTuple):
    """What was generated for a row: the new tokens of each sequence."""

    sequences: list[list[int]]


class Search:
    """The device thread's part of a Generator.

    Args:
        model: A ``GenerationMixin``.
        tokenizer: For this thread alone: it finds the stop texts.
        ids: The special tokens, under the names of ``GenerationConfig``.
    """

    def __init__(self, model: Any, tokenizer: Any, ids: Mapping[str, Any]) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._ids = ids
        self._eos: list[int] = ids["eos_token_id"] or []
        self._decodes_only = not model.config.is_encoder_decoder

    def collate(self, batch: Batch) -> Inputs:
        """Pad the rows that come first, left where a text is continued, else right: int64, shape [rows, longest]."""
        return Inputs(self._padded(batch.rows[: batch.slots]), batch.rows, batch.slots)

    def _padded(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        return pad(rows, {"input_ids": self._ids["pad_token_id"]}, self._model.device, left=self._decodes_only)

    @torch.inference_mode()
    def forward(self, inputs: Inputs) -> list[Generated | RequestError]:
        """Generate; for each row its new tokens, or why there are none."""
        rows = inputs.rows
        first: Decoding = rows[0].parameters
        width = inputs.tensors["input_ids"].shape[1]
        logits = RowLogits(self._model, rows, width)
        ends = RowEnds(self._tokenizer, rows, width if self._decodes_only else 1)
        found = (self._beams if first.beams > 1 else self._greedy)(inputs, logits, ends)
        return [
            InferenceFailedError("the model returned logits that are not finite")
            if failed
            else Generated(found[index * first.sequences : (index + 1) * first.sequences])
            for index, failed in enumerate(logits.failed)
        ]

    def _greedy(self, inputs: Inputs, logits: RowLogits, ends: RowEnds) -> list[list[int]]:
        """Return the new tokens of each row."""
        config = self._config(inputs.rows)

        def begin(rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, Any]]:
            tensors = inputs.tensors if 0 in rows else self._padded([inputs.rows[row] for row in rows])
            ids, prepared = self._model.generate(**tensors, generation_config=config, custom_generate=_hand_over)
            if inputs.slots < len(inputs.rows):
                # generate() drops the mask of rows that need no padding: those that join them may.
                prepared["attention_mask"] = tensors["attention_mask"]
            return ids, prepared

        return GreedySearch(self._model, begin, logits, ends, self._eos).run(len(inputs.rows), inputs.slots)

    def _beams(self, inputs: Inputs, logits: RowLogits, ends: RowEnds) -> list[list[int]]:
        """Return the new tokens of each row's best sequences."""
        first: Decoding = inputs.rows[0].parameters
        config = self._config(
            inputs.rows,
            num_beams=first.beams,
            num_return_sequences=first.sequences,
            return_dict_in_generate=True,
            **{name: first.settings[name] for name in ("length_penalty", "early_stopping") if name in first.settings},
        )
        generated = self._model.generate(
            **inputs.tensors,
            generation_config=config,
            logits_processor=LogitsProcessorList([logits]),
            stopping_criteria=StoppingCriteriaList([ends]),
        )
        start = inputs.tensors["input_ids"].shape[1] if self._decodes_only else 1
        lengths = (generated.beam_indices >= 0).sum(dim=1).tolist()
        sequences = zip(generated.sequences[:, start:].tolist(), lengths, strict=True)
        return [self._cut(sequence[:length]) for sequence, length in sequences]

    def _config(self, rows: Sequence[Row], **arguments: Any) -> GenerationConfig:
        """Return no parameters but what the batch must have in common: all others are the rows' own."""
        longest = max(row.parameters.max_new_tokens for row in rows)
        return GenerationConfig(**self._ids, do_sample=False, max_new_tokens=longest, **arguments)

    def _cut(self, sequence: list[int]) -> list[int]:
        """Cut what stands behind the end: what a beam was filled up with until the last of its batch had ended."""
        ends = (index for index, identifier in enumerate(sequence) if identifier in self._eos)
        return sequence[: next(ends, len(sequence)) + 1]


def _hand_over(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    **inputs: Any,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """For ``custom_generate``: what ``generate()`` has prepared, for GreedySearch to go on with."""
    del model, logits_processor, stopping_criteria, generation_config
    return input_ids, inputs
