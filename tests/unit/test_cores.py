"""Threads for the cores that a container really has."""

import os
from pathlib import Path

import pytest

from nlp_worker.cgroups import GROUPS, OWN_GROUPS
from nlp_worker.cores import usable_cores

BOUND = set(range(8))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: BOUND)
    return tmp_path


def write(root: Path, path: str, content: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="ascii")


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)],
)
def test_a_quota_counts_as_whole_cores(root: Path, quota: str, cores: int) -> None:
    """As Docker's --cpus and Kubernetes' limits set it: never more cores than there are, and never none."""
    write(root, OWN_GROUPS, "0::/\n")
    write(root, f"{GROUPS}/cpu.max", f"{quota}\n")
    assert usable_cores(root) == cores


def test_the_quota_of_a_group_around_it_counts_too(root: Path) -> None:
    """A pod's limit around a container's."""
    write(root, OWN_GROUPS, "0::/pod/container\n")
    write(root, f"{GROUPS}/pod/container/cpu.max", "max 100000\n")
    write(root, f"{GROUPS}/pod/cpu.max", "300000 100000\n")
    assert usable_cores(root) == 3


def test_version_1_of_control_groups(root: Path) -> None:
    """Older kernels have two files, in a folder of the controller's."""
    write(root, OWN_GROUPS, "5:memory:/x\n4:cpu,cpuacct:/x\n")
    write(root, f"{GROUPS}/cpu/x/cpu.cfs_quota_us", "200000\n")
    write(root, f"{GROUPS}/cpu/x/cpu.cfs_period_us", "100000\n")
    write(root, f"{GROUPS}/cpu/cpu.cfs_quota_us", "-1\n")
    write(root, f"{GROUPS}/cpu/cpu.cfs_period_us", "100000\n")
    assert usable_cores(root) == 2


@pytest.mark.parametrize("content", ["", "nonsense\n", "\n"])
def test_what_cannot_be_read_sets_no_limit(root: Path, content: str) -> None:
    """Also where there are no control groups at all, as on a Mac."""
    assert usable_cores(root) == len(BOUND)
    write(root, OWN_GROUPS, "0::/\n")
    write(root, f"{GROUPS}/cpu.max", content)
    assert usable_cores(root) == len(BOUND)
