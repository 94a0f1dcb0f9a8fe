"""Why a topic cannot be used, and what to do about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from kafka import errors as kafka_errors

from nlp_schemas import DEFAULT_PREFIX
from nlp_schemas.task import BUILT_IN, TASK_PATTERN, THERE_IS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: The topics of a task: what `nlp-worker topics create` makes.
OF_A_TASK: Final = re.compile(rf"(.+)\.({TASK_PATTERN.pattern})\.(?:requests|results|dead-letter)")


def topic_problems(described: Mapping[str, Mapping[str, Any]], wanted: Iterable[tuple[str, str]]) -> list[str]:
    """Say of each topic why we may not do with it what we must; how those of a task are created is said once.

    Args:
        described: The topics by name, as the admin client describes them.
        wanted: Topics, each with an operation.
    """
    problems = []
    remedies: set[str] = set()
    for name, operation in wanted:
        problem = topic_problem(described.get(name), name, operation)
        remedy = f": {_how_to_create(name)}"
        if problem is not None and problem.endswith(remedy):
            problem = problem.removesuffix(remedy) if remedy in remedies else problem
            remedies.add(remedy)
        problems.append(problem)
    return list(filter(None, problems))


def topic_problem(topic: Mapping[str, Any] | None, name: str, operation: str) -> str | None:
    """Say why we may not do this with a topic, as the admin client describes it; None where we may."""
    topic = topic or {"error_code": kafka_errors.UnknownTopicOrPartitionError.errno}
    error = kafka_errors.for_code(topic["error_code"])
    if error is kafka_errors.UnknownTopicOrPartitionError:
        return f"topic {name} does not exist: {_how_to_create(name)}"
    if error is kafka_errors.TopicAuthorizationFailedError:
        return f"topic {name} may not be seen: allow {operation} on it"
    if error is not kafka_errors.NoError:
        return f"topic {name} cannot be used: {error.__name__}"
    allowed = topic.get("authorized_operations")
    # Brokers without authorization name no operations.
    if isinstance(allowed, list) and allowed and operation not in allowed and "ALL" not in allowed:
        return f"topic {name} does not allow {operation}: allow it"
    return None


def _how_to_create(name: str) -> str:
    if (found := OF_A_TASK.fullmatch(name)) is None:
        return "create it"
    prefix, task = found[1], found[2]
    command = f"nlp-worker topics create --task {task}"
    if prefix != DEFAULT_PREFIX:
        command = f"{command} --topic-prefix {prefix}"
    if task in BUILT_IN:
        return command
    return f"{command}, or is the task misspelt? {THERE_IS.capitalize()}"
