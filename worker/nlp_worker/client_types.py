"""What the client's methods return, by the name of the task: for type checkers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, overload

from nlp_schemas import TaskName

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    import nlp_schemas as schemas
    from nlp_worker.pending import AnswerFuture

    Answers = Generator[tuple["Item", AnswerFuture["Answer"]], None, None]

Shape = TypeVar("Shape")
Item = TypeVar("Item")
Answer = TypeVar("Answer")

_TextClassification = Literal[TaskName.TEXT_CLASSIFICATION, "text-classification", "sentiment-analysis"]
_ZeroShotClassification = Literal[TaskName.ZERO_SHOT_CLASSIFICATION, "zero-shot-classification"]
_TokenClassification = Literal[TaskName.TOKEN_CLASSIFICATION, "token-classification", "ner", "pos"]
_FillMask = Literal[TaskName.FILL_MASK, "fill-mask"]
_QuestionAnswering = Literal[TaskName.QUESTION_ANSWERING, "question-answering"]
_Summarization = Literal[TaskName.SUMMARIZATION, "summarization"]
_Translation = Literal[TaskName.TRANSLATION, "translation"]
_TextGeneration = Literal[TaskName.TEXT_GENERATION, "text-generation"]
_FeatureExtraction = Literal[TaskName.FEATURE_EXTRACTION, "feature-extraction"]
_MultipleChoice = Literal[TaskName.MULTIPLE_CHOICE, "multiple-choice"]


class ByTask(Generic[Shape]):
    """Gives a method a shape whose result depends on the name of the task; it stays what it is."""

    def __call__(self, method: Callable[..., Any]) -> Shape:
        return method  # type: ignore[return-value]  # the shape is what it promises


class Ask(Protocol):
    """`Client.ask`."""

    @overload
    def __call__(self, task: _TextClassification, inputs: Any, **options: Any) -> schemas.TextClassificationResult: ...
    @overload
    def __call__(
        self, task: _ZeroShotClassification, inputs: Any, **options: Any
    ) -> schemas.ZeroShotClassificationResult: ...
    @overload
    def __call__(
        self, task: _TokenClassification, inputs: Any, **options: Any
    ) -> schemas.TokenClassificationResult: ...
    @overload
    def __call__(self, task: _FillMask, inputs: Any, **options: Any) -> schemas.FillMaskResult: ...
    @overload
    def __call__(self, task: _QuestionAnswering, inputs: Any, **options: Any) -> schemas.QuestionAnsweringResult: ...
    @overload
    def __call__(self, task: _Summarization, inputs: Any, **options: Any) -> schemas.SummarizationResult: ...
    @overload
    def __call__(self, task: _Translation, inputs: Any, **options: Any) -> schemas.TranslationResult: ...
    @overload
    def __call__(self, task: _TextGeneration, inputs: Any, **options: Any) -> schemas.TextGenerationResult: ...
    @overload
    def __call__(self, task: _FeatureExtraction, inputs: Any, **options: Any) -> schemas.FeatureExtractionResult: ...
    @overload
    def __call__(self, task: _MultipleChoice, inputs: Any, **options: Any) -> schemas.MultipleChoiceResult: ...
    @overload
    def __call__(self, task: str, inputs: Any, **options: Any) -> Any: ...


class Submit(Protocol):
    """`Client.submit`."""

    @overload
    def __call__(
        self, task: _TextClassification, inputs: Any, **options: Any
    ) -> AnswerFuture[schemas.TextClassificationResult]: ...
    @overload
    def __call__(
        self, task: _ZeroShotClassification, inputs: Any, **options: Any
    ) -> AnswerFuture[schemas.ZeroShotClassificationResult]: ...
    @overload
    def __call__(
        self, task: _TokenClassification, inputs: Any, **options: Any
    ) -> AnswerFuture[schemas.TokenClassificationResult]: ...
    @overload
    def __call__(self, task: _FillMask, inputs: Any, **options: Any) -> AnswerFuture[schemas.FillMaskResult]: ...
    @overload
    def __call__(
        self, task: _QuestionAnswering, inputs: Any, **options: Any
    ) -> AnswerFuture[schemas.QuestionAnsweringResult]: ...
    @overload
    def __call__(
        self, task: _Summarization, inputs: Any, **options: Any
    ) -> AnswerFuture[schemas.SummarizationResult]: ...
    @overload
    def __call__(self, task: _Translation, inputs: Any, **options: Any) -> AnswerFuture[schemas.TranslationResult]: ...
    @overload
    def __call__(
        self, task: _TextGeneration, inputs: Any, **options: Any
    ) -> AnswerFuture[schemas.TextGenerationResult]: ...
    @overload
    def __call__(
        self, task: _FeatureExtraction, inputs: Any, **options: Any
    ) -> AnswerFuture[schemas.FeatureExtractionResult]: ...
    @overload
    def __call__(
        self, task: _MultipleChoice, inputs: Any, **options: Any
    ) -> AnswerFuture[schemas.MultipleChoiceResult]: ...
    @overload
    def __call__(self, task: str, inputs: Any, **options: Any) -> AnswerFuture[Any]: ...


class Stream(Protocol):
    """`Client.stream`."""

    @overload
    def __call__(
        self, task: _TextClassification, inputs: Iterable[Item], *, ordered: bool = ..., **options: Any
    ) -> Answers[Item, schemas.TextClassificationResult]: ...
    @overload
    def __call__(
        self, task: _ZeroShotClassification, inputs: Iterable[Item], *, ordered: bool = ..., **options: Any
    ) -> Answers[Item, schemas.ZeroShotClassificationResult]: ...
    @overload
    def __call__(
        self, task: _TokenClassification, inputs: Iterable[Item], *, ordered: bool = ..., **options: Any
    ) -> Answers[Item, schemas.TokenClassificationResult]: ...
    @overload
    def __call__(
        self, task: _FillMask, inputs: Iterable[Item], *, ordered: bool = ..., **options: Any
    ) -> Answers[Item, schemas.FillMaskResult]: ...
    @overload
    def __call__(
        self, task: _QuestionAnswering, inputs: Iterable[Item], *, ordered: bool = ..., **options: Any
    ) -> Answers[Item, schemas.QuestionAnsweringResult]: ...
    @overload
    def __call__(
        self, task: _Summarization, inputs: Iterable[Item], *, ordered: bool = ..., **options: Any
    ) -> Answers[Item, schemas.SummarizationResult]: ...
    @overload
    def __call__(
        self, task: _Translation, inputs: Iterable[Item], *, ordered: bool = ..., **options: Any
    ) -> Answers[Item, schemas.TranslationResult]: ...
    @overload
    def __call__(
        self, task: _TextGeneration, inputs: Iterable[Item], *, ordered: bool = ..., **options: Any
    ) -> Answers[Item, schemas.TextGenerationResult]: ...
    @overload
    def __call__(
        self, task: _FeatureExtraction, inputs: Iterable[Item], *, ordered: bool = ..., **options: Any
    ) -> Answers[Item, schemas.FeatureExtractionResult]: ...
    @overload
    def __call__(
        self, task: _MultipleChoice, inputs: Iterable[Item], *, ordered: bool = ..., **options: Any
    ) -> Answers[Item, schemas.MultipleChoiceResult]: ...
    @overload
    def __call__(
        self, task: str, inputs: Iterable[Item], *, ordered: bool = ..., **options: Any
    ) -> Answers[Item, Any]: ...
