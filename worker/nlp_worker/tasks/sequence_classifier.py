"""A checkpoint that gives a whole row one set of logits, whatever its architecture reads them from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nlp_worker.tasks.encoder import Encoder
from nlp_worker.tasks.transfer import from_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from nlp_schemas import Truncation
    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Pending
    from nlp_worker.tasks.encoder import Texts


class SequenceClassifier(Encoder):
    """An ``AutoModelForSequenceClassification``."""

    reads_first = True

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        config = self.model.config
        # Encoder-decoders read the last end-of-sequence token, and demand that all rows have equally many of them.
        self._end = config.eos_token_id if config.is_encoder_decoder else None
        # Decoders read the last token that is no padding, which transformers finds for batches only where the
        # checkpoint names a padding token.
        self._head: Any = getattr(self.model, "score", self.model.classifier if config.model_type == "ctrl" else None)

    def fit(self, row: Row, texts: Texts, limits: Truncation, *, strategy: str | bool = True) -> tuple[Row, bool]:
        row, truncated = super().fit(row, texts, limits, strategy=strategy)
        if self._end is not None:
            row.group = row.features["input_ids"].count(self._end)
        return row, truncated

    @torch.inference_mode()
    def logits(self, inputs: dict[str, Any]) -> Sequence[NDArray[np.float32]] | Pending:
        """Return the logits of each row, shape [labels], float32."""
        logits = self.forward(inputs).logits if self._head is None else self._of_last_tokens(inputs)
        return from_device(lambda logits: list(logits.numpy()), logits.float())

    def _of_last_tokens(self, inputs: dict[str, Any]) -> Any:
        hidden = self.model.base_model(**inputs, **self._use_cache)[0]
        counted = inputs["attention_mask"].bool()
        if (padding := self.model.config.pad_token_id) is not None:
            # As transformers reads a single text: one that ends with the padding token ends before it.
            counted &= inputs["input_ids"] != padding
        positions = torch.arange(counted.shape[1], device=counted.device)
        last = (positions * counted).argmax(dim=1)
        return self._head(hidden[torch.arange(len(last), device=last.device), last])
