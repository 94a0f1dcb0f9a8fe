"""The control groups that this process is in: they have a container's limits, which the machine's figures leave out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Where the kernel tells: the first has the names of this process's groups, the other their limits.
OWN_GROUPS: Final = "proc/self/cgroup"
GROUPS: Final = "sys/fs/cgroup"


def own_groups(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Give the folders of this process's groups, and of those that they are in, that a controller may limit.

    Args:
        controller: ``cpu`` or ``memory``.
        root: Of the file system.
    """
    try:
        lines = (root / OWN_GROUPS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # Version 2 has one hierarchy without a name; version 1 has one for each controller.
        version_1 = controller in controllers.split(",")
        if version_1 or not controllers:
            group = root / GROUPS / (controller if version_1 else "") / path.lstrip("/")
            yield from (group, *group.parents)
