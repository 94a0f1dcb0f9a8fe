"""Whether what one JSON Schema describes is accepted by another: of the part of JSON Schema that pydantic writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

Schema = dict[str, Any]

#: Keywords whose number may only fall from the described to the accepting schema, and those whose may only rise.
LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems")
UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")

#: What says nothing of values.
ANNOTATIONS: Final = frozenset({"description", "title", "default", "examples", "$defs", "$schema", "discriminator"})
UNDERSTOOD: Final = ANNOTATIONS | {
    *LOWER, *UPPER, "$ref", "anyOf", "oneOf", "enum", "const", "type", "properties", "required",
    "additionalProperties", "items", "format",
}  # fmt: skip


def problems(described: Schema, accepting: Schema) -> list[str]:
    """Return where `accepting` refuses what `described` allows, or what it needs is no longer there.

    Properties that `accepting` does not know are refused only where it is closed.
    """
    return list(_Comparison(described, accepting).problems(described, accepting, ""))


class _Comparison:
    def __init__(self, described: Schema, accepting: Schema) -> None:
        self._described = described
        self._accepting = accepting

    def problems(self, described: Schema, accepting: Schema, path: str) -> Iterator[str]:
        described, accepting = _resolved(described, self._described), _resolved(accepting, self._accepting)
        for schema in (described, accepting):
            assert schema.keys() <= UNDERSTOOD, f"{path}: not understood: {schema.keys() - UNDERSTOOD}"
        if kinds := described.get("anyOf") or described.get("oneOf"):
            for kind in kinds:
                yield from self.problems(kind, accepting, path)
        elif kinds := accepting.get("anyOf") or accepting.get("oneOf"):
            # The nearest of them is what tells most.
            yield from min((list(self.problems(described, kind, path)) for kind in kinds), key=len)
        else:
            yield from self._values(described, accepting, path)

    def _values(self, described: Schema, accepting: Schema, path: str) -> Iterator[str]:
        now, then = _type(described), _type(accepting)
        if then is not None and now != then and (now, then) != ("integer", "number"):
            yield f"{path}: {now} is not {then}"
            return
        if (allowed := _choice(accepting)) is not None:
            given = _choice(described)
            if given is None or not given <= allowed:
                yield f"{path}: {sorted(given - allowed) if given else 'any'} is not among {sorted(allowed)}"
            return
        yield from self._bounds(described, accepting, path)
        if "items" in accepting:
            yield from self.problems(described.get("items", {}), accepting["items"], f"{path}[]")
        yield from self._properties(described, accepting, path)

    def _bounds(self, described: Schema, accepting: Schema, path: str) -> Iterator[str]:
        for keywords, sign in (LOWER, 1), (UPPER, -1):
            for keyword in keywords:
                if keyword in accepting and not (
                    keyword in described and sign * described[keyword] >= sign * accepting[keyword]
                ):
                    yield f"{path}: {keyword} {described.get(keyword)} is beyond {accepting[keyword]}"

    def _properties(self, described: Schema, accepting: Schema, path: str) -> Iterator[str]:
        known = accepting.get("properties", {})
        for name in set(accepting.get("required", ())) - set(described.get("required", ())):
            yield f"{path}.{name}: it is needed, and may be missing"
        for name, schema in described.get("properties", {}).items():
            if name in known:
                yield from self.problems(schema, known[name], f"{path}.{name}")
            elif accepting.get("additionalProperties") is False:
                yield f"{path}.{name}: it is refused"


def _resolved(schema: Schema, document: Schema) -> Schema:
    while (reference := schema.get("$ref")) is not None:
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        schema = found | {name: value for name, value in schema.items() if name != "$ref"}
    return schema


def _choice(schema: Schema) -> set[Any] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    # To Python 1 is True.
    return None if values is None else {repr(value) for value in values}


def _type(schema: Schema) -> str | None:
    kind: str | None = schema.get("type")
    if kind is None and (values := _choice(schema)):
        kind = "boolean" if values <= {"True", "False"} else None
    return kind
