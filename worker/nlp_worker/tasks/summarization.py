"""Summarization: a text becomes a shorter one.

The steps of transformers 4's ``SummarizationPipeline``, which transformers 5 dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import transformers

from nlp_schemas import Request, SummarizationParameters, SummarizationRequest, SummarizationResult, Summary, TaskName
from nlp_worker.tasks.base import Finished
from nlp_worker.tasks.encoder import expect, prepared_or_error
from nlp_worker.tasks.seq2seq import Seq2Seq, task_params

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlp_worker.errors import RequestError
    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Prepared


class Summarization(Seq2Seq):
    """Summarization on one checkpoint."""

    name = TaskName.SUMMARIZATION
    request = SummarizationRequest
    result = SummarizationResult
    model_class = transformers.AutoModelForSeq2SeqLM
    unread_weights = None

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self._task = next(iter(task_params(checkpoint, "summarization").values()))

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        mine = [expect(request, SummarizationRequest) for request in requests]
        texts = [self._task.prefix + request.inputs for request in mine]
        rows = self._tokenize(texts)
        parameters = [request.parameters for request in mine]
        each = zip(parameters, rows, texts, [self._task] * len(mine), strict=True)
        return [prepared_or_error(self._prepare, *one) for one in each]

    def postprocess(self, request: Request, rows: Sequence[Row]) -> Finished:
        written = self._generator.finish(rows, expect(request, SummarizationRequest).parameters)
        return Finished([Summary(summary_text=text) for text in written.texts], written.tokens, written.reasons)

    def warm_up_rows(self) -> list[Row]:
        (row,) = self._tokenize(["A sentence to warm up with."])
        return self._prepare(SummarizationParameters(max_new_tokens=2), row, "", self._task).rows
