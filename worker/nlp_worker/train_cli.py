"""`nlp-worker train`: a better checkpoint from labelled rows."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from pydantic import ValidationError

from nlp_worker import logging as worker_logging
from nlp_worker.command_options import TASK, connected, interruptible, option_of, parameters_of, settings_of
from nlp_worker.errors import SettingsError
from nlp_worker.training.examples import TRAINABLE
from nlp_worker.training.settings import TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_CODES: Final = (
    "Exit codes: 0 the checkpoint is there · 2 usage, settings, or rows that cannot be used · 3 broker unreachable · "
    "4 topic missing or not allowed · 5 base cannot be loaded, or cannot learn the task · 130 interrupted"
)

#: What the extra `train` brings, and `inference` the first two of.
EXTRA: Final = (
    "torch", "transformers", "accelerate", "datasets", "matplotlib", "rouge_score", "sacrebleu", "seqeval", "sklearn",
    "torchmetrics",
)  # fmt: skip

#: The numbers among the settings have options that are made of their fields.
_OPTIONS: Final = (
    "held_out", "loop", "epochs", "batch_rows", "accumulate", "learning_rate", "warm_up", "weight_decay", "max_length",
    "dtype", "device", "seed", "patience", "metric", "save_steps", "threads",
)  # fmt: skip


def _learning_options(command: Callable[..., None]) -> Callable[..., None]:
    for name in reversed(_OPTIONS):
        command = option_of(name, TrainingSettings.model_fields[name])(command)
    return command


def columns_of(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Read FIELD=COLUMN of each."""
    found = dict(text.partition("=")[::2] for text in texts)
    if not all(found.keys()) or not all(found.values()):
        raise click.BadParameter("it is of the form FIELD=COLUMN")
    return found


def _names(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _can_be_trained(_context: click.Context, _parameter: click.Parameter, task: str) -> str:
    if task not in TRAINABLE:
        raise click.BadParameter(f"{task} cannot be trained: {', '.join(TRAINABLE)} can")
    return task


trained_task = click.argument("task", type=TASK, metavar="TASK", callback=_can_be_trained)
column_option = click.option(
    "--column", "columns", multiple=True, metavar="FIELD=COLUMN", callback=columns_of,
    help="Where a field stands: text=review, label=stars, label=translation.de. May repeat.",
)  # fmt: skip
labels_option = click.option(
    "--labels", metavar="A,B,...", callback=_names,
    help="The names of labels that are numbers, in their order; no others are accepted.",
)  # fmt: skip
skip_bad_option = click.option("--skip-bad", is_flag=True, help="Leave out rows that cannot be used, and count them.")


@click.command(epilog=EXIT_CODES)
@trained_task
@click.option(
    "--base", required=True, metavar="CHECKPOINT", help="What to begin with: a folder or ID[@REVISION] of the hub."
)
@click.option("--data", required=True, metavar="SOURCE",
              help="Labelled rows: a file (.jsonl, .csv, .tsv, .parquet), a topic NAME.labels, or "
                   "NAME[/CONFIG][@REVISION] of the hub.")  # fmt: skip
@click.option("--validation", metavar="SOURCE", help="Rows to validate on; else some of the data's are held out.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="The new checkpoint's.")
@click.option("--resume", is_flag=True, help="Go on with a run that was cut off; where there is none, begin.")
@skip_bad_option
@column_option
@labels_option
@click.option("--parameter", "-p", "parameters", multiple=True, metavar="NAME=VALUE", callback=parameters_of,
              help="Of the requests that producers will send: tgt_lang=de, num_beams=1. May repeat.")  # fmt: skip
@_learning_options
@connected
def train(*, config: Path | None, out: Path, resume: bool, **options: Any) -> None:
    """Fine-tune a checkpoint on labelled rows, and write it to a folder that a worker serves.

    Rows are looked over before anything is computed. They are read as the worker reads requests, and after each epoch
    the worker's own code answers those that are validated on. Example:

        nlp-worker train text-classification --base ./base --data nlp.text-classification.labels --out ./better
    """
    kafka = {name: options.pop(name) for name in ("bootstrap_servers", "topic_prefix")}
    with interruptible(": go on with the same command and --resume"), settings_of(kafka, config) as worker:
        worker_logging.configure(level="warning", log_format=worker.log_format)
        settings = _settings(options)
        run = imported()
        from nlp_worker.training.show import Shown  # noqa: PLC0415 - with the others

        # Of several processes (accelerate launch) one tells.
        main = os.environ.get("RANK", "0") == "0"
        with Shown(main=main) as show:
            trained = run.train(settings, worker, out, show, show.say, resume=resume)
        if main:
            best = trained.history.best
            scores = ", ".join(f"{name} {score:.4f}" for name, score in best.scores.items())
            click.echo(f"{trained.folder}: epoch {best.number} of {len(trained.history.epochs)} is kept, {scores}")
            click.echo(f"revision {trained.revision}")
            model = f"NAME:{settings.task}={trained.folder}"
            click.echo(f"serve it under the name that producers ask for: nlp-worker run --model {model}")


def imported() -> Any:
    """Return the training, whose packages an installation may lack.

    Raises:
        SettingsError: it lacks them.
    """
    if missing := [package for package in EXTRA if importlib.util.find_spec(package) is None]:
        raise SettingsError(f"{', '.join(missing)} is missing: install nlp-worker with its extras inference and train")
    from nlp_worker.training import run  # noqa: PLC0415 - seconds, and an extra's

    return run


def _settings(options: dict[str, Any]) -> TrainingSettings:
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return TrainingSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise SettingsError(f"--{name} {first['input']}: {first['msg']}") from None
