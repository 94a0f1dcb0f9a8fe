"""Text classification: a text, or a pair of texts, is given labels with scores.

The steps of ``transformers.TextClassificationPipeline`` (transformers 5), for rows of different requests at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from nlp_schemas import (
    Label,
    Request,
    TaskName,
    TextClassificationRequest,
    TextClassificationResult,
    TextPair,
)
from nlp_worker.errors import InferenceFailedError, InputTooLongError, RequestError
from nlp_worker.tasks.base import Prepared
from nlp_worker.tasks.encoder import Encoder, shortest_floats

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row

#: Bytes of an answer beside its labels, and of one label with its score: estimates for the memory of a poll.
ANSWER_BYTES: Final = 400
LABEL_BYTES: Final = 60


class TextClassification:
    """Text classification on one checkpoint."""

    name = TaskName.TEXT_CLASSIFICATION
    result = TextClassificationResult

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = checkpoint.model_info
        self._encoder = Encoder(checkpoint)
        config = checkpoint.model.config
        self._labels = [str(config.id2label[index]) for index in range(config.num_labels)]
        self._default_function = _default_function(config.problem_type, config.num_labels)

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        texts = [_of_task(request).inputs for request in requests]
        firsts = [text.text if isinstance(text, TextPair) else text for text in texts]
        seconds = [text.text_pair if isinstance(text, TextPair) else None for text in texts]
        rows = self._encoder.tokenize(firsts, seconds)
        return [self._prepare(_of_task(request), row) for request, row in zip(requests, rows, strict=True)]

    def _prepare(self, request: TextClassificationRequest, row: Row) -> Prepared | RequestError:
        longest, truncated = self._encoder.max_length, False
        if row.length > longest:
            if not request.parameters.truncation:
                problem = f"inputs have {row.length} tokens, the model reads {longest}"
                return InputTooLongError(f"{problem}: shorten them, or leave out truncation")
            row, truncated = self._encoder.truncate(request.inputs), True
        labels = min(request.parameters.top_k or len(self._labels), len(self._labels))
        return Prepared([row], truncated, ANSWER_BYTES + labels * LABEL_BYTES)

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        return self._encoder.collate(rows)

    def forward(self, inputs: dict[str, torch.Tensor]) -> list[NDArray[np.float32]]:
        """Return the logits of each row, shape [labels], float32."""
        logits = self._encoder.forward(inputs).logits
        return list(logits.float().cpu().numpy())

    def postprocess(self, request: Request, outputs: Sequence[NDArray[np.float32]]) -> list[Label]:
        (logits,) = outputs
        parameters = _of_task(request).parameters
        scores = _apply(parameters.function_to_apply or self._default_function, logits)
        if not np.isfinite(scores).all():
            raise InferenceFailedError("the model returned scores that are not finite")
        # Stable: labels of equal score keep their order, as in the pipeline.
        best = np.argsort(-scores, kind="stable")[: parameters.top_k]
        return [
            Label(label=self._labels[index], score=score)
            for index, score in zip(best.tolist(), shortest_floats(scores[best]), strict=True)
        ]

    def warm_up_rows(self) -> list[Row]:
        return self._encoder.tokenize(["A sentence to warm up with."] * 2, [None] * 2)


def _of_task(request: Request) -> TextClassificationRequest:
    if not isinstance(request, TextClassificationRequest):
        raise TypeError(f"{type(request).__name__} is no text classification. This is a bug.")
    return request


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
    if function == "softmax":
        shifted = np.exp(logits - logits.max())
        return np.asarray(shifted / shifted.sum())
    return logits
