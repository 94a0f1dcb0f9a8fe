"""The folder of a training that has not ended, beside the one that it will be."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nlp_worker.errors import SettingsError
from nlp_worker.training import labelled_set
from nlp_worker.training.settings import TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nlp_worker.training.examples import Example

#: Behind the name of the folder that is to be.
SUFFIX: Final = ".unfinished"

#: In it: the settings and what was found out about the rows, the rows, and what tells that somebody is at it.
RUN: Final = "run.json"
TRAINING_ROWS: Final = "training.jsonl"
VALIDATION_ROWS: Final = "validation.jsonl"
LOCK: Final = "lock"

#: Settings that a resumed run may change: they change when it ends, and not what it learns until then.
MAY_CHANGE: Final = frozenset({"patience", "save_steps", "skip_bad"})


class Rows(NamedTuple):
    """What is learned from, and what it is measured on."""

    training: list[Example]
    validation: list[Example]
    labels: list[str]
    told: dict[str, Any]
    """Of the card: where they come from, how many, and their fingerprints."""


class Unfinished:
    """A run for a folder.

    Args:
        out: The folder that is to be.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self.folder = out.with_name(out.name + SUFFIX)
        self._run = self.folder / RUN

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with."""
        return self._run.is_file()

    def check(self, *, resume: bool) -> None:
        """Look whether a run may begin, or go on.

        Raises:
            SettingsError: it may not.
        """
        if os.path.lexists(self._out) and (not self._out.is_dir() or any(self._out.iterdir())):
            raise SettingsError(f"--out {self._out} is there already: name another folder")
        if self.begun and not resume:
            raise SettingsError(f"{self.folder} was not finished: go on with --resume, or remove it")
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise SettingsError(f"{self.folder} is no folder: remove it, or give another --out")
        own = {TRAINING_ROWS, VALIDATION_ROWS, LOCK, f"{RUN}.new"}
        if self.folder.is_dir() and not self.begun and {file.name for file in self.folder.iterdir()} - own:
            raise SettingsError(f"{self.folder} is not of a training: remove it, or give another --out")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings out of the folder, which is made.

        Raises:
            SettingsError: another training is at it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK).open("w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SettingsError(f"another training writes to {self.folder}: wait for it, or stop it") from None
            yield

    def begin(self, settings: TrainingSettings, rows: Rows) -> None:
        """Keep what the run is of: a topic goes on filling, and a resumed run goes on with the same rows."""
        labelled_set.save(rows.training, self.folder / TRAINING_ROWS)
        labelled_set.save(rows.validation, self.folder / VALIDATION_ROWS)
        run = {"settings": settings.model_dump(mode="json"), "labels": rows.labels, "told": rows.told}
        # Last, and at once: without it nothing was begun.
        written = self.folder / f"{RUN}.new"
        written.write_text(json.dumps(run, indent=2), encoding="utf-8")
        written.rename(self._run)

    @property
    def settings(self) -> TrainingSettings:
        """What the run was begun with."""
        return TrainingSettings(**json.loads(self._run.read_text(encoding="utf-8"))["settings"])

    def check_same(self, settings: TrainingSettings) -> None:
        """Look whether a run goes on as it was begun.

        Raises:
            SettingsError: it would come to something else.
        """
        before = self.settings
        names = TrainingSettings.model_fields.keys() - MAY_CHANGE
        if changed := sorted(name for name in names if getattr(before, name) != getattr(settings, name)):
            raise SettingsError(f"--resume: the run was begun with other values of {', '.join(changed)}: give the same")

    def rows(self, task: str) -> Rows:
        """Return what `begin` kept."""
        run = json.loads(self._run.read_text(encoding="utf-8"))
        files = (self.folder / TRAINING_ROWS, self.folder / VALIDATION_ROWS)
        training, validation = (labelled_set.load(task, file) for file in files)
        return Rows(training, validation, run["labels"], run["told"])

    def remove(self) -> None:
        shutil.rmtree(self.folder)
