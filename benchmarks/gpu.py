"""Every benchmark that says something of a GPU, on one, with one command: each a process, one after another.

Memory is the device's, of all processes together, less what was taken before: a worker is a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import click
import torch

from benchmarks.models import device_name
from benchmarks.report import Panel, Report, Spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Two rounds, and no more than a minute for each run: GPUs are lent by the minute.
ROUNDS: Final = ("--rounds", "2")

#: Seconds between two looks at the memory: shorter than a batch of new kernels or a growing cache of keys takes.
LOOK_SECONDS: Final = 0.05

MIB: Final = 2**20

#: The module of each run, and its options beside the device.
RUNS: Final[Mapping[str, tuple[str, ...]]] = {
    "padding": ("padding",),
    # With the model that keeps a GPU busy, in what a GPU computes in; float32, which is padded there, for comparison.
    "throughput": ("throughput", "--size", "distilbert", "--texts", "8192", "--dtype", "bfloat16", *ROUNDS),
    "throughput-float32": ("throughput", "--size", "distilbert", "--texts", "8192", "--dtype", "float32", *ROUNDS),
    # Once: fifteen workers are started for it.
    "scaling": ("scaling", "--model-requests", "40000", "--rounds", "1"),
    "planner": ("planner", "--size", "distilbert", "--texts", "4096", *ROUNDS),
    "tasks": ("tasks", "--requests", "512", "--generating", "64", *ROUNDS),
    "generation": ("generation", "--requests", "256", "--layers", "12", "--width", "768", *ROUNDS),
}

#: Those that run no model.
WITHOUT_DEVICE: Final = {"padding"}


class Run(NamedTuple):
    """What became of one."""

    status: int
    seconds: float
    memory: int
    """Bytes of the device at most."""


@click.command()
@click.argument("names", type=click.Choice(list(RUNS)), nargs=-1)
@click.option("--device", default="cuda", show_default=True, help="cuda or cuda:N.")
def main(names: Sequence[str], device: str) -> None:
    """Run the benchmarks of these NAMES, or all."""
    if not torch.cuda.is_available():
        print("There is no CUDA device that torch sees, so nothing is measured.", file=sys.stderr)
        sys.exit(2)
    where = torch.device(device)
    rows: list[dict[str, str | float]] = []
    memory = {}
    for name in names or RUNS:
        print(f"\n== {name}", flush=True)
        run = _run(RUNS[name], where)
        ended = "" if run.status == 0 else f"failed with {run.status}"
        rows.append({"benchmark": name, "seconds": run.seconds, "peak MiB": run.memory // MIB, "problem": ended})
        memory[name] = Spread.of([run.memory // MIB])
    report = Report(
        name="gpu",
        title="On a GPU",
        settings={"device": device_name(where), "MiB": torch.cuda.mem_get_info(where)[1] // MIB},
        rows=rows,
        panels=[Panel("", memory)],
        axis="MiB of the device at most",
    )
    print()
    report.show()
    report.write()
    sys.exit(any(row["problem"] for row in rows))


def _run(options: Sequence[str], device: torch.device) -> Run:
    module, *rest = options
    command = [sys.executable, "-m", f"benchmarks.{module}", *rest]
    if module not in WITHOUT_DEVICE:
        command += ["--device", str(device)]
    before = most = _taken(device)
    ended = threading.Event()

    def look() -> None:
        nonlocal most
        while not ended.wait(LOOK_SECONDS):
            most = max(most, _taken(device))

    looking = threading.Thread(target=look)
    looking.start()
    began = time.monotonic()
    status = subprocess.run(command, check=False).returncode
    seconds = time.monotonic() - began
    ended.set()
    looking.join()
    return Run(status, seconds, most - before)


def _taken(device: torch.device) -> int:
    free, there_is = torch.cuda.mem_get_info(device)
    return there_is - free


if __name__ == "__main__":
    main()
