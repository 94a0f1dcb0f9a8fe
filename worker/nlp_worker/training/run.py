"""A training from its rows to a folder that a worker serves: read, look over, learn, write."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
import transformers
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from nlp_worker.checkpoints import content_hash
from nlp_worker.errors import CheckpointError, FatalError, SettingsError
from nlp_worker.models import cpu_threads, torch_device
from nlp_worker.settings import ModelSpec
from nlp_worker.training import labelled_set, with_accelerate, with_trainer
from nlp_worker.training.card import RECORD, write_card
from nlp_worker.training.history import History
from nlp_worker.training.job import Job
from nlp_worker.training.learner import Learner, base_labels
from nlp_worker.training.predictions import metrics_of, request_parameters
from nlp_worker.training.problems import DataError, count, refuse, row_count
from nlp_worker.training.sources import TRAIN, VALIDATION
from nlp_worker.training.unfinished import Rows, Unfinished
from nlp_worker.training.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nlp_worker.settings import Settings
    from nlp_worker.training.job import Show
    from nlp_worker.training.settings import TrainingSettings

#: Rows that are validated on below which the scores say little: each is worth some points.
FEW: Final = 30

WAYS: Final = {"trainer": with_trainer.train, "accelerate": with_accelerate.train}


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
    if not out.absolute().name:
        raise SettingsError(f"--out {out}: it must be a folder that can be made")
    unfinished = Unfinished(out.absolute())
    if resume and (out / RECORD).is_file() and unfinished.begun:
        # It was cut off when all was done but this.
        process.wait_for_everyone()
        if process.is_main_process:
            unfinished.remove()
        return _ended(out)
    with contextlib.ExitStack() as stack:
        begins = not unfinished.begun
        outcome: list[FatalError | None] = [None]
        if process.is_main_process:
            try:
                _prepare(settings, worker, unfinished, stack, say, resume=resume)
            except FatalError as error:
                outcome = [error]
        broadcast_object_list(outcome)
        if outcome[0] is not None:
            if not process.is_main_process:
                sys.exit(outcome[0].exit_code)
            raise outcome[0]
        settings = settings.model_copy(update={"threads": unfinished.settings.threads})
        return _learn(settings, unfinished, out, show, say, begins=begins, resume=resume)


def _prepare(
    settings: TrainingSettings,
    worker: Settings,
    unfinished: Unfinished,
    stack: contextlib.ExitStack,
    say: Callable[[str], None],
    *,
    resume: bool,
) -> None:
    """Look over what is to be learned, and keep it; the folder is locked until the stack ends.

    Raises:
        FatalError: it cannot be learned.
    """
    try:
        unfinished.check(resume=resume)
        begins = not unfinished.begun
        threads = settings.threads or (None if begins else unfinished.settings.threads) or cpu_threads()
        # How many there are changes sums by float noise, and so what is learned.
        settings = settings.model_copy(update={"threads": threads})
        # Before the folder is made: what cannot begin leaves nothing behind.
        rows = _read(settings, worker, say) if begins else None
        stack.enter_context(unfinished.locked())
        if rows is None:
            unfinished.check_same(settings)
        else:
            unfinished.begin(settings, rows)
    except OSError as error:
        raise SettingsError(f"{unfinished.folder} cannot be written to: {error.strerror}") from None


def _learn(
    settings: TrainingSettings,
    unfinished: Unfinished,
    out: Path,
    show: Show,
    say: Callable[[str], None],
    *,
    begins: bool,
    resume: bool,
) -> Trained:
    process = PartialState()
    rows = unfinished.rows(settings.task)
    try:
        job = _job(settings, rows, unfinished.folder, show, say)
    except FatalError:
        # Nothing is learned that could be gone on with.
        if begins and process.is_main_process:
            unfinished.remove()
        raise
    try:
        WAYS[settings.loop](job, resume=resume)
        process.wait_for_everyone()
        if process.is_main_process:
            _finish(job, rows, out, say)
            unfinished.remove()
    except OSError as error:
        told = error.strerror or error
        raise SettingsError(
            f"{error.filename or unfinished.folder}: {told}: mend that, and go on with --resume"
        ) from None
    process.wait_for_everyone()
    return _ended(out)


def _finish(job: Job, rows: Rows, out: Path, say: Callable[[str], None]) -> None:
    checkpoint, learner = job.best, job.learner
    _open_to_readers(checkpoint)
    revision = content_hash(checkpoint)
    origin = {
        "revision": revision,
        "base_revision": learner.revision,
        "labels": learner.labels,
        "device": str(learner.model.device),
        "data": rows.told,
    }
    write_card(checkpoint, job.settings, origin, job.history)
    if revision == learner.revision:
        say("the weights are the base's own: nothing was learned until the epoch that is kept")
    if out.exists():
        out.rmdir()
    checkpoint.rename(out)


def _ended(out: Path) -> Trained:
    """Return what stands in the folder of a training that has ended."""
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    history = History(record["metric"], 0)
    history.load(out / RECORD)
    return Trained(out, record["revision"], history)


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
        base = base_labels(ModelSpec.parse(f"{settings.task}={settings.base}"))
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
    # The same rows are the same training, in whatever order they came.
    training, held_out = (sorted(examples, key=lambda example: example.id) for examples in (training, held_out))
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


def _open_to_readers(checkpoint: Path) -> None:
    """Let whoever may read new files read the weights, which safetensors keeps to their owner: a worker is another."""
    umask = os.umask(0)
    os.umask(umask)
    for file in checkpoint.iterdir():
        file.chmod(0o666 & ~umask)


def _job(settings: TrainingSettings, rows: Rows, folder: Path, show: Show, say: Callable[[str], None]) -> Job:
    torch.set_num_threads(settings.threads or cpu_threads())
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    spec = ModelSpec.parse(f"{settings.task}={settings.base}")
    learner = Learner(spec, rows.labels, settings.max_length, settings.seed)
    say(learner.told)
    metrics = metrics_of(settings.task, learner.labels, settings.metric)
    parameters = request_parameters(settings.task, [*rows.training, *rows.validation], settings.parameters)
    made = learner.features(rows.training, settings.parameters)
    refuse(made.problems, say, skip_bad=settings.skip_bad)
    if not made.rows:
        raise DataError(f"--data {settings.data}: no row is left to train on: give more rows")
    collate = learner.collator()
    validation = Validation(
        learner, rows.validation, parameters, metrics, collate=collate, batch_rows=settings.batch_rows
    )
    on_cpu = torch_device(settings.device).type == "cpu"
    bfloat16 = settings.dtype == "bfloat16" or (
        settings.dtype == "auto" and not on_cpu and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    history = History(metrics.primary, settings.patience)
    return Job(settings, learner, made.rows, collate, validation.measure, history, folder, show, bfloat16, on_cpu)
