"""schemas/json says what the code does; `pytest tests/unit/test_documents.py --write-docs` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
from hypothesis import given
from pydantic import ValidationError

from drawn_requests import requests
from nlp_schemas import REQUESTS, ErrorCode, Stage, TaskName
from nlp_schemas.documents import EXAMPLES, LABELLED_EXAMPLES, VERSION, asyncapi, documents
from nlp_schemas.labels import LABELLED
from nlp_worker.codec import decode
from nlp_worker.errors import InvalidRequestError
from schema_changes import problems

FOLDER: Final = Path(__file__).parents[2] / "schemas" / "json"

#: The documents as they were last released.
RELEASED: Final = FOLDER / "released"

TASKS: Final = list(TaskName)


def published(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return found


def text_of(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def test_the_published_documents_are_the_code_s(request: pytest.FixtureRequest) -> None:
    """Every file, and no other."""
    made = {name: text_of(document) for name, document in documents().items()}
    if request.config.getoption("--write-docs"):
        FOLDER.mkdir(exist_ok=True)
        for name, text in made.items():
            (FOLDER / name).write_text(text, encoding="utf-8")
    found = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert found == made, "run `pytest tests/unit/test_documents.py --write-docs`"


@pytest.mark.parametrize("task", TASKS)
def test_the_schemas_are_json_schemas(task: TaskName) -> None:
    """Of the dialect that they name."""
    for kind in ("request", "result"):
        jsonschema.Draft202012Validator.check_schema(published(f"{task}.{kind}.json"))


@pytest.mark.parametrize("task", TASKS)
def test_the_examples_are_requests(task: TaskName) -> None:
    """To the schema, and to the worker."""
    jsonschema.validate(EXAMPLES[task], published(f"{task}.request.json"))
    decode(json.dumps(EXAMPLES[task]).encode(), task)


@given(requests())
def test_whatever_the_worker_accepts_fits_the_schema(request: dict[str, Any]) -> None:
    """A producer that checks its requests by the schema sends no fewer than it could."""
    jsonschema.validate(request, published(f"{request['task']}.request.json"))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"inputs": 5},
        {"inputs": ["a", "b"]},
        {"input": "a"},
        {"id": ""},
        {"task": "nonsense"},
        {"timeout_ms": 0},
        {"timeout_ms": "5"},
        {"parameters": {"nonsense": 1}},
        {"parameters": None},
    ],
    ids=str,
)
def test_what_is_wrong_by_itself_fits_neither(task: TaskName, wrong: dict[str, Any]) -> None:
    """The schema refuses what the worker refuses, but for what two fields together may not be."""
    request = {**EXAMPLES[task], **wrong}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(request, published(f"{task}.request.json"))
    with pytest.raises(InvalidRequestError):
        decode(json.dumps(request).encode(), task)


def test_the_document_names_every_topic_and_code() -> None:
    """With the prefix that is asked for."""
    document = asyncapi("shop")
    addresses = {channel["address"] for channel in document["channels"].values()}
    served = {f"shop.{task}.{kind}" for task in TASKS for kind in ("requests", "results", "dead-letter")}
    assert addresses == served | {f"shop.{task}.labels" for task in LABELLED}
    headers = document["components"]["schemas"]["DeadLetterHeaders"]["properties"]
    assert headers["nlp-dead-letter-code"]["enum"] == list(ErrorCode)
    assert headers["nlp-dead-letter-stage"]["enum"] == list(Stage)
    assert document["components"]["schemas"]["ErrorCode"]["enum"] == list(ErrorCode)


def breaking(version: str) -> str:
    """Return the part of a version that a breaking change raises: the first number that is not 0, and those before."""
    major, minor, _ = version.split(".")
    return f"{major}.{minor}" if major == "0" else major


@pytest.mark.parametrize("task", TASKS)
def test_nobody_who_goes_by_the_last_release_is_broken(task: TaskName) -> None:
    """Its requests are accepted and its readers read every answer; or else the version says that it is another."""
    before, now = f"{task}.request.json", f"{task}.result.json"
    found = problems(published(before, RELEASED), documents()[before])
    found += problems(documents()[now], published(now, RELEASED))
    released = published("asyncapi.json", RELEASED)["info"]["version"]
    assert found == [] or breaking(VERSION) != breaking(released)


def test_every_task_has_its_schemas() -> None:
    """A new task is published with the others."""
    served = {f"{task}.{kind}.json" for task in REQUESTS for kind in ("request", "result")}
    assert documents().keys() == served | {f"{task}.labelled.json" for task in LABELLED} | {"asyncapi.json"}


@pytest.mark.parametrize("task", LABELLED)
def test_a_labelled_text_that_fits_its_schema_is_one(task: TaskName) -> None:
    """Whoever emits labels in another language may check them by the schema, which refuses what is misspelt."""
    schema, example = published(f"{task}.labelled.json"), LABELLED_EXAMPLES[task]
    jsonschema.validate(example, schema)
    LABELLED[task].model_validate(example)
    for wrong in ({"lable": "x"}, {"label": None}, {"inputs": ""}, {"id": 7}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**example, **wrong}, schema)
        with pytest.raises(ValidationError):
            LABELLED[task].model_validate({**example, **wrong})
