"""Extractive question answering: the span of a text that answers a question.

The steps of transformers 4's ``QuestionAnsweringPipeline``, which transformers 5 dropped. Each window of a long context
is a row; the answers of all windows are put together per request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import transformers

from nlp_schemas import QuestionAnsweringRequest, QuestionAnsweringResult, Request, Span, TaskName
from nlp_worker.errors import CheckpointError, InvalidRequestError
from nlp_worker.tasks.base import ANSWER_BYTES, Finished, Prepared
from nlp_worker.tasks.encoder import Collated, Encoded, Encoder, expect, prepared_or_error
from nlp_worker.tasks.numbers import shortest_floats, softmax
from nlp_worker.tasks.packing import by_row
from nlp_worker.tasks.transfer import from_device
from nlp_worker.tasks.windows import Window, cut_windows, room_for_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from nlp_schemas import QuestionAnsweringParameters
    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Pending

#: Tokens of a window, and that windows have in common, where the request does not say: the pipeline's.
MAX_SEQ_LEN: Final = 384
DOC_STRIDE: Final = 128

#: The logit of a token that cannot be in an answer: the pipeline's.
EXCLUDED: Final = -10_000.0

#: Bytes of one span: an estimate for the memory of a poll.
SPAN_BYTES: Final = 200

#: The request's parameters for the size of a window, and for what neighbours have in common.
NAMES: Final = ("parameters.max_seq_len", "parameters.doc_stride")

#: The sequence that the context is in a pair: the question comes first.
CONTEXT: Final = 1


class Logits(NamedTuple):
    """Of each token of a row, to be the first and the last of an answer; shape [tokens], float32."""

    start: NDArray[np.float32]
    end: NDArray[np.float32]


class QuestionAnswering:
    """Question answering on one checkpoint."""

    name = TaskName.QUESTION_ANSWERING
    request = QuestionAnsweringRequest
    result = QuestionAnsweringResult
    model_class = transformers.AutoModelForQuestionAnswering
    unread_weights = None
    max_batch_tokens = None

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = checkpoint.model_info
        self._encoder = Encoder(checkpoint)
        self.packs = self._encoder.packs
        self._cls = checkpoint.tokenizer.cls_token_id
        if not checkpoint.tokenizer.is_fast:
            problem = f"checkpoint {self.model.checkpoint} cannot point into a text"
            raise CheckpointError(f"{problem}: question answering needs a fast tokenizer, one with a tokenizer.json")

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        mine = [expect(request, QuestionAnsweringRequest) for request in requests]
        encodings = self._encoder.encode([(request.inputs.question, request.inputs.context) for request in mine])
        return [prepared_or_error(self._prepare, *each) for each in zip(mine, encodings, strict=True)]

    def _prepare(self, request: QuestionAnsweringRequest, encoding: Encoded) -> Prepared:
        parameters = request.parameters
        if CONTEXT not in encoding.sequence_ids:
            raise InvalidRequestError("inputs.context makes no tokens of this checkpoint: send a text")
        longest = self._encoder.longest(parameters.max_seq_len or MAX_SEQ_LEN)
        stride = min(longest // 2, DOC_STRIDE) if parameters.doc_stride is None else parameters.doc_stride
        if stride > longest:
            raise InvalidRequestError(f"parameters.doc_stride is {stride}: a window has {longest} tokens (max_seq_len)")
        room = room_for_text(encoding, CONTEXT, longest, NAMES[0])
        if parameters.doc_stride is None and stride >= room:
            stride = room // 2  # a long question leaves less room than the default overlap, which nobody asked for
        windows = cut_windows(encoding, CONTEXT, longest, stride, names=NAMES)
        rows = [self._row(window) for window in windows]
        return Prepared(rows, output_bytes=ANSWER_BYTES + parameters.top_k * SPAN_BYTES)

    def _row(self, window: Window) -> Row:
        row = self._encoder.row(window.encoding, window.indices)
        row.context = window
        return row

    def collate(self, batch: Batch) -> Collated:
        return Collated(self._encoder.collate(batch.rows), batch.rows)

    def forward(self, inputs: Collated) -> Sequence[Logits] | Pending:
        output = self._encoder.forward(inputs.tensors)

        def of_rows(*logits: torch.Tensor) -> list[Logits]:
            starts, ends = (by_row(values, inputs.rows) for values in logits)
            return [Logits(start.numpy(), end.numpy()) for start, end in zip(starts, ends, strict=True)]

        return from_device(of_rows, output.start_logits.float(), output.end_logits.float())

    def postprocess(self, request: Request, rows: Sequence[Row]) -> Finished:
        asked = expect(request, QuestionAnsweringRequest)
        parameters = asked.parameters
        answers: dict[str, dict[str, Any]] = {}
        least_null = 1_000_000.0  # above any probability
        for row in rows:
            candidates, null = self._candidates(row, parameters)
            least_null = min(least_null, null)
            for score, start, end in candidates:
                text = asked.inputs.context[start:end]
                # Equal texts are one answer: the first place counts, and the scores of all.
                answer = answers.setdefault(text.lower(), {"score": 0.0, "start": start, "end": end, "answer": text})
                answer["score"] += score
        found = list(answers.values())
        if parameters.handle_impossible_answer:
            found.append({"score": least_null, "start": 0, "end": 0, "answer": ""})
        best = sorted(found, key=lambda answer: answer["score"], reverse=True)[: parameters.top_k]
        scores = shortest_floats(np.array([answer["score"] for answer in best], dtype=np.float32))
        spans = [Span(**{**answer, "score": score}) for answer, score in zip(best, scores, strict=True)]
        return Finished(spans[0] if len(spans) == 1 else spans)

    def _candidates(
        self, row: Row, parameters: QuestionAnsweringParameters
    ) -> tuple[list[tuple[float, int, int]], float]:
        """Return a window's best spans, (score, start, end) in characters, and the score of there being no answer."""
        encoding, indices = row.context.encoding, row.context.indices
        own = np.array([encoding.sequence_ids[index] == CONTEXT for index in indices])
        allowed = own | (np.array(row.features["input_ids"]) == self._cls)
        start, end = (softmax(np.where(allowed, logits, np.float32(EXCLUDED))) for logits in row.output)
        null = float(start[0] * end[0])
        start[0] = end[0] = 0.0
        # Aligned to words, several candidates may become one.
        most = parameters.top_k * 2 + 10 if parameters.align_to_words else parameters.top_k
        # An answer is of the context, whatever else the probabilities are shared with.
        spans = _best_spans(start[own], end[own], most, parameters.max_answer_len)
        tokens = [index for index, is_own in zip(indices, own, strict=True) if is_own]
        starts, ends = _characters(encoding, tokens, align_to_words=parameters.align_to_words)
        return [(score, starts[first], ends[last]) for first, last, score in spans], null

    def warm_up_rows(self) -> list[Row]:
        return self._encoder.tokenize([("What for?", "A sentence to warm up with.")] * 2)


def _best_spans(
    start: NDArray[np.float32], end: NDArray[np.float32], most: int, max_answer_len: int
) -> list[tuple[int, int, float]]:
    """Return the best (first token, last token, probability), best first."""
    width = min(max_answer_len, len(end))
    # [tokens, width]: the spans of 1 to `width` tokens that begin at each token, and none that end before they begin.
    ends = np.lib.stride_tricks.sliding_window_view(np.pad(end, (0, width - 1)), width)
    scores = (start[:, None] * ends).ravel()
    if most == 1:
        best = np.array([scores.argmax()])
    else:
        best = np.argpartition(-scores, min(most, len(scores)) - 1)[:most]
        best = best[np.argsort(-scores[best], kind="stable")]
    firsts, widths = np.unravel_index(best, (len(start), width))
    lasts = firsts + widths
    inside = lasts < len(end)
    return list(zip(firsts[inside].tolist(), lasts[inside].tolist(), scores[best][inside].tolist(), strict=True))


def _characters(encoding: Encoded, tokens: Sequence[int], *, align_to_words: bool) -> tuple[list[int], list[int]]:
    """Return where in the context an answer begins that begins with each of a window's tokens, and where it ends.

    Aligned to words, it begins and ends where the token's word does, or where the window cuts that.
    """
    starts = [encoding.offsets[token][0] for token in tokens]
    ends = [encoding.offsets[token][1] for token in tokens]
    if align_to_words:
        words = [encoding.word_ids[token] for token in tokens]
        same = [
            place for place in range(1, len(words)) if words[place] is not None and words[place] == words[place - 1]
        ]
        for place in same:
            starts[place] = starts[place - 1]
        for place in reversed(same):
            ends[place - 1] = ends[place]
    return starts, ends
