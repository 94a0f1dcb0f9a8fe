"""A task in one file: how alike a sentence and others are, as the hub's pipeline `sentence-similarity` has it.

nlp-worker run --plugin examples/sentence_similarity.py --model sentence-similarity=CHECKPOINT
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
import transformers
from pydantic import Field

from nlp_schemas import OkResult, Request, Truncation
from nlp_schemas.request import MAX_ROWS, Closed, NonEmptyText
from nlp_schemas.result import Finite
from nlp_worker.tasks.base import ANSWER_BYTES, Finished, Prepared
from nlp_worker.tasks.encoder import Collated, Encoder, expect, prepared_or_error
from nlp_worker.tasks.numbers import shortest_floats
from nlp_worker.tasks.packing import by_row
from nlp_worker.tasks.transfer import from_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Pending

#: Bytes of one number: an estimate for the memory of a poll.
NUMBER_BYTES = 14


# 1. The contract. Models are strict and closed: what a producer writes wrong is answered with what would be right.


class SimilarityInputs(Closed):
    """A sentence, and those that it is compared with."""

    source_sentence: NonEmptyText
    sentences: Annotated[list[NonEmptyText], Field(min_length=1, max_length=MAX_ROWS)]


class SimilarityRequest(Request):
    """A sentence to be compared with others."""

    task: Literal["sentence-similarity"] = "sentence-similarity"
    inputs: SimilarityInputs
    parameters: Truncation = Field(default_factory=Truncation)


class SimilarityResult(OkResult):
    """The cosine of each of the sentences with the source, in their order."""

    task: Literal["sentence-similarity"] = "sentence-similarity"
    outputs: list[Finite]


# 2. The task, in four steps (nlp_worker.tasks.base.Task). It never sees Kafka, polls or commits.


class SentenceSimilarity:
    """Sentence similarity on one checkpoint: a row for each sentence, and the cosine of their mean vectors."""

    name = "sentence-similarity"
    request = SimilarityRequest
    result = SimilarityResult
    model_class = transformers.AutoModel
    unread_weights = "pooler."  # sentence-transformers saves none, and nothing here reads them
    max_batch_tokens = None

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = checkpoint.model_info
        self._encoder = Encoder(checkpoint)
        self.packs = self._encoder.packs

    # On the control thread: texts to rows. All requests of a poll in one call of the tokenizer.
    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        mine = [expect(request, SimilarityRequest) for request in requests]
        texts = [[one.inputs.source_sentence, *one.inputs.sentences] for one in mine]
        rows = iter(self._encoder.tokenize([(text, None) for of_one in texts for text in of_one]))
        return [
            # A request that cannot be prepared is an error of its own, and costs its neighbours nothing.
            prepared_or_error(self._prepare, request, of_one, [next(rows) for _ in of_one])
            for request, of_one in zip(mine, texts, strict=True)
        ]

    def _prepare(self, request: SimilarityRequest, texts: list[str], rows: list[Row]) -> Prepared:
        fitted = [
            self._encoder.fit(row, (text, None), request.parameters) for row, text in zip(rows, texts, strict=True)
        ]
        truncated = any(truncated for _, truncated in fitted)
        return Prepared([row for row, _ in fitted], truncated, ANSWER_BYTES + len(texts) * NUMBER_BYTES)

    # On the device thread: rows of any requests, which the planner has put together, to tensors and back.
    def collate(self, batch: Batch) -> Collated:
        return Collated(self._encoder.collate(batch.rows), batch.rows)

    @torch.inference_mode()
    def forward(self, inputs: Collated) -> Sequence[Any] | Pending:
        """Return each row's vector, float32 [hidden], of length 1; padding is not in the mean."""
        hidden = by_row(self._encoder.forward(inputs.tensors)[0].float(), inputs.rows)
        means = torch.stack([of_row.mean(dim=0) for of_row in hidden])
        vectors = torch.nn.functional.normalize(means)
        return from_device(lambda vectors: list(vectors.numpy()), vectors)

    # On the control thread again: the rows of one request, with what forward returned for each, to its outputs.
    def postprocess(self, request: Request, rows: Sequence[Row]) -> Finished:
        del request
        source, *others = (row.output for row in rows)
        return Finished(shortest_floats(np.stack(others) @ source))

    def warm_up_rows(self) -> list[Row]:
        return self._encoder.warm_up_rows()


TASK = SentenceSimilarity
