"""The demo's checkpoints: trained once, then kept in a cache. ``python -m nlp_worker.demo.train FOLDER`` trains one."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from nlp_schemas import TaskName
from nlp_worker.demo.sentences import load_sentences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The file beside the weights that keeps the accuracy, to print it again when the checkpoint comes from the cache.
SUMMARY: Final = "demo.json"
#: Without any of these a folder is no checkpoint. Cleaners of temporary folders delete file by file.
FILES: Final = (SUMMARY, "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
#: What a checkpoint is made of: a change of any makes another.
SENTIMENT: Final = ("recipe.py", "fit.py", "sentences.tsv")
TOYS: Final = ("toys.py", "toy_recipes.py", "toy_lessons.py", "vocabularies.py", "fit.py")
#: Times that few sentences are learnt from where all are once: after fewer steps the miniature gives one answer to all,
#: and after many more it is too sure of itself to learn anything else.
TIMES: Final = 3
#: Hexadecimal digits of the ingredients' hash in the folder's name: enough to tell versions apart.
KEY_LENGTH: Final = 12


class Miniature(NamedTuple):
    """A checkpoint of the demo's."""

    folder: Path
    family: str
    """As transformers names it."""
    accuracy: float
    """The share that it gets right of what it was not trained on."""
    cached: bool
    """Whether it was there already."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a checkpoint of the demo's.")
    parser.add_argument("folder", type=Path, help="must not exist, or be empty")
    parser.add_argument("--task", type=TaskName, choices=list(TaskName), default=TaskName.TEXT_CLASSIFICATION)
    arguments = parser.parse_args()
    try:
        with show_progress(arguments.task) as progress:
            miniature = train_miniature(arguments.task, arguments.folder, progress=progress)
    except FileExistsError as error:
        parser.error(str(error))
    result = f"{miniature.folder}: {miniature.accuracy:.1%} of what was held out is right"
    Console().print(result, highlight=False, soft_wrap=True)


def ensure_miniature(task: TaskName, cache: Path, *, sentences: int | None = None) -> Miniature:
    """Return a task's checkpoint from the cache; train it where it is not there, or was made of something else.

    Args:
        task: What the checkpoint is for.
        cache: The folder of all.
        sentences: As of `train_miniature`.
    """
    folder = cache / f"{task}-{_key(task, sentences)}"
    if all((folder / name).is_file() for name in FILES):
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        return Miniature(folder, summary["family"], summary["accuracy"], cached=True)
    shutil.rmtree(folder, ignore_errors=True)
    with show_progress(task) as progress:
        return train_miniature(task, folder, sentences=sentences, progress=progress)


def train_miniature(
    task: TaskName,
    folder: Path,
    *,
    seed: int = 0,
    sentences: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Miniature:
    """Train a task's checkpoint into a folder, which appears complete or not at all.

    Args:
        task: What the checkpoint is for.
        folder: Must not exist, or be empty.
        seed: The same seed trains the same checkpoint, up to float noise.
        sentences: Of text classification, how many there are to learn from, for a checkpoint that is to be bettered;
            all of them otherwise.
        progress: Called with the share of the training that is done, up to 1.

    Raises:
        FileExistsError: something is in the folder.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, for a folder cannot be renamed into another file system.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        unfinished = Path(temporary, "checkpoint")
        tokenizer, model, accuracy = _learn(task, seed, sentences, progress or (lambda _: None))
        _save(tokenizer, model, unfinished)
        summary = {"family": model.config.model_type, "accuracy": accuracy, "seed": seed}
        (unfinished / SUMMARY).write_text(json.dumps(summary) + "\n", encoding="utf-8")
        unfinished.rename(folder)
    return Miniature(folder, summary["family"], accuracy, cached=False)


def _learn(
    task: TaskName, seed: int, sentences: int | None, progress: Callable[[float], None]
) -> tuple[Any, Any, float]:
    # Here and not above: imports of seconds, which a checkpoint from the cache can do without.
    from nlp_worker.demo import recipe, toy_recipes  # noqa: PLC0415

    if task is TaskName.TEXT_CLASSIFICATION:
        return recipe.learn(_lessons(sentences), seed, progress)
    return toy_recipes.learn(task, seed, progress)


def _lessons(count: int | None) -> list[tuple[str, str]]:
    return load_sentences() if count is None else load_sentences()[:count] * TIMES


def _save(tokenizer: Any, model: Any, folder: Path) -> None:
    from transformers.utils import logging  # noqa: PLC0415 - as above

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar for each file, of a model that is written in a moment
    try:
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def show_progress(task: TaskName) -> Iterator[Callable[[float], None]]:
    """Show the training on standard error: as a bar on a terminal, else as one line; yield what to tell the share."""
    console = Console(stderr=True)
    title = "Training the demo's checkpoint"
    if task is not TaskName.TEXT_CLASSIFICATION:
        title += f" for {task}"
    if not console.is_terminal:
        console.print(f"{title} ...", highlight=False)
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        shown = bar.add_task(title, total=1.0)
        yield lambda share: bar.update(shown, completed=share)


def _key(task: TaskName, sentences: int | None) -> str:
    package = resources.files("nlp_worker.demo")
    ingredients = SENTIMENT if task is TaskName.TEXT_CLASSIFICATION else TOYS
    contents = b"".join(package.joinpath(name).read_bytes() for name in ingredients)
    if sentences is not None:
        contents += f"{sentences} sentences, {TIMES} times".encode()
    return hashlib.sha256(contents).hexdigest()[:KEY_LENGTH]


if __name__ == "__main__":
    main()
