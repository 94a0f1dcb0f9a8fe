"""What answers are measured by: scores of well-kept libraries, and what each row adds to them.

A score of resampled rows (`nlp_worker.training.bootstrap`) is made of sums over rows, which cost little to draw again.
An answer of None is a request that was answered with an error: it counts as wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

#: The number of an answer that is an error. As an index it is the last column of a one-hot row: one that is no class.
NO_ANSWER: Final = -1

#: A class's or an entity's three counts, in this order.
CORRECT, PREDICTED, EXPECTED = range(3)


class Metrics(Protocol):
    """What is measured of a task's answers. There is at least one row."""

    #: The score that decides which checkpoint is better. More is better, for every score.
    primary: str

    def scores(self, expected: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
        """Score the answers with the libraries."""

    def statistics(self, expected: Sequence[Any], predicted: Sequence[Any]) -> Array:
        """Return what each row adds to the sums that the primary score is made of: [rows, sums]."""

    def primary_of(self, sums: Array) -> Array:
        """Return the primary score of summed statistics: [..., sums] to [...]."""


class Classification:
    """One label a text.

    Args:
        labels: Of the checkpoint. Where they are two, the second is the positive one of `f1`.
        primary: The score that decides, or None for the first. Here and below there is a ValueError for any other.
    """

    def __init__(self, labels: Sequence[str], primary: str | None = None) -> None:
        self._labels = tuple(labels)
        self._binary = len(self._labels) == 2  # noqa: PLR2004 - negative and positive
        self.primary = _one_of(("accuracy", "f1_macro", "f1") if self._binary else ("accuracy", "f1_macro"), primary)

    def scores(self, expected: Sequence[str], predicted: Sequence[str | None]) -> dict[str, float]:
        pairs = self._pairs(expected, predicted)
        scores = {"accuracy": pairs.accuracy(), "f1_macro": pairs.f1_macro()}
        return scores | {"f1": pairs.f1_macro([1])} if self._binary else scores

    def statistics(self, expected: Sequence[str], predicted: Sequence[str | None]) -> Array:
        pairs = self._pairs(expected, predicted)
        if self.primary == "accuracy":
            return pairs.hits()
        counts = pairs.counts()
        return counts[:, 3:6] if self.primary == "f1" else counts

    def primary_of(self, sums: Array) -> Array:
        return ratio(sums) if self.primary == "accuracy" else f1_macro(sums)

    def _pairs(self, expected: Sequence[str], predicted: Sequence[str | None]) -> _Pairs:
        """A text is a row of one word."""
        guesses = [None if label is None else [label] for label in predicted]
        return _Pairs(self._labels, [[label] for label in expected], guesses)


class Tagging:
    """One tag a word. Tags that begin with B- and I- mark entities; others are parts of speech.

    Args:
        tags: All that occur, not the checkpoint's alone: seqeval warns of others between entities' tags.
        primary: The score that decides.
    """

    def __init__(self, tags: Sequence[str], primary: str | None = None) -> None:
        self._tags = tuple(tags)
        self._entities = all(tag == "O" or tag.startswith(("B-", "I-")) for tag in tags)
        names = ("f1", "precision", "recall", "accuracy") if self._entities else ("accuracy", "f1_macro")
        self.primary = _one_of(names, primary)

    def scores(self, expected: Sequence[list[str]], predicted: Sequence[list[str] | None]) -> dict[str, float]:
        pairs = _Pairs(self._tags, expected, predicted)
        if not self._entities:
            return {"accuracy": pairs.accuracy(), "f1_macro": pairs.f1_macro()}
        from seqeval.metrics import sequence_labeling  # noqa: PLC0415 - it imports scikit-learn: seconds

        precision, recall, f1, _ = sequence_labeling.precision_recall_fscore_support(
            expected, _outside(expected, predicted), average="micro", zero_division=0
        )
        return {"f1": float(f1), "precision": float(precision), "recall": float(recall), "accuracy": pairs.accuracy()}

    def statistics(self, expected: Sequence[list[str]], predicted: Sequence[list[str] | None]) -> Array:
        if self.primary == "accuracy":
            return _Pairs(self._tags, expected, predicted).hits()
        if self.primary == "f1_macro":
            return _Pairs(self._tags, expected, predicted).counts()
        from seqeval.metrics.sequence_labeling import get_entities  # noqa: PLC0415 - it imports scikit-learn: seconds

        counts = np.zeros((len(expected), 3))
        for row, (tags, guesses) in enumerate(zip(expected, _outside(expected, predicted), strict=True)):
            truth, found = set(get_entities(tags)), set(get_entities(guesses))
            counts[row] = len(truth & found), len(found), len(truth)
        ratios = {"precision": [CORRECT, PREDICTED], "recall": [CORRECT, EXPECTED]}
        return counts[:, ratios[self.primary]] if self.primary in ratios else counts

    def primary_of(self, sums: Array) -> Array:
        # Entities are counted as one class: the mean over classes is the micro average.
        return f1_macro(sums) if self.primary in {"f1", "f1_macro"} else ratio(sums)


class _Mean:
    """A score that is the mean of the rows' own scores."""

    names: ClassVar[tuple[str, ...]]

    def __init__(self, primary: str | None = None) -> None:
        self.primary = _one_of(self.names, primary)

    def scores(self, expected: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
        means = self._of_rows(self.names, expected, predicted).mean(axis=0)
        return dict(zip(self.names, means.tolist(), strict=True))

    def statistics(self, expected: Sequence[Any], predicted: Sequence[Any]) -> Array:
        return np.hstack([self._of_rows((self.primary,), expected, predicted), np.ones((len(expected), 1))])

    def primary_of(self, sums: Array) -> Array:
        return ratio(sums)

    def _of_rows(self, names: Sequence[str], expected: Sequence[Any], predicted: Sequence[Any]) -> Array:
        """Return the scores of these names: [rows, names]."""
        raise NotImplementedError


class Answers(_Mean):
    """Answers extracted from a text, as SQuAD measures them: against the best of the accepted answers, 0 to 1.

    No accepted answer means that the question has none: then the empty text is right.
    """

    names = ("f1", "exact_match")

    def _of_rows(
        self, names: Sequence[str], expected: Sequence[Sequence[str]], predicted: Sequence[str | None]
    ) -> Array:
        from torchmetrics.functional.text import squad  # noqa: PLC0415 - it imports torch: seconds

        scores = np.zeros((len(expected), len(names)))
        for row, (accepted, answer) in enumerate(zip(expected, predicted, strict=True)):
            if answer is not None:
                answers: dict[str, Any] = {"text": list(accepted) or [""]}
                found = squad({"prediction_text": answer, "id": ""}, {"answers": answers, "id": ""})
                scores[row] = [found[name].item() / 100 for name in names]
        return scores


class Rouge(_Mean):
    """F-measures of words that a text shares with the expected one, 0 to 1. `rougeLsum` takes each line by itself.

    The library knows the letters a to z and digits alone: for other scripts its scores are 0.
    """

    names = ("rougeL", "rouge1", "rouge2", "rougeLsum")

    def _of_rows(self, names: Sequence[str], expected: Sequence[str], predicted: Sequence[str | None]) -> Array:
        from rouge_score import rouge_scorer, tokenizers  # noqa: PLC0415 - it imports nltk: seconds

        # The scorer's own default tokenizer is the same, and logs that it is the default.
        scorer = rouge_scorer.RougeScorer(list(names), tokenizer=tokenizers.DefaultTokenizer(use_stemmer=True))
        rows = [scorer.score(text, answer or "") for text, answer in zip(expected, predicted, strict=True)]
        return np.array([[row[name].fmeasure for name in names] for row in rows], dtype=np.float64)


class Bleu:
    """Translations, as sacrebleu measures a corpus: 0 to 100."""

    def __init__(self, primary: str | None = None) -> None:
        from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 - of an extra that the command line does without
        from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415 - as above

        # Without force it warns of references that end in " .": the user's texts are the user's.
        self._metrics = {"bleu": BLEU(force=True), "chrf": CHRF()}
        self.primary = _one_of(tuple(self._metrics), primary)
        self._decides = self._metrics[self.primary]

    def scores(self, expected: Sequence[str], predicted: Sequence[str | None]) -> dict[str, float]:
        texts = _texts(expected, predicted)
        return {name: metric.corpus_score(texts, [expected]).score for name, metric in self._metrics.items()}

    def statistics(self, expected: Sequence[str], predicted: Sequence[str | None]) -> Array:
        texts = _texts(expected, predicted)
        rows = self._decides._extract_corpus_statistics(texts, [expected])  # noqa: SLF001 - as its own bootstrap does
        return np.array(rows, dtype=np.float64)

    def primary_of(self, sums: Array) -> Array:
        return np.apply_along_axis(self._score, -1, sums)

    def _score(self, sums: Array) -> float:
        found = self._decides._compute_score_from_stats(sums.tolist())  # noqa: SLF001 - as its own bootstrap does
        return float(found.score)


class _Pairs:
    """Expected and predicted names as numbers, a pair a word."""

    def __init__(
        self, names: Sequence[str], expected: Sequence[list[str]], predicted: Sequence[list[str] | None]
    ) -> None:
        truth: list[str] = []
        guesses: list[str | None] = []
        for right, guess in zip(expected, predicted, strict=True):
            truth += right
            guesses += [None] * len(right) if guess is None else guess
        known = [name for name in guesses if name is not None]
        # The checkpoint's names first: the numbers of its labels are its own.
        numbers = {name: number for number, name in enumerate(dict.fromkeys([*names, *truth, *known]))}
        self._classes = len(numbers)
        self._rows = len(expected)
        self._row = np.repeat(np.arange(self._rows), [len(right) for right in expected])
        self._expected = np.array([numbers[name] for name in truth], dtype=np.int64)
        self._predicted = np.array([NO_ANSWER if name is None else numbers[name] for name in guesses], dtype=np.int64)
        self._hit = self._expected == self._predicted

    def accuracy(self) -> float:
        from sklearn.metrics import accuracy_score  # noqa: PLC0415 - seconds

        return float(accuracy_score(*self._one_hot()))

    def f1_macro(self, classes: Sequence[int] | None = None) -> float:
        """Return the mean F1 of these classes, or of those that occur."""
        from sklearn.metrics import f1_score  # noqa: PLC0415 - seconds

        if classes is None:
            occur = np.union1d(self._expected, self._predicted)
            classes = occur[occur != NO_ANSWER].tolist()
        return float(f1_score(*self._one_hot(), labels=classes, average="macro", zero_division=0))

    def _one_hot(self) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """For scikit-learn: release 1.7 warns of numbers that are many classes in few rows."""
        rows = np.eye(self._classes + 1, dtype=np.int8)
        return rows[self._expected], rows[self._predicted]

    def hits(self) -> Array:
        """Return each row's words that are right, and its words."""
        weights = self._hit, np.ones(len(self._hit))
        return np.stack([np.bincount(self._row, each, self._rows) for each in weights], axis=1)

    def counts(self) -> Array:
        """Return each row's three counts of every class, one class after the other."""
        counts = np.zeros((self._rows, self._classes, 3))
        answered = self._predicted != NO_ANSWER
        np.add.at(counts[..., CORRECT], (self._row[self._hit], self._expected[self._hit]), 1)
        np.add.at(counts[..., PREDICTED], (self._row[answered], self._predicted[answered]), 1)
        np.add.at(counts[..., EXPECTED], (self._row, self._expected), 1)
        return counts.reshape(self._rows, -1)


def ratio(sums: Array) -> Array:
    """Divide the first sum by the second: [..., 2] to [...]. Nothing of nothing is 0."""
    return _divide(sums[..., 0], sums[..., 1])


def f1_macro(sums: Array) -> Array:
    """Return the mean F1 of the classes that occur, of their three counts: [..., 3 * classes] to [...]."""
    counts = sums.reshape(*sums.shape[:-1], -1, 3)
    occurs = counts[..., PREDICTED] + counts[..., EXPECTED]
    return _divide(_divide(2 * counts[..., CORRECT], occurs).sum(axis=-1), (occurs > 0).sum(axis=-1))


def _divide(numerator: Array, denominator: NDArray[Any]) -> Array:
    return np.asarray(np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0))


def _one_of(names: tuple[str, ...], primary: str | None) -> str:
    if primary is not None and primary not in names:
        raise ValueError(f"there is no score {primary}: choose one of {', '.join(names)}")
    return primary or names[0]


def _outside(expected: Sequence[list[str]], predicted: Sequence[list[str] | None]) -> list[list[str]]:
    """Where there is no answer, no word is of an entity."""
    return [["O"] * len(tags) if own is None else own for tags, own in zip(expected, predicted, strict=True)]


def _texts(expected: Sequence[str], predicted: Sequence[str | None]) -> list[str]:
    """Where there is no answer, the text is empty. Sacrebleu would leave out the rows that one side lacks."""
    return [answer or "" for _, answer in zip(expected, predicted, strict=True)]
