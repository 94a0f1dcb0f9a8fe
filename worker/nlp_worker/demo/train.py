"""The demo's checkpoint: trained once, then kept in a cache. ``python -m nlp_worker.demo.train FOLDER`` trains one."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from nlp_worker.demo.sentences import load_sentences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The file beside the weights that keeps the accuracy, to print it again when the checkpoint comes from the cache.
SUMMARY: Final = "demo.json"
#: Without any of these a folder is no checkpoint. Cleaners of temporary folders delete file by file.
FILES: Final = (SUMMARY, "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
#: What the checkpoint is made of: a change of either makes another.
INGREDIENTS: Final = ("recipe.py", "sentences.tsv")
#: Hexadecimal digits of the ingredients' hash in the folder's name: enough to tell versions apart.
KEY_LENGTH: Final = 12


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo's checkpoint.")
    parser.add_argument("folder", type=Path, help="must not exist, or be empty")
    folder = parser.parse_args().folder
    try:
        with show_progress() as progress:
            accuracy = train_demo_checkpoint(folder, progress=progress)
    except FileExistsError as error:
        parser.error(str(error))
    Console().print(f"{folder}: {accuracy:.1%} of the held-out sentences right", highlight=False, soft_wrap=True)


def ensure_demo_checkpoint(cache: Path) -> tuple[Path, float, bool]:
    """Return the demo's checkpoint from the cache; train it where it is not there, or was made of something else.

    Returns:
        Its folder, its accuracy on the held-out sentences, and whether it was there.
    """
    folder = cache / f"demo-{_key()}"
    if all((folder / name).is_file() for name in FILES):
        accuracy = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["accuracy"]
        return folder, float(accuracy), True
    shutil.rmtree(folder, ignore_errors=True)
    with show_progress() as progress:
        return folder, train_demo_checkpoint(folder, progress=progress), False


def train_demo_checkpoint(folder: Path, *, seed: int = 0, progress: Callable[[float], None] | None = None) -> float:
    """Train the demo's checkpoint into a folder, which appears complete or not at all.

    Args:
        folder: Must not exist, or be empty.
        seed: The same seed trains the same checkpoint, up to float noise.
        progress: Called with the share of the training that is done, up to 1.

    Returns:
        The accuracy on sentences that were not trained on.

    Raises:
        FileExistsError: something is in the folder.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    # Here and not above: imports of seconds, which a checkpoint from the cache can do without.
    from nlp_worker.demo import recipe  # noqa: PLC0415

    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, for a folder cannot be renamed into another file system.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        unfinished = Path(temporary, "checkpoint")
        tokenizer, model, accuracy = recipe.learn(load_sentences(), seed, progress or (lambda _: None))
        _save(tokenizer, model, unfinished)
        (unfinished / SUMMARY).write_text(json.dumps({"accuracy": accuracy, "seed": seed}) + "\n", encoding="utf-8")
        unfinished.rename(folder)
    return accuracy


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
def show_progress() -> Iterator[Callable[[float], None]]:
    """Show the training on standard error: as a bar on a terminal, else as one line; yield what to tell the share."""
    console = Console(stderr=True)
    title = "Training the demo's checkpoint"
    if not console.is_terminal:
        console.print(f"{title} ...", highlight=False)
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _key() -> str:
    package = resources.files("nlp_worker.demo")
    contents = b"".join(package.joinpath(name).read_bytes() for name in INGREDIENTS)
    return hashlib.sha256(contents).hexdigest()[:KEY_LENGTH]


if __name__ == "__main__":
    main()
