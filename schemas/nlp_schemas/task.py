"""The names of the tasks, and of their topics."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final


class TaskName(StrEnum):
    """The tasks that are built in, by the names of their ``transformers`` pipelines; a plugin adds others."""

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


#: What a task's name looks like: part of topics' names (of which dots part it), of options and of URLs.
TASK_PATTERN: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


#: The names of the tasks that are built in: Python 3.11 has no ``in`` for an enumeration's values.
BUILT_IN: Final = frozenset(map(str, TaskName))

#: Which tasks there are, in words.
THERE_IS: Final = f"there is {', '.join([*TaskName, *ALIASES])}, and what a plugin adds"


def own_name(name: Any) -> Any:
    """Return the own name of a task that is given by an alias; anything else as it is."""
    return ALIASES.get(name, name) if isinstance(name, str) else name


def task_name(name: str) -> str:
    """Return a task's own name, which may be a plugin's.

    Raises:
        ValueError: no task can have that name.
    """
    own = str(own_name(name))
    if not TASK_PATTERN.fullmatch(own):
        raise ValueError(no_task(name))
    return own


def no_task(name: str) -> str:
    """Say that there is no task of the name, and which there are."""
    return f"{name!r} is no task: {THERE_IS}"


DEFAULT_PREFIX: Final = "nlp"


def requests_topic(task: str, prefix: str = DEFAULT_PREFIX) -> str:
    return f"{prefix}.{task}.requests"


def results_topic(task: str, prefix: str = DEFAULT_PREFIX) -> str:
    return f"{prefix}.{task}.results"


def dead_letter_topic(task: str, prefix: str = DEFAULT_PREFIX) -> str:
    return f"{prefix}.{task}.dead-letter"
