"""Translation: a text in another language.

The steps of transformers 4's ``TranslationPipeline``, which transformers 5 dropped. How languages are chosen differs
from family to family: by codes (mBART, M2M100, NLLB), by a prefix (T5), by a text's first word (Marian with several
targets), or not at all (Marian for one pair).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import transformers

from nlp_schemas import Request, TaskName, Translation, TranslationParameters, TranslationRequest, TranslationResult
from nlp_worker.errors import InvalidRequestError, RequestError
from nlp_worker.tasks.base import Finished
from nlp_worker.tasks.encoder import expect, prepared_or_error
from nlp_worker.tasks.seq2seq import Seq2Seq, TaskParams, task_params

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Prepared


class TranslationTask(Seq2Seq):
    """Translation on one checkpoint."""

    name = TaskName.TRANSLATION
    request = TranslationRequest
    result = TranslationResult
    model_class = transformers.AutoModelForSeq2SeqLM
    unread_weights = None

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        params = task_params(checkpoint, "translation")
        # Without languages the first one counts, as in the pipeline that is called "translation".
        self._any = next(iter(params.values()))
        self._pairs = {name: task for name, task in params.items() if name}
        self._tokenizer = checkpoint.tokenizer
        self._codes = _language_codes(checkpoint.tokenizer)
        self._target_words = getattr(checkpoint.tokenizer, "supported_language_codes", [])

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        mine = [expect(request, TranslationRequest) for request in requests]
        outcomes: list[Prepared | RequestError | None] = [None] * len(mine)
        sources: dict[str | None, list[tuple[int, str, TaskParams]]] = {}
        for index, request in enumerate(mine):
            try:
                source, text, task = self._source(request)
                sources.setdefault(source, []).append((index, text, task))
            except InvalidRequestError as error:
                outcomes[index] = error
        for source, texts in sources.items():
            if source is not None:
                # The tokenizer's own state, so one call for each language.
                self._tokenizer.src_lang = source
            rows = self._tokenize([text for _, text, _ in texts])
            for (index, text, task), row in zip(texts, rows, strict=True):
                outcomes[index] = prepared_or_error(self._prepare_into, mine[index].parameters, row, text, task)
        return [outcome for outcome in outcomes if outcome is not None]

    def _prepare_into(self, asked: TranslationParameters, row: Row, text: str, task: TaskParams) -> Prepared:
        forced = {"forced_bos_token_id": self._codes[asked.tgt_lang]} if self._codes and asked.tgt_lang else {}
        return self._prepare(asked, row, text, task, **forced)

    def _source(self, request: TranslationRequest) -> tuple[str | None, str, TaskParams]:
        """Return the tokenizer's language, if it must be set, the text as the encoder reads it, and what goes with it.

        Raises:
            InvalidRequestError: a language is missing, is one too many, or is none of the checkpoint's.
        """
        source, target = request.parameters.src_lang, request.parameters.tgt_lang
        if self._codes:
            _known(target, "tgt_lang", self._codes)
            return _known(source, "src_lang", self._codes), request.inputs, self._any
        if source is None and target is None:
            return None, self._any.prefix + request.inputs, self._any
        if self._pairs:
            name = f"translation_{source}_to_{target}"
            if name not in self._pairs:
                known = ", ".join(pair.removeprefix("translation_") for pair in self._pairs)
                problem = f"parameters.src_lang and tgt_lang: {source}_to_{target} is no pair of this checkpoint"
                raise InvalidRequestError(f"{problem}: there is {known}")
            return None, self._pairs[name].prefix + request.inputs, self._pairs[name]
        if self._target_words:
            if source is not None:
                raise InvalidRequestError("parameters.src_lang: this checkpoint has one source: leave it out")
            names = {word.strip("<>"): word for word in self._target_words}
            return None, f"{names[_known(target, 'tgt_lang', names)]} {request.inputs}", self._any
        problem = "parameters.src_lang and tgt_lang: this checkpoint translates one pair"
        raise InvalidRequestError(f"{problem}: leave them out")

    def postprocess(self, request: Request, rows: Sequence[Row]) -> Finished:
        written = self._generator.finish(rows, expect(request, TranslationRequest).parameters)
        return Finished([Translation(translation_text=text) for text in written.texts], written.tokens, written.reasons)

    def warm_up_rows(self) -> list[Row]:
        (row,) = self._tokenize(["A sentence to warm up with."])
        return self._prepare(TranslationParameters(max_new_tokens=2), row, "", self._any).rows


def _known(code: str | None, parameter: str, codes: Mapping[str, Any]) -> str:
    if code is None or code not in codes:
        shown = ", ".join(list(codes)[:10]) + (", ..." if len(codes) > 10 else "")  # noqa: PLR2004 - enough to see their form
        problem = "is missing" if code is None else f"{code!r} is no language of this checkpoint"
        raise InvalidRequestError(f"parameters.{parameter}: {problem}: there is {shown}")
    return code


def _language_codes(tokenizer: Any) -> dict[str, int]:
    """Return the id that starts a text in each language; nothing where languages are not chosen by codes."""
    if not hasattr(tokenizer, "_build_translation_inputs"):
        return {}
    known = getattr(tokenizer, "lang_code_to_id", None)
    if known is None:  # NLLB: its codes are special tokens such as eng_Latn
        known = {
            token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens if "_" in token
        }
    return {code: identifier for code, identifier in known.items() if identifier != tokenizer.unk_token_id}
