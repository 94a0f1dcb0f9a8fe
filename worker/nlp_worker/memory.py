"""How much memory this process may still take: the machine tells what is free of all, and sees no container's limit."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nlp_worker.cgroups import own_groups

MACHINE: Final = "proc/meminfo"


def free_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that are free on the machine, or below a limit around this process where those are fewer.

    Beyond the limit the kernel ends the process, however much the machine has. None where nothing tells, as on a Mac.
    """
    machine = _numbers(root / MACHINE).get("MemAvailable:")
    # In kB there; in bytes everywhere else.
    below_limits = [left for group in own_groups("memory", root) if (left := _left(group)) is not None]
    return min([*([] if machine is None else [machine * 2**10]), *below_limits], default=None)


def _left(group: Path) -> int | None:
    """Return what is left below the limit of a control group; None where it has none."""
    try:
        if (group / "memory.limit_in_bytes").exists():
            # The usage is of the groups in it too, and what is named without total_ is not.
            names, cache = ("limit_in_bytes", "usage_in_bytes"), "total_inactive_file"
        else:
            names, cache = ("max", "current"), "inactive_file"
        most, used = (int((group / f"memory.{name}").read_text(encoding="ascii")) for name in names)
    except (OSError, ValueError):  # "max" is none
        return None
    # Pages of files that were read count as used, and the kernel drops them before it ends a process.
    return max(most - used + _numbers(group / "memory.stat").get(cache, 0), 0)


def _numbers(file: Path) -> dict[str, int]:
    """Read lines of a name and a number."""
    try:
        lines = [line.split() for line in file.read_text(encoding="ascii").splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdecimal()}
