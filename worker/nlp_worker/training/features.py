"""From examples to what a model learns from: the rows that the worker itself would make of them, with labels.

The task's own `preprocess` makes the rows, so a text is read in training as it is read in service: the same tokens, the
same prefix and language, the same truncation and windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import transformers

from nlp_schemas import REQUESTS, TaskName
from nlp_worker.errors import RequestError
from nlp_worker.training.problems import Kind, Problem
from nlp_worker.training.words import first_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nlp_schemas import Request
    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Task
    from nlp_worker.tasks.windows import Window
    from nlp_worker.training.examples import Answer, Example, Words

    Feature = dict[str, Any]
    # Makes the labels of an example's row.
    Label = Callable[[Any, Row], Feature]

#: What a loss leaves out (torch.nn.CrossEntropyLoss).
IGNORED: Final = -100

#: The tasks whose label is a text.
WRITTEN: Final = frozenset({TaskName.SUMMARIZATION, TaskName.TRANSLATION})

#: Tokens of a text that is to be written: what is above is cut in training.
LONGEST_TARGET: Final = 1_024

#: Texts that are tokenized in one call.
CHUNK: Final = 1_000


class Features(NamedTuple):
    """What a model learns from."""

    rows: list[Feature]
    """Token ids, and labels in the form that the model's class takes."""
    problems: list[Problem]
    """Of examples that the task would answer with an error."""


def features(
    task: Task, tokenizer: Any, model: Any, examples: Sequence[Example], parameters: Mapping[str, Any]
) -> Features:
    """Make the features of examples.

    Args:
        task: On the checkpoint that learns.
        tokenizer: The checkpoint's.
        model: The checkpoint's.
        examples: Of the task.
        parameters: Of their requests.
    """
    label = _LABELS[task.name](tokenizer, model, parameters)
    made, problems = [], []
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        requests: list[Request] = [
            REQUESTS[task.name].model_validate({"inputs": example.inputs, "parameters": dict(parameters)})
            for example in chunk
        ]
        for example, prepared in zip(chunk, task.preprocess(requests), strict=True):
            if isinstance(prepared, RequestError):
                problems.append(Problem(Kind.INVALID, example.place, str(prepared)))
            else:
                made += [{**row.features, **label(example.expected, row)} for row in prepared.rows]
    return Features(made, problems)


def collator(task: Task, tokenizer: Any, model: Any) -> Callable[[list[Feature]], Mapping[str, Any]]:
    """Return transformers' collator of the task: it pads each batch to its own longest row."""
    if task.name == TaskName.TOKEN_CLASSIFICATION:
        return transformers.DataCollatorForTokenClassification(tokenizer)  # type: ignore[no-any-return]  # untyped
    if task.name in WRITTEN:
        return transformers.DataCollatorForSeq2Seq(tokenizer, model=model)  # type: ignore[no-any-return]  # untyped
    return transformers.DataCollatorWithPadding(tokenizer)  # type: ignore[no-any-return]  # untyped


def _one(tokenizer: Any, model: Any, parameters: Mapping[str, Any]) -> Label:
    del tokenizer, parameters
    numbers = model.config.label2id

    def label(expected: str, row: Row) -> Feature:
        del row
        return {"labels": numbers[expected]}

    return label


def _of_words(tokenizer: Any, model: Any, parameters: Mapping[str, Any]) -> Label:
    del tokenizer, parameters
    numbers = model.config.label2id

    def label(expected: Words, row: Row) -> Feature:
        encoding = row.context.encoding
        tokens = [
            (0, 0) if encoding.special_tokens_mask[index] else encoding.offsets[index] for index in row.context.indices
        ]
        labels = [IGNORED] * row.length
        for position, word in first_tokens(expected.places, tokens):
            labels[position] = numbers[expected.tags[word]]
        return {"labels": labels}

    return label


def _of_span(tokenizer: Any, model: Any, parameters: Mapping[str, Any]) -> Label:
    del model, parameters
    none = tokenizer.cls_token_id

    def label(expected: Sequence[Answer], row: Row) -> Feature:
        # Where there is no answer in a window the right one is its first special token, as in SQuAD 2.0.
        ids = row.features["input_ids"]
        nowhere = ids.index(none) if none in ids else 0
        start, end = _span(expected[0], row.context) if expected else (nowhere, nowhere)
        if start < 0 or end < 0:
            start = end = nowhere
        return {"start_positions": start, "end_positions": end}

    return label


def _span(answer: Answer, window: Window) -> tuple[int, int]:
    """Return the positions of an answer's first and last token in a window, or -1 where it is not whole in it."""
    encoding, last = window.encoding, answer.start + len(answer.text)
    start = end = -1
    inside = [
        (position, *encoding.offsets[index])
        for position, index in enumerate(window.indices)
        if encoding.sequence_ids[index] == 1
    ]
    for position, begins, ends in inside:
        if begins <= answer.start < ends:
            start = position
        if begins < last <= ends:
            end = position
    return start, end


def _written(tokenizer: Any, model: Any, parameters: Mapping[str, Any]) -> Label:
    target = parameters.get("tgt_lang")
    most = getattr(model.config, "max_position_embeddings", None)
    longest = min(most or LONGEST_TARGET, LONGEST_TARGET)

    def label(expected: str, row: Row) -> Feature:
        del row
        if target is not None and hasattr(tokenizer, "tgt_lang"):
            tokenizer.tgt_lang = target
        ids = tokenizer(text_target=expected, truncation=True, max_length=longest)["input_ids"]
        return {"labels": ids}

    return label


_LABELS: Final[Mapping[str, Callable[[Any, Any, Mapping[str, Any]], Label]]] = {
    TaskName.TEXT_CLASSIFICATION: _one,
    TaskName.TOKEN_CLASSIFICATION: _of_words,
    TaskName.QUESTION_ANSWERING: _of_span,
    TaskName.SUMMARIZATION: _written,
    TaskName.TRANSLATION: _written,
}
