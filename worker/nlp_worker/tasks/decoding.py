"""How the rows of one ``generate()`` call keep their own parameters: logits, random numbers and ends, row by row.

``transformers`` takes one set of generation parameters for a batch, and some of them count a row's padding. Here each
row's logits go through the processors that transformers would build for that row alone, over the tokens that the row
would have alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria

from nlp_worker import progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nlp_worker.poll import Row

#: Parameters whose processors read the row's own prompt, beside what was generated.
PROMPT_PARAMETERS: Final = ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size")


@dataclass(frozen=True, slots=True)
class Decoding:
    """How one row is generated."""

    settings: Mapping[str, Any]
    """Of ``GenerationConfig``, for this row alone; its lengths and beams are below."""
    prompt_tokens: int
    """What ``max_length`` and ``min_length`` count too: the prompt, or the decoder's one start token."""
    max_new_tokens: int
    beams: int = 1
    sequences: int = 1
    """Of the beams, how many are given back."""
    draw: int | None = None
    """Which of the request's random draws this is; None is none: the likeliest token is taken."""
    seed: int | None = None
    """Of the draw; None is the record's own."""
    stops: tuple[str, ...] = ()

    def config(self) -> GenerationConfig:
        """Return what ``generate()`` would make of the settings for this row alone."""
        config = GenerationConfig(**self.settings)
        config.update(**GenerationConfig._get_default_generation_params(), defaults_only=True)  # noqa: SLF001 - pinned
        config.do_sample, config.num_beams = self.draw is not None, self.beams
        config.max_length = self.prompt_tokens + self.max_new_tokens
        if config.min_new_tokens is not None:
            config.min_length = self.prompt_tokens + config.min_new_tokens
        return config

    @property
    def key(self) -> str:
        """The same for rows whose logits may go through the same processors."""
        sampled = self.draw is not None
        return repr((sorted(self.settings.items()), self.prompt_tokens, self.max_new_tokens, self.beams, sampled))


@dataclass(slots=True)
class _Part:
    """Lines that share processors."""

    padding: int
    """Tokens on the left of the prompt that the rows would not have alone."""
    processors: LogitsProcessorList
    lines: list[int] = field(default_factory=list)


class RowLogits(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Each row's own processors, and its draw from its own random numbers.

    A draw is one random number against the cumulated probabilities: the same token whatever the row is batched with, on
    any device, and after a redelivery. The token that is drawn is left as the only one, so that the greedy choice
    takes it.

    Args:
        model: A ``GenerationMixin``.
        rows: Of one batch; their parameters are ``Decoding``.
        width: Tokens of a row of the batch, padding included, before any is generated.
    """

    def __init__(self, model: Any, rows: Sequence[Row], width: int) -> None:
        self._model = model
        self._rows = rows
        self._beams = rows[0].parameters.beams
        self._random = {i: _random(row) for i, row in enumerate(rows) if row.parameters.draw is not None}
        self._not_finite = torch.zeros(len(rows), dtype=torch.bool, device=model.device)
        self._processors: dict[tuple[str, int | None], LogitsProcessorList] = {}
        self.place(range(len(rows)), [width] * len(rows))

    def place(self, rows: Sequence[int], starts: Sequence[int]) -> None:
        """Say which row each line of the batch is from now on, and at which column its new tokens begin."""
        self._lines = torch.tensor(rows, device=self._model.device)
        self._drawn = {line: self._random[row] for line, row in enumerate(rows) if row in self._random}
        parts: dict[tuple[str, int | None, int], _Part] = {}
        for line, (index, start) in enumerate(zip(rows, starts, strict=True)):
            prompt, decoding = self._rows[index].features["input_ids"], self._rows[index].parameters
            padding = 0 if self._model.config.is_encoder_decoder else start - len(prompt)
            own = any(decoding.settings.get(name) for name in PROMPT_PARAMETERS)
            key = decoding.key, index if own else None
            if key not in self._processors:
                self._processors[key] = _processors(self._model, prompt, decoding)
            parts.setdefault((*key, padding), _Part(padding, self._processors[key])).lines.append(line)
        self._parts = [part for part in parts.values() if part.processors]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._note_not_finite(scores)
        for part in self._parts:
            lines = self._flat(part.lines, scores.device)
            scores[lines] = part.processors(input_ids[lines, part.padding :], scores[lines])
        if self._parts:
            self._note_not_finite(scores)
        if self._drawn:
            lines = self._flat(list(self._drawn), scores.device)
            chosen = _draw(scores[lines], [numbers.random() for numbers in self._drawn.values()])
            scores[lines] = -torch.inf
            scores[lines, chosen] = 0.0
        return scores

    def _note_not_finite(self, scores: torch.Tensor) -> None:
        # Minus infinity is what a model, or a processor, says of a token that is never to be chosen.
        bad = (scores.isnan() | scores.isposinf()).any(dim=1).view(-1, self._beams).any(dim=1)
        self._not_finite[self._lines] |= bad

    def _flat(self, lines: Sequence[int], device: torch.device) -> torch.Tensor:
        """Return where lines stand in the scores: each as often as a row has beams."""
        first = torch.tensor(lines, device=device)[:, None] * self._beams
        places: torch.Tensor = first + torch.arange(self._beams, device=device)
        return places.flatten()

    @property
    def failed(self) -> list[bool]:
        """Whether each row's logits were somewhere no number, or infinite."""
        return list(self._not_finite.tolist())


def _random(row: Row) -> random.Random:
    """Return the row's own random numbers, the same for the same seed, or for the same record."""
    seed = row.origin if row.parameters.seed is None else row.parameters.seed
    return random.Random(f"{seed}/{row.parameters.draw}")  # noqa: S311 - a sample, not a secret


def _processors(model: Any, prompt: Sequence[int], decoding: Decoding) -> LogitsProcessorList:
    """Return the processors that ``generate()`` would build for this row alone."""
    config = decoding.config()
    # Private to transformers, which is pinned: building them again here would be to copy forty rules and their order.
    model._prepare_special_tokens(config, kwargs_has_attention_mask=True, device=model.device)  # noqa: SLF001
    processors: LogitsProcessorList = model._get_logits_processor(  # noqa: SLF001
        generation_config=config,
        input_ids_seq_length=decoding.prompt_tokens,
        encoder_input_ids=torch.tensor([prompt], device=model.device),
        device=model.device,
    )
    return processors


def _draw(scores: torch.Tensor, numbers: Sequence[float]) -> torch.Tensor:
    """Return a token of each row: where its number, from 0 to 1, falls among the cumulated probabilities."""
    # float64: in float32 the sum over a large vocabulary would depend on the order of the additions.
    cumulated = scores.double().softmax(dim=-1).cumsum(dim=-1)
    drawn = torch.tensor(numbers, dtype=torch.float64, device=scores.device)[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, drawn, right=True).clamp(max=scores.shape[1] - 1).squeeze(1)


class RowEnds(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """Each row's own limit and its own stop texts.

    Args:
        tokenizer: The device thread's own: it decodes the last tokens.
        rows: Of one batch; their parameters are ``Decoding``.
        width: Tokens of a row of the batch, padding included, before any is generated.
    """

    def __init__(self, tokenizer: Any, rows: Sequence[Row], width: int) -> None:
        self._tokenizer = tokenizer
        self._rows = rows
        self.place(range(len(rows)), [width] * len(rows))

    def place(self, rows: Sequence[int], starts: Sequence[int]) -> None:
        """Say which row each line of the batch is from now on, and at which column its new tokens begin."""
        self._lines: list[tuple[Decoding, int]] = [
            (self._rows[row].parameters, start) for row, start in zip(rows, starts, strict=True)
        ]

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        del scores, kwargs
        return torch.tensor(self.over(input_ids), device=input_ids.device)

    def over(self, input_ids: torch.Tensor) -> list[bool]:
        """Return whether each line ends here."""
        # Every way to generate comes here at each token.
        progress.step()
        # Beam search asks for the candidates of all beams of a row.
        copies = len(input_ids) // len(self._lines)
        return [self._is_over(*self._lines[index // copies], input_ids[index]) for index in range(len(input_ids))]

    def _is_over(self, decoding: Decoding, start: int, ids: torch.Tensor) -> bool:
        if len(ids) - start >= decoding.max_new_tokens:
            return True
        return bool(decoding.stops) and ends_with_stop(self._tokenizer, ids.tolist(), decoding.stops)


def ends_with_stop(tokenizer: Any, ids: Sequence[int], stops: Sequence[str]) -> bool:
    """Whether one of the texts ends within the last token, as ``transformers.StopStringCriteria`` has it."""
    if not stops:
        return False
    # A token is a byte at least, special tokens apart.
    tail = ids[-(max(len(stop.encode()) for stop in stops) + 1) :]
    text, before = tokenizer.decode(tail), tokenizer.decode(tail[:-1])
    # By its place, not its end: a last token that completes a character may make the text no longer.
    return any(text.rfind(stop) > before.rfind(stop) for stop in stops)


def merge(*levels: Mapping[str, Any]) -> dict[str, Any]:
    """Return generation parameters, each level over the ones before.

    A length replaces the other way to say it of the levels before; within one level the number of new tokens counts,
    as ``generate()`` has it.
    """
    merged: dict[str, Any] = {}
    for level in levels:
        for new_tokens, whole in ("max_new_tokens", "max_length"), ("min_new_tokens", "min_length"):
            if new_tokens in level:
                merged.pop(whole, None)
            elif whole in level:
                merged.pop(new_tokens, None)
        merged.update(level)
        for new_tokens, whole in ("max_new_tokens", "max_length"), ("min_new_tokens", "min_length"):
            if new_tokens in level:
                merged.pop(whole, None)
    return merged


def own_parameters(model: Any) -> dict[str, Any]:
    """Return the generation parameters that the checkpoint sets, without its token ids for start, end and padding."""
    unset = (
        "transformers_version",
        "_from_model_config",
        "eos_token_id",
        "pad_token_id",
        "bos_token_id",
        "decoder_start_token_id",
    )
    return {name: value for name, value in model.generation_config.to_diff_dict().items() if name not in unset}
