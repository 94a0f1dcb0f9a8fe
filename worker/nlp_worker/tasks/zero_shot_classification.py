"""Zero-shot classification: a natural-language-inference model says which labels a text entails.

The steps of ``transformers.ZeroShotClassificationPipeline`` (transformers 5; Yin et al. 2019, arXiv:1909.00161). Each
label is a row, and rows of different requests share batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import structlog
import transformers

from nlp_schemas import (
    Request,
    TaskName,
    ZeroShotClassificationOutput,
    ZeroShotClassificationRequest,
    ZeroShotClassificationResult,
)
from nlp_worker.tasks.base import ANSWER_BYTES, Finished, Prepared
from nlp_worker.tasks.encoder import expect, prepared_or_error
from nlp_worker.tasks.numbers import shortest_floats, softmax
from nlp_worker.tasks.sequence_classifier import SequenceClassifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Pending
    from nlp_worker.tasks.encoder import Texts

log = structlog.get_logger()

#: Bytes of a score: an estimate for the memory of a poll.
SCORE_BYTES: Final = 20


class ZeroShotClassification:
    """Zero-shot classification on one checkpoint."""

    name = TaskName.ZERO_SHOT_CLASSIFICATION
    request = ZeroShotClassificationRequest
    result = ZeroShotClassificationResult
    model_class = transformers.AutoModelForSequenceClassification
    unread_weights = None
    max_batch_tokens = None

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = checkpoint.model_info
        self._encoder = SequenceClassifier(checkpoint)
        self.packs = self._encoder.packs
        self._entailment = _entailment_index(checkpoint.model.config.label2id)
        if self._entailment == -1:
            log.warning(
                "no_entailment_label", checkpoint=self.model.checkpoint, reason="its last label is taken for it"
            )
        self._contradiction = -1 if self._entailment == 0 else 0

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        mine = [expect(request, ZeroShotClassificationRequest) for request in requests]
        pairs = [[(one.inputs, hypothesis) for hypothesis in one.parameters.hypotheses] for one in mine]
        rows = iter(self._encoder.tokenize([pair for of_one in pairs for pair in of_one]))
        return [
            prepared_or_error(self._prepare, request, [next(rows) for _ in of_one], of_one)
            for request, of_one in zip(mine, pairs, strict=True)
        ]

    def _prepare(self, request: ZeroShotClassificationRequest, rows: list[Row], pairs: list[Texts]) -> Prepared:
        # The text is cut, never the hypothesis.
        fitted = [
            self._encoder.fit(row, pair, request.parameters, strategy="only_first")
            for row, pair in zip(rows, pairs, strict=True)
        ]
        labels = sum(len(label) + SCORE_BYTES for label in request.parameters.labels)
        truncated = any(truncated for _, truncated in fitted)
        return Prepared([row for row, _ in fitted], truncated, ANSWER_BYTES + len(request.inputs) + labels)

    def collate(self, batch: Batch) -> dict[str, Any]:
        return self._encoder.collate(batch.rows)

    def forward(self, inputs: dict[str, Any]) -> Sequence[NDArray[np.float32]] | Pending:
        return self._encoder.logits(inputs)

    def postprocess(self, request: Request, rows: Sequence[Row]) -> Finished:
        asked = expect(request, ZeroShotClassificationRequest)
        logits, labels = np.stack([row.output for row in rows]), asked.parameters.labels
        if asked.parameters.multi_label or len(labels) == 1:
            scores = softmax(logits[:, [self._contradiction, self._entailment]])[:, 1]
        else:
            scores = softmax(logits[:, self._entailment])
        # Of equal scores the later label comes first, as in the pipeline, which reverses an ascending sort.
        best = np.argsort(scores, kind="stable")[::-1]
        return Finished(
            ZeroShotClassificationOutput(
                sequence=asked.inputs,
                labels=[labels[index] for index in best.tolist()],
                scores=shortest_floats(scores[best]),
            )
        )

    def warm_up_rows(self) -> list[Row]:
        return self._encoder.tokenize([("A sentence to warm up with.", "This example is warm.")] * 2)


def _entailment_index(label2id: Mapping[str, int]) -> int:
    """Return the index of the logit for entailment; -1, the last one, where no label says so."""
    return next((index for label, index in label2id.items() if label.lower().startswith("entail")), -1)
