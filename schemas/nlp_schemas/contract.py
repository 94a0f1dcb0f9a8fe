"""Every task's request and result, by the task's name, and any answer as one type."""

from typing import Annotated, Final, get_args

from pydantic import ConfigDict, Field, TypeAdapter

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

#: The request model of each task.
REQUESTS: Final[dict[TaskName, type[Request]]] = {
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

#: An answer with outputs: told apart by ``task``.
Ok = Annotated[
    TextClassificationResult
    | ZeroShotClassificationResult
    | TokenClassificationResult
    | FillMaskResult
    | QuestionAnsweringResult
    | SummarizationResult
    | TranslationResult
    | TextGenerationResult
    | FeatureExtractionResult
    | MultipleChoiceResult,
    Field(discriminator="task"),
]

#: The model of each task's answers with outputs.
RESULTS: Final[dict[TaskName, type[OkResult]]] = {
    model.model_fields["task"].default: model for model in get_args(get_args(Ok)[0])
}

#: Any answer: told apart by ``status``, then by ``task``.
Result = Annotated[Ok | ErrorResult, Field(discriminator="status")]

#: Reads an answer: ``RESULT.validate_json(value)``.
RESULT: Final[TypeAdapter[Ok | ErrorResult]] = TypeAdapter(Result, config=ConfigDict(defer_build=True))
