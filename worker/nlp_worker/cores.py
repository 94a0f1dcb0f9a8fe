"""How many cores this process may really use: torch counts those that it is bound to, and sees no container's quota."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: Where the kernel tells: /proc/self/cgroup has the names of this process's control groups, the other their quotas.
OWN_GROUPS: Final = "proc/self/cgroup"
GROUPS: Final = "sys/fs/cgroup"


def usable_cores(root: Path = Path("/")) -> int:
    """Return the cores of this process's affinity, or as many whole ones as its CPU quota pays for where that is less.

    With more threads than the quota pays for the kernel stops all of them for most of each tenth of a second.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min([bound, *map(int, _quotas(root))]), 1)


def _quotas(root: Path) -> list[float]:
    """Return the quotas, in cores, of this process's control groups and of those that they are in."""
    try:
        lines = (root / OWN_GROUPS).read_text(encoding="ascii").splitlines()
    except OSError:  # no Linux
        return []
    quotas: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # Version 2 has one hierarchy without a name; version 1 has one for each controller.
        version_1 = "cpu" in controllers.split(",")
        if version_1 or not controllers:
            group = root / GROUPS / ("cpu" if version_1 else "") / path.lstrip("/")
            quotas += [quota for each in (group, *group.parents) if (quota := _quota(each)) is not None]
    return quotas


def _quota(group: Path) -> float | None:
    """Return the quota of a control group, in cores; None where it has none."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
        # "max", and -1 in version 1, are none.
        return int(quota) / int(period) if quota.strip().isdecimal() else None
    except (OSError, ValueError):
        return None
