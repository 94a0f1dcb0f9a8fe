"""Fill-mask: the words that a masked language model puts in the place of a text's mask tokens.

The steps of ``transformers.FillMaskPipeline`` (transformers 5).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
import transformers

from nlp_schemas import Filling, FillMaskRequest, FillMaskResult, Request, TaskName
from nlp_schemas.understanding import MAX_FILLINGS
from nlp_worker.errors import CheckpointError, InputTooLongError, InvalidRequestError
from nlp_worker.tasks.base import ANSWER_BYTES, Finished, Prepared
from nlp_worker.tasks.encoder import Collated, Encoder, expect, prepared_or_error
from nlp_worker.tasks.numbers import shortest_floats
from nlp_worker.tasks.packing import by_row
from nlp_worker.tasks.transfer import from_device, to_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Pending

#: Bytes of logits, float32, of one batch: a large vocabulary (250,000) allows 1,000 tokens.
LOGITS_BYTES: Final = 2**30

#: Bytes of a filling beside its sequence: an estimate for the memory of a poll.
FILLING_BYTES: Final = 100


class Wanted(NamedTuple):
    """What of a row's probabilities is copied from the device."""

    top_k: int
    targets: list[int] | None
    """Ids to choose from; else the whole vocabulary."""


class Best(NamedTuple):
    """The best tokens of each mask of a row, shape [masks, top_k], best first."""

    scores: NDArray[np.float32]
    tokens: NDArray[np.int64]


class FillMask:
    """Fill-mask on one checkpoint."""

    name = TaskName.FILL_MASK
    request = FillMaskRequest
    result = FillMaskResult
    model_class = transformers.AutoModelForMaskedLM
    unread_weights = None

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = checkpoint.model_info
        self._encoder = Encoder(checkpoint)
        self.packs = self._encoder.packs
        self._tokenizer = checkpoint.tokenizer
        self._mask = checkpoint.tokenizer.mask_token_id
        if self._mask is None:
            raise CheckpointError(
                f"checkpoint {self.model.checkpoint} cannot fill masks: its tokenizer has no mask token"
            )
        self._vocabulary = checkpoint.tokenizer.get_vocab()
        self._size = checkpoint.model.config.vocab_size
        self.max_batch_tokens = max(LOGITS_BYTES // (4 * self._size), 1)

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        mine = [expect(request, FillMaskRequest) for request in requests]
        rows = self._encoder.tokenize([(request.inputs, None) for request in mine])
        return [prepared_or_error(self._prepare, *each) for each in zip(mine, rows, strict=True)]

    def _prepare(self, request: FillMaskRequest, whole: Row) -> Prepared:
        parameters = request.parameters
        row, truncated = self._encoder.fit(whole, (request.inputs, None), parameters)
        masks = row.features["input_ids"].count(self._mask)
        if not masks and self._mask in whole.features["input_ids"]:
            raise InputTooLongError(
                f"the {self._tokenizer.mask_token} token is not among the first {row.length} tokens"
            )
        if not masks:
            problem = f"inputs has no {self._tokenizer.mask_token} token"
            raise InvalidRequestError(f"{problem}: put one where a word is to be found")
        targets = self._targets(parameters.targets)
        top_k = min(parameters.top_k, len(targets or range(self._size)))
        if masks * top_k > MAX_FILLINGS:
            problem = (
                f"{masks} masks with {top_k} words each are {masks * top_k} fillings, at most {MAX_FILLINGS} are made"
            )
            raise InvalidRequestError(f"parameters.top_k: {problem}")
        row.parameters = Wanted(top_k, targets)
        filling = FILLING_BYTES + len(request.inputs)
        return Prepared([row], truncated, ANSWER_BYTES + masks * top_k * filling)

    def _targets(self, targets: str | list[str] | None) -> list[int] | None:
        """Return the ids of target words: a word that is no entry of the vocabulary is taken for its first token."""
        if targets is None:
            return None
        ids = {self._target(target) for target in ([targets] if isinstance(targets, str) else targets)} - {None}
        if not ids:
            raise InvalidRequestError("parameters.targets: none of them makes a token of this checkpoint")
        return sorted(identifier for identifier in ids if identifier is not None)

    def _target(self, target: str) -> int | None:
        if target in self._vocabulary:
            return int(self._vocabulary[target])
        ids = self._tokenizer(target, add_special_tokens=False)["input_ids"]
        return int(ids[0]) if ids else None

    def collate(self, batch: Batch) -> Collated:
        return Collated(self._encoder.collate(batch.rows), batch.rows)

    @torch.inference_mode()
    def forward(self, inputs: Collated) -> Sequence[Best] | Pending:
        logits = by_row(self._encoder.forward(inputs.tensors).logits, inputs.rows)
        best = [self._best(*each) for each in zip(logits, inputs.rows, strict=True)]

        def of_rows(*tensors: torch.Tensor) -> list[Best]:
            arrays = [tensor.numpy() for tensor in tensors]
            return [Best(*each) for each in zip(arrays[::2], arrays[1::2], strict=True)]

        return from_device(of_rows, *itertools.chain.from_iterable(best))

    def _best(self, logits: torch.Tensor, row: Row) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores and ids of each mask's best tokens; scores are of the whole vocabulary, whatever is wanted."""
        wanted: Wanted = row.parameters
        masks = np.flatnonzero(np.array(row.features["input_ids"]) == self._mask)
        probabilities = logits[to_device(masks, logits.device)].float().softmax(dim=-1)
        if wanted.targets is None:
            return probabilities.topk(wanted.top_k)
        targets = to_device(np.array(wanted.targets), logits.device)
        scores, indices = probabilities[:, targets].topk(wanted.top_k)
        return scores, targets[indices]

    def postprocess(self, request: Request, rows: Sequence[Row]) -> Finished:
        del request
        (row,) = rows
        ids = np.array(row.features["input_ids"])
        masks = np.flatnonzero(ids == self._mask)
        fillings = [
            [
                self._filling(ids, mask, *each, alone=len(masks) == 1)
                for each in zip(shortest_floats(of_mask), tokens, strict=True)
            ]
            for mask, of_mask, tokens in zip(masks, row.output.scores, row.output.tokens.tolist(), strict=True)
        ]
        return Finished(fillings[0] if len(fillings) == 1 else fillings)

    def _filling(self, ids: NDArray[np.int64], mask: Any, score: float, token: int, *, alone: bool) -> Filling:
        filled = ids.copy()
        filled[mask] = token
        filled = filled[filled != self._tokenizer.pad_token_id]
        return Filling(
            score=score,
            token=token,
            token_str=self._tokenizer.decode([token]),
            # With several masks the others stay visible, and so do all special tokens.
            sequence=self._tokenizer.decode(filled.tolist(), skip_special_tokens=alone),
        )

    def warm_up_rows(self) -> list[Row]:
        rows = self._encoder.tokenize([(f"A {self._tokenizer.mask_token} to warm up with.", None)] * 2)
        for row in rows:
            row.parameters = Wanted(1, None)
        return rows
