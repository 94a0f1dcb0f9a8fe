"""`nlp-worker train` as processes: killed, and started by `accelerate launch`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from trained import ROWS, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LOOPS: Final = ("trainer", "accelerate")
TASK: Final = "text-classification"

#: Seconds of one training, most of which is the import of torch and transformers.
PATIENCE: Final = 100

#: One thread of torch in each process: more would wait for each other on a machine of two cores.
ENVIRONMENT: Final = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}

LEARNING: Final = (
    "--learning-rate",
    "1e-2",
    "--batch-rows",
    "8",
    "--held-out",
    "0.3",
    "--device",
    "cpu",
    "--threads",
    "1",
)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, folder_of: Callable[..., Path]) -> tuple[str, ...]:
    """What every training here begins with."""
    data = write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", ROWS[TASK])
    return (TASK, "--base", str(folder_of("bert", "sequence-classification")), "--data", str(data), *LEARNING)


def command(given: Sequence[str], out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "nlp_worker", "train", *given, "--out", str(out), *options]


def train(given: Sequence[str], out: Path, *options: str) -> dict[str, Any]:
    """Train to the end; return what it wrote of itself."""
    subprocess.run(command(given, out, *options), check=True, timeout=PATIENCE, env=ENVIRONMENT)
    return record(out)


def record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "training.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.timeout(3 * PATIENCE)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_killed_training_goes_on(loop: str, given: Sequence[str], tmp_path: Path) -> None:
    """SIGKILL behind the first epoch: nothing is at the folder's place, and with --resume the same checkpoint is."""
    options = ("--loop", loop)
    whole = train(given, tmp_path / "whole", *options)
    out = tmp_path / "killed"
    process = subprocess.Popen(
        command(given, out, *options), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, bufsize=1
    )
    assert process.stderr is not None
    with process.stderr as lines:
        assert any(line.startswith("epoch 1") for line in lines)
        process.kill()
    assert process.wait(PATIENCE) == -signal.SIGKILL
    assert not out.exists()
    refused = subprocess.run(
        command(given, out, *options), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False
    )
    assert (refused.returncode, "go on with --resume" in refused.stderr) == (2, True), refused.stderr
    changed = (*command(given, out, *options), "--resume", "--seed", "7")
    refused = subprocess.run(changed, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False)
    assert (refused.returncode, "other values of seed" in refused.stderr) == (2, True), refused.stderr
    resumed = train(given, out, *options, "--resume")
    assert resumed["revision"] == whole["revision"]
    assert resumed["epochs"] == whole["epochs"]
    assert not out.with_name("killed.unfinished").exists()


def test_ctrl_c_is_no_failure(given: Sequence[str], tmp_path: Path) -> None:
    """It ends with the code that shells have for it, and says how to go on."""
    arguments = command(given, tmp_path / "out", "--epochs", "500")
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, bufsize=1) as process:
        assert process.stderr is not None
        assert any(line.startswith("epoch 1") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        last = list(process.stderr)[-1]
    assert (process.returncode, last) == (130, "nlp-worker: interrupted: go on with the same command and --resume\n")


@pytest.mark.timeout(3 * PATIENCE)
@pytest.mark.parametrize("loop", [pytest.param("trainer", marks=pytest.mark.slow), "accelerate"])
def test_several_processes_learn_as_one(loop: str, given: Sequence[str], tmp_path: Path) -> None:
    """Two with four rows each, as one with eight: as many steps, and the same losses up to dropout's dice."""
    options = ("--loop", loop)
    one = train(given, tmp_path / "one", *options)
    out = tmp_path / "two"
    # On CPUs too: without --multi_gpu it starts a single process there.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--module"]
    arguments = command(given, out, *options, "--batch-rows", "4")[2:]
    subprocess.run([*launch, *arguments], check=True, timeout=PATIENCE, env=ENVIRONMENT)
    two = record(out)
    assert [epoch["step"] for epoch in two["epochs"]] == [epoch["step"] for epoch in one["epochs"]]
    for ours, theirs in zip(two["epochs"], one["epochs"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=0.1)
    assert two["epochs"][-1]["scores"]["accuracy"] == pytest.approx(one["epochs"][-1]["scores"]["accuracy"], abs=0.2)
    assert two["data"] == one["data"]
