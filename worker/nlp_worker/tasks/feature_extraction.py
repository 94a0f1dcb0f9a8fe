"""Feature extraction: a vector for each token of a text, or one for the text.

The steps of ``transformers.FeatureExtractionPipeline`` (transformers 5), without its padding's vectors, and with the
pooling of sentence-transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import torch
import transformers

from nlp_schemas import FeatureExtractionRequest, FeatureExtractionResult, Request, TaskName
from nlp_worker.tasks.base import ANSWER_BYTES, Finished, Prepared
from nlp_worker.tasks.encoder import Collated, Encoder, expect, prepared_or_error
from nlp_worker.tasks.numbers import shortest_floats
from nlp_worker.tasks.packing import by_row
from nlp_worker.tasks.transfer import from_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Pending

#: Bytes of one number: an estimate for the memory of a poll.
NUMBER_BYTES: Final = 14


class Wanted(NamedTuple):
    """What of a row's vectors is copied from the device."""

    pooling: Literal["cls", "mean"] | None
    normalize: bool


class FeatureExtraction:
    """Feature extraction on one checkpoint."""

    name = TaskName.FEATURE_EXTRACTION
    request = FeatureExtractionRequest
    result = FeatureExtractionResult
    model_class = transformers.AutoModel
    unread_weights = "pooler."
    max_batch_tokens = None

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = checkpoint.model_info
        self._encoder = Encoder(checkpoint)
        self.packs = self._encoder.packs
        self._width = checkpoint.model.config.hidden_size
        if checkpoint.model.config.is_encoder_decoder and not self._decodes_by_itself():
            # T5 and Marian: no decoder's vectors without a text for the decoder.
            self._encoder.model = checkpoint.model.get_encoder()

    def _decodes_by_itself(self) -> bool:
        """Whether the model makes a text's decoder inputs of the text, as BART does."""
        try:
            self._encoder.forward(self._encoder.collate(self._encoder.warm_up_rows()))
        except ValueError:
            return False
        return True

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        mine = [expect(request, FeatureExtractionRequest) for request in requests]
        rows = self._encoder.tokenize([(request.inputs, None) for request in mine])
        return [prepared_or_error(self._prepare, *each) for each in zip(mine, rows, strict=True)]

    def _prepare(self, request: FeatureExtractionRequest, row: Row) -> Prepared:
        parameters = request.parameters
        row, truncated = self._encoder.fit(row, (request.inputs, None), parameters)
        row.parameters = Wanted(parameters.pooling, parameters.normalize)
        vectors = row.length if parameters.pooling is None else 1
        return Prepared([row], truncated, ANSWER_BYTES + vectors * self._width * NUMBER_BYTES)

    def collate(self, batch: Batch) -> Collated:
        return Collated(self._encoder.collate(batch.rows), batch.rows)

    @torch.inference_mode()
    def forward(self, inputs: Collated) -> Sequence[NDArray[np.float32]] | Pending:
        """Return each row's vectors, float32: shape [tokens, hidden], or pooled [hidden]."""
        hidden = by_row(self._encoder.forward(inputs.tensors)[0].float(), inputs.rows)
        vectors = [_pooled(of_row, *row.parameters) for of_row, row in zip(hidden, inputs.rows, strict=True)]
        return from_device(lambda *vectors: [of_row.numpy() for of_row in vectors], *vectors)

    def postprocess(self, request: Request, rows: Sequence[Row]) -> Finished:
        del request
        vectors = rows[0].output
        numbers = shortest_floats(vectors)
        if vectors.ndim == 1:
            return Finished(numbers)
        starts = range(0, len(numbers), vectors.shape[1])
        return Finished([[numbers[start : start + vectors.shape[1]] for start in starts]])

    def warm_up_rows(self) -> list[Row]:
        rows = self._encoder.warm_up_rows()
        for row in rows:
            row.parameters = Wanted("mean", normalize=True)
        return rows


def _pooled(vectors: torch.Tensor, pooling: str | None, normalize: Any) -> torch.Tensor:
    if pooling is None:
        return vectors
    pooled = vectors[0] if pooling == "cls" else vectors.mean(dim=0)
    return torch.nn.functional.normalize(pooled, dim=0) if normalize else pooled
