"""The wire contract of nlp-worker: what a producer sends, what it gets back, and what becomes of the rest.

Needs pydantic alone, so that a producer can install and import it without the worker.
"""

from nlp_schemas.dead_letter import HEADER_PREFIX, MAX_MESSAGE_CHARACTERS, DeadLetter, Stage, ValueOmitted
from nlp_schemas.request import (
    MAX_ID_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    REQUESTS,
    Request,
    TextClassificationParameters,
    TextClassificationRequest,
    TextPair,
)
from nlp_schemas.result import (
    RESULT,
    Error,
    ErrorCode,
    ErrorResult,
    Label,
    Model,
    OkResult,
    Result,
    Source,
    TextClassificationResult,
    Timing,
    Usage,
)
from nlp_schemas.task import DEFAULT_PREFIX, TaskName, dead_letter_topic, requests_topic, results_topic

__all__ = [
    "DEFAULT_PREFIX",
    "HEADER_PREFIX",
    "MAX_ID_CHARACTERS",
    "MAX_MESSAGE_CHARACTERS",
    "MAX_TEXT_CHARACTERS",
    "REQUESTS",
    "RESULT",
    "DeadLetter",
    "Error",
    "ErrorCode",
    "ErrorResult",
    "Label",
    "Model",
    "OkResult",
    "Request",
    "Result",
    "Source",
    "Stage",
    "TaskName",
    "TextClassificationParameters",
    "TextClassificationRequest",
    "TextClassificationResult",
    "TextPair",
    "Timing",
    "Usage",
    "ValueOmitted",
    "dead_letter_topic",
    "requests_topic",
    "results_topic",
]
