"""Text classification: a batched answer is the pipeline's single answer.

Tolerance, fp32: probabilities within 1e-5, raw numbers within 1e-4 absolute plus 1e-4 relative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import pipeline

from checkpoints import FAMILIES, SENTENCES, build_sequence_classifier
from nlp_schemas import TaskName, TextClassificationRequest, TextPair
from nlp_worker.batching import plan
from nlp_worker.errors import CheckpointError, InputTooLongError
from nlp_worker.executor import Executor
from nlp_worker.models import load, warm_up
from nlp_worker.settings import load_settings
from nlp_worker.tasks.base import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nlp_worker.tasks.base import Task

#: Mixed lengths, an empty text, one of a single word, other scripts, and one that takes most of the positions.
TEXTS = [*SENTENCES[:12], "", "a", "Ünïcödé 日本語 🎉", " ".join(SENTENCES[:8]), "word " * 300]
PAIRS = [TextPair(text=a, text_pair=b) for a, b in zip(SENTENCES[:6], reversed(SENTENCES[:6]), strict=True)]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Task]]:
    cache: dict[str, tuple[Path, Task]] = {}

    def build(family: str, **options: Any) -> tuple[Path, Task]:
        key = f"{family}{options}"
        if key not in cache:
            folder = build_sequence_classifier(family, tmp_path_factory.mktemp(family), **options)
            tasks = load(load_settings({"model": (f"text-classification={folder}",), "device": "cpu"}))
            cache[key] = folder, next(iter(tasks[TaskName.TEXT_CLASSIFICATION].values()))
        return cache[key]

    return build


def request(inputs: str | TextPair, **parameters: Any) -> TextClassificationRequest:
    return TextClassificationRequest.model_validate({"inputs": inputs, "parameters": parameters})


def answer(task: Task, requests: Sequence[TextClassificationRequest], budget: int = 4096) -> list[list[dict[str, Any]]]:
    """Answer all in one poll, through the four steps and the device thread."""
    prepared = task.preprocess(requests)
    rows = [row for item in prepared if isinstance(item, Prepared) for row in item.rows]
    executor = Executor()
    for batch in plan(task, rows, budget=budget):
        for row, output in zip(batch.rows, executor.submit(batch).result().outputs, strict=True):
            row.output = output
    executor.close()
    outputs = [[row.output for row in item.rows] for item in prepared if isinstance(item, Prepared)]
    labels = [task.postprocess(one, output) for one, output in zip(requests, outputs, strict=True)]
    return [[label.model_dump() for label in of_one] for of_one in labels]


def assert_equal(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], *, raw: bool = False) -> None:
    relative, absolute = (1e-4, 1e-4) if raw else (0, 1e-5)
    expected = pytest.approx([one["score"] for one in theirs], rel=relative, abs=absolute)
    assert [one["score"] for one in ours] == expected
    if [one["label"] for one in ours] != [one["label"] for one in theirs]:
        scores = {one["label"]: one["score"] for one in theirs}
        # Labels may only be swapped where their scores tie within the tolerance.
        assert [scores[one["label"]] for one in ours] == expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("parameters", [{}, {"top_k": 2}, {"top_k": None},
                                        {"top_k": None, "function_to_apply": "sigmoid"},
                                        {"top_k": None, "function_to_apply": "none"}], ids=str)  # fmt: skip
def test_a_batch_of_mixed_lengths_gives_each_text_the_pipelines_answer_alone(
    built: Callable[..., tuple[Path, Task]], family: str, parameters: dict[str, Any]
) -> None:
    """Every text of a mixed poll, against `pipeline(text)` for that text alone."""
    folder, task = built(family)
    ours = answer(task, [request(text, **parameters) for text in TEXTS])
    single = pipeline("text-classification", model=str(folder), dtype=torch.float32, device="cpu")
    for text, labels in zip(TEXTS, ours, strict=True):
        theirs = single(text, **({"top_k": 1} | parameters), truncation=True, max_length=512)
        assert_equal(labels, theirs, raw=parameters.get("function_to_apply") == "none")


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "albert"])
def test_pairs_in_a_batch_with_texts_are_the_pipelines(built: Callable[..., tuple[Path, Task]], family: str) -> None:
    """Not for ALBERT: transformers 5 drops its token types, and ours are the right ones (next test)."""
    folder, task = built(family)
    mixed = [item for pair in zip(PAIRS, TEXTS, strict=False) for item in pair]
    ours = answer(task, [request(item, top_k=None) for item in mixed])
    single = pipeline("text-classification", model=str(folder), dtype=torch.float32, device="cpu")
    for item, labels in zip(mixed, ours, strict=True):
        given = item.model_dump() if isinstance(item, TextPair) else item
        assert_equal(labels, single(given, top_k=None))


def test_alberts_pairs_have_their_token_types(built: Callable[..., tuple[Path, Task]]) -> None:
    """Equal to the model called with explicit token types, and not to the pipeline that leaves them out."""
    folder, task = built("albert")
    single = pipeline("text-classification", model=str(folder), dtype=torch.float32, device="cpu")
    ours = answer(task, [request(pair, top_k=None, function_to_apply="none") for pair in PAIRS])
    differs = False
    for pair, labels in zip(PAIRS, ours, strict=True):
        inputs = single.tokenizer(pair.text, pair.text_pair, return_token_type_ids=True, return_tensors="pt")
        with torch.inference_mode():
            logits = single.model(**inputs).logits[0].tolist()
        assert sorted((label["score"] for label in labels), reverse=True) == pytest.approx(
            sorted(logits, reverse=True), rel=1e-4, abs=1e-4
        )
        theirs = single(pair.model_dump(), top_k=None, function_to_apply="none")
        differs = differs or theirs[0]["score"] != pytest.approx(labels[0]["score"], abs=1e-3)
    assert differs, "the pipeline has its token types again: drop our own handling"


@pytest.mark.parametrize(("problem_type", "labels"), [("regression", ("SCORE",)), ("regression", ("A", "B")),
                                                      ("multi_label_classification", ("A", "B", "C"))])  # fmt: skip
def test_the_default_function_follows_the_checkpoints_problem_type(
    built: Callable[..., tuple[Path, Task]], problem_type: str, labels: tuple[str, ...]
) -> None:
    """Regression gives raw values, several labels a sigmoid each."""
    folder, task = built("distilbert", problem_type=problem_type, labels=labels)
    single = pipeline("text-classification", model=str(folder), dtype=torch.float32, device="cpu")
    ours = answer(task, [request(text, top_k=None) for text in TEXTS[:6]])
    for text, got in zip(TEXTS, ours, strict=False):
        assert_equal(got, single(text, top_k=None), raw=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_too_long_is_cut_and_says_so_or_is_refused(built: Callable[..., tuple[Path, Task]], family: str) -> None:
    """Truncation is reported, its answer is the truncating pipeline's; without truncation it is input_too_long."""
    folder, task = built(family)
    text = " ".join(SENTENCES) * 20
    cut, refused, pair = task.preprocess(
        [request(text), request(text, truncation=False), request(TextPair(text=text, text_pair="short"))]
    )
    assert isinstance(cut, Prepared)
    assert isinstance(pair, Prepared)
    assert isinstance(refused, InputTooLongError)
    assert (cut.truncated, cut.rows[0].length, pair.rows[0].length) == (True, 512, 512)
    single = pipeline("text-classification", model=str(folder), dtype=torch.float32, device="cpu")
    (ours,) = answer(task, [request(text, top_k=None)])
    assert_equal(ours, single(text, top_k=None, truncation=True, max_length=512))


def test_scores_print_as_the_shortest_float32(built: Callable[..., tuple[Path, Task]]) -> None:
    """At most nine significant digits, and the same float32 when read back."""
    _, task = built("bert")
    for labels in answer(task, [request(text) for text in TEXTS]):
        digits = repr(labels[0]["score"]).split("e")[0].replace(".", "").strip("-0")
        assert len(digits) <= 9


def test_a_checkpoint_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    """A missing folder, and one with nothing in it."""
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(CheckpointError, match=folder.name):
            load(load_settings({"model": (f"text-classification={folder}",), "device": "cpu"}))


def test_a_checkpoint_without_the_tasks_head_is_refused(
    built: Callable[..., tuple[Path, Task]], tmp_path: Path
) -> None:
    """Transformers would give it a head of random numbers, and every answer would be noise."""
    folder, _ = built("bert")
    single = pipeline("text-classification", model=str(folder), dtype=torch.float32, device="cpu")
    single.tokenizer.save_pretrained(tmp_path)
    single.model.bert.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no weights for classifier"):
        load(load_settings({"model": (f"text-classification={tmp_path}",), "device": "cpu"}))


def test_warm_up_runs(built: Callable[..., tuple[Path, Task]]) -> None:
    """The rows that it makes are rows that the model accepts."""
    warm_up(built(family)[1] for family in FAMILIES)


def test_a_hub_that_cannot_be_reached_is_told_with_what_to_do() -> None:
    """The tests are offline, so that is what any hub id runs into."""
    with pytest.raises(CheckpointError, match="give a folder, or a filled cache by HF_HOME"):
        load(load_settings({"model": ("text-classification=nobody/nothing@main",), "device": "cpu"}))
