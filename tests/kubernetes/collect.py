"""Make schemas.json: what Kubernetes, KEDA and the Prometheus Operator accept, of the kinds in deploy/kubernetes.

Their own published schemas, without descriptions and without what those kinds do not refer to, as JSON Schemas that
refuse unknown fields. All three projects are under the Apache License 2.0. Run it to follow their releases::

    go mod download k8s.io/kubernetes@v1.35.4 github.com/kedacore/keda/v2@v2.21.0 \
        github.com/prometheus-operator/prometheus-operator@v0.85.0
    python tests/kubernetes/collect.py "$(go env GOMODCACHE)"

The oldest Kubernetes that is still maintained: what it knows, the newer ones know too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parent

KUBERNETES: Final = "k8s.io/kubernetes@v1.35.4"
KEDA: Final = "github.com/kedacore/keda/v2@v2.21.0"
OPERATOR: Final = "github.com/prometheus-operator/prometheus-operator@v0.85.0"

#: Where each kind is described, and under which name.
KINDS: Final = {
    "v1/ConfigMap": ("api__v1", "io.k8s.api.core.v1.ConfigMap"),
    "apps/v1/Deployment": ("apis__apps__v1", "io.k8s.api.apps.v1.Deployment"),
    "apps/v1/StatefulSet": ("apis__apps__v1", "io.k8s.api.apps.v1.StatefulSet"),
    "batch/v1/Job": ("apis__batch__v1", "io.k8s.api.batch.v1.Job"),
    "policy/v1/PodDisruptionBudget": ("apis__policy__v1", "io.k8s.api.policy.v1.PodDisruptionBudget"),
}
METADATA: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
DEFINITIONS: Final = {
    "keda.sh/v1alpha1/ScaledObject": f"{KEDA}/config/crd/bases/keda.sh_scaledobjects.yaml",
    "monitoring.coreos.com/v1/PodMonitor": (
        f"{OPERATOR}/example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"
    ),
}
#: KEDA's triggers have metadata of any name, so far as the definition of its kind goes: their own list is closed.
TRIGGERS: Final = ("kafka", "prometheus")

#: JSON Schema's words, of those that the documents use; `description`, `default` and `x-kubernetes-*` check nothing.
CHECKED: Final = (
    "type", "properties", "required", "items", "additionalProperties", "enum", "pattern", "minimum", "maximum",
    "minLength", "maxLength", "minItems", "maxItems", "allOf", "anyOf", "oneOf", "$ref",
)  # fmt: skip


def closed(schema: Any) -> Any:
    """Return what a schema checks; an object whose fields are listed has no others."""
    if not isinstance(schema, dict):
        return schema
    kept = {word: schema[word] for word in CHECKED if word in schema}
    for word in ("allOf", "anyOf", "oneOf"):
        if word in kept:
            kept[word] = [closed(each) for each in kept[word]]
    for word in ("items", "additionalProperties"):
        if word in kept:
            kept[word] = closed(kept[word])
    if "$ref" in kept:
        kept["$ref"] = kept["$ref"].replace("#/components/schemas/", "#/$defs/")
    if "properties" in kept:
        kept["properties"] = {name: closed(each) for name, each in kept["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            kept.setdefault("additionalProperties", False)
    return kept


def references(schema: Any) -> set[str]:
    """Return the names of the definitions that a schema refers to."""
    if isinstance(schema, list):
        return {name for each in schema for name in references(each)}
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"].rpartition("/")[2]} if isinstance(schema.get("$ref"), str) else set()
    return own | {name for each in schema.values() for name in references(each)}


def of_kubernetes(modules: Path) -> dict[str, Any]:
    """Return the definitions that the kinds need, by name."""
    every: dict[str, Any] = {}
    for file in {file for file, _ in KINDS.values()}:
        path = modules / KUBERNETES / "api" / "openapi-spec" / "v3" / f"{file}_openapi.json"
        every |= json.loads(path.read_text(encoding="utf-8"))["components"]["schemas"]
    found: dict[str, Any] = {}
    missing = {name for _, name in KINDS.values()} | {METADATA}
    while missing:
        found |= {name: closed(every[name]) for name in missing}
        missing = references(list(found.values())) - found.keys()
    return found


def of_definition(path: Path) -> Any:
    """Return the schema of a kind that is not Kubernetes' own."""
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    (version,) = definition["spec"]["versions"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"$ref": f"#/$defs/{METADATA}"}
    return schema


def of_trigger(modules: Path, kind: str) -> Any:
    """Return the schema of the metadata of one of KEDA's triggers."""
    path = modules / KEDA / "schema" / "generated" / "scalers-schema.json"
    scalers = json.loads(path.read_text(encoding="utf-8"))["scalers"]
    (parameters,) = (each["parameters"] for each in scalers if each["type"] == kind)
    read = [each for each in parameters if each.get("metadataVariableReadable")]
    return {
        "type": "object",
        "properties": {
            each["name"]: {"type": "string"} | ({"enum": each["allowedValue"]} if "allowedValue" in each else {})
            for each in read
        },
        "required": [each["name"] for each in read if not (each.get("optional") or "default" in each)],
        "additionalProperties": False,
    }


def main(modules: Path) -> None:
    """Write schemas.json."""
    definitions = of_kubernetes(modules)
    customs = {name: of_definition(modules / file) for name, file in DEFINITIONS.items()}
    # Kubernetes says of a quantity only that it is text or a number; KEDA's definition has the pattern of that type.
    scaling = customs["keda.sh/v1alpha1/ScaledObject"]
    for name in ("spec", "advanced", "horizontalPodAutoscalerConfig", "behavior", "scaleUp", "tolerance"):
        scaling = scaling["properties"][name]
    definitions[QUANTITY] |= {"pattern": scaling["pattern"]}
    kinds = {name: {"$ref": f"#/$defs/{definition}"} for name, (_, definition) in KINDS.items()}
    triggers = {f"trigger/{kind}": of_trigger(modules, kind) for kind in TRIGGERS}
    document = {
        "origin": [KUBERNETES, KEDA, OPERATOR],
        "license": "Apache-2.0",
        "kinds": kinds | customs | triggers,
        "$defs": dict(sorted(definitions.items())),
    }
    text = json.dumps(document, separators=(",", ":"))
    (FOLDER / "schemas.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
