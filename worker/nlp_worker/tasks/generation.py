"""What the tasks that write a text share: a request's parameters, its rows, and the texts that come of them."""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from transformers import GenerationConfig

from nlp_schemas.generation import MAX_CONTEXT
from nlp_worker.errors import InvalidRequestError
from nlp_worker.poll import Row
from nlp_worker.tasks.decoding import Decoding, ends_with_stop, merge
from nlp_worker.tasks.encoder import max_length, positions
from nlp_worker.tasks.greedy import may_join
from nlp_worker.tasks.search import Search

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nlp_schemas import FinishReason, GenerationParameters
    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.models import Checkpoint
    from nlp_worker.tasks.search import Generated, Inputs

#: Parameters of a request that are ``GenerationConfig``'s, under its names.
CONFIG_PARAMETERS: Final = (
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "num_beams",
    "length_penalty",
    "early_stopping",
    "num_return_sequences",
    "max_new_tokens",
    "max_length",
    "min_new_tokens",
    "min_length",
)

#: Bytes of a generated token: an estimate for the memory of a poll.
TOKEN_BYTES: Final = 8

#: New tokens where neither request, checkpoint nor pipeline say: transformers'.
DEFAULT_NEW_TOKENS: Final = 20

#: The parameters that are set apart from a row's others, for they are the batch's, or counted.
_LENGTHS_AND_BEAMS: Final = ("max_new_tokens", "max_length", "num_beams", "num_return_sequences", "do_sample")


class Generator:
    """A checkpoint's ``generate()``.

    Args:
        checkpoint: Its model is a ``GenerationMixin``.
        levels: Generation parameters, each level over the ones before; a request's come last.
        prefix_tokens: Of what the task puts before every prompt, and what no length counts.
    """

    def __init__(self, checkpoint: Checkpoint, *levels: Mapping[str, Any], prefix_tokens: int = 0) -> None:
        self._model = checkpoint.model
        self._tokenizer = checkpoint.tokenizer
        self.defaults = merge(*levels)
        self._prefix_tokens = prefix_tokens
        self._most_new_tokens = checkpoint.max_new_tokens
        parameters = inspect.signature(self._model.forward).parameters
        self._decodes_only = not self._model.config.is_encoder_decoder
        # Without both, padding on the left would move a row's positions, or be read.
        self._pads_left = {"attention_mask", "position_ids"} <= set(parameters)
        #: Tokens of a prompt and what is generated; of an encoder-decoder, of what is generated.
        self.limit = (
            max_length(checkpoint.tokenizer, checkpoint.model)
            if self._decodes_only
            else positions(checkpoint.model) or MAX_CONTEXT
        )
        ids = checkpoint.model.generation_config
        self._eos = [ids.eos_token_id] if isinstance(ids.eos_token_id, int) else list(ids.eos_token_id or [])
        candidates = (
            checkpoint.tokenizer.pad_token_id,
            ids.pad_token_id,
            *self._eos,
            checkpoint.tokenizer.unk_token_id,
            0,
        )
        pad = next(identifier for identifier in candidates if identifier is not None)
        self._start = ids.decoder_start_token_id if ids.decoder_start_token_id is not None else ids.bos_token_id
        self._ids = {
            "eos_token_id": self._eos or None,
            "pad_token_id": pad,
            "bos_token_id": ids.bos_token_id,
            "decoder_start_token_id": ids.decoder_start_token_id,
        }
        # A tokenizer is not thread-safe: the device thread decodes with its own.
        self._search = Search(self._model, copy.deepcopy(checkpoint.tokenizer), self._ids)
        self._refills = self._pads_left and may_join(self._model.config)
        # generate() fills in the checkpoint's own parameters, which the rows have already.
        self._model.generation_config = GenerationConfig()
        if self._pads_left:
            self._model.register_forward_pre_hook(self._keep_in_positions, with_kwargs=True)

    def _keep_in_positions(self, _model: Any, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        # A row that has ended is carried along until the last of its batch has, and runs out of positions before.
        if (ids := named.get("position_ids")) is not None:
            named["position_ids"] = ids.clamp(max=self.limit - 1)
        return arguments, named

    def rows(
        self, features: dict[str, list[int]], asked: GenerationParameters, *levels: Mapping[str, Any], **forced: Any
    ) -> list[Row]:
        """Return the rows of a prompt: one, or one for each text that is drawn.

        Args:
            features: Of the prompt: for a decoder what is continued, else what the encoder reads.
            asked: The request's parameters.
            levels: More parameters that these are over.
            forced: Over all of them.

        Raises:
            InvalidRequestError: the parameters do not go together, or with the prompt.
        """
        settings = self._settings(asked, *levels, **forced)
        beams = settings.get("num_beams") or 1
        if asked.do_sample:
            beams = 1
        sampled = bool(settings.get("do_sample")) and beams == 1
        sequences = settings.get("num_return_sequences") or 1
        if sequences > (beams if not sampled else sequences):
            problem = f"parameters.num_return_sequences is {sequences}"
            raise InvalidRequestError(f"{problem}: ask for num_beams of as many or more, or for do_sample")
        prompt = len(features["input_ids"]) if self._decodes_only else 1
        # As many as are asked for, as far as there are positions: T5 has no end of them.
        new_tokens = min(self._max_new_tokens(settings, prompt), self.limit - prompt)
        if asked.max_new_tokens is not None and new_tokens > self._most_new_tokens:
            problem = f"parameters.max_new_tokens is {asked.max_new_tokens}"
            raise InvalidRequestError(f"{problem}: at most {self._most_new_tokens} are generated here, ask for fewer")
        decoding = Decoding(
            settings={**self._ids, **{name: settings[name] for name in settings if name not in _LENGTHS_AND_BEAMS}},
            prompt_tokens=prompt,
            max_new_tokens=min(new_tokens, self._most_new_tokens),
            beams=beams,
            sequences=1 if sampled else sequences,
            stops=tuple(asked.stops),
        )
        draws = (
            [replace(decoding, draw=index, seed=asked.seed) for index in range(sequences)] if sampled else [decoding]
        )
        return [self._row(features, one) for one in draws]

    def _settings(self, asked: GenerationParameters, *levels: Mapping[str, Any], **forced: Any) -> dict[str, Any]:
        given = {name: value for name in CONFIG_PARAMETERS if (value := getattr(asked, name)) is not None}
        settings = merge(self.defaults, *levels, given, forced)
        for name in {"max_length", "min_length"} & settings.keys():
            settings[name] += self._prefix_tokens
        return settings

    def new_tokens_asked(self, asked: GenerationParameters, prompt: int) -> int:
        """Return how many new tokens a request wants, of itself or by default."""
        return self._max_new_tokens(self._settings(asked), prompt)

    def _max_new_tokens(self, settings: Mapping[str, Any], prompt: int) -> int:
        if (asked := settings.get("max_new_tokens")) is None:
            longest = settings.get("max_length")
            asked = DEFAULT_NEW_TOKENS if longest is None else longest - prompt
            if asked < 1:
                problem = f"parameters.max_length is {longest}, and the prompt has {prompt} tokens already"
                raise InvalidRequestError(f"{problem}: ask for more, or give max_new_tokens")
        return int(asked)

    def _row(self, features: dict[str, list[int]], decoding: Decoding) -> Row:
        row = Row(features, parameters=decoding, new_tokens=decoding.max_new_tokens, beams=decoding.beams)
        exact = row.length if self._decodes_only and not self._may_be_padded(row) else None
        # generate() has one value of these for a batch; a row that is alone with its beams has its own.
        beams = (
            decoding.beams,
            decoding.sequences,
            decoding.max_new_tokens,
            decoding.settings.get("length_penalty"),
            decoding.settings.get("early_stopping"),
        )
        row.group = exact, beams if decoding.beams > 1 else None
        row.refills = self._refills and decoding.beams == 1
        return row

    def _may_be_padded(self, row: Row) -> bool:
        # GPT's causal mask is a table of its positions, and padding takes room in it.
        fits = self._model.config.model_type != "openai-gpt" or max(row.length, row.new_tokens) <= self.limit // 2
        return self._pads_left and fits

    def collate(self, batch: Batch) -> Inputs:
        """As Search."""
        return self._search.collate(batch)

    def forward(self, inputs: Inputs) -> list[Generated | RequestError]:
        """As Search."""
        return self._search.forward(inputs)

    def finish(self, rows: Sequence[Row], asked: GenerationParameters) -> Texts:
        """Decode what was generated for a request's rows."""
        written = [(row, sequence) for row in rows for sequence in row.output.sequences]
        start = [self._start] if not self._decodes_only and self._start is not None else []
        clean_up = asked.clean_up_tokenization_spaces
        if clean_up is None and not self._decodes_only:
            clean_up = False  # transformers 4's pipelines, whatever the tokenizer says
        texts = [
            self._tokenizer.decode(
                [*start, *sequence],
                skip_special_tokens=True,
                clean_up_tokenization_spaces=clean_up,
            )
            for _, sequence in written
        ]
        reasons = [self._reason(row, sequence) for row, sequence in written]
        return Texts(texts, sum(len(sequence) for _, sequence in written), reasons)

    def _reason(self, row: Row, sequence: list[int]) -> FinishReason:
        decoding: Decoding = row.parameters
        if len(sequence) < decoding.max_new_tokens:
            return "stop"
        if sequence[-1] in self._eos:
            # BART and its kin force the end token at the limit, wherever the text is.
            return "stop" if decoding.settings.get("forced_eos_token_id") is None else "length"
        read = row.features["input_ids"] if self._decodes_only else [self._start]
        return "stop" if ends_with_stop(self._tokenizer, [*read, *sequence], decoding.stops) else "length"


class Texts(NamedTuple):
    """What was generated for a request."""

    texts: list[str]
    tokens: int
    reasons: list[FinishReason]
