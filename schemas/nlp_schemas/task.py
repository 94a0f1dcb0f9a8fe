"""The names of the tasks, and of their topics."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final


class TaskName(StrEnum):
    """A task, by the name of the ``transformers`` pipeline that does it."""

    TEXT_CLASSIFICATION = "text-classification"
    ZERO_SHOT_CLASSIFICATION = "zero-shot-classification"
    TOKEN_CLASSIFICATION = "token-classification"  # noqa: S105 - a task, not a password
    FILL_MASK = "fill-mask"
    QUESTION_ANSWERING = "question-answering"
    SUMMARIZATION = "summarization"
    TRANSLATION = "translation"
    TEXT_GENERATION = "text-generation"
    FEATURE_EXTRACTION = "feature-extraction"
    MULTIPLE_CHOICE = "multiple-choice"


#: Other names of a task, accepted wherever one is named; topics and answers have the task's own.
ALIASES: Final[Mapping[str, TaskName]] = {
    "sentiment-analysis": TaskName.TEXT_CLASSIFICATION,
    "ner": TaskName.TOKEN_CLASSIFICATION,
    "pos": TaskName.TOKEN_CLASSIFICATION,
}


def own_name(name: Any) -> Any:
    """Return the own name of a task that is given by an alias; anything else as it is."""
    return ALIASES.get(name, name) if isinstance(name, str) else name


def task_name(name: str) -> TaskName:
    """Return the task of that name or alias.

    Raises:
        ValueError: there is none; the message says which there are.
    """
    try:
        return TaskName(own_name(name))
    except ValueError:
        raise ValueError(f"{name!r} is no task: there is {', '.join([*TaskName, *ALIASES])}") from None


DEFAULT_PREFIX: Final = "nlp"


def requests_topic(task: TaskName, prefix: str = DEFAULT_PREFIX) -> str:
    return f"{prefix}.{task}.requests"


def results_topic(task: TaskName, prefix: str = DEFAULT_PREFIX) -> str:
    return f"{prefix}.{task}.results"


def dead_letter_topic(task: TaskName, prefix: str = DEFAULT_PREFIX) -> str:
    return f"{prefix}.{task}.dead-letter"
