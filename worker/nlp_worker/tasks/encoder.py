"""What the encoder tasks share: one batched tokenizer call, padding with a mask, and the forward."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from nlp_schemas import TextPair
from nlp_worker.poll import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nlp_worker.models import Checkpoint

#: Positions that a RoBERTa-like model loses: its first position id is the padding id + 1.
OFFSET_POSITIONS: Final = frozenset({"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "roberta-prelayernorm"})


class Encoder:
    """A checkpoint's tokenizer and model, as far as a task with one forward per row needs them."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._tokenizer = checkpoint.tokenizer
        self._model = checkpoint.model
        parameters = inspect.signature(self._model.forward).parameters
        # transformers 5 no longer returns the token types of ALBERT by itself, and pairs are wrong without them.
        self._token_types = "token_type_ids" in parameters and getattr(self._model.config, "type_vocab_size", 0) > 1
        self._features = [name for name in ("input_ids", "token_type_ids") if name in parameters]
        self._use_cache = {"use_cache": False} if "use_cache" in parameters else {}
        self._padding = {
            "input_ids": self._tokenizer.pad_token_id or 0,
            "token_type_ids": self._tokenizer.pad_token_type_id,
        }
        self.max_length = _max_length(self._tokenizer, self._model.config)

    def tokenize(self, firsts: Sequence[str], seconds: Sequence[str | None]) -> list[Row]:
        """Make a row of each text, or pair of texts, whatever its length; one call for texts and one for pairs."""
        rows: list[Row | None] = [None] * len(firsts)
        singles = [index for index, second in enumerate(seconds) if second is None]
        pairs = [index for index, second in enumerate(seconds) if second is not None]
        for indices in (singles, pairs):
            if indices:
                arguments = [[firsts[index] for index in indices]]
                if indices is pairs:
                    arguments.append([str(seconds[index]) for index in indices])
                for index, row in zip(indices, self._call(*arguments), strict=True):
                    rows[index] = row
        return [row for row in rows if row is not None]

    def truncate(self, inputs: str | TextPair) -> Row:
        """Make a row of at most ``max_length`` tokens; of a pair the longer text is cut first."""
        texts = [[inputs.text], [inputs.text_pair]] if isinstance(inputs, TextPair) else [[inputs]]
        (row,) = self._call(*texts, truncation=True, max_length=self.max_length)
        return row

    def _call(self, *texts: list[str], **options: Any) -> list[Row]:
        # verbose: no warning for a text that is too long, which is not an accident here.
        encoded = self._tokenizer(
            *texts, return_attention_mask=False, return_token_type_ids=self._token_types, verbose=False, **options
        )
        names = [name for name in self._features if name in encoded]
        columns = [encoded[name] for name in names]
        return [Row(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Pad on the right to the longest row: int64 tensors on the model's device, shape [rows, longest].

        On the right because these models number positions from the first token on, and read the first token's output.
        """
        shape = (len(rows), max(row.length for row in rows))
        arrays = {name: np.full(shape, self._padding[name], dtype=np.int64) for name in rows[0].features}
        mask = np.zeros(shape, dtype=np.int64)
        for index, row in enumerate(rows):
            mask[index, : row.length] = 1
            for name, values in row.features.items():
                arrays[name][index, : row.length] = values
        tensors = {**arrays, "attention_mask": mask}
        return {name: torch.from_numpy(array).to(self._model.device) for name, array in tensors.items()}

    def forward(self, inputs: dict[str, torch.Tensor]) -> Any:
        with torch.inference_mode():
            return self._model(**inputs, **self._use_cache)


def _max_length(tokenizer: Any, config: Any) -> int:
    """Return the most tokens of a row: what tokenizer and positions both allow."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions <= 0:
        return int(tokenizer.model_max_length)  # relative positions: the tokenizer alone says
    if config.model_type in OFFSET_POSITIONS:
        positions -= config.pad_token_id + 1
    return int(min(tokenizer.model_max_length, positions))


def shortest_floats(values: NDArray[np.float32]) -> list[float]:
    """Return floats that print as the shortest decimal number which is the same float32."""
    return [float(number) for number in values.astype(np.float32).astype(str)]
