"""What the tasks with one forward per row share: batched tokenizer calls, limits, padding with a mask, the forward."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np
import torch

from nlp_worker.errors import InputTooLongError, InvalidRequestError, RequestError
from nlp_worker.poll import Row
from nlp_worker.tasks.packing import may_pack, pack, trial_rows, try_packing
from nlp_worker.tasks.transfer import to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nlp_schemas import Request, Truncation
    from nlp_worker.models import Checkpoint
    from nlp_worker.tasks.base import Prepared

#: Tokens of a row where neither positions nor the tokenizer set a limit: a batch by default. Attention of 4,096 tokens
#: in float32 takes a gigabyte with 16 heads.
UNLIMITED: Final = 4_096

#: A text, or a pair of them.
Texts = tuple[str, str | None]

SomeRequest = TypeVar("SomeRequest", bound="Request")


class Encoded:
    """The columns of a ``tokenizers.Encoding``, read once: each access there makes a new list of the whole text."""

    def __init__(self, encoding: Any) -> None:
        self.ids: list[int] = encoding.ids
        self.type_ids: list[int] = encoding.type_ids
        self.offsets: list[tuple[int, int]] = encoding.offsets
        self.word_ids: list[int | None] = encoding.word_ids
        self.sequence_ids: list[int | None] = encoding.sequence_ids
        self.special_tokens_mask: list[int] = encoding.special_tokens_mask


class Collated(NamedTuple):
    """A batch on the device, and what is known of it without asking the device."""

    tensors: dict[str, Any]
    rows: Sequence[Row]


class Encoder:
    """A checkpoint's tokenizer and model, as far as a task with one forward per row needs them."""

    #: Whether the model's head reads a row's first token, and has one output for the row.
    reads_first = False

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.tokenizer = checkpoint.tokenizer
        self.model = checkpoint.model
        parameters = inspect.signature(self.model.forward).parameters
        # transformers 5 no longer returns the token types of ALBERT by itself, and pairs are wrong without them.
        self._token_types = "token_type_ids" in parameters and getattr(self.model.config, "type_vocab_size", 0) > 1
        self._features = ["input_ids", "token_type_ids"] if self._token_types else ["input_ids"]
        self._use_cache = {"use_cache": False} if "use_cache" in parameters else {}
        self._padding = {"input_ids": self.tokenizer.pad_token_id or 0, "token_type_ids": 0}
        self._cuts_left = self.tokenizer.truncation_side == "left"
        self.max_length = max_length(self.tokenizer, self.model)
        self._uncounted = uncounted(self.model)
        #: Whether the rows of a batch lie end to end; else they are padded.
        self.packs = checkpoint.packing and may_pack(self.model) and self._try_packing()

    def _try_packing(self) -> bool:
        vocabulary = len(self.model.get_input_embeddings().weight)
        rows = trial_rows(self._features, vocabulary, self._padding["input_ids"], self.max_length)
        alone = [self._pad([row]) for row in rows]
        padded, packed = self._pad(rows), self._pack(rows)
        return try_packing(self.model, self.forward, alone, padded, packed, reads_first=self.reads_first)

    def _pad(self, rows: Sequence[Row]) -> dict[str, Any]:
        """On the right: these models number positions from the first token on, and read the first token's output."""
        return {**pad(rows, self._padding, self.model.device)}

    def _pack(self, rows: Sequence[Row]) -> dict[str, Any]:
        return pack(rows, self._uncounted, self.model.device)

    def tokenize(self, texts: Sequence[Texts]) -> list[Row]:
        """Make a row of each text, or pair of texts, whatever its length; one call for texts and one for pairs."""
        rows: dict[int, Row] = {}
        for paired in (False, True):
            indices = [index for index, (_, second) in enumerate(texts) if (second is not None) is paired]
            if indices:
                rows.update(zip(indices, self._call([texts[index] for index in indices]), strict=True))
        return [rows[index] for index in range(len(texts))]

    def longest(self, asked: int | None) -> int:
        """Return the most tokens of a row: the model's, or fewer where the request asks for fewer."""
        return min(asked or self.max_length, self.max_length)

    def fit(self, row: Row, texts: Texts, limits: Truncation, *, strategy: str | bool = True) -> tuple[Row, bool]:
        """Return the row, or where it is too long a truncated one, and whether it is.

        Args:
            row: Of the whole texts.
            texts: What it was made of.
            limits: The request's parameters.
            strategy: transformers' name of what is cut; true cuts the longer text of a pair first.

        Raises:
            InputTooLongError: nothing may be cut, or not enough can be.
            InvalidRequestError: the texts make no token at all.
        """
        longest = self.longest(limits.max_length)
        if row.length == 0:
            raise InvalidRequestError("inputs make no tokens of this checkpoint: send a text")
        if row.length <= longest:
            return row, False
        problem = f"inputs have {row.length} tokens, at most {longest} are read"
        if not limits.truncation:
            raise InputTooLongError(f"{problem}: shorten them, or leave out truncation")
        if self.tokenizer.is_fast:
            (encoding,) = self.encode([texts])
            kept = _kept(encoding, longest, only_first=strategy == "only_first", left=self._cuts_left)
            if kept is None:
                raise InputTooLongError(f"{problem}, and what must be kept of them is longer")
            return self.row(encoding, kept), True
        try:
            (cut,) = self._call([texts], truncation=strategy, max_length=longest)
        except Exception as error:  # transformers raises nothing narrower when what must be kept is too long
            raise InputTooLongError(f"{problem}, and what must be kept of them is longer: {error}") from error
        if cut.length > longest:
            raise InputTooLongError(f"{problem}, and what must be kept of them is longer")
        return cut, True

    def encode(self, texts: Sequence[Texts]) -> list[Encoded]:
        """Return all tokens of each text, or pair: all are texts, or all are pairs."""
        firsts, seconds = _columns(texts)
        return [Encoded(encoding) for encoding in self.tokenizer(firsts, seconds, verbose=False).encodings]

    def row(self, encoding: Any, indices: Sequence[int]) -> Row:
        """Make a row of the tokens at these indices of an encoding."""
        columns = {"input_ids": encoding.ids, "token_type_ids": encoding.type_ids}
        return Row({name: [columns[name][index] for index in indices] for name in self._features})

    def _call(self, texts: Sequence[Texts], **options: Any) -> list[Row]:
        firsts, seconds = _columns(texts)
        # verbose: no warning for a text that is too long, which is not an accident here.
        encoded = self.tokenizer(
            firsts,
            seconds,
            return_attention_mask=False,
            return_token_type_ids=self._token_types,
            verbose=False,
            **options,
        )
        names = [name for name in self._features if name in encoded]
        columns = [encoded[name] for name in names]
        return [Row(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]

    def collate(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Lay the rows end to end, shape [1, tokens of all], or pad them to the longest, shape [rows, longest]."""
        return self._pack(rows) if self.packs else self._pad(rows)

    @torch.inference_mode()
    def forward(self, inputs: dict[str, Any]) -> Any:
        return self.model(**inputs, **self._use_cache)

    def warm_up_rows(self) -> list[Row]:
        return self.tokenize([("A sentence to warm up with.", None)] * 2)


def _kept(encoding: Encoded, longest: int, *, only_first: bool, left: bool) -> list[int] | None:
    """Return the indices of the tokens that truncation leaves, as ``tokenizers`` has it; None where it cannot.

    ``tokenizers`` itself also makes what it cuts off, and of a pair every piece of the one text with every piece of the
    other: gigabytes for two texts of a page, whether or not anybody asks for them.

    Args:
        encoding: Of the whole text, or pair.
        longest: Most tokens to keep, special tokens included.
        only_first: Whether the first text alone is cut, else the longer one first.
        left: Whether the beginning of a text is cut, not its end.
    """
    places: list[list[int]] = [[], []]
    for index, sequence in enumerate(encoding.sequence_ids):
        if sequence is not None:
            places[sequence].append(index)
    first, second = map(len, places)
    room = longest - (len(encoding.ids) - first - second)
    if only_first:
        keep = room - second, second
        if keep[0] <= 0:
            return None
    else:
        short = min(first, second)
        long = room - short
        if short > long:
            # Both are cut, and of an odd number the longer text has the odd one.
            short, long = room // 2, room - room // 2
        if short < 0:
            return None
        keep = (long, short) if first > second else (short, long)
    cut: set[int] = set()
    for of_one, size in zip(places, keep, strict=True):
        cut.update(of_one[: len(of_one) - size] if left else of_one[size:])
    return [index for index in range(len(encoding.ids)) if index not in cut]


def _columns(texts: Sequence[Texts]) -> tuple[list[str], list[str] | None]:
    """Return what a tokenizer takes: texts, and with pairs their second texts."""
    firsts = [first for first, _ in texts]
    seconds = [second for _, second in texts if second is not None]
    return firsts, seconds or None


def pad(
    rows: Sequence[Row], padding: Mapping[str, int], device: torch.device, *, left: bool = False
) -> dict[str, torch.Tensor]:
    """Pad the rows' features to the longest row, and add the attention mask.

    Args:
        rows: Of one batch, all with the same features.
        padding: What each feature is padded with.
        device: Where the tensors go.
        left: Whether the padding stands on the left: where a model goes on from the last token.

    Returns:
        Tensors of int64, shape [rows, longest].
    """
    longest = max(row.length for row in rows)
    arrays = {name: np.full((len(rows), longest), padding[name], dtype=np.int64) for name in rows[0].features}
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for index, row in enumerate(rows):
        place = slice(longest - row.length, None) if left else slice(row.length)
        mask[index, place] = 1
        for name, values in row.features.items():
            arrays[name][index, place] = values
    tensors = {**arrays, "attention_mask": mask}
    return {name: to_device(array, device) for name, array in tensors.items()}


def max_length(tokenizer: Any, model: Any) -> int:
    """Return the most tokens of a row: what tokenizer and positions both allow."""
    allowed = int(tokenizer.model_max_length)
    if (most := positions(model)) is not None:
        return min(allowed, most)
    return allowed if allowed < 10**9 else UNLIMITED  # transformers' "no limit" is 10**30


def positions(model: Any) -> int | None:
    """Return how many tokens the model has positions for; None where they are relative."""
    most = getattr(model.config, "max_position_embeddings", None)
    return None if most is None or most <= 0 else int(most - (uncounted(model) + 1))


def uncounted(model: Any) -> int:
    """Return the padding's id where positions do not count it and begin behind it, as RoBERTa's do; else -1."""
    tables = [layer for name, layer in model.named_modules() if name.endswith("position_embeddings")]
    return next((layer.padding_idx for layer in tables if getattr(layer, "padding_idx", None) is not None), -1)


def expect(request: Request, kind: type[SomeRequest]) -> SomeRequest:
    """Return the request as what the task's topic makes it."""
    if not isinstance(request, kind):
        raise TypeError(f"{type(request).__name__} came to a task of {kind.__name__}. This is a bug.")
    return request


def prepared_or_error(prepare: Callable[..., Prepared], *arguments: Any) -> Prepared | RequestError:
    """Return what is prepared, or the error that the request is answered with."""
    try:
        return prepare(*arguments)
    except RequestError as error:
        return error
