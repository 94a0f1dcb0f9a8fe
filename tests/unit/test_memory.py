"""The memory that a container really has left."""

from pathlib import Path

import pytest

from nlp_worker import doctor
from nlp_worker.cgroups import GROUPS, OWN_GROUPS
from nlp_worker.memory import MACHINE, free_memory
from nlp_worker.settings import Settings

GIB = 2**30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine of which 8 GiB are free."""
    write(tmp_path, MACHINE, f"MemTotal: {16 * 2**20} kB\nMemAvailable: {8 * 2**20} kB\nHugePages_Total: 0\n")
    return tmp_path


def write(root: Path, path: str, content: object) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{content}\n", encoding="ascii")


def limit(root: Path, group: str, most: object, used: int, cache: int = 0) -> None:
    """Write a group of version 2."""
    write(root, f"{GROUPS}/{group}/memory.max", most)
    write(root, f"{GROUPS}/{group}/memory.current", used)
    write(root, f"{GROUPS}/{group}/memory.stat", f"anon {used - cache}\ninactive_file {cache}\nactive_file 5")


@pytest.mark.parametrize(("most", "free"), [(4 * GIB, 3 * GIB), (32 * GIB, 8 * GIB), ("max", 8 * GIB), (GIB // 2, 0)])
def test_a_limit_counts_where_it_leaves_less_than_the_machine(root: Path, most: object, free: int) -> None:
    """As Docker's --memory and Kubernetes' limits set it: what is used is not free, and never less than none."""
    write(root, OWN_GROUPS, "0::/")
    limit(root, "", most, GIB)
    assert free_memory(root) == free


def test_files_that_were_read_are_free(root: Path) -> None:
    """Else a container that has just read its checkpoint would seem to have no memory for it."""
    write(root, OWN_GROUPS, "0::/")
    limit(root, "", 4 * GIB, 3 * GIB, cache=2 * GIB)
    assert free_memory(root) == 3 * GIB


def test_the_limit_of_a_group_around_it_counts_too(root: Path) -> None:
    """A pod's limit around a container's."""
    write(root, OWN_GROUPS, "0::/pod/container")
    limit(root, "pod/container", "max", GIB)
    limit(root, "pod", 4 * GIB, 2 * GIB)
    assert free_memory(root) == 2 * GIB


def test_version_1_of_control_groups(root: Path) -> None:
    """Older kernels have other names, in a folder of the controller's; a container sees its own group at the top."""
    write(root, OWN_GROUPS, "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x")
    write(root, f"{GROUPS}/memory/memory.limit_in_bytes", 4 * GIB)
    write(root, f"{GROUPS}/memory/memory.usage_in_bytes", 3 * GIB)
    write(root, f"{GROUPS}/memory/memory.stat", f"inactive_file 0\ntotal_inactive_file {GIB}")
    assert free_memory(root) == 2 * GIB
    write(root, f"{GROUPS}/memory/memory.limit_in_bytes", 2**63 - 4096)
    assert free_memory(root) == 8 * GIB


@pytest.mark.parametrize("content", ["", "nonsense"])
def test_what_cannot_be_read_sets_no_limit(root: Path, content: str) -> None:
    """Also where there are no control groups at all."""
    assert free_memory(root) == 8 * GIB
    write(root, OWN_GROUPS, "0::/")
    write(root, f"{GROUPS}/memory.max", content)
    assert free_memory(root) == 8 * GIB


def test_where_nothing_tells_nothing_is_said(tmp_path: Path) -> None:
    """As on a Mac."""
    assert free_memory(tmp_path) is None


@pytest.mark.parametrize(("free", "verdict"), [(99, "warning"), (100, "ok"), (None, "ok")])
def test_the_doctor_compares_it_with_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int | None, verdict: str
) -> None:
    """A warning before the checkpoints are loaded: the kernel would end the doctor without a word."""
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    monkeypatch.setattr(doctor, "free_memory", lambda: free)
    found = doctor._memory(Settings(model=[f"fill-mask={tmp_path}"]))
    assert found.verdict == verdict
