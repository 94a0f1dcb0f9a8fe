"""How many cores this process may really use: torch counts those that it is bound to, and sees no container's quota."""

from __future__ import annotations

import os
from pathlib import Path

from nlp_worker.cgroups import own_groups


def usable_cores(root: Path = Path("/")) -> int:
    """Return the cores of this process's affinity, or as many whole ones as its CPU quota pays for where that is less.

    With more threads than the quota pays for the kernel stops all of them for most of each tenth of a second.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (quota for group in own_groups("cpu", root) if (quota := _quota(group)) is not None)
    return max(min([bound, *map(int, quotas)]), 1)


def _quota(group: Path) -> float | None:
    """Return the quota of a control group, in cores; None where it has none."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
        # "max", and -1 in version 1, are none.
        return int(quota) / int(period) if quota.strip().isdecimal() else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
