"""Multiple choice: which of several texts goes with a prompt.

``AutoModelForMultipleChoice`` (transformers has no pipeline of this name). Each choice is a row, and rows of different
requests share batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import transformers

from nlp_schemas import Choice, MultipleChoiceRequest, MultipleChoiceResult, Request, TaskName
from nlp_worker.tasks.base import ANSWER_BYTES, Finished, Prepared
from nlp_worker.tasks.encoder import Encoder, expect, prepared_or_error
from nlp_worker.tasks.numbers import shortest_floats, softmax
from nlp_worker.tasks.transfer import from_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Pending
    from nlp_worker.tasks.encoder import Texts

#: Bytes of one choice: an estimate for the memory of a poll.
CHOICE_BYTES: Final = 40


#: What the model takes with a dimension for choices; positions, where they are given, without one.
PER_TOKEN: Final = ("input_ids", "token_type_ids", "attention_mask")


class _ChoiceEncoder(Encoder):
    """An ``AutoModelForMultipleChoice``."""

    reads_first = True

    def forward(self, inputs: dict[str, Any]) -> Any:
        """Run the model with each row as a request's only choice: it flattens them, and knows no request."""
        return super().forward(
            {name: value.unsqueeze(1) if name in PER_TOKEN else value for name, value in inputs.items()}
        )


class MultipleChoice:
    """Multiple choice on one checkpoint."""

    name = TaskName.MULTIPLE_CHOICE
    request = MultipleChoiceRequest
    result = MultipleChoiceResult
    model_class = transformers.AutoModelForMultipleChoice
    unread_weights = None
    max_batch_tokens = None

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = checkpoint.model_info
        self._encoder = _ChoiceEncoder(checkpoint)
        self.packs = self._encoder.packs

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        mine = [expect(request, MultipleChoiceRequest) for request in requests]
        pairs = [[(one.inputs.prompt, choice) for choice in one.inputs.choices] for one in mine]
        rows = iter(self._encoder.tokenize([pair for of_one in pairs for pair in of_one]))
        return [
            prepared_or_error(self._prepare, request, [next(rows) for _ in of_one], of_one)
            for request, of_one in zip(mine, pairs, strict=True)
        ]

    def _prepare(self, request: MultipleChoiceRequest, rows: list[Row], pairs: list[Texts]) -> Prepared:
        fitted = [self._encoder.fit(row, pair, request.parameters) for row, pair in zip(rows, pairs, strict=True)]
        truncated = any(truncated for _, truncated in fitted)
        return Prepared([row for row, _ in fitted], truncated, ANSWER_BYTES + len(pairs) * CHOICE_BYTES)

    def collate(self, batch: Batch) -> dict[str, Any]:
        return self._encoder.collate(batch.rows)

    def forward(self, inputs: dict[str, Any]) -> Sequence[np.float32] | Pending:
        """Return the logit of each row, float32."""
        logits = self._encoder.forward(inputs).logits.float()
        return from_device(lambda logits: list(logits.numpy()[:, 0]), logits)

    def postprocess(self, request: Request, rows: Sequence[Row]) -> Finished:
        del request
        scores: NDArray[np.float32] = softmax(np.array([row.output for row in rows], dtype=np.float32))
        best = np.argsort(-scores, kind="stable")
        pairs = zip(best.tolist(), shortest_floats(scores[best]), strict=True)
        return Finished([Choice(choice=index, score=score) for index, score in pairs])

    def warm_up_rows(self) -> list[Row]:
        return self._encoder.tokenize([("A prompt", "to warm up with.")] * 2)
