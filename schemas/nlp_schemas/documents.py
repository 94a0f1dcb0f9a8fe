"""The contract as documents, for producers in any language: JSON Schemas of every task, and AsyncAPI 3.0.

https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from nlp_schemas.contract import REQUESTS, RESULTS
from nlp_schemas.dead_letter import DeadLetter, header_name
from nlp_schemas.headers import AnswerHeaders, RequestHeaders
from nlp_schemas.labels import LABELLED, labels_topic
from nlp_schemas.result import ErrorResult
from nlp_schemas.task import DEFAULT_PREFIX, TaskName, dead_letter_topic, requests_topic, results_topic

#: Of JSON Schema. What stands in these documents means the same in draft 7, which most tools of AsyncAPI read.
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

#: Of the contract. A change that an earlier producer or reader does not stand raises its first number that is not 0.
VERSION: Final = "0.1.0"

DESCRIPTION: Final = (
    "Requests for natural language processing and their answers: one for every request, `ok` or `error`, which after a "
    "failure may come again with the same `source`. Values are JSON in UTF-8. A request's key is its producer's own, "
    "and its answer has the same."
)

#: A request of each task that is built in.
EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    TaskName.TEXT_CLASSIFICATION: {"id": "r-1", "inputs": "I love this.", "parameters": {"top_k": 2}},
    TaskName.ZERO_SHOT_CLASSIFICATION: {
        "inputs": "The soup needs salt.",
        "parameters": {"candidate_labels": ["cooking", "sport"]},
    },
    TaskName.TOKEN_CLASSIFICATION: {
        "inputs": "Ann lives in Rome.",
        "parameters": {"aggregation_strategy": "simple"},
    },
    TaskName.FILL_MASK: {"inputs": "Paris is the [MASK] of France.", "parameters": {"top_k": 3}},
    TaskName.QUESTION_ANSWERING: {"inputs": {"question": "Where does Ann live?", "context": "Ann lives in Rome."}},
    TaskName.SUMMARIZATION: {"inputs": "A long text ...", "parameters": {"max_new_tokens": 60}},
    TaskName.TRANSLATION: {"inputs": "Good morning.", "parameters": {"src_lang": "en", "tgt_lang": "fr"}},
    TaskName.TEXT_GENERATION: {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 20}},
    TaskName.FEATURE_EXTRACTION: {"inputs": "A text.", "parameters": {"pooling": "mean", "normalize": True}},
    TaskName.MULTIPLE_CHOICE: {"inputs": {"prompt": "Leo is tired.", "choices": ["He sleeps.", "He runs."]}},
}

#: A labelled text of each task that can be trained.
LABELLED_EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    TaskName.TEXT_CLASSIFICATION: {"id": "r-1", "inputs": "I love this.", "label": "POSITIVE"},
    TaskName.TOKEN_CLASSIFICATION: {
        "id": "r-2",
        "inputs": "Ann lives in Rome.",
        "label": [{"entity_group": "PER", "start": 0, "end": 3}, {"entity_group": "LOC", "start": 13, "end": 17}],
    },
    TaskName.QUESTION_ANSWERING: {
        "id": "r-3",
        "inputs": {"question": "Where does Ann live?", "context": "Ann lives in Rome."},
        "label": [{"answer": "Rome", "start": 13}],
    },
    TaskName.SUMMARIZATION: {"id": "r-4", "inputs": "A long text ...", "label": "A text."},
    TaskName.TRANSLATION: {"id": "r-5", "inputs": "Good morning.", "label": "Bonjour."},
}

Schema = dict[str, Any]


class _Generator(GenerateJsonSchema):
    """Without the titles that pydantic makes of fields' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False


def documents(prefix: str = DEFAULT_PREFIX) -> dict[str, Schema]:
    """Return every document by its file's name.

    Args:
        prefix: Of the topics' names.
    """
    found: dict[str, Schema] = {}
    for task in REQUESTS:
        request = REQUESTS[task].model_json_schema(schema_generator=_Generator)
        found[f"{task}.request.json"] = {"$schema": DIALECT, **request, **_examples(EXAMPLES.get(task))}
        names, answers = models_json_schema(
            [(RESULTS[task], "serialization"), (ErrorResult, "serialization")], schema_generator=_Generator
        )
        found[f"{task}.result.json"] = {"$schema": DIALECT, "oneOf": list(names.values()), **answers}
    for task, labelled in LABELLED.items():
        schema = labelled.model_json_schema(schema_generator=_Generator)
        found[f"{task}.labelled.json"] = {"$schema": DIALECT, **schema, **_examples(LABELLED_EXAMPLES[task])}
    return found | {"asyncapi.json": asyncapi(prefix)}


def asyncapi(prefix: str = DEFAULT_PREFIX) -> Schema:
    """Return the AsyncAPI document of a worker that serves every task."""
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *[(REQUESTS[task], "validation") for task in REQUESTS],
        *[(RESULTS[task], "serialization") for task in REQUESTS],
        *[(model, "validation") for model in LABELLED.values()],
        (ErrorResult, "serialization"),
    ]
    _, schemas = models_json_schema(
        models,
        ref_template="#/components/schemas/{model}",
        schema_generator=_Generator,
    )
    messages: Schema = {
        "error": _message("An answer without outputs, and why.", AnswerHeaders, ErrorResult),
        "dead-letter": {
            "summary": "A request that was answered with an error: its own bytes, key and headers, and why.",
            "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
            "payload": {"description": "The request's value: anything."},
        },
    }
    channels: Schema = {}
    operations: Schema = {}
    for task in REQUESTS:
        messages[f"{task}.request"] = {
            **_message(_sentence(REQUESTS[task]), RequestHeaders, REQUESTS[task]),
            **_examples({"payload": EXAMPLES[task]} if task in EXAMPLES else None),
        }
        messages[f"{task}.ok"] = _message(_sentence(RESULTS[task]), AnswerHeaders, RESULTS[task])
        channels[f"{task}.requests"] = _channel(requests_topic(task, prefix), request=f"{task}.request")
        channels[f"{task}.results"] = _channel(results_topic(task, prefix), ok=f"{task}.ok", error="error")
        letters = dead_letter_topic(task, prefix)
        channels[f"{task}.dead-letter"] = _channel(letters, **{"dead-letter": "dead-letter"})
        operations[f"answer.{task}"] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{task}.requests"},
            "reply": {"channel": {"$ref": f"#/channels/{task}.results"}},
        }
        operations[f"bury.{task}"] = {"action": "send", "channel": {"$ref": f"#/channels/{task}.dead-letter"}}
    for task, labelled in LABELLED.items():
        messages[f"{task}.labelled"] = {
            "summary": _sentence(labelled),
            "payload": {"$ref": f"#/components/schemas/{labelled.__name__}"},
            "bindings": {"kafka": {"key": {"type": "string", "description": "The id, so that its labels keep order."}}},
            **_examples({"payload": LABELLED_EXAMPLES[task]}),
        }
        channels[f"{task}.labels"] = _channel(labels_topic(task, prefix), labelled=f"{task}.labelled")
        operations[f"learn.{task}"] = {"action": "receive", "channel": {"$ref": f"#/channels/{task}.labels"}}
    headers = {model.__name__: _headers(model) for model in (RequestHeaders, AnswerHeaders)}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "nlp-worker",
            "version": VERSION,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": {**schemas["$defs"], **headers, "DeadLetterHeaders": _dead_letter_headers()},
        },
    }


def _examples(example: Any) -> Schema:
    return {} if example is None else {"examples": [example]}


def _sentence(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").partition("\n\n")[0]


def _message(summary: str, headers: type[BaseModel], payload: type[BaseModel]) -> Schema:
    return {
        "summary": summary,
        "correlationId": {"location": "$message.header#/kafka_correlationId"},
        "headers": {"$ref": f"#/components/schemas/{headers.__name__}"},
        "payload": {"$ref": f"#/components/schemas/{payload.__name__}"},
        "bindings": {"kafka": {"key": {"type": "string", "description": "Any bytes, or none."}}},
    }


def _channel(address: str, **messages: str) -> Schema:
    named = {name: {"$ref": f"#/components/messages/{message}"} for name, message in messages.items()}
    return {"address": address, "messages": named}


def _headers(model: type[BaseModel]) -> Schema:
    """Return the schema of headers; one that is absent is not there, and not null."""
    schema = model.model_json_schema(mode="validation", schema_generator=_Generator)
    for name, field in schema["properties"].items():
        kinds = [kind for kind in field.pop("anyOf", [field]) if kind != {"type": "null"}]
        field.pop("default", None)
        schema["properties"][name] = kinds[0] | field
    return schema


def _dead_letter_headers() -> Schema:
    """Return the schema of the headers that a dead letter adds: all of them text."""
    properties: Schema = {}
    for name, field in DeadLetter.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        choice = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, StrEnum)), None)
        told = {"description": field.description} if field.description else {}
        properties[header_name(name)] = {"type": "string", **({"enum": list(choice)} if choice else {}), **told}
    required = [header_name(name) for name, field in DeadLetter.model_fields.items() if field.is_required()]
    return {
        "type": "object",
        "description": _sentence(DeadLetter),
        "properties": properties,
        "required": required,
    }
