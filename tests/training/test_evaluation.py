"""Evaluation through the worker against transformers' own way: Trainer.predict, and a metric."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import torch
import transformers
from seqeval.metrics import f1_score as entity_f1
from sklearn.metrics import accuracy_score, f1_score

from nlp_worker.executor import Executor
from nlp_worker.models import load
from nlp_worker.planner import Planner
from nlp_worker.settings import load_settings
from nlp_worker.training import evaluation, labelled_set
from nlp_worker.training.served import ServedTask
from trained import ROWS, run, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nlp_worker.training.examples import Example

#: Of a probability: float32 in batches of another shape.
SCORE_TOLERANCE: Final = 1e-5


class Case:
    """A checkpoint that has learned a little, and rows to evaluate it on."""

    def __init__(self, folder: Path, task: str, data: Path) -> None:
        self.folder = folder
        self.task = task
        self.settings = load_settings(
            {"model": (f"candidate:{task}={folder}",), "device": "cpu", "threads": 1, "dtype": "float32"}
        )
        read = labelled_set.read(self.settings, str(data), task, columns={}, labels=())
        assert read is not None
        self.examples: Sequence[Example] = read.examples
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def report(self, **parameters: Any) -> evaluation.Report:
        known = evaluation.known_labels(self.settings)
        metrics = evaluation.metrics_for(self.task, known, self.examples, None)
        return evaluation.evaluate(self.settings, self.examples, parameters, metrics, lambda *_: None)

    def predict(self, model_class: Any, features: list[dict[str, Any]], collator: Any, **generation: Any) -> Any:
        """Return what transformers' Trainer predicts, and its model."""
        model = model_class.from_pretrained(self.folder)
        kind = "Seq2SeqTrain" if generation else "Train"
        arguments = getattr(transformers, f"{kind}ingArguments")(
            output_dir=str(self.folder / "predictions"), use_cpu=True, report_to="none", disable_tqdm=True,
            remove_unused_columns=False, dataloader_pin_memory=False, per_device_eval_batch_size=16,
            **({"predict_with_generate": True} if generation else {}),
        )  # fmt: skip
        trainer = getattr(transformers, f"{kind}er")(model, arguments, data_collator=collator)
        return trainer.predict(features, **generation).predictions, model


@pytest.fixture
def case(tmp_path: Path, folder_of: Callable[..., Path]) -> Callable[..., Case]:
    """Train a family a little for a task."""

    def make(task: str, family: str, head: str, rows: str = "", **options: Any) -> Case:
        data = write_rows(tmp_path / "rows.jsonl", ROWS[rows or task])
        # transformers 5 leaves alone what a checkpoint says of single tasks, such as a prefix; the worker does not.
        base = folder_of(family, head, task_specific_params={}, prefix=None)
        return Case(run(tmp_path / "out", task, base, data, **{"epochs": 6, **options}).folder, task, data)

    return make


@pytest.mark.parametrize("rows", ["text-classification", "pairs"])
def test_text_classification_is_evaluated_as_by_the_trainer(rows: str, case: Callable[..., Case]) -> None:
    """The same labels, scores within float noise, and so the same metrics; for texts and for pairs."""
    made = case("text-classification", "bert", "sequence-classification", rows)
    one = made.report().evaluated[0]
    texts = [tuple(e.inputs.values()) if isinstance(e.inputs, dict) else (e.inputs,) for e in made.examples]
    features = [dict(made.tokenizer(*text, truncation=True)) for text in texts]
    collator = transformers.DataCollatorWithPadding(made.tokenizer)
    logits, model = made.predict(transformers.AutoModelForSequenceClassification, features, collator)
    labels = [model.config.id2label[index] for index in logits.argmax(axis=1).tolist()]
    wanted = [example.expected for example in made.examples]
    assert one.predicted == labels
    assert len(set(labels)) > 1, "a model that says the same of everything proves nothing"
    assert one.scores["accuracy"] == accuracy_score(wanted, labels)
    assert one.scores["f1_macro"] == pytest.approx(f1_score(wanted, labels, average="macro"), abs=1e-12)
    assert one.scores["f1"] == pytest.approx(f1_score(wanted, labels, pos_label=model.config.id2label[1]), abs=1e-12)
    probabilities = torch.tensor(logits).softmax(dim=1).numpy()
    assert np.abs(served_scores(made) - probabilities.max(axis=1)).max() < SCORE_TOLERANCE


def served_scores(made: Case) -> Any:
    """Return the score of each answer's label."""
    task = load(made.settings)[made.task]["candidate"]
    with contextlib.closing(Executor()) as executor:
        served = ServedTask(task, Planner(4_096), executor)
        answers = list(served.answers([{"inputs": example.inputs} for example in made.examples]))
    return np.array([answer["outputs"][0]["score"] for answer in answers])


def test_token_classification_is_evaluated_as_by_the_trainer(case: Callable[..., Case]) -> None:
    """The tag of each word is that of its first token; entities are counted by seqeval."""
    made = case("token-classification", "distilbert", "token-classification")
    one = made.report().evaluated[0]
    encodings = [made.tokenizer(example.inputs, return_offsets_mapping=True) for example in made.examples]
    features = [{"input_ids": encoding["input_ids"]} for encoding in encodings]
    collator = transformers.DataCollatorWithPadding(made.tokenizer)
    logits, model = made.predict(transformers.AutoModelForTokenClassification, features, collator)
    tags, wanted = [], []
    for example, encoding, of_row in zip(made.examples, encodings, logits, strict=True):
        starts = [offsets[0] if offsets[0] < offsets[1] else None for offsets in encoding["offset_mapping"]]
        firsts = [starts.index(start) for start, _ in example.expected.places]
        tags.append([model.config.id2label[int(of_row[first].argmax())] for first in firsts])
        wanted.append(list(example.expected.tags))
    assert one.predicted == tags
    assert one.scores["f1"] == pytest.approx(entity_f1(wanted, tags), abs=1e-12)
    assert one.scores["f1"] > 0, "a model that finds no entity proves nothing"


def test_question_answering_is_evaluated_as_by_the_trainer(case: Callable[..., Case]) -> None:
    """Of the best spans those of the same words are one answer, as in the pipeline; measured by SQuAD's exact match."""
    made = case("question-answering", "roberta", "question-answering")
    one = made.report().evaluated[0]
    pairs = [(example.inputs["question"], example.inputs["context"]) for example in made.examples]
    encodings = [made.tokenizer(*pair, return_offsets_mapping=True) for pair in pairs]
    features = [{"input_ids": encoding["input_ids"]} for encoding in encodings]
    collator = transformers.DataCollatorWithPadding(made.tokenizer)
    (starts, ends), _ = made.predict(transformers.AutoModelForQuestionAnswering, features, collator)
    answers = [
        best_words(encoding, context, torch.tensor(start), torch.tensor(end))
        for encoding, (_, context), start, end in zip(encodings, pairs, starts, ends, strict=True)
    ]
    assert one.predicted == answers
    right = [answer == example.expected[0].text for answer, example in zip(answers, made.examples, strict=True)]
    assert one.scores["exact_match"] >= np.mean(right) > 0


def best_words(encoding: Any, context: str, start: torch.Tensor, end: torch.Tensor) -> str:
    """Return the answer of transformers 4's pipeline: of the twelve best spans, widened to whole words."""
    own = [index for index, owner in enumerate(encoding.sequence_ids()) if owner == 1]
    allowed = [0, *own]  # an answer may also be at the first token, which stands for none
    first, last = (dict(zip(allowed, logits[allowed].softmax(dim=0).tolist(), strict=True)) for logits in (start, end))
    spans = [(first[a] * last[b], a, b) for a in own for b in own if a <= b < a + 15]
    scores: Counter[str] = Counter()
    for score, a, b in sorted(spans, reverse=True)[:12]:
        begin = encoding.word_to_chars(0, encoding.token_to_word(0, a), 1).start
        scores[context[begin : encoding.word_to_chars(0, encoding.token_to_word(0, b), 1).end]] += score
    return scores.most_common(1)[0][0]


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.parametrize(
    ("task", "family", "beams"),
    [("summarization", "t5", 1), ("translation", "marian", 3), ("summarization", "bart", 2)],
)
def test_texts_are_evaluated_as_by_the_trainer(task: str, family: str, beams: int, case: Callable[..., Case]) -> None:
    """The same texts as of Seq2SeqTrainer with the same parameters of generation."""
    parameters = {"max_new_tokens": 12, "num_beams": beams}
    made = case(task, family, "seq2seq-lm", parameters=parameters, epochs=3)
    predicted = made.report(**parameters).evaluated[0].predicted
    features = [
        {"input_ids": made.tokenizer(one.inputs)["input_ids"], "labels": made.tokenizer(text_target="-")["input_ids"]}
        for one in made.examples
    ]
    collator = transformers.DataCollatorForSeq2Seq(made.tokenizer)
    ids, _ = made.predict(transformers.AutoModelForSeq2SeqLM, features, collator, **parameters)
    ids = np.where(ids == -100, made.tokenizer.pad_token_id, ids)
    assert predicted == made.tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert len(set(predicted)) > 1, "a model that writes the same of everything proves nothing"
