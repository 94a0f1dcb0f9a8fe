"""Token classification: the words of a text are labelled; named entities, parts of speech.

The steps of ``transformers.TokenClassificationPipeline`` (transformers 5), whose aggregation is called as it is. Each
window of a long text is a row.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import transformers
from transformers.pipelines.token_classification import AggregationStrategy

from nlp_schemas import Request, TaskName, TokenClassificationRequest, TokenClassificationResult
from nlp_worker.errors import InputTooLongError, InvalidRequestError
from nlp_worker.tasks.base import ANSWER_BYTES, Finished, Prepared
from nlp_worker.tasks.encoder import Collated, Encoder, expect, prepared_or_error
from nlp_worker.tasks.numbers import shortest_floats, softmax
from nlp_worker.tasks.packing import by_row
from nlp_worker.tasks.transfer import from_device
from nlp_worker.tasks.windows import Window, cut_windows, first_window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nlp_schemas import TokenClassificationParameters
    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Pending

#: Bytes of one entity: an estimate for the memory of a poll.
ENTITY_BYTES: Final = 120

#: Strategies that need to know which tokens are one word.
WORD_STRATEGIES: Final = frozenset({"first", "average", "max"})


class TokenClassification:
    """Token classification on one checkpoint."""

    name = TaskName.TOKEN_CLASSIFICATION
    request = TokenClassificationRequest
    result = TokenClassificationResult
    model_class = transformers.AutoModelForTokenClassification
    unread_weights = None
    max_batch_tokens = None

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = checkpoint.model_info
        self._encoder = Encoder(checkpoint)
        self.packs = self._encoder.packs
        self._tokenizer = checkpoint.tokenizer
        # For its aggregation alone: it neither tokenizes nor computes.
        self._pipeline = transformers.TokenClassificationPipeline(
            model=checkpoint.model, tokenizer=checkpoint.tokenizer, device=checkpoint.model.device
        )
        backend = getattr(checkpoint.tokenizer, "backend_tokenizer", None)
        self._knows_subwords = bool(backend and getattr(backend.model, "continuing_subword_prefix", None))

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        mine = [expect(request, TokenClassificationRequest) for request in requests]
        texts = [request.inputs for request in mine]
        encodings = (
            self._encoder.encode([(text, None) for text in texts]) if self._tokenizer.is_fast else self._slow(texts)
        )
        return [prepared_or_error(self._prepare, *each) for each in zip(mine, encodings, strict=True)]

    def _slow(self, texts: Sequence[str]) -> list[Any]:
        """Return what a tokenizer in Python can say of texts: no offsets."""
        encoded = self._tokenizer(list(texts), return_special_tokens_mask=True, verbose=False)
        return [
            SimpleNamespace(
                ids=ids,
                type_ids=[0] * len(ids),
                special_tokens_mask=special,
                sequence_ids=[None if one else 0 for one in special],
                offsets=None,
            )
            for ids, special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
        ]

    def _prepare(self, request: TokenClassificationRequest, encoding: Any) -> Prepared:
        parameters = request.parameters
        if encoding.offsets is None and (
            parameters.aggregation_strategy in WORD_STRATEGIES or parameters.stride is not None
        ):
            problem = "this checkpoint's tokenizer does not tell where in the text a token stands"
            raise InvalidRequestError(f"{problem}: leave out stride, and use aggregation_strategy none or simple")
        longest, tokens = self._encoder.longest(parameters.max_length), len(encoding.ids)
        truncated = tokens > longest and parameters.stride is None
        if truncated and not parameters.truncation:
            problem = f"inputs have {tokens} tokens, at most {longest} are read"
            raise InputTooLongError(f"{problem}: shorten them, leave out truncation, or give stride")
        if truncated:
            windows = [first_window(encoding, 0, longest)]
        else:
            windows = cut_windows(encoding, 0, longest, parameters.stride or 0)
        rows = [self._row(window) for window in windows if window.indices]
        return Prepared(rows, truncated, ANSWER_BYTES + tokens * ENTITY_BYTES)

    def _row(self, window: Window) -> Row:
        row = self._encoder.row(window.encoding, window.indices)
        row.context = window
        return row

    def collate(self, batch: Batch) -> Collated:
        return Collated(self._encoder.collate(batch.rows), batch.rows)

    def forward(self, inputs: Collated) -> Sequence[NDArray[np.float32]] | Pending:
        """Return the logits of each row's tokens, shape [tokens, labels], float32."""
        logits = self._encoder.forward(inputs.tensors).logits.float()
        return from_device(lambda logits: [of_row.numpy() for of_row in by_row(logits, inputs.rows)], logits)

    def postprocess(self, request: Request, rows: Sequence[Row]) -> Finished:
        asked = expect(request, TokenClassificationRequest)
        entities = [entity for row in rows for entity in self._entities(asked.inputs, row, asked.parameters)]
        if len(rows) > 1:
            entities = self._pipeline.aggregate_overlapping_entities(entities)
        scores = shortest_floats(np.array([entity["score"] for entity in entities], dtype=np.float32))
        return Finished([{**entity, "score": score} for entity, score in zip(entities, scores, strict=True)])

    def _entities(self, text: str, row: Row, parameters: TokenClassificationParameters) -> list[dict[str, Any]]:
        tokens = self._tokens(text, row.context, softmax(row.output))
        found = self._pipeline.aggregate(tokens, AggregationStrategy[parameters.aggregation_strategy.upper()])
        ignored = parameters.ignore_labels
        return [entity for entity in found if entity.get("entity", entity.get("entity_group")) not in ignored]

    def _tokens(self, text: str, window: Window, scores: NDArray[np.float32]) -> list[dict[str, Any]]:
        """Return the window's tokens as the pipeline's aggregation takes them (its ``gather_pre_entities``)."""
        encoding, tokens = window.encoding, []
        ids, specials, offsets = encoding.ids, encoding.special_tokens_mask, encoding.offsets
        for position, index in enumerate(window.indices):
            if specials[index]:
                continue
            word, start, end, is_subword = self._tokenizer.convert_ids_to_tokens(ids[index]), None, None, False
            if offsets is not None:
                start, end = offsets[index]
                if ids[index] == self._tokenizer.unk_token_id:
                    word = text[start:end]
                elif self._knows_subwords:
                    is_subword = len(word) != end - start
                else:
                    is_subword = start > 0 and " " not in text[start - 1 : start + 1]
            tokens.append(
                {
                    "word": word,
                    "scores": scores[position],
                    "start": start,
                    "end": end,
                    "index": position,
                    "is_subword": is_subword,
                }
            )
        return tokens

    def warm_up_rows(self) -> list[Row]:
        return self._encoder.warm_up_rows()
