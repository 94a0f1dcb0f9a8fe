"""Requests of every task for tests to draw: any parameters that the schema allows, for tiny checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st
from pydantic import ValidationError

from checkpoints import SENTENCES
from nlp_schemas import REQUESTS, TaskName

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

NLI: Final = {"labels": ("contradiction", "neutral", "entailment")}
#: Task, family, head and options of the checkpoints: one of every task, and several where families differ most.
SERVED: Final[tuple[tuple[str, str, str, dict[str, Any]], ...]] = (
    ("text-classification", "bert", "sequence-classification", {}),
    ("text-classification", "gpt2", "sequence-classification", {}),
    ("zero-shot-classification", "deberta-v2", "sequence-classification", NLI),
    ("zero-shot-classification", "bart", "sequence-classification", NLI),
    ("token-classification", "distilbert", "token-classification", {}),
    ("fill-mask", "albert", "masked-lm", {}),
    ("question-answering", "electra", "question-answering", {}),
    ("summarization", "bart", "seq2seq-lm", {}),
    ("translation", "mbart", "seq2seq-lm", {}),
    ("translation", "marian", "seq2seq-lm", {}),
    ("translation", "t5", "seq2seq-lm", {}),
    ("text-generation", "qwen3", "causal-lm", {}),
    ("text-generation", "ctrl", "causal-lm", {}),
    ("feature-extraction", "xlm-roberta", "base", {}),
    ("multiple-choice", "modernbert", "multiple-choice", {}),
)
GENERATING: Final = {"summarization", "translation", "text-generation"}

#: What no other text has, and every tokenizer here can write.
POISON: Final = "zyxzyx"

TEXTS = st.one_of(
    st.sampled_from(SENTENCES),
    st.lists(st.sampled_from(SENTENCES), min_size=2, max_size=30).map(" ".join),
    st.sampled_from(("a", "Ünï \uff46ull 🙂 e\u0301", "one\n\ttwo  three", "...", "x" * 300)),
)
WORDS = st.sampled_from(("good", "bad", "it", "Paris", "🙂", "a film"))
#: Where a parameter's bounds would allow more work than a test has time for, or its type says too little.
OWN_VALUES: Final[dict[str, SearchStrategy[Any]]] = {
    "max_new_tokens": st.integers(1, 4),
    "min_new_tokens": st.integers(0, 1),
    "num_beams": st.integers(1, 3),
    "num_return_sequences": st.integers(1, 2),
    "candidate_labels": st.lists(WORDS, min_size=1, max_size=4) | st.just("good, bad ,"),
    "hypothesis_template": st.sampled_from(("{}", "It is about {}!")),
    "ignore_labels": st.lists(st.sampled_from(("O", "B-PER", "PER")), max_size=2),
    "targets": WORDS | st.lists(WORDS, min_size=1, max_size=3),
    "stop": WORDS | st.lists(WORDS, min_size=1, max_size=2),
}
LANGUAGES: Final[dict[str, SearchStrategy[dict[str, str]]]] = {
    "mbart": st.sampled_from(("en_XX", "ro_RO", "de_DE")).map(lambda code: {"src_lang": code, "tgt_lang": "fr_XX"}),
    "t5": st.sampled_from(({}, {"src_lang": "en", "tgt_lang": "de"}, {"src_lang": "en", "tgt_lang": "fr"})),
}


def values(name: str, schema: dict[str, Any]) -> SearchStrategy[Any]:
    """Draw from what the JSON schema of a parameter allows, both ends included, and small numbers more often."""
    if name in OWN_VALUES:
        return OWN_VALUES[name]
    if "anyOf" in schema:
        return st.one_of(*(values("", one) for one in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    if schema["type"] in {"boolean", "null"}:
        return st.booleans() if schema["type"] == "boolean" else st.none()
    low, high = schema.get("minimum", schema.get("exclusiveMinimum", 0)), schema["maximum"]
    if schema["type"] == "integer":
        return st.integers(low, min(high, low + 40)) | st.integers(low, high)
    above = "exclusiveMinimum" in schema
    return st.floats(low, min(high, 1.5), exclude_min=above) | st.floats(low, high, exclude_min=above)


def parameters(task: TaskName) -> SearchStrategy[dict[str, Any]]:
    """Draw up to five parameters that go together."""
    schema = REQUESTS[task].model_json_schema()["$defs"][f"{REQUESTS[task].__name__.removesuffix('Request')}Parameters"]
    drawn = {name: values(name, of) for name, of in schema["properties"].items() if not name.endswith("_lang")}
    names = st.sets(st.sampled_from(sorted(drawn)), max_size=5).map(lambda chosen: sorted(chosen | {*needed(task, "")}))
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: drawn[name] for name in chosen}))


def inputs(task: TaskName, family: str, texts: SearchStrategy[str]) -> SearchStrategy[Any]:
    if task is TaskName.TEXT_CLASSIFICATION:
        return texts | st.fixed_dictionaries({"text": texts, "text_pair": texts})
    if task is TaskName.FILL_MASK:
        return texts.map(lambda text: f"[MASK] {text}") | texts.map(lambda text: f"{text[:90]} [MASK] or [MASK]")
    if task is TaskName.QUESTION_ANSWERING:
        return st.fixed_dictionaries({"question": st.sampled_from(SENTENCES), "context": texts})
    if task is TaskName.MULTIPLE_CHOICE:
        return st.fixed_dictionaries(
            {"prompt": texts, "choices": st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=4)}
        )
    if family == "qwen3":
        message = st.fixed_dictionaries({"role": st.sampled_from(("user", "assistant")), "content": texts})
        return texts | st.lists(message, min_size=1, max_size=3)
    return texts


def with_text(task: str, family: str, text: str) -> Any:
    """Return the plainest inputs of a task with the text in them."""
    mask = "<mask>" if family in {"roberta", "xlm-roberta", "bart", "mbart"} else "[MASK]"
    return {
        "fill-mask": f"{mask} {text}",
        "question-answering": {"question": "Who?", "context": text},
        "multiple-choice": {"prompt": text, "choices": ["Yes.", "Not at all."]},
    }.get(task, text)


def needed(task: str, family: str) -> dict[str, Any]:
    """Return the parameters that a request must have, or that keep it short."""
    languages = {"src_lang": "en_XX", "tgt_lang": "fr_XX"} if (task, family) == ("translation", "mbart") else {}
    labels = {"candidate_labels": ["good", "bad"]} if task == "zero-shot-classification" else {}
    return {**languages, **labels, **({"max_new_tokens": 3} if task in GENERATING else {})}


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a request that fits the schema."""
    task, family, *_ = draw(st.sampled_from(SERVED))
    asked = draw(parameters(TaskName(task))) | draw(LANGUAGES.get(family, st.just({})))
    request = {"task": task, "model": family, "inputs": draw(inputs(TaskName(task), family, TEXTS))}
    try:
        REQUESTS[TaskName(task)].model_validate(request | {"parameters": asked})
    except ValidationError:  # parameters that exclude each other
        asked = needed(task, family)
    return request | {"parameters": asked}


def plain(task: str, family: str, text: str, **asked: Any) -> dict[str, Any]:
    parameters = needed(task, family) | asked
    return {"task": task, "model": family, "inputs": with_text(task, family, text), "parameters": parameters}


def _any(text: str, *, but: tuple[str, ...] = (), **asked: Any) -> SearchStrategy[dict[str, Any]]:
    """Draw a checkpoint, and a plain request to it."""
    return st.sampled_from([plain(task, family, text, **asked) for task, family, *_ in SERVED if task not in but])


_LONG: Final = " ".join([*SENTENCES, *SENTENCES])
#: Requests that fail, and the code of their answers. What test_mixes.py makes models fail at has POISON in its text.
BROKEN: Final[dict[str, tuple[str, SearchStrategy[dict[str, Any]]]]] = {
    "raises": ("inference_failed", _any(f"{POISON} is here.")),
    "nan": ("inference_failed", _any(f"{POISON} is here.")),
    "parameter": ("invalid_request", _any("a text", nonsense=1)),
    "list": ("invalid_request", _any("a text").map(lambda one: one | {"inputs": ["a", "b"]})),
    "long": ("input_too_long", _any(_LONG, but=("question-answering", "text-generation"), truncation=False)),
    "context": ("input_too_long", st.just(plain("text-generation", "ctrl", _LONG))),
    "mask": ("invalid_request", st.just(plain("fill-mask", "albert", "") | {"inputs": "there is no such token"})),
    "model": ("unknown_model", _any("a text").map(lambda one: one | {"model": "nobody"})),
    "language": ("invalid_request", st.just(plain("translation", "mbart", "a text", tgt_lang="xx_XX"))),
    "no-language": ("invalid_request", st.just(plain("translation", "mbart", "a text", src_lang=None))),
    "one-pair": ("invalid_request", st.just(plain("translation", "marian", "a text", src_lang="en"))),
    "no-chat": (
        "invalid_request",
        st.just(plain("text-generation", "ctrl", "") | {"inputs": [{"role": "user", "content": "a"}]}),
    ),
}
