"""What the golden answers answer: the checkpoints, and each request's inputs and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Case = tuple[str, str, Any, dict[str, Any]]
"""Checkpoint, name of the pipeline, inputs, parameters."""

QUESTION_ANSWERING: Final = (
    "albert",
    "bart",
    "bert",
    "deberta-v2",
    "distilbert",
    "electra",
    "gpt2",
    "llama",
    "mbart",
    "modernbert",
    "qwen3",
    "roberta",
    "t5",
    "xlm-roberta",
)
#: Two pairs that differ in more than their prefixes, and whose num_beams and early_stopping are the library's defaults.
_PAIRS: Final = {
    "translation_en_to_de": {"early_stopping": True, "num_beams": 3, "prefix": "translate English to German: "},
    "translation_en_to_fr": {"length_penalty": 0.3, "num_beams": 2, "prefix": "translate English to French: "},
}


def _recipe(family: str, head: str, **config: Any) -> dict[str, Any]:
    return {"family": family, "head": head, "seed": 0, "config": config, "rename": {}}


#: By file: its checkpoints' recipes, by their names in it.
CHECKPOINTS: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "question-answering": {family: _recipe(family, "question-answering") for family in QUESTION_ANSWERING},
    "summarization": {
        **{family: _recipe(family, "seq2seq-lm") for family in ("bart", "mbart", "t5")},
        # The pipeline's own defaults are left: 256 new tokens, 4 beams.
        "t5-plain": _recipe("t5", "seq2seq-lm", task_specific_params=None, prefix="sum up: "),
    },
    "translation": {
        **{family: _recipe(family, "seq2seq-lm") for family in ("marian", "mbart", "t5")},
        "t5-pairs": _recipe("t5", "seq2seq-lm", task_specific_params=_PAIRS),
        # Several targets: two pieces of the vocabulary become the words that choose one.
        "marian-targets": {
            **_recipe("marian", "seq2seq-lm"),
            "rename": {"\u2581minutes": ">>fra<<", "\u2581wonderful": ">>deu<<"},
        },
    },
}

TRAVEL: Final = (
    "Ann and Bob went to Paris in 2019, and to Rome in 2023. The train would arrive at 17:45, but it never came. In"
    " Rome the food was cold, the service slow and the bill far too high; in Paris the museum opened at nine and closed"
    " at six, except on Sundays."
)
TWINS: Final = "Paris, PARIS and paris: Ann saw paris in May, Bob saw Paris in June. Nobody saw PARIS twice, said Ann."
#: Full-width, combining marks, emoji of several code points, right to left, Chinese, a ligature, unusual spaces.
UNICODE: Final = (
    "Zoe\u0308 et Ane\u0301 \u2764\ufe0f \uff30\uff41\uff52\uff49\uff53 \u2026 \ufb01lm \U0001f469\u200d\U0001f680"
    " went\u00a0to \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u6771\u4eac\u30bf\u30ef\u30fc, \u0130zmir"
    "\u3000and\u2003Ko\u0308ln."
)
WHO: Final = "Who went to Paris in 2019?"
WHEN: Final = "When would the train arrive?"
WHERE: Final = "Where?"
LONG: Final = " ".join([TRAVEL] * 5)


def question_answering() -> Iterator[Case]:
    for family in QUESTION_ANSWERING:
        for question, context, parameters in _QUESTIONS:
            yield family, "question-answering", {"question": question, "context": context}, parameters
    for family in "bert", "gpt2", "roberta":
        for question, context, parameters in _LONG_AND_WRONG:
            yield family, "question-answering", {"question": question, "context": context}, parameters


_QUESTIONS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    (WHO, TRAVEL, {}),
    (WHEN, TRAVEL, {"top_k": 3}),
    # Windows.
    (WHO, TRAVEL, {"max_seq_len": 48, "doc_stride": 16}),
    (WHERE, TRAVEL, {"max_seq_len": 32, "doc_stride": 8, "top_k": 3}),
    (WHEN, TRAVEL, {"max_seq_len": 64, "doc_stride": 24, "top_k": 5}),
    (WHERE, TRAVEL, {"max_seq_len": 40, "top_k": 2}),
    (WHERE, TRAVEL, {"max_seq_len": 40, "doc_stride": 0}),
    # Lengths of answers.
    (WHO, TRAVEL, {"max_answer_len": 1, "top_k": 2}),
    (WHEN, TRAVEL, {"max_answer_len": 3, "top_k": 4}),
    (WHEN, TRAVEL, {"max_answer_len": 60, "top_k": 3}),
    # No answer.
    (WHO, TRAVEL, {"handle_impossible_answer": True}),
    (WHEN, TRAVEL, {"handle_impossible_answer": True, "top_k": 4}),
    (WHERE, TRAVEL, {"handle_impossible_answer": True, "top_k": 30, "max_seq_len": 40, "doc_stride": 12}),
    # Tokens instead of words.
    (WHO, TRAVEL, {"align_to_words": False}),
    (WHEN, TRAVEL, {"align_to_words": False, "top_k": 4}),
    (WHERE, TRAVEL, {"align_to_words": False, "top_k": 2, "max_seq_len": 32, "doc_stride": 10}),
    # Equal answers at several places, in several windows.
    ("What did Bob see?", TWINS, {"top_k": 5}),
    ("Who saw it?", TWINS, {"max_answer_len": 2, "top_k": 4}),
    (WHERE, TWINS, {"max_seq_len": 32, "doc_stride": 16, "top_k": 4, "max_answer_len": 3}),
    # Offsets.
    (WHO, UNICODE, {"top_k": 3}),
    ("\uff37\uff48\uff4f \U0001f680?", UNICODE, {"align_to_words": False, "top_k": 3, "max_answer_len": 6}),
    (WHERE, UNICODE, {"max_seq_len": 48, "doc_stride": 8, "top_k": 2}),
    (WHERE, "  \n\tAnn  went to\nRome. \n ", {"top_k": 2, "max_answer_len": 4}),
    # What a user takes for a word.
    ("Who is [CLS] or <s>?", "Ann [SEP] Bob </s> went [CLS] <s> to [MASK] <mask> Rome.", {"top_k": 3}),
    # More answers asked for than there are.
    (WHO, "Ann", {"top_k": 5}),
    (WHO, "Ann went.", {"top_k": 20, "handle_impossible_answer": True}),
    (WHERE, "Rome", {}),
    (WHERE, " ", {}),
)
_LONG_AND_WRONG: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    (WHO, LONG, {}),
    (WHEN, LONG, {"top_k": 3, "handle_impossible_answer": True}),
    (" ", TRAVEL, {}),
    ("", TRAVEL, {}),
    (WHO, "", {}),
    (WHO, TRAVEL, {"top_k": 0}),
    (WHO, TRAVEL, {"max_answer_len": 0}),
    (WHO, TRAVEL, {"max_seq_len": 40, "doc_stride": 41}),
    (WHO, TRAVEL, {"max_seq_len": 40, "doc_stride": 40}),
    (WHO, TRAVEL, {"max_seq_len": 40, "doc_stride": 30}),
    (WHO, "Ann", {"max_seq_len": 40, "doc_stride": 30}),
    (WHO * 5, TRAVEL, {"max_seq_len": 40, "doc_stride": 0}),
)

STORY: Final = (
    "The committee will meet on Monday to discuss the budget. The bridge was built in 1887 and painted red last summer,"
    " yet nobody answered the telephone. Prices start at $35 per person."
)
WEATHER: Final = "Rain is expected in the north, with some sun later in the day. The children were happy."
STRANGE: Final = "  A \ufb01ne \uff26\uff29\uff2c\uff2d \u2026 </s> caf\u00e9 \u2764\ufe0f, it said."
TOO_LONG: Final = " ".join([STORY] * 12)
HELLO: Final = "Thank you very much for your kind and quick help!"
MUSEUM: Final = "The museum opens at nine, and the sea is beautiful."


def summarization() -> Iterator[Case]:
    for checkpoint in "bart", "mbart", "t5":
        for text, parameters in _SUMMARIES:
            yield checkpoint, "summarization", text, parameters
    yield "t5-plain", "summarization", WEATHER, {}
    yield "t5-plain", "summarization", STORY, {"max_new_tokens": 12}
    yield "t5-plain", "summarization", STORY, {"max_length": 6}


_SUMMARIES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    (STORY, {}),
    (STORY, {"max_new_tokens": 12}),
    (WEATHER, {"max_new_tokens": 24}),
    (STORY, {"max_length": 16}),
    (WEATHER, {"max_length": 16, "min_length": 8}),
    (WEATHER, {"max_length": 8}),
    (STORY, {"max_length": 10, "max_new_tokens": 20}),
    (WEATHER, {"min_length": 20, "max_new_tokens": 30}),
    (WEATHER, {"min_new_tokens": 12, "max_new_tokens": 24}),
    (STORY, {"num_beams": 1, "max_new_tokens": 24}),
    (WEATHER, {"num_beams": 1, "do_sample": False, "max_new_tokens": 24, "no_repeat_ngram_size": 2}),
    (STORY, {"num_beams": 2, "max_new_tokens": 24, "no_repeat_ngram_size": 2}),
    (WEATHER, {"num_beams": 3, "max_new_tokens": 20, "length_penalty": 0.2}),
    (STORY, {"num_beams": 3, "max_new_tokens": 20, "length_penalty": -1.0, "early_stopping": False}),
    (WEATHER, {"max_new_tokens": 20, "early_stopping": "never", "length_penalty": 0.5, "min_length": 0}),
    (STORY, {"max_new_tokens": 20, "early_stopping": False}),
    (STORY, {"max_new_tokens": 16, "do_sample": False, "repetition_penalty": 1.5}),
    (WEATHER, {"max_new_tokens": 12, "num_return_sequences": 3}),
    (WEATHER, {"max_new_tokens": 12, "num_beams": 2, "num_return_sequences": 3}),
    (STRANGE, {"max_new_tokens": 16}),
    ("", {"max_new_tokens": 8}),
    (TOO_LONG, {"max_new_tokens": 12, "truncation": True}),
    (TOO_LONG, {"max_new_tokens": 12}),
    (WEATHER, {"max_new_tokens": 12, "clean_up_tokenization_spaces": True}),
)


def translation() -> Iterator[Case]:
    for text, parameters in _TRANSLATIONS:
        yield "marian", "translation", text, parameters
        yield "mbart", "translation", text, {"src_lang": "en_XX", "tgt_lang": "ro_RO", **parameters}
        yield "t5", "translation_en_to_fr", text, {"src_lang": "en", "tgt_lang": "fr", **parameters}
    for word in ">>fra<< ", ">>deu<< ", ">>fra<<", "", ">>xxx<< ":
        for text in HELLO, MUSEUM:
            yield "marian-targets", "translation", word + text, {"max_new_tokens": 20}
    for source, target in ("ro_RO", "en_XX"), ("en_XX", "de_DE"), ("fr_XX", "fr_XX"), ("en", "ro"):
        yield "mbart", "translation", STRANGE, {"src_lang": source, "tgt_lang": target, "max_new_tokens": 16}
    yield "mbart", "translation", HELLO, {}
    yield "mbart", "translation", HELLO, {"src_lang": "en_XX"}
    yield "mbart", "translation", HELLO, {"tgt_lang": "ro_RO"}
    for checkpoint in "t5", "t5-pairs":
        for text in HELLO, MUSEUM:
            yield checkpoint, "translation", text, {"max_new_tokens": 20}
            for target in "de", "fr":
                languages = {"src_lang": "en", "tgt_lang": target}
                yield checkpoint, f"translation_en_to_{target}", text, {**languages, "max_new_tokens": 20}


_TRANSLATIONS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    (HELLO, {}),
    (MUSEUM, {}),
    (HELLO, {"max_new_tokens": 12}),
    (MUSEUM, {"max_length": 12}),
    (HELLO, {"max_length": 12}),
    (HELLO, {"max_new_tokens": 24, "min_length": 16}),
    (MUSEUM, {"num_beams": 1, "max_new_tokens": 24}),
    (HELLO, {"num_beams": 2, "length_penalty": 0.3, "max_new_tokens": 24}),
    (MUSEUM, {"max_new_tokens": 16, "num_return_sequences": 2}),
    (STRANGE, {"max_new_tokens": 16}),
    ("", {"max_new_tokens": 8}),
    (TOO_LONG, {"max_new_tokens": 10, "truncation": True}),
    (TOO_LONG, {"max_new_tokens": 10}),
)

CASES: Final = {
    "question-answering": question_answering,
    "summarization": summarization,
    "translation": translation,
}
