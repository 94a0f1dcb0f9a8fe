"""Whether an answer of any task is the one that the request gets alone."""

from __future__ import annotations

from typing import Any

from parity import PROBABILITIES, RAW, difference, ranked_difference


def assert_same(request: dict[str, Any], answer: dict[str, Any], alone: dict[str, Any]) -> None:
    """Everything but time and place: numbers within the tolerance, ranks but for ties."""
    apart = ("outputs", "source", "timing_ms")
    ours, theirs = ({key: one[key] for key in one if key not in apart} for one in (answer, alone))
    assert ours == theirs, request
    if alone["status"] == "ok":
        raw = request["parameters"].get("function_to_apply") == "none" or request["task"] == "feature-extraction"
        tolerance = RAW if raw else PROBABILITIES
        outputs = [_ranked(request["task"], one["outputs"]) for one in (answer, alone)]
        if outputs[1] is None:
            difference(answer["outputs"], alone["outputs"], tolerance)
        else:
            for one, other in zip(*outputs, strict=True):
                ranked_difference(one, other, tolerance)


def _ranked(task: str, outputs: Any) -> list[Any] | None:
    """Return the outputs' lists in which best is first, if that is what they are."""
    if task == "zero-shot-classification":
        pairs = zip(outputs["labels"], outputs["scores"], strict=True)
        return [[{"label": label, "score": score} for label, score in pairs]]
    if task == "fill-mask" and isinstance(outputs[0], list):
        return list(outputs)
    if task in {"text-classification", "multiple-choice", "fill-mask"} or (
        isinstance(outputs, list) and task == "question-answering"
    ):
        return [outputs]
    return None
