"""Requests of every task: bounds and type of each field, from the models themselves, and what is said of the rest."""

from __future__ import annotations

import json
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import pytest
from pydantic import BaseModel

from nlp_schemas import ALIASES, REQUESTS, Request, TaskName
from nlp_worker.codec import decode
from nlp_worker.errors import InvalidRequestError
from nlp_worker.settings import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

TASKS = list(TaskName)
INPUTS: dict[TaskName, Any] = {
    **dict.fromkeys(TASKS, "a text"),
    TaskName.QUESTION_ANSWERING: {"question": "Who?", "context": "Ann."},
    TaskName.MULTIPLE_CHOICE: {"prompt": "It", "choices": ["rains", "snows"]},
}
#: Values of every type that JSON has, one or more of each.
OF_ALL_TYPES: tuple[tuple[set[type], Any], ...] = (
    ({str}, "soon"),
    ({bool}, True),
    ({int, float}, 2),
    ({float}, 2.5),
    ({list}, [["nested"]]),
    ({dict}, {"no": "field of ours"}),
    ({types.NoneType}, None),
)
WORDS = {
    annotated_types.Ge: ("ge", "from"),
    annotated_types.Gt: ("gt", "above"),
    annotated_types.Le: ("le", "up to"),
    annotated_types.Lt: ("lt", "below"),
}


def request_of(topic: TaskName, **more: Any) -> dict[str, Any]:
    parameters = more.get("parameters", {})
    if topic is TaskName.ZERO_SHOT_CLASSIFICATION and isinstance(parameters, dict):
        parameters = {"candidate_labels": ["good", "bad"]} | parameters
    return {"inputs": INPUTS[topic], **more, "parameters": parameters}


def read(task: TaskName, request: object) -> Request:
    return decode(request if isinstance(request, bytes) else json.dumps(request).encode(), task)


def refused(task: TaskName, request: object) -> str:
    """Return what is said of a request that must be refused."""
    with pytest.raises(InvalidRequestError) as raised:
        read(task, request)
    return str(raised.value)


@dataclass(frozen=True)
class Named:
    """A field that a producer can set."""

    task: TaskName
    path: str
    field: FieldInfo

    def __str__(self) -> str:
        return f"{self.task}-{self.path}"

    def request(self, value: Any) -> dict[str, Any]:
        first, _, name = self.path.partition(".")
        if not name:
            return request_of(self.task, **{first: value})
        if first == "inputs":
            return request_of(self.task, inputs={**INPUTS[self.task], name: value})
        return request_of(self.task, parameters={name: value})

    @property
    def types(self) -> set[type]:
        return set(_types(self.field.annotation))

    @property
    def bounds(self) -> dict[str, float]:
        """Its limits by the words that the error says them with."""
        found = [WORDS[type(one)] + (one,) for one in self.field.metadata if type(one) in WORDS]
        return {word: getattr(one, attribute) for attribute, word, one in found}


def _types(annotation: Any) -> Iterator[type]:
    """Types of JSON that an annotation takes."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _types(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for one in get_args(annotation):
            yield from _types(one)
    elif origin is Literal:
        yield from {str if isinstance(value, str) else type(value) for value in get_args(annotation)}
    else:
        yield dict if isinstance(annotation, type) and issubclass(annotation, BaseModel) else origin or annotation


def _named(task: TaskName, model: type[BaseModel], path: str = "") -> Iterator[Named]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        yield Named(task, path + name, field)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _named(task, kind, f"{path}{name}.")


FIELDS = [field for task in TASKS for field in _named(task, REQUESTS[task])]
NUMBERS = [field for field in FIELDS if field.bounds]


def test_every_number_has_two_ends() -> None:
    """A parameter without one could make any amount of work, or overflow in a model's code."""
    unbounded = [str(field) for field in FIELDS if {int, float} & field.types and len(field.bounds) != 2]
    assert unbounded == []
    assert len(NUMBERS) > 60


@pytest.mark.parametrize("field", NUMBERS, ids=str)
def test_a_number_outside_of_its_range_is_told_the_range(field: Named) -> None:
    """Both ends, whichever is passed, and NaN and infinity, which Python's JSON can say; the ends themselves are in."""
    step = 1 if int in field.types else 0.5
    expected = f"{field.path}: Input should be " + " ".join(f"{word} {bound}" for word, bound in field.bounds.items())
    for word, bound in field.bounds.items():
        away = -step if word in ("from", "above") else step
        for value in (bound + away, bound + away * 10**30):
            assert refused(field.task, field.request(value)) == expected
        if word in ("from", "up to"):
            read(field.task, field.request(bound))
        else:
            assert refused(field.task, field.request(bound)) == expected
    for value in (float("nan"), float("inf"), -float("inf")):
        assert f"{field.path}: Input should be" in refused(field.task, field.request(value))


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_a_value_of_another_type_is_told_the_field(field: Named) -> None:
    """No text becomes a number, no number a text or a truth value; numbers are told their range with it."""
    wrong = [value for kinds, value in OF_ALL_TYPES if not kinds & field.types]
    assert wrong
    for value in wrong:
        told = refused(field.task, field.request(value))
        assert told.startswith(field.path), (value, told)
        assert all(f"{word} {bound}" in told for word, bound in field.bounds.items()), (value, told)


@pytest.mark.parametrize("field", [field for field in FIELDS if "Literal" in str(field.field.annotation)], ids=str)
def test_a_word_that_is_none_of_a_choice_is_told_the_choice(field: Named) -> None:
    """As JSON writes it."""
    told = refused(field.task, field.request("nonsense"))
    assert told.startswith(f"{field.path}: Input should be ")
    assert "<" not in told


@pytest.mark.parametrize("task", TASKS)
def test_an_unknown_name_is_told_with_the_known_ones(task: TaskName) -> None:
    """Of a field, of a parameter, and of a part of inputs that are an object."""
    model = REQUESTS[task]
    parameters = model.model_fields["parameters"].annotation
    assert isinstance(parameters, type)
    assert issubclass(parameters, BaseModel)
    told = refused(task, request_of(task, parametres={}))
    assert told == f"parametres: unknown field; there is {', '.join(model.model_fields)}"
    told = refused(task, request_of(task, parameters={"nonsense": 1}))
    assert told == f"parameters.nonsense: unknown field; there is {', '.join(parameters.model_fields)}"


@pytest.mark.parametrize(
    ("task", "inputs", "told"),
    [
        ("text-classification", {"text": "a", "text_pair": "b", "x": 1}, "inputs.x: unknown field; there is text, te"),
        ("text-classification", {"text": "a"}, "inputs.text_pair: Field required"),
        ("question-answering", {"question": "a", "context": "b", "x": 1}, "inputs.x: unknown field; there is question"),
        ("question-answering", {"question": "", "context": "b"}, "inputs.question: String should have at least 1"),
        ("multiple-choice", {"prompt": "a", "choices": ["b"], "x": 1}, "inputs.x: unknown field; there is prompt, c"),
        ("multiple-choice", {"prompt": "a", "choices": []}, "inputs.choices: List should have at least 1 item"),
        ("multiple-choice", {"prompt": "a", "choices": ["b", 5]}, "inputs.choices.1: Input should be a valid string"),
        ("text-generation", [{"role": "user", "content": "a", "x": 1}], "inputs.0.x: unknown field; there is role, co"),
        ("text-generation", [{"role": "user"}], "inputs.0.content: Field required"),
        ("text-generation", [], "inputs: List should have at least 1 item"),
        ("fill-mask", "", "inputs: String should have at least 1 character"),
    ],
)
def test_a_part_of_inputs_that_is_wrong_is_told(task: str, inputs: Any, told: str) -> None:
    """Pairs, questions, choices and chats: with the place in them."""
    assert refused(TaskName(task), request_of(TaskName(task), inputs=inputs)).startswith(told)


@pytest.mark.parametrize("task", TASKS)
def test_a_list_of_texts_is_refused(task: TaskName) -> None:
    """It could only fail or succeed as a whole."""
    assert "send one record for each text" in refused(task, request_of(task, inputs=["a", "b"]))
    assert "send one record for each text" in refused(task, request_of(task, inputs=[INPUTS[task], "b"]))


@pytest.mark.parametrize("task", TASKS)
def test_a_lone_surrogate_is_refused_wherever_it_stands(task: TaskName) -> None:
    """It is half a character: no tokenizer takes it, and no answer could quote it. A pair of them is one character."""
    whole = json.dumps(request_of(task, id="r", model="m"))
    strings = [f'"{text}"' for text in json.dumps(INPUTS[task]).split('"')[1::2] if len(text) > 1]
    for text in [*strings, '"r"', '"m"']:
        assert "not JSON" in refused(task, whole.replace(text, f'{text[:-1]}\\ud800"').encode())
        assert "not JSON" in refused(task, whole.replace(text, f'{text[:-1]}\\udc00\\ud83d"').encode())
        assert "not UTF-8" in refused(task, whole.replace(text, f'{text[:-1]}\ud800"').encode(errors="surrogatepass"))
    assert read(task, whole.replace('"r"', '"\\ud83d\\ude00"').encode()).id == "\N{GRINNING FACE}"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_the_task_and_no_other(task: TaskName, alias: str) -> None:
    """In a request on the task's topic, and in --model, named or not."""
    if ALIASES[alias] is task:
        assert read(task, request_of(task, task=alias)).model_dump()["task"] is task
        assert ModelSpec.parse(f"{alias}=./model") == ModelSpec("model", task, "./model", None)
        assert ModelSpec.parse(f"mine:{alias}=a/b@c") == ModelSpec("mine", task, "a/b", "c")
    else:
        assert refused(task, request_of(task, task=alias)) == f"task: Input should be '{task}'"
    assert read(task, request_of(task, task=task)) == read(task, request_of(task))
