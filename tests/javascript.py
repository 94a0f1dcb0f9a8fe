"""The packages of tests/node, as its lock file names them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

FOLDER: Final = Path(__file__).parent / "node"
PACKAGES: Final = FOLDER / "node_modules"

#: What npm writes when all packages are there.
INSTALLED: Final = PACKAGES / ".package-lock.json"


def node() -> str:
    """Return the path of node, with the packages installed; a test that asks is skipped where there is no npm.

    REQUIRE_NODE=1 makes that a failure.
    """
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        if os.environ.get("REQUIRE_NODE") == "1":
            pytest.fail("no node and npm")
        pytest.skip("no node and npm")
    with (FOLDER / "package-lock.json").open(encoding="ascii") as lock:
        # One process after the other: the first of parallel ones installs them for all.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not INSTALLED.exists() or INSTALLED.stat().st_mtime < (FOLDER / "package-lock.json").stat().st_mtime:
            command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(command, cwd=FOLDER, check=True, capture_output=True)
    return found
