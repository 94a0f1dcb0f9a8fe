"""What the tests of deploy/kubernetes share: the page, the tool, the parts of what it builds, and the schemas."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import jsonschema

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "deploy" / "kubernetes"
PAGE: Final = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")

#: Made by tests/kubernetes/collect.py.
SCHEMAS: Final = json.loads((ROOT / "tests" / "kubernetes" / "schemas.json").read_text(encoding="utf-8"))

Document = dict[str, Any]


def fence(language: str) -> str:
    """Return what stands in the page's one fence of a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


def one(documents: list[Document], *kinds: str) -> Document:
    (found,) = (document for document in documents if document["kind"] in kinds)
    return found


def pod_of(documents: list[Document]) -> Document:
    pod: Document = one(documents, "Deployment", "StatefulSet", "Job")["spec"]["template"]
    return pod


def container_of(documents: list[Document]) -> Document:
    (container,) = pod_of(documents)["spec"]["containers"]
    found: Document = container
    return found


def check(document: Document, name: str) -> None:
    schema = SCHEMAS["kinds"][name] | {"$defs": SCHEMAS["$defs"]}
    jsonschema.Draft202012Validator(schema).validate(document)


def check_all(documents: list[Document]) -> None:
    for document in documents:
        check(document, f"{document['apiVersion']}/{document['kind']}")
        for trigger in document["spec"]["triggers"] if document["kind"] == "ScaledObject" else ():
            check(trigger["metadata"], f"trigger/{trigger['type']}")
