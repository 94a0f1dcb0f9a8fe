"""Text generation: a prompt, or a chat, is gone on with.

The steps of ``transformers.TextGenerationPipeline`` (transformers 5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import jinja2
import transformers

from nlp_schemas import (
    AnswerMessage,
    ChatMessage,
    GeneratedText,
    Request,
    TaskName,
    TextGenerationParameters,
    TextGenerationRequest,
    TextGenerationResult,
)
from nlp_worker.errors import InputTooLongError, InvalidRequestError
from nlp_worker.tasks.base import ANSWER_BYTES, Finished, Prepared
from nlp_worker.tasks.decoding import own_parameters
from nlp_worker.tasks.encoder import Encoder, expect, prepared_or_error
from nlp_worker.tasks.generation import TOKEN_BYTES, Generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row
    from nlp_worker.tasks.search import Generated, Inputs

#: The pipeline's own parameters, where neither request nor checkpoint say.
PIPELINE_PARAMETERS: Final = {"max_new_tokens": 256, "do_sample": True, "temperature": 0.7}


class TextGeneration:
    """Text generation on one checkpoint."""

    name = TaskName.TEXT_GENERATION
    request = TextGenerationRequest
    result = TextGenerationResult
    model_class = transformers.AutoModelForCausalLM
    unread_weights = None
    max_batch_tokens = None
    packs = False

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = checkpoint.model_info
        self._tokenizer = checkpoint.tokenizer
        self._first = checkpoint.model.generation_config.bos_token_id
        self._encoder = Encoder(checkpoint)
        self._prefix = str(getattr(checkpoint.model.config, "prefix", None) or "")
        own, prefix = own_parameters(checkpoint.model), self._tokenizer(self._prefix, add_special_tokens=False)
        self._generator = Generator(checkpoint, PIPELINE_PARAMETERS, own, prefix_tokens=len(prefix["input_ids"]))

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        mine = [expect(request, TextGenerationRequest) for request in requests]
        prompts = [(self._prefix + one.inputs, None) for one in mine if isinstance(one.inputs, str)]
        rows = iter(self._encoder.tokenize(prompts))
        return [
            prepared_or_error(self._prepare, request, next(rows) if isinstance(request.inputs, str) else None)
            for request in mine
        ]

    def _prepare(self, request: TextGenerationRequest, row: Row | None) -> Prepared:
        ids = self._chat(request) if row is None else row.features["input_ids"]
        if not ids:
            if self._first is None:
                raise InvalidRequestError(
                    "inputs are empty, and this checkpoint has no token to begin with: send a text"
                )
            ids = [self._first]
        ids, truncated = self._fit(ids, request.parameters)
        rows = self._generator.rows({"input_ids": ids}, request.parameters)
        tokens = sum(one.new_tokens * one.parameters.sequences for one in rows)
        prompt = len(str(request.inputs)) * len(rows)
        return Prepared(rows, truncated, ANSWER_BYTES + prompt + tokens * TOKEN_BYTES)

    def _fit(self, ids: list[int], asked: TextGenerationParameters) -> tuple[list[int], bool]:
        """Return the prompt, or its end where it is too long and that is asked for, and whether it was cut."""
        limit = self._generator.limit
        if asked.handle_long_generation == "hole":
            wanted = self._generator.new_tokens_asked(asked, len(ids))
            if len(ids) + wanted <= limit:
                return ids, False
            if wanted >= limit:
                problem = f"{wanted} new tokens leave no room for a prompt, the model has {limit} positions"
                raise InvalidRequestError(f"parameters.handle_long_generation: {problem}: ask for fewer")
            return ids[wanted - limit :], True
        if len(ids) >= limit:
            problem = (
                f"inputs have {len(ids)} tokens, and the model has {limit} positions for them and what is generated"
            )
            raise InputTooLongError(f"{problem}: shorten them, or give handle_long_generation hole")
        return ids, False

    def _chat(self, request: TextGenerationRequest) -> list[int]:
        if self._tokenizer.chat_template is None:
            raise InvalidRequestError("inputs: this checkpoint has no chat template: send a text instead of messages")
        messages = [message.model_dump() for message in _messages(request)]
        goes_on = _continues_final_message(request)
        try:
            encoded: Any = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=not goes_on, continue_final_message=goes_on, return_dict=True
            )
        except (jinja2.TemplateError, ValueError) as error:
            raise InvalidRequestError(
                f"inputs: the checkpoint's chat template refuses the messages: {error}"
            ) from error
        return list(encoded["input_ids"])

    def collate(self, batch: Batch) -> Inputs:
        return self._generator.collate(batch)

    def forward(self, inputs: Inputs) -> list[Generated | RequestError]:
        return self._generator.forward(inputs)

    def postprocess(self, request: Request, rows: Sequence[Row]) -> Finished:
        asked = expect(request, TextGenerationRequest)
        written = self._generator.finish(rows, asked.parameters)
        outputs = [GeneratedText(generated_text=_output(asked, text)) for text in written.texts]
        return Finished(outputs, written.tokens, written.reasons)

    def warm_up_rows(self) -> list[Row]:
        (row,) = self._encoder.tokenize([("A sentence to warm up with.", None)])
        features = {"input_ids": row.features["input_ids"]}
        return self._generator.rows(features, TextGenerationParameters(max_new_tokens=2, do_sample=False))


def _messages(request: TextGenerationRequest) -> list[ChatMessage]:
    return request.inputs if isinstance(request.inputs, list) else []


def _continues_final_message(request: TextGenerationRequest) -> bool:
    asked = request.parameters.continue_final_message
    return _messages(request)[-1].role == "assistant" if asked is None else asked


def _output(request: TextGenerationRequest, text: str) -> str | list[AnswerMessage]:
    if not request.parameters.return_full_text:
        return text
    if isinstance(request.inputs, str):
        return request.inputs + text
    messages = [AnswerMessage(**message.model_dump()) for message in request.inputs]
    if _continues_final_message(request):
        last = messages[-1]
        return [*messages[:-1], AnswerMessage(role=last.role, content=last.content + text)]
    return [*messages, AnswerMessage(role="assistant", content=text)]
