"""What is asked of an example, what its answer says, and what that is measured by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from nlp_schemas import REQUESTS, TaskName
from nlp_worker.errors import SettingsError
from nlp_worker.training.labelled_set import OUTSIDE
from nlp_worker.training.metrics import Answers, Bleu, Classification, Rouge, Tagging
from nlp_worker.training.words import first_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nlp_worker.training.examples import Example
    from nlp_worker.training.metrics import Metrics


def metrics_of(task: str, labels: Sequence[str], primary: str | None) -> Metrics:
    """Return what a task's answers are measured by.

    Args:
        task: Its name.
        labels: That a model of the task gives, in the order of their numbers.
        primary: The score that tells which checkpoint is better; None is the task's first.

    Raises:
        SettingsError: the task has no such score.
    """
    try:
        match task:
            case TaskName.TEXT_CLASSIFICATION:
                return Classification(labels, primary)
            case TaskName.TOKEN_CLASSIFICATION:
                return Tagging(labels, primary)
            case TaskName.QUESTION_ANSWERING:
                return Answers(primary)
            case TaskName.SUMMARIZATION:
                return Rouge(primary)
            case _:
                return Bleu(primary)
    except ValueError as error:
        raise SettingsError(f"--metric: {error}") from None


def request_parameters(task: str, examples: Sequence[Example], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the requests that are evaluated.

    Args:
        task: Its name.
        examples: All of them: whether some questions have no answer.
        given: What producers will send.

    Raises:
        SettingsError: the task has no such parameters, or an answer with these cannot be compared with a label.
    """
    try:
        REQUESTS[task].model_validate({"inputs": examples[0].inputs, "parameters": given})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"][1:]))
        raise SettingsError(f"--parameter {name}: {first['msg'].removeprefix('Value error, ')}") from None
    if task == TaskName.TOKEN_CLASSIFICATION:
        if given.keys() & {"aggregation_strategy", "stride", "ignore_labels"}:
            problem = "a word's tag is compared with that of its first token"
            raise SettingsError(f"--parameter: {problem}: leave out aggregation_strategy, stride and ignore_labels")
        return {**given, "ignore_labels": []}
    if task == TaskName.QUESTION_ANSWERING and not all(example.expected for example in examples):
        return {"handle_impossible_answer": True, **given}
    return dict(given)


def expected(example: Example) -> Any:
    """Return what metrics compare with `predicted`."""
    match example.expected:
        case str():
            return example.expected
        case (_, tags) if hasattr(example.expected, "tags"):
            return list(tags)
        case answers:
            return [answer.text for answer in answers]


def predicted(example: Example, answer: Mapping[str, Any]) -> Any:
    """Return what an answer says, or None where it is an error."""
    if answer["status"] != "ok":
        return None
    outputs = answer["outputs"]
    match answer["task"]:
        case TaskName.TEXT_CLASSIFICATION:
            return outputs[0]["label"]
        case TaskName.TOKEN_CLASSIFICATION:
            return _tags(example.expected.places, outputs)
        case TaskName.QUESTION_ANSWERING:
            return (outputs[0] if isinstance(outputs, list) else outputs)["answer"]
        case TaskName.SUMMARIZATION:
            return outputs[0]["summary_text"]
        case _:
            return outputs[0]["translation_text"]


def _tags(places: Sequence[tuple[int, int]], tokens: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the tag of each word's first token; of a word that was cut off that of no entity."""
    tags = [OUTSIDE] * len(places)
    for token, word in first_tokens(places, ((token["start"], token["end"]) for token in tokens)):
        tags[word] = tokens[token]["entity"]
    return tags
