"""Text classification: a text, or a pair of texts, is given labels with scores.

The steps of ``transformers.TextClassificationPipeline`` (transformers 5), for rows of different requests at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import transformers

from nlp_schemas import Label, Request, TaskName, TextClassificationRequest, TextClassificationResult, TextPair
from nlp_worker.tasks.base import ANSWER_BYTES, Finished, Prepared
from nlp_worker.tasks.encoder import expect, prepared_or_error
from nlp_worker.tasks.numbers import expect_finite, shortest_floats, softmax
from nlp_worker.tasks.sequence_classifier import SequenceClassifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Pending
    from nlp_worker.tasks.encoder import Texts

#: Bytes of one label with its score: an estimate for the memory of a poll.
LABEL_BYTES: Final = 60


class TextClassification:
    """Text classification on one checkpoint."""

    name = TaskName.TEXT_CLASSIFICATION
    request = TextClassificationRequest
    result = TextClassificationResult
    model_class = transformers.AutoModelForSequenceClassification
    unread_weights = None
    max_batch_tokens = None

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = checkpoint.model_info
        self._encoder = SequenceClassifier(checkpoint)
        self.packs = self._encoder.packs
        config = checkpoint.model.config
        self._labels = [str(config.id2label[index]) for index in range(config.num_labels)]
        self._default_function = _default_function(config.problem_type, config.num_labels)

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        mine = [expect(request, TextClassificationRequest) for request in requests]
        texts = [_texts(request.inputs) for request in mine]
        rows = self._encoder.tokenize(texts)
        return [prepared_or_error(self._prepare, *each) for each in zip(mine, rows, texts, strict=True)]

    def _prepare(self, request: TextClassificationRequest, row: Row, texts: Texts) -> Prepared:
        row, truncated = self._encoder.fit(row, texts, request.parameters)
        labels = min(request.parameters.top_k or len(self._labels), len(self._labels))
        return Prepared([row], truncated, ANSWER_BYTES + labels * LABEL_BYTES)

    def collate(self, batch: Batch) -> dict[str, Any]:
        return self._encoder.collate(batch.rows)

    def forward(self, inputs: dict[str, Any]) -> Sequence[NDArray[np.float32]] | Pending:
        return self._encoder.logits(inputs)

    def postprocess(self, request: Request, rows: Sequence[Row]) -> Finished:
        parameters = expect(request, TextClassificationRequest).parameters
        # A sigmoid makes 0 or 1 of an infinite logit, and that would look like an answer.
        expect_finite(rows[0].output)
        scores = _apply(parameters.function_to_apply or self._default_function, rows[0].output)
        # Stable: labels of equal score keep their order, as in the pipeline.
        best = np.argsort(-scores, kind="stable")[: parameters.top_k]
        pairs = zip(best.tolist(), shortest_floats(scores[best]), strict=True)
        return Finished([Label(label=self._labels[index], score=score) for index, score in pairs])

    def warm_up_rows(self) -> list[Row]:
        return self._encoder.warm_up_rows()


def _texts(inputs: str | TextPair) -> Texts:
    if isinstance(inputs, TextPair):
        # An empty second text is none, as in the pipeline: transformers' tokenizers take a single pair so.
        return inputs.text, inputs.text_pair or None
    return inputs, None


def _default_function(problem_type: str | None, labels: int) -> str:
    """Return what makes scores of logits when the request does not say."""
    if problem_type == "regression":
        return "none"
    return "sigmoid" if problem_type == "multi_label_classification" or labels == 1 else "softmax"


def _apply(function: str, logits: NDArray[np.float32]) -> NDArray[np.float32]:
    if function == "sigmoid":
        # exp() of large negative logits overflows to infinity, and 1 / infinity is the right 0.
        with np.errstate(over="ignore"):
            return np.asarray(1.0 / (1.0 + np.exp(-logits)))
    return softmax(logits) if function == "softmax" else logits
