"""Trainer and explicit loop: the same model of the same rows, whatever happens on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from nlp_worker.errors import SettingsError
from nlp_worker.training.unfinished import Unfinished
from trained import ROWS, Cut, Heard, run, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOOPS: Final = ("trainer", "accelerate")


class Learner(NamedTuple):
    """A task, and a checkpoint that learns it."""

    task: str
    family: str
    head: str


LEARNERS: Final = (
    Learner("text-classification", "bert", "sequence-classification"),
    Learner("token-classification", "distilbert", "token-classification"),
    Learner("question-answering", "roberta", "question-answering"),
    Learner("summarization", "t5", "seq2seq-lm"),
    Learner("translation", "marian", "seq2seq-lm"),
)

#: Of one weight, after some dozens of steps in which sums are taken in another order.
WEIGHT_TOLERANCE: Final = 1e-4


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


def farthest(one: Path, other: Path) -> float:
    """Return the largest difference of two checkpoints' weights."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.fixture
def data(tmp_path: Path) -> Callable[[str], Path]:
    return lambda rows: write_rows(tmp_path / f"{rows}.jsonl", ROWS[rows])


def quick(task: str) -> dict[str, Any]:
    """Return parameters with which a model that writes is validated in a moment."""
    return {"parameters": {"max_new_tokens": 8, "num_beams": 1}} if task in {"summarization", "translation"} else {}


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.task)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_both_loops_learn_the_same(
    learner: Learner, accumulate: int, tmp_path: Path, data: Any, folder_of: Any
) -> None:
    """From one seed they have the same losses, scores and weights, up to the order in which sums are taken."""
    base, rows, task = folder_of(learner.family, learner.head), data(learner.task), learner.task
    options: dict[str, Any] = {"accumulate": accumulate, **quick(task)}
    trained = [run(tmp_path / loop, task, base, rows, loop=loop, **options) for loop in LOOPS]
    ours, theirs = (one.history for one in trained)
    assert [epoch.step for epoch in ours.epochs] == [epoch.step for epoch in theirs.epochs]
    for mine, other in zip(ours.epochs, theirs.epochs, strict=True):
        assert mine.loss == pytest.approx(other.loss, abs=1e-3)
        assert mine.validation_loss == pytest.approx(other.validation_loss, abs=1e-3)
        assert mine.scores == pytest.approx(other.scores, abs=0.05)
    assert farthest(*(one.folder for one in trained)) < WEIGHT_TOLERANCE


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("cut", [(17, 0), (13, 5), (15, 5), (31, 0)], ids=lambda cut: f"{cut[0]} of {cut[1]}")
def test_a_run_that_is_cut_off_goes_on_to_the_same_weights(
    loop: str, cut: tuple[int, int], tmp_path: Path, data: Any, folder_of: Any
) -> None:
    """Within the first epoch and after it, with states of epochs and of steps: bit for bit the same checkpoint."""
    base, rows = folder_of("bert", "sequence-classification"), data("text-classification")
    cut_at, save_steps = cut
    options: dict[str, Any] = {"loop": loop, "save_steps": save_steps, "epochs": 3}
    whole = run(tmp_path / "whole", "text-classification", base, rows, **options)
    with pytest.raises(Cut):
        run(tmp_path / "cut", "text-classification", base, rows, heard=Heard(cut_at), **options)
    assert not (tmp_path / "cut").exists()
    heard = Heard()
    resumed = run(tmp_path / "cut", "text-classification", base, rows, heard=heard, resume=True, **options)
    assert resumed.revision == whole.revision
    assert resumed.history.epochs == whole.history.epochs
    assert resumed.history.losses == whole.history.losses
    steps_of_epoch = whole.history.epochs[0].step
    kept = max((step for step in range(1, cut_at) if step % (save_steps or steps_of_epoch) == 0), default=0)
    assert heard.steps[0] == kept + 1, "it began again, or left steps out"


@pytest.mark.parametrize("loop", LOOPS)
def test_a_resumed_run_keeps_its_rows(loop: str, tmp_path: Path, data: Any, folder_of: Any) -> None:
    """What the source has got meanwhile waits for the next run: a topic goes on filling."""
    base, rows = folder_of("bert", "sequence-classification"), data("text-classification")
    whole = run(tmp_path / "whole", "text-classification", base, rows, loop=loop)
    with pytest.raises(Cut):
        run(tmp_path / "cut", "text-classification", base, rows, heard=Heard(17), loop=loop)
    write_rows(rows, ROWS["text-classification"][:7])
    resumed = run(tmp_path / "cut", "text-classification", base, rows, loop=loop, resume=True)
    assert resumed.revision == whole.revision


@pytest.mark.parametrize("loop", LOOPS)
def test_training_ends_when_it_no_longer_improves(loop: str, tmp_path: Path, data: Any, folder_of: Any) -> None:
    """With nothing learned no epoch is better than the first: two more are tried, and the first is kept."""
    base = folder_of("bert", "sequence-classification", labels=("bad", "good"))
    options: dict[str, Any] = {"loop": loop, "learning_rate": 1e-12, "epochs": 9, "patience": 2}
    trained = run(tmp_path / "out", "text-classification", base, data("text-classification"), **options)
    assert [epoch.number for epoch in trained.history.epochs] == [1, 2, 3]
    assert trained.history.best.number == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_bfloat16_learns_too(loop: str, tmp_path: Path, data: Any, folder_of: Any) -> None:
    """The weights stay float32, and the loss falls."""
    base = folder_of("bert", "sequence-classification")
    trained = run(
        tmp_path / "out", "text-classification", base, data("text-classification"), loop=loop, dtype="bfloat16"
    )
    first, last = trained.history.epochs[0], trained.history.epochs[-1]
    assert last.loss < first.loss
    assert {tensor.dtype for tensor in weights(trained.folder).values()} == {torch.float32}


def test_a_run_that_was_cut_off_is_gone_on_with_on_purpose_alone(tmp_path: Path, data: Any, folder_of: Any) -> None:
    """Without --resume it is not overwritten, with other settings it is not mixed up, and with patience it may end."""
    base, rows = folder_of("bert", "sequence-classification"), data("text-classification")
    with pytest.raises(Cut):
        run(tmp_path / "out", "text-classification", base, rows, heard=Heard(17))
    with pytest.raises(SettingsError, match=r"out\.unfinished was not finished: go on with --resume, or remove it"):
        run(tmp_path / "out", "text-classification", base, rows)
    with pytest.raises(SettingsError, match="begun with other values of epochs, seed: give the same"):
        run(tmp_path / "out", "text-classification", base, rows, resume=True, seed=7, epochs=9)
    run(tmp_path / "out", "text-classification", base, rows, resume=True, patience=1)
    with pytest.raises(SettingsError, match="is there already: name another folder"):
        run(tmp_path / "out", "text-classification", base, rows)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_training_that_was_over_is_not_gone_on_with(
    loop: str, tmp_path: Path, data: Any, folder_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off between the last state and the card it only writes that; behind the card it only tidies up."""
    base, rows = folder_of("bert", "sequence-classification", labels=("bad", "good")), data("text-classification")
    options: dict[str, Any] = {"loop": loop, "learning_rate": 1e-12, "epochs": 9, "patience": 2}
    whole = run(tmp_path / "whole", "text-classification", base, rows, **options)

    def cut(*_: Any) -> None:
        raise Cut

    for where, resume in (("run.write_card", False), ("unfinished.Unfinished.remove", True)):
        with monkeypatch.context() as patched:
            patched.setattr(f"nlp_worker.training.{where}", cut)
            with pytest.raises(Cut):
                run(tmp_path / "out", "text-classification", base, rows, resume=resume, **options)
    heard = Heard()
    resumed = run(tmp_path / "out", "text-classification", base, rows, heard=heard, resume=True, **options)
    assert (resumed.revision, resumed.history.epochs) == (whole.revision, whole.history.epochs)
    assert (heard.steps, [file.name for file in tmp_path.glob("*.unfinished")]) == ([], [])


def test_two_trainings_do_not_share_a_folder(tmp_path: Path, data: Any, folder_of: Any) -> None:
    """The second is refused while the first is at it; and what no training has made is not removed for one."""
    base, rows = folder_of("bert", "sequence-classification"), data("text-classification")
    unfinished = Unfinished(tmp_path / "out")
    with unfinished.locked(), pytest.raises(SettingsError, match="another training writes to "):
        run(tmp_path / "out", "text-classification", base, rows)
    precious = tmp_path / "other.unfinished" / "thesis.txt"
    precious.parent.mkdir()
    precious.touch()
    with pytest.raises(SettingsError, match="is not of a training: remove it, or give another --out"):
        run(tmp_path / "other", "text-classification", base, rows)
    assert precious.exists()


def test_the_same_rows_in_another_order_are_the_same_training(tmp_path: Path, data: Any, folder_of: Any) -> None:
    """Partitions of a topic are read one after another: who moves a record must not move the weights."""
    base, rows = folder_of("bert", "sequence-classification"), data("text-classification")
    one = run(tmp_path / "one", "text-classification", base, rows)
    write_rows(rows, ROWS["text-classification"][::-1])
    assert run(tmp_path / "turned", "text-classification", base, rows).revision == one.revision
