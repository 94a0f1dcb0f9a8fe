"""A training from its rows to a folder that a worker serves: read, look over, learn, write."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
import transformers
from accelerate import PartialState

from nlp_worker.cores import usable_cores
from nlp_worker.errors import CheckpointError, FatalError, SettingsError
from nlp_worker.models import content_hash, labels_of, read_config
from nlp_worker.settings import ModelSpec
from nlp_worker.training import labelled_set, with_accelerate, with_trainer
from nlp_worker.training.card import write_card
from nlp_worker.training.history import History
from nlp_worker.training.job import Job
from nlp_worker.training.learner import Learner, has_head
from nlp_worker.training.predictions import metrics_of, request_parameters
from nlp_worker.training.problems import DataError, count, refuse, row_count
from nlp_worker.training.settings import TrainingSettings
from nlp_worker.training.sources import TRAIN, VALIDATION
from nlp_worker.training.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nlp_worker.settings import Settings
    from nlp_worker.training.examples import Example
    from nlp_worker.training.job import Show

#: What stands beside the folder to be, until it is whole.
UNFINISHED: Final = ".unfinished"

#: In it: the settings, what was found out about the rows, and the rows.
RUN: Final = "run.json"
TRAINING_ROWS: Final = "training.jsonl"
VALIDATION_ROWS: Final = "validation.jsonl"

#: Settings that a resumed run may change: they change when it ends, and not what it learns until then.
MAY_CHANGE: Final = frozenset({"patience", "save_steps", "skip_bad", "threads"})

#: Rows that are validated on below which the scores say little: each is worth some points.
FEW: Final = 30

WAYS: Final = {"trainer": with_trainer.train, "accelerate": with_accelerate.train}


class Rows(NamedTuple):
    """What is learned from, and what it is measured on."""

    training: list[Example]
    validation: list[Example]
    labels: list[str]
    told: dict[str, Any]
    """Of the card: where they come from, how many, and their fingerprints."""


class Trained(NamedTuple):
    """What became of it."""

    folder: Path
    revision: str
    history: History


def train(
    settings: TrainingSettings, worker: Settings, out: Path, show: Show, say: Callable[[str], None], *, resume: bool
) -> Trained:
    """Train a checkpoint into a folder, which appears complete or not at all.

    Args:
        settings: What is learned from what.
        worker: Where the broker is, if the rows are in a topic.
        out: Must not exist, or be empty.
        show: Where it is told how far it is.
        say: Where it is told what was found.
        resume: Whether to go on with what was begun for this folder, if anything was.

    Raises:
        DataError: the rows cannot be used.
        SettingsError: the settings cannot be used, or are not those of the run that is gone on with.
        FatalError: the broker, the topic or the checkpoint cannot be used.
    """
    process = PartialState(cpu=settings.device == "cpu")
    unfinished = out.with_name(out.name + UNFINISHED)
    begins = not (unfinished / RUN).is_file()
    process.wait_for_everyone()
    if process.is_main_process:
        _check_out(out, unfinished, resume=resume)
        if begins:
            shutil.rmtree(unfinished, ignore_errors=True)
            _keep(unfinished, settings, _read(settings, worker, say))
        elif changed := _changed(unfinished, settings):
            raise SettingsError(f"--resume: the run was begun with other values of {', '.join(changed)}: give the same")
    process.wait_for_everyone()
    rows = _kept(unfinished, settings)
    try:
        job = _job(settings, rows, unfinished, show, say)
    except FatalError:
        # Nothing is learned that could be gone on with.
        if begins and process.is_main_process:
            shutil.rmtree(unfinished)
        raise
    WAYS[settings.loop](job, resume=resume)
    process.wait_for_everyone()
    if process.is_main_process:
        checkpoint = job.best
        _open_to_readers(checkpoint)
        learner = job.learner
        origin = {"base_revision": learner.revision, "labels": learner.labels, "device": str(learner.model.device)}
        write_card(checkpoint, settings, {**origin, "data": rows.told}, job.history)
        if content_hash(checkpoint) == learner.revision:
            say("the weights are the base's own: nothing was learned until the epoch that is kept")
        if out.exists():
            out.rmdir()
        checkpoint.rename(out)
        shutil.rmtree(unfinished)
    process.wait_for_everyone()
    return Trained(out, content_hash(out), job.history)


def _check_out(out: Path, unfinished: Path, *, resume: bool) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError(f"--out {out} is there already: name another folder")
    if (unfinished / RUN).is_file() and not resume:
        raise SettingsError(f"{unfinished} was not finished: go on with --resume, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise SettingsError(f"--out {out} cannot be written to")


def _sources(
    settings: TrainingSettings, worker: Settings, say: Callable[[str], None]
) -> tuple[labelled_set.LabelledSet, labelled_set.LabelledSet | None]:
    """Read the rows, and those to validate on where they are others."""

    def read(source: str, split: str) -> labelled_set.LabelledSet | None:
        found = labelled_set.read(
            worker, source, settings.task, columns=settings.columns, labels=settings.labels, split=split
        )
        if found is not None:
            replaced = f", {found.replaced:,} gave way to later ones of the same id" if found.replaced else ""
            say(f"{found.source}: {row_count(len(found.examples))}{replaced}")
        return found

    whole = read(settings.data, TRAIN)
    if whole is None:
        raise DataError(f"--data {settings.data}: it has no split named train")
    # A file or a topic has no splits: it would be read a second time, and validated on all of it.
    has_other = settings.validation is not None or labelled_set.has_splits(settings.data)
    return whole, read(settings.validation or settings.data, VALIDATION) if has_other else None


def _read(settings: TrainingSettings, worker: Settings, say: Callable[[str], None]) -> Rows:
    """Read the rows and look all of them over.

    Raises:
        DataError: something is wrong with some, and they are not to be left out.
    """
    whole, other = _sources(settings, worker, say)
    if other is None:
        training = [one for one in whole.examples if not labelled_set.is_held_out(one, settings.held_out)]
        held_out = [one for one in whole.examples if labelled_set.is_held_out(one, settings.held_out)]
    else:
        training, held_out = whole.examples, other.examples
    seen = training if other is not None else whole.examples
    unusable: CheckpointError | None = None
    base: list[str] = []
    try:
        base = base_labels(settings)
    except CheckpointError as error:  # told behind what is wrong with the rows
        unusable = error
    labels = labelled_set.label_names(settings.task, seen, settings.labels, names=whole.names, base=base)
    bad = labelled_set.leaked(training, held_out)
    bad_validation = list(other.problems) if other is not None else []
    if labels:
        bad += labelled_set.unknown_labels(training, labels)
        bad_validation += labelled_set.unknown_labels(held_out, labels)
    prefix = "" if other is None else "validation "
    problems = [*whole.problems, *bad, *(one._replace(place=prefix + one.place) for one in bad_validation)]
    refuse(problems, say, skip_bad=settings.skip_bad)
    training, held_out = labelled_set.without(training, bad), labelled_set.without(held_out, bad_validation)
    for name, examples in (("train on", training), ("validate on", held_out)):
        if not examples:
            advice = "give more rows" if name == "train on" else "give more rows, a larger --held-out, or --validation"
            raise DataError(f"--data {settings.data}: no row is left to {name}: {advice}")
    labelled_set.check_classes(training, labels)
    if unusable is not None:
        raise unusable
    told = {
        "data": whole.source,
        "validation": other.source if other is not None else f"{settings.held_out:g} of it, by a hash of the id",
        "training_rows": len(training),
        "validation_rows": len(held_out),
        "training_fingerprint": labelled_set.fingerprint(training),
        "validation_fingerprint": labelled_set.fingerprint(held_out),
        "left_out": count(problems),
        "replaced": whole.replaced + (other.replaced if other is not None else 0),
    }
    if len(held_out) < FEW:
        say(f"{row_count(len(held_out))} to validate on: the scores say little")
    return Rows(training, held_out, labels, told)


def base_labels(settings: TrainingSettings) -> list[str]:
    """Return the labels that the base gives, where it has learned the task already.

    Raises:
        CheckpointError: its configuration cannot be read.
    """
    config = read_config(ModelSpec.parse(f"{settings.task}={settings.base}"))
    return labels_of(config) if has_head(config, settings.task) else []


def _open_to_readers(checkpoint: Path) -> None:
    """Let whoever may read new files read the weights, which safetensors keeps to their owner: a worker is another."""
    umask = os.umask(0)
    os.umask(umask)
    for file in checkpoint.iterdir():
        file.chmod(0o666 & ~umask)


def _keep(folder: Path, settings: TrainingSettings, rows: Rows) -> None:
    folder.mkdir(parents=True)
    labelled_set.save(rows.training, folder / TRAINING_ROWS)
    labelled_set.save(rows.validation, folder / VALIDATION_ROWS)
    run = {"settings": settings.model_dump(mode="json"), "labels": rows.labels, "told": rows.told}
    # Last, and at once: without it nothing was begun.
    written = folder / f"{RUN}.new"
    written.write_text(json.dumps(run, indent=2), encoding="utf-8")
    written.rename(folder / RUN)


def _kept(folder: Path, settings: TrainingSettings) -> Rows:
    run = json.loads((folder / RUN).read_text(encoding="utf-8"))
    training, held_out = (labelled_set.load(settings.task, folder / name) for name in (TRAINING_ROWS, VALIDATION_ROWS))
    return Rows(training, held_out, run["labels"], run["told"])


def _changed(folder: Path, settings: TrainingSettings) -> list[str]:
    before = TrainingSettings(**json.loads((folder / RUN).read_text(encoding="utf-8"))["settings"])
    names = TrainingSettings.model_fields.keys() - MAY_CHANGE
    return sorted(name for name in names if getattr(before, name) != getattr(settings, name))


def _job(settings: TrainingSettings, rows: Rows, folder: Path, show: Show, say: Callable[[str], None]) -> Job:
    torch.set_num_threads(settings.threads or min(torch.get_num_threads(), usable_cores()))
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    spec = ModelSpec.parse(f"{settings.task}={settings.base}")
    learner = Learner(spec, rows.labels, settings.max_length, settings.seed)
    say(learner.told)
    metrics = metrics_of(settings.task, learner.labels, settings.metric)
    parameters = request_parameters(settings.task, [*rows.training, *rows.validation], settings.parameters)
    made = learner.features(rows.training, settings.parameters)
    refuse(made.problems, say, skip_bad=settings.skip_bad)
    collate = learner.collator()
    validation = Validation(
        learner, rows.validation, parameters, metrics, collate=collate, batch_rows=settings.batch_rows
    )
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("device cuda: torch sees no CUDA device; use --device cpu, or see the driver")
    on_cpu = settings.device == "cpu" or not torch.cuda.is_available()
    bfloat16 = settings.dtype == "bfloat16" or (
        settings.dtype == "auto" and not on_cpu and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    history = History(metrics.primary, settings.patience)
    return Job(settings, learner, made.rows, collate, validation.measure, history, folder, show, bfloat16, on_cpu)
