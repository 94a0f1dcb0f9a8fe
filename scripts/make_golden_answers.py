r"""Make tests/golden/*.json: what the pipelines of transformers 4.57.6, the last that had them, answer.

Question answering, summarization and translation have no pipeline in transformers 5. So the answers that ours must
equal are made with version 4, on the tiny checkpoints that tests/checkpoints.py builds with version 5. Two phases::

    python -m pip install --target V4 --no-deps transformers==4.57.6 "tokenizers>=0.22,<=0.23.0" \
        "huggingface-hub>=0.34,<1" requests urllib3 charset-normalizer certifi
    PYTHONPATH=tests python scripts/make_golden_answers.py build CHECKPOINTS
    PYTHONPATH=V4:tests python scripts/make_golden_answers.py answer CHECKPOINTS

V4 holds version 4 with its own tokenizers and hub client, before torch and all else of the environment that the project
is installed in. CHECKPOINTS is a folder to be made. ``build`` writes checkpoints there, and what version 5 computes
with each; ``answer`` checks that version 4 computes the same from a copy that it can read, and writes tests/golden.

A file has the recipe and a fingerprint of each of its checkpoints (tests/golden/recipes.py) and a list of cases:
checkpoint, family, task (the pipeline's name), inputs, parameters, and outputs or the type of the error. A case with
"differs" is one that the worker answers otherwise on purpose:

- max_length: version 4 let its default of 256 new tokens win over the max_length of the call or of the checkpoint's
  task_specific_params. "honoured" is what it answers if that length counts, as in older versions.
- zero_score: with more answers asked for than there are, the pipeline fills up with spans of probability 0, which end
  before they begin. All other answers are right.
- no_tokens: of a context without any token it returns such a span alone, or an empty list.
- truncation: it truncates only if told to; "honoured" is what it answers then.
- language: a code that the tokenizer lacks is read as unknown without a word.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers

from golden.cases import CASES, CHECKPOINTS
from golden.recipes import fingerprint, make

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION: Final = "4.57.6"
GOLDEN: Final = Path(__file__).parents[1] / "tests" / "golden"

#: What both versions must compute alike: the pair has full-width letters, a ligature and a typed special token.
PROBE: Final = (
    "Who went to Paris?",
    "Ann and Bob, \ufb01ne \uff26\uff29\uff2c\uff2d </s> [SEP] \u2026 went to Rome in 2023.",
)
PROBE_TOLERANCE: Final = 1e-3

#: How far scores in float32 may be from those in float64, as from another CPU's. Texts and order must be the same: else
#: noise would decide.
NOISE: Final = 1e-4

#: Classes that transformers 5 merged with another, by family.
TOKENIZER_CLASSES: Final = {"bart": "BartTokenizer", "electra": "ElectraTokenizer"}

MODELS: Final = {
    "question-answering": transformers.AutoModelForQuestionAnswering,
    "seq2seq-lm": transformers.AutoModelForSeq2SeqLM,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("phase", choices=["build", "answer"])
    parser.add_argument("checkpoints", type=Path)
    arguments = parser.parse_args()
    os.environ["RUST_BACKTRACE"] = "0"  # the tokenizers panic in some cases
    transformers.logging.set_verbosity_error()
    torch.use_deterministic_algorithms(mode=True)
    for name in CASES:
        if arguments.phase == "build":
            _build(name, arguments.checkpoints / name)
        else:
            _answer(name, arguments.checkpoints / name)


def _build(name: str, folder: Path) -> None:
    from checkpoints import build_checkpoint  # noqa: PLC0415 - needs transformers 5

    for checkpoint, recipe in CHECKPOINTS[name].items():
        path = make(recipe, folder / checkpoint, build_checkpoint)
        (path / "probe.json").write_text(json.dumps(_probe(path, recipe)))
        print("built", path)


def _answer(name: str, folder: Path) -> None:
    if transformers.__version__ != VERSION:
        raise SystemExit(f"This phase needs transformers {VERSION}, not {transformers.__version__}.")
    file: dict[str, Any] = {"transformers": VERSION, "checkpoints": {}, "cases": []}
    for checkpoint, recipe in CHECKPOINTS[name].items():
        path = _bridge(folder / checkpoint, folder / f"{checkpoint}-v4", recipe)
        _compare(_probe(path, recipe), json.loads((path / "probe.json").read_text()), checkpoint)
        file["checkpoints"][checkpoint] = {**recipe, "fingerprint": fingerprint(folder / checkpoint)}
    pipelines: dict[tuple[str, str, torch.dtype], Any] = {}
    noisy = []
    for checkpoint, task, inputs, parameters in CASES[name]():
        recipe = CHECKPOINTS[name][checkpoint]
        case = {"checkpoint": checkpoint, "family": recipe["family"], "task": task}
        case |= {"inputs": inputs, "parameters": parameters}
        answers = []
        for dtype in torch.float32, torch.float64:
            if (checkpoint, task, dtype) not in pipelines:
                pipelines[checkpoint, task, dtype] = _pipeline(folder / f"{checkpoint}-v4", recipe, task, dtype)
            answers.append(_ask(pipelines[checkpoint, task, dtype], inputs, parameters))
        case |= answers[0]
        if not _same(*answers):
            noisy.append((case, answers[1]))
        file["cases"].append(case)
    _write(GOLDEN / f"{name}.json", file)
    for case, in_float64 in noisy:
        print("float64 differs:", json.dumps(in_float64), "in", json.dumps(case))
    if noisy:
        raise SystemExit(f"{name}: float noise decides {len(noisy)} cases: choose other inputs.")


def _bridge(source: Path, target: Path, recipe: dict[str, Any] | Any) -> Path:
    """Copy a checkpoint, with the settings that version 5 renamed as version 4 names them."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    config = json.loads((source / "config.json").read_text())
    ropes = config.pop("rope_parameters", None)
    if recipe["family"] == "modernbert":
        config["global_rope_theta"] = ropes["full_attention"]["rope_theta"]
        config["local_rope_theta"] = ropes["sliding_attention"]["rope_theta"]
        # Version 4 knows a period: every so many layers one sees all, the first among them.
        kinds = config.pop("layer_types")
        config["global_attn_every_n_layers"] = [*kinds[1:], "full_attention"].index("full_attention") + 1
    elif ropes:
        config["rope_theta"] = ropes["rope_theta"]
    (target / "config.json").write_text(json.dumps(config))
    settings = json.loads((source / "tokenizer_config.json").read_text())
    settings.pop("backend", None)
    settings["tokenizer_class"] = TOKENIZER_CLASSES.get(recipe["family"], settings["tokenizer_class"])
    if settings["tokenizer_class"] == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if "extra_special_tokens" in settings:
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    (target / "tokenizer_config.json").write_text(json.dumps(settings))
    return target


def _load(folder: Path, recipe: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    model = MODELS[recipe["head"]].from_pretrained(folder, dtype=dtype)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def _probe(folder: Path, recipe: Any) -> dict[str, Any]:
    """Compute ids and logits of a text or pair, as both versions can."""
    model, tokenizer = _load(folder, recipe, torch.float32)
    if recipe["family"] == "mbart" and transformers.__version__ != VERSION:
        # Version 5 drops what the file has; the worker puts it back, as here.
        tokenizer.backend_tokenizer.normalizer = _file_normalizer(folder)
    pair = recipe["head"] == "question-answering"
    types = {"return_token_type_ids": True} if getattr(model.config, "type_vocab_size", 1) > 1 else {}
    inputs = tokenizer(*(PROBE if pair else PROBE[1:]), return_tensors="pt", **types)
    if recipe["family"] == "distilbert":
        inputs.pop("token_type_ids", None)
    ids = {key: value[0].tolist() for key, value in inputs.items() if key in {"input_ids", "token_type_ids"} and types}
    ids["input_ids"] = inputs["input_ids"][0].tolist()
    if not types:
        inputs.pop("token_type_ids", None)
    if pair:
        output = model(**inputs)
        return {"ids": ids, "logits": output.start_logits[0].tolist()}
    start = torch.tensor([[model.generation_config.decoder_start_token_id, 5, 6, 7]])
    return {"ids": ids, "logits": model(**inputs, decoder_input_ids=start).logits[0].flatten().tolist()}


def _file_normalizer(folder: Path) -> Any:
    from tokenizers import Tokenizer  # noqa: PLC0415 - each version has its own

    return Tokenizer.from_file(str(folder / "tokenizer.json")).normalizer


def _compare(ours: dict[str, Any], theirs: dict[str, Any], checkpoint: str) -> None:
    if ours["ids"] != theirs["ids"]:
        raise SystemExit(f"{checkpoint}: version 4 tokenizes otherwise: {ours['ids']} against {theirs['ids']}")
    worst = max(abs(one - other) for one, other in zip(ours["logits"], theirs["logits"], strict=True))
    print(f"{checkpoint}: logits of both versions differ by {worst:.1e}")
    if worst > PROBE_TOLERANCE:
        raise SystemExit(f"{checkpoint}: version 4 computes something else")


def _pipeline(folder: Path, recipe: Any, task: str, dtype: torch.dtype) -> Any:
    # Loaded anew for each task: a pipeline takes the prefix out of the model's configuration.
    model, tokenizer = _load(folder, recipe, dtype)
    return transformers.pipeline(task, model=model, tokenizer=tokenizer, device=-1)


def _ask(pipeline: Any, inputs: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    if isinstance(inputs, str) and "truncation" not in parameters:
        text = (pipeline.prefix or "") + inputs
        if len(pipeline.tokenizer(text)["input_ids"]) > pipeline.tokenizer.model_max_length:
            answer = _ask(pipeline, inputs, {**parameters, "truncation": False})
            honoured = _call(pipeline, inputs, {**parameters, "truncation": True})
            return {**answer, "differs": "truncation", "honoured": honoured}
    try:
        outputs = _call(pipeline, inputs, parameters)
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return {"error": type(error).__name__}
    if isinstance(inputs, dict):
        return {"outputs": outputs, **_differs_empty(outputs, parameters)}
    unknown = pipeline.tokenizer.unk_token_id
    codes = [parameters[name] for name in ("src_lang", "tgt_lang") if name in parameters]
    if hasattr(pipeline.tokenizer, "_build_translation_inputs") and any(
        pipeline.tokenizer.convert_tokens_to_ids(code) == unknown for code in codes
    ):
        return {"outputs": outputs, "differs": "language"}
    # A length that the default of 256 new tokens hides; 20 is the library's default, which counts as none.
    length = parameters.get("max_length", pipeline.generation_config.max_length)
    if "max_new_tokens" in parameters or pipeline.generation_config.max_new_tokens is None or length in {None, 20}:
        return {"outputs": outputs}
    others = {name: value for name, value in parameters.items() if name != "max_length"}
    honoured = _call(pipeline, inputs, {**others, "max_new_tokens": length - 1})
    return {"outputs": outputs, "differs": "max_length", "honoured": honoured}


def _call(pipeline: Any, inputs: Any, parameters: dict[str, Any]) -> Any:
    outputs = pipeline(**inputs, **parameters) if isinstance(inputs, dict) else pipeline(inputs, **parameters)
    return _plain(outputs)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _differs_empty(outputs: Any, parameters: dict[str, Any]) -> dict[str, str]:
    empty = sum(answer["score"] == 0 for answer in _as_list(outputs))
    if empty == len(_as_list(outputs)):
        return {"differs": "no_tokens"}
    expected = sum(answer == _NULL for answer in _as_list(outputs)) and parameters.get(
        "handle_impossible_answer", False
    )
    return {"differs": "zero_score"} if empty > expected else {}


_NULL: Final = {"score": 0.0, "start": 0, "end": 0, "answer": ""}


def _as_list(outputs: Any) -> list[Any]:
    return outputs if isinstance(outputs, list) else [outputs]


def _same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Tell whether two answers differ by float noise alone."""
    if "error" in ours or "error" in theirs:
        return ours == theirs
    one, other = ([each for each in _as_list(answer["outputs"]) if each.get("score") != 0] for answer in (ours, theirs))
    if ours.get("honoured") != theirs.get("honoured") or len(one) != len(other):
        return False
    return all(_close(*each) for each in zip(one, other, strict=True))


def _close(one: dict[str, Any], other: dict[str, Any]) -> bool:
    near = abs(one.get("score", 0.0) - other.get("score", 0.0)) <= NOISE
    return near and {**one, "score": 0} == {**other, "score": 0}


def _write(path: Path, file: dict[str, Any]) -> None:
    """Write one line for each checkpoint and case, so that a change shows where it is."""
    lines = [f'{{"transformers": {json.dumps(file["transformers"])},', '"checkpoints": {']
    lines.append(_joined(f"{json.dumps(name)}: {json.dumps(one)}" for name, one in file["checkpoints"].items()))
    lines += ["},", '"cases": [', _joined(json.dumps(case) for case in file["cases"]), "]}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(file['cases'])} cases, {path.stat().st_size / 1024:.0f} KiB")


def _joined(lines: Iterable[str]) -> str:
    return ",\n".join(lines)


if __name__ == "__main__":
    main()
