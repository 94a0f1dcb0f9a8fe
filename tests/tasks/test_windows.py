"""Windows of a long text: the ones that the `tokenizers` library cuts itself, whatever the sizes."""

from __future__ import annotations

import copy
import functools
import itertools
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from nlp_schemas import MAX_ROWS
from nlp_worker.errors import InputTooLongError, InvalidRequestError
from nlp_worker.tasks.windows import cut_windows, first_window

if TYPE_CHECKING:
    from collections.abc import Sequence

WORDS: Final = [*"abcdefghij"]
#: Of one text and of a pair, as families have them: around both, only at the end, at the beginning, none.
TEMPLATES: Final = {
    "bert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "roberta": ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B:1 [SEP]:1"),
    "t5": ("$A [SEP]", "$A [SEP] $B [SEP]"),
    "llama": ("[CLS] $A", "[CLS] $A [CLS]:1 $B:1"),
    "gpt2": ("$A", "$A $B"),
}
PROFILE: Final = settings(derandomize=True, deadline=None, max_examples=200, database=None)
texts = st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)


@functools.cache
def tokenizer(template: str) -> Any:
    """One of whole words, with a family's special tokens."""
    vocab = {word: index for index, word in enumerate(["[CLS]", "[SEP]", *WORDS])}
    made = Tokenizer(models.WordLevel(vocab, unk_token="a"))  # noqa: S106 - no password
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    single, pair = TEMPLATES[template]
    used = [(token, vocab[token]) for token in ("[CLS]", "[SEP]") if token in single]
    made.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=used)
    return made


def theirs(of: Any, given_texts: Sequence[str], longest: int, stride: int, strategy: str) -> list[Any]:
    """Return the encoding that `tokenizers` cuts, and its overflowing ones."""
    cutting = copy.deepcopy(of)
    cutting.enable_truncation(longest, stride=stride, strategy=strategy)
    encoding = cutting.encode(*given_texts)
    return [encoding, *encoding.overflowing]


def seen(template: str, encoding: Any, indices: Sequence[int]) -> list[Any]:
    """What a row and its postprocessing are made of, for these tokens."""
    columns = [encoding.ids, encoding.offsets, encoding.special_tokens_mask, encoding.sequence_ids]
    if ":1" in TEMPLATES[template][1]:
        # Where the second text of a pair is to have type 0, the library's overflowing tokens have type 1 nevertheless.
        columns.append(encoding.type_ids)
    return [[column[index] for index in indices] for column in columns]


def fixed(of: Any, given_texts: Sequence[str], sequence: int) -> int:
    """How many tokens are in every window."""
    return sum(owner != sequence for owner in of.encode(*given_texts).sequence_ids)


@PROFILE
@given(
    template=st.sampled_from(sorted(TEMPLATES)),
    first=texts,
    second=st.none() | texts,
    longest=st.integers(1, 60),
    stride=st.integers(0, 30),
)
def test_windows_are_the_tokenizers_own(
    template: str, first: str, second: str | None, longest: int, stride: int
) -> None:
    """Of one text, or of the second of a pair, where there is room for a window that moves on; else it is refused."""
    of, sequence = tokenizer(template), 0 if second is None else 1
    given_texts = [first] if second is None else [first, second]
    encoding = of.encode(*given_texts)
    room = longest - fixed(of, given_texts, sequence)
    if len(encoding.ids) > longest and room <= stride:
        with pytest.raises(InvalidRequestError if room > 0 else InputTooLongError, match="window"):
            cut_windows(encoding, sequence, longest, stride)
        return
    windows = cut_windows(encoding, sequence, longest, stride)
    if len(encoding.ids) <= longest:
        expected = [encoding]
    else:
        expected = theirs(of, given_texts, longest, stride, "longest_first" if second is None else "only_second")
    ours = [seen(template, window.encoding, window.indices) for window in windows]
    assert ours == [seen(template, each, range(len(each.ids))) for each in expected]
    assert seen(template, encoding, first_window(encoding, sequence, longest).indices) == ours[0]


@PROFILE
@given(words=st.integers(1, 200), longest=st.integers(3, 40), stride=st.integers(0, 20))
def test_every_token_is_in_a_window_and_neighbours_share_the_stride(words: int, longest: int, stride: int) -> None:
    """Said without the library: nothing is lost, and no window is longer than asked."""
    encoding = tokenizer("bert").encode(" ".join("a" * words))
    if stride >= longest - 2:
        return
    starts: list[list[int]] = []
    for window in cut_windows(encoding, 0, longest, stride):
        assert len(window.indices) <= longest
        assert (window.indices[0], window.indices[-1]) == (0, words + 1)
        starts.append(window.indices[1:-1])
    assert sorted({index for of_one in starts for index in of_one}) == list(range(1, words + 1))
    for left, right in itertools.pairwise(starts):
        assert left[len(left) - stride :] == right[:stride]


def test_too_many_windows_are_refused() -> None:
    """A row each: exactly MAX_ROWS are served."""
    most = tokenizer("gpt2").encode(" ".join("a" * MAX_ROWS * 2))
    assert len(cut_windows(most, 0, 2, 0)) == MAX_ROWS
    more = tokenizer("gpt2").encode(" ".join("a" * (MAX_ROWS * 2 + 1)))
    with pytest.raises(InputTooLongError, match=f"makes {MAX_ROWS + 1} windows of 2 tokens, at most {MAX_ROWS}"):
        cut_windows(more, 0, 2, 0)
    assert first_window(more, 0, 2).indices == [0, 1]
