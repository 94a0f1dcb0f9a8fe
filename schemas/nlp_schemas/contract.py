"""Every task's request and result, by the task's name, and any answer as one type."""

from typing import Annotated, Any, Final, Union

from pydantic import ConfigDict, Discriminator, Tag, TypeAdapter

from nlp_schemas.classification import (
    TextClassificationRequest,
    TextClassificationResult,
    TokenClassificationRequest,
    TokenClassificationResult,
    ZeroShotClassificationRequest,
    ZeroShotClassificationResult,
)
from nlp_schemas.generation import (
    SummarizationRequest,
    SummarizationResult,
    TextGenerationRequest,
    TextGenerationResult,
    TranslationRequest,
    TranslationResult,
)
from nlp_schemas.request import Request
from nlp_schemas.result import ErrorResult, OkResult
from nlp_schemas.task import TaskName
from nlp_schemas.understanding import (
    FeatureExtractionRequest,
    FeatureExtractionResult,
    FillMaskRequest,
    FillMaskResult,
    MultipleChoiceRequest,
    MultipleChoiceResult,
    QuestionAnsweringRequest,
    QuestionAnsweringResult,
)

#: The request model of each task; a plugin adds its own.
REQUESTS: Final[dict[str, type[Request]]] = {
    TaskName.TEXT_CLASSIFICATION: TextClassificationRequest,
    TaskName.ZERO_SHOT_CLASSIFICATION: ZeroShotClassificationRequest,
    TaskName.TOKEN_CLASSIFICATION: TokenClassificationRequest,
    TaskName.FILL_MASK: FillMaskRequest,
    TaskName.QUESTION_ANSWERING: QuestionAnsweringRequest,
    TaskName.SUMMARIZATION: SummarizationRequest,
    TaskName.TRANSLATION: TranslationRequest,
    TaskName.TEXT_GENERATION: TextGenerationRequest,
    TaskName.FEATURE_EXTRACTION: FeatureExtractionRequest,
    TaskName.MULTIPLE_CHOICE: MultipleChoiceRequest,
}

#: The model of each task's answers with outputs; a plugin adds its own.
RESULTS: Final[dict[str, type[OkResult]]] = {
    TaskName.TEXT_CLASSIFICATION: TextClassificationResult,
    TaskName.ZERO_SHOT_CLASSIFICATION: ZeroShotClassificationResult,
    TaskName.TOKEN_CLASSIFICATION: TokenClassificationResult,
    TaskName.FILL_MASK: FillMaskResult,
    TaskName.QUESTION_ANSWERING: QuestionAnsweringResult,
    TaskName.SUMMARIZATION: SummarizationResult,
    TaskName.TRANSLATION: TranslationResult,
    TaskName.TEXT_GENERATION: TextGenerationResult,
    TaskName.FEATURE_EXTRACTION: FeatureExtractionResult,
    TaskName.MULTIPLE_CHOICE: MultipleChoiceResult,
}


class PluginResult(OkResult):
    """The answer with outputs of a task that is not built in, as JSON has them."""

    task: str
    outputs: Any


#: An answer with outputs.
Ok = (
    TextClassificationResult
    | ZeroShotClassificationResult
    | TokenClassificationResult
    | FillMaskResult
    | QuestionAnsweringResult
    | SummarizationResult
    | TranslationResult
    | TextGenerationResult
    | FeatureExtractionResult
    | MultipleChoiceResult
    | PluginResult
)

#: Any answer.
Result = Ok | ErrorResult

# No task can have a name with a space in it.
_ERROR: Final = "an error"
_PLUGIN: Final = "a plugin's"
_MODELS: Final[dict[str, type[OkResult | ErrorResult]]] = {**RESULTS, _PLUGIN: PluginResult, _ERROR: ErrorResult}


def _model_of(answer: Any) -> str | None:
    """Return by which of the models an answer is read."""
    status, task = (
        answer.get(name) if isinstance(answer, dict) else getattr(answer, name, None) for name in ("status", "task")
    )
    if status != "ok":
        return _ERROR if status == "error" else None
    return task if isinstance(task, str) and task in _MODELS else _PLUGIN


_TAGGED: Any = Union[tuple(Annotated[model, Tag(name)] for name, model in _MODELS.items())]  # noqa: UP007 - of a list

#: Reads an answer: ``RESULT.validate_json(value)``.
RESULT: Final[TypeAdapter[Result]] = TypeAdapter(
    Annotated[_TAGGED, Discriminator(_model_of)], config=ConfigDict(defer_build=True)
)
