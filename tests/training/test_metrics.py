"""What is measured of answers: what the libraries say, from sums that can be drawn again."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu import corpus_bleu, corpus_chrf
from seqeval.metrics import f1_score as entity_f1
from sklearn.metrics import f1_score

from nlp_worker.training.metrics import Answers, Bleu, Classification, Metrics, Rouge, Tagging

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROFILE: Final = settings(derandomize=True, deadline=None, max_examples=60, database=None)

LABELS: Final = ("bad", "good", "mixed")
ENTITIES: Final = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
SPEECH: Final = ("NOUN", "VERB", "ADJ")
WORDS: Final = ("the", "cat", "cats", "sat", "on", "a", "mat", ".", "\n", "Ünïcode", "1976")

TEXTS: Final = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)


class Row(NamedTuple):
    """One row's expected answer, and the predicted one."""

    expected: Any
    predicted: Any


def rows_of(expected: st.SearchStrategy[Any], predicted: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Row]]:
    """Draw rows of which some are answered with an error."""
    return st.lists(st.builds(Row, expected, st.one_of(st.none(), predicted, predicted)), min_size=1, max_size=30)


def labelled(labels: Sequence[str]) -> st.SearchStrategy[list[Row]]:
    """Draw rows of a label, which the checkpoint may not know."""
    return rows_of(st.sampled_from([*labels, "unheard of"]), st.sampled_from(labels))


def tagged(tags: Sequence[str]) -> st.SearchStrategy[list[Row]]:
    """Draw rows of words, each with an expected and a predicted tag."""
    words = st.lists(st.tuples(st.sampled_from(tags), st.sampled_from(tags)), min_size=1, max_size=8)
    row = st.builds(
        lambda pairs, failed: Row([tag for tag, _ in pairs], None if failed else [tag for _, tag in pairs]),
        words,
        st.booleans(),
    )
    return st.lists(row, min_size=1, max_size=20)


#: How to build each kind of metrics, its scores, and rows to measure.
KINDS: Final[list[tuple[Callable[[str | None], Metrics], str, Any]]] = [
    (lambda primary: Classification(LABELS, primary), "accuracy, f1_macro", labelled(LABELS)),
    (lambda primary: Classification(LABELS[:2], primary), "accuracy, f1_macro, f1", labelled(LABELS[:2])),
    (lambda primary: Tagging(ENTITIES, primary), "f1, precision, recall, accuracy", tagged(ENTITIES)),
    (lambda primary: Tagging(SPEECH, primary), "accuracy, f1_macro", tagged(SPEECH)),
    (Answers, "f1, exact_match", rows_of(st.lists(TEXTS, max_size=3), TEXTS)),
    (Rouge, "rougeL, rouge1, rouge2, rougeLsum", rows_of(TEXTS, TEXTS)),
    (Bleu, "bleu, chrf", rows_of(TEXTS, TEXTS)),
]


@pytest.mark.parametrize(
    ("build", "primary", "rows"),
    [(build, primary, rows) for build, choices, rows in KINDS for primary in choices.split(", ")],
)
def test_sums_give_the_libraries_score(build: Callable[[str | None], Metrics], primary: str, rows: Any) -> None:
    """So a resample's score is what the library would say of those rows: of any rows, one, or one many times."""
    metrics = build(primary)

    @PROFILE
    @given(rows, st.randoms(use_true_random=False))
    def holds(drawn: list[Row], random: Any) -> None:
        expected, predicted = zip(*drawn, strict=True)
        statistics = metrics.statistics(expected, predicted)
        assert len(statistics) == len(drawn)
        again = random.choices(range(len(drawn)), k=len(drawn))
        sums = np.stack([statistics.sum(axis=0), statistics[again].sum(axis=0)])
        whole, resample = metrics.primary_of(sums).tolist()
        assert float(metrics.primary_of(sums[0])) == whole
        assert whole == pytest.approx(metrics.scores(expected, predicted)[primary], rel=1e-9, abs=1e-9)
        expected, predicted = zip(*[drawn[row] for row in again], strict=True)
        assert resample == pytest.approx(metrics.scores(expected, predicted)[primary], rel=1e-9, abs=1e-9)

    holds()


def test_labels_score_as_scikit_learn_says() -> None:
    """Known answers; the second of two labels is the positive one; a third makes `f1` meaningless."""
    expected = ["bad", "good", "good", "bad", "good"]
    predicted = ["bad", "good", "bad", "good", "good"]
    assert Classification(["bad", "good"]).scores(expected, predicted) == pytest.approx(
        {
            "accuracy": 3 / 5,
            "f1_macro": f1_score(expected, predicted, average="macro"),
            "f1": f1_score(expected, predicted, pos_label="good"),
        }
    )
    assert "f1" not in Classification(LABELS).scores(expected, predicted)
    swapped = Classification(["good", "bad"]).scores(expected, predicted)["f1"]
    assert swapped == pytest.approx(f1_score(expected, predicted, pos_label="bad"))


def test_an_error_and_an_unknown_label_are_wrong() -> None:
    """An error is nobody's false positive; a label that no answer can be is in the mean of the classes."""
    scores = Classification(["bad", "good"]).scores(["good", "good", "new"], ["good", None, "good"])
    assert scores == pytest.approx({"accuracy": 1 / 3, "f1": 1 / 2, "f1_macro": 1 / 4})
    nothing = Classification(["bad", "good"]).scores(["good", "bad"], [None, None])
    assert nothing == {"accuracy": 0, "f1": 0, "f1_macro": 0}


def test_a_label_that_is_only_predicted_lowers_the_mean() -> None:
    """As scikit-learn takes the classes that occur in either; those of the checkpoint that occur in neither do not."""
    scores = Classification([*LABELS, "never"]).scores(["bad", "bad"], ["bad", "good"])
    assert scores["f1_macro"] == pytest.approx(f1_score(["bad", "bad"], ["bad", "good"], average="macro"))


def test_many_classes_in_few_rows_are_classes() -> None:
    """Scikit-learn 1.7 takes them for a mistake and warns: here warnings are errors."""
    labels = [f"label {number}" for number in range(60)]
    assert Classification(labels).scores(labels, labels) == {"accuracy": 1, "f1_macro": 1}


def test_entities_score_as_seqeval_says() -> None:
    """An entity counts if all its words are right; a row without an answer has none, and none of its words right."""
    expected = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC"]]
    predicted = [["B-PER", "O", "O", "B-LOC"], None]
    scores = Tagging(ENTITIES).scores(expected, predicted)
    assert scores == pytest.approx({"f1": 2 / 5, "precision": 1 / 2, "recall": 1 / 3, "accuracy": 3 / 6})
    assert scores["f1"] == pytest.approx(entity_f1(expected, [["B-PER", "O", "O", "B-LOC"], ["O", "O"]]))


def test_texts_without_entities_score_0() -> None:
    """There is nothing to find, and nothing is found: no warning, and no not-a-number."""
    metrics = Tagging(ENTITIES)
    rows = [["O", "O"], ["O"]]
    assert metrics.scores(rows, rows) == {"f1": 0, "precision": 0, "recall": 0, "accuracy": 1}
    assert metrics.primary_of(metrics.statistics(rows, rows).sum(axis=0)) == 0


def test_parts_of_speech_are_no_entities() -> None:
    """Per word: seqeval would make an entity of each, and warn."""
    scores = Tagging(SPEECH).scores([["NOUN", "VERB"], ["ADJ"]], [["NOUN", "NOUN"], ["ADJ"]])
    words = ["NOUN", "VERB", "ADJ"], ["NOUN", "NOUN", "ADJ"]
    assert scores == pytest.approx({"accuracy": 2 / 3, "f1_macro": f1_score(*words, average="macro", zero_division=0)})


def test_answers_score_as_squad_does() -> None:
    """Articles, case and punctuation do not count; the best accepted answer does; words shared are part of it."""
    expected = [["Denver Broncos", "The Broncos"], ["two cats"], [], [], []]
    predicted = ["the broncos!", "two dogs", "", "something", None]
    scores = Answers().scores(expected, predicted)
    assert scores == pytest.approx({"f1": (1 + 1 / 2 + 1 + 0 + 0) / 5, "exact_match": 2 / 5}, abs=1e-6)


def test_summaries_score_as_rouge_does(caplog: pytest.LogCaptureFixture) -> None:
    """Stems are compared; lines are sentences of `rougeLsum`; an error is an empty text. It says nothing in the log."""
    caplog.set_level("DEBUG")
    scores = Rouge().scores(["cats sat\nthe mat", "a dog"], ["the mat\ncat sat", None])
    assert scores == pytest.approx({"rougeL": 1 / 4, "rouge1": 1 / 2, "rouge2": 1 / 3, "rougeLsum": 1 / 2})
    assert not caplog.records


def test_translations_score_as_sacrebleu_does(caplog: pytest.LogCaptureFixture) -> None:
    """Of the corpus, with an empty text for an error. It does not complain of how a user's texts are spaced."""
    expected = ["The cat sat on the mat .", "It rains today, and there is a dog."] * 100
    predicted = ["The cat sat on a mat .", None] * 100
    texts = [text or "" for text in predicted]
    scores = Bleu().scores(expected, predicted)
    assert scores["chrf"] == corpus_chrf(texts, [expected]).score
    assert not caplog.records
    assert scores["bleu"] == corpus_bleu(texts, [expected], force=True).score > 1


@pytest.mark.parametrize(("build", "choices"), [(build, choices) for build, choices, _ in KINDS])
def test_the_first_score_decides_unless_another_is_chosen(build: Callable[[str | None], Metrics], choices: str) -> None:
    """A name that is none of the scores is refused with those that are."""
    first, *_, last = choices.split(", ")
    assert build(None).primary == first
    assert build(last).primary == last
    with pytest.raises(ValueError, match=f"no score loss: choose one of {choices}$"):
        build("loss")


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (Classification(LABELS), ["bad", "good"]),
        (Tagging(ENTITIES), [["O"], ["B-PER"]]),
        (Answers(), [["a cat"], ["a dog"]]),
        (Rouge(), ["a cat", "a dog"]),
        (Bleu(), ["a cat", "a dog"]),
    ],
)
def test_every_row_needs_its_answer(metrics: Metrics, expected: list[Any]) -> None:
    """Sacrebleu would leave out the rows that one side lacks, and flatter."""
    for measure in (metrics.scores, metrics.statistics):
        with pytest.raises(ValueError, match="shorter"):
            measure(expected, [None])


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics of hubs fetch their code, and nltk its tokenizers: an evaluation behind a firewall would fail."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a metric opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for metrics in (Rouge(), Bleu()):
        assert metrics.scores(["a cat\nsat."], ["a cat\nsat."])
    assert Answers().scores([["a cat"]], ["a cat"]) == {"f1": 1, "exact_match": 1}
    assert Tagging(ENTITIES).scores([["B-PER"]], [["B-PER"]])["f1"] == 1
