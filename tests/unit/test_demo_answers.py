"""The demo reads every task's answers in the words of its toys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nlp_schemas import RESULT, ErrorResult, TaskName
from nlp_worker.demo.answers import read_answers
from nlp_worker.demo.toys import Toy

if TYPE_CHECKING:
    from nlp_schemas import Ok


def _answer(task: TaskName, outputs: Any) -> Ok:
    generated = {"finish_reasons": ["stop"], "usage": {"input_tokens": 3, "output_tokens": 2}}
    answer = RESULT.validate_python(
        {
            "id": "1",
            "task": task,
            "status": "ok",
            "outputs": outputs,
            "model": {"name": "tiny", "checkpoint": "tiny", "revision": "1"},
            "source": {"topic": "t", "partition": 0, "offset": 0},
            "timing_ms": {"queue": 1.0, "device": 1.0},
            **generated,
        }
    )
    assert not isinstance(answer, ErrorResult)
    return answer


TOYS = [
    (TaskName.TEXT_CLASSIFICATION, "Good.", "POSITIVE", [{"label": "POSITIVE", "score": 0.9}]),
    (
        TaskName.ZERO_SHOT_CLASSIFICATION,
        "It rains.",
        "weather",
        {"sequence": "It rains.", "labels": ["weather", "music"], "scores": [0.9, 0.1]},
    ),
    (
        TaskName.TOKEN_CLASSIFICATION,
        "Ann Lee lives in Rome.",
        "Ann Lee PER, Rome LOC",
        [
            {"entity_group": "PER", "score": 0.9, "word": "ann lee", "start": 0, "end": 7},
            {"entity_group": "LOC", "score": 0.9, "word": "rome", "start": 17, "end": 21},
        ],
    ),
    (
        TaskName.FILL_MASK,
        "It is <mask>.",
        "cold",
        [{"score": 0.9, "token": 7, "token_str": " cold", "sequence": "It is cold."}],
    ),
    (
        TaskName.QUESTION_ANSWERING,
        {"question": "Where does Bob live?", "context": "Bob lives in Rome."},
        "Rome",
        {"score": 0.9, "start": 13, "end": 17, "answer": "Rome"},
    ),
    (TaskName.SUMMARIZATION, "Ann beat Bob.", "Ann won.", [{"summary_text": "Ann won."}]),
    (TaskName.TRANSLATION, "the cat", "le chat", [{"translation_text": "le chat"}]),
    (TaskName.TEXT_GENERATION, "1 2", "3 4", [{"generated_text": " 3 4"}]),
    (
        TaskName.MULTIPLE_CHOICE,
        {"prompt": "He is ill.", "choices": ["He eats.", "He rests."]},
        "He rests.",
        [{"choice": 1, "score": 0.9}, {"choice": 0, "score": 0.1}],
    ),
]


@pytest.mark.parametrize(("task", "inputs", "expected", "outputs"), TOYS, ids=[task for task, *_ in TOYS])
def test_an_answer_is_read_in_the_toys_words(task: TaskName, inputs: Any, expected: str, outputs: Any) -> None:
    answer = _answer(task, outputs)
    (right,) = read_answers([(Toy(inputs, expected), answer)])
    assert (right.answer, right.right) == (expected, True)
    (wrong,) = read_answers([(Toy(inputs, "something else"), answer)])
    assert not wrong.right


def test_a_vector_is_read_by_the_nearest() -> None:
    task = TaskName.FEATURE_EXTRACTION
    asked = [
        (Toy("snow", "weather"), _answer(task, [0.8, 0.6])),
        (Toy("song", "music"), _answer(task, [0.0, 1.0])),
        (Toy("rain", "weather"), _answer(task, [1.0, 0.0])),
    ]
    read = read_answers(asked)
    assert [one.right for one in read] == [True, False, True]
    assert read[2].answer.endswith("snow")
    assert not read_answers(asked[:1])[0].answer.endswith("song")
