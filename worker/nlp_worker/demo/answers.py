"""What an answer says, in the words of the toys, so that it can be compared with what was expected and be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nlp_schemas import (
    EntityGroup,
    FeatureExtractionResult,
    Filling,
    FillMaskResult,
    MultipleChoiceResult,
    QuestionAnsweringResult,
    Span,
    SummarizationResult,
    TextClassificationResult,
    TextGenerationResult,
    TokenClassificationResult,
    TranslationResult,
    ZeroShotClassificationResult,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlp_schemas import Ok
    from nlp_worker.demo.toys import Toy


class Read(NamedTuple):
    """A request and its answer."""

    question: str
    answer: str
    right: bool


def read_answers(asked: Sequence[tuple[Toy, Ok]]) -> list[Read]:
    """Read the answers to the requests of one task.

    All together, for the vectors of feature extraction say something by their distances only.
    """
    vectors = [_vector(result) for _, result in asked]
    return [
        _nearest(index, asked, vectors)
        if isinstance(result, FeatureExtractionResult)
        else Read(_question(toy), said := _said(toy, result), said == toy.expected)
        for index, (toy, result) in enumerate(asked)
    ]


def _question(toy: Toy) -> str:
    match toy.inputs, toy.parameters:
        case {"question": question, "context": context}, _:
            return f"{context} {question}"
        case {"prompt": prompt, "choices": choices}, _:
            return f"{prompt} [{' | '.join(choices)}]"
        case text, {"candidate_labels": labels}:
            return f"{text} [{' | '.join(labels)}]"
    return str(toy.inputs)


def _said(toy: Toy, result: Ok) -> str:  # noqa: PLR0911 - one for each task
    match result:
        case TextClassificationResult(outputs=[best, *_]):
            return best.label
        case ZeroShotClassificationResult(outputs=ranked):
            return ranked.labels[0]
        case TokenClassificationResult(outputs=entities):
            groups = [one for one in entities if isinstance(one, EntityGroup)]
            return ", ".join(f"{toy.inputs[one.start : one.end]} {one.entity_group}" for one in groups)
        case FillMaskResult(outputs=fillings):
            return next((one.token_str.strip() for one in fillings if isinstance(one, Filling)), "")
        case QuestionAnsweringResult(outputs=Span() as best):
            return best.answer
        case SummarizationResult(outputs=[best]):
            return best.summary_text
        case TranslationResult(outputs=[best]):
            return best.translation_text
        case TextGenerationResult(outputs=[best]):
            return str(best.generated_text).strip()
        case MultipleChoiceResult(outputs=[best, *_]):
            return str(toy.inputs["choices"][best.choice])
    return ""


def _vector(result: Ok) -> list[float]:
    pooled = result.outputs if isinstance(result, FeatureExtractionResult) else []
    return [number for number in pooled if isinstance(number, float)]


def _nearest(index: int, asked: Sequence[tuple[Toy, Ok]], vectors: Sequence[list[float]]) -> Read:
    """Read a vector by the text whose vector is the nearest: right is one on the same topic."""
    others = [other for other in range(len(asked)) if other != index]
    # Their length is 1: the nearest has the largest product.
    nearest = max(
        others, key=lambda other: sum(a * b for a, b in zip(vectors[index], vectors[other], strict=True)), default=index
    )
    (mine, _), (other, _) = asked[index], asked[nearest]
    return Read(str(mine.inputs), f"nearest of {len(asked)}: {other.inputs}", other.expected == mine.expected)
