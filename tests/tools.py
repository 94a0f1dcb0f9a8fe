"""Programs that some tests need, and that a machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest


def tool(name: str) -> str:
    """Return the path of a program; a test that asks is skipped where there is none. REQUIRE_<NAME>=1: or fails."""
    found = shutil.which(name)
    if found is None:
        if os.environ.get(f"REQUIRE_{name.upper()}") == "1":
            pytest.fail(f"no {name}")
        pytest.skip(f"no {name}")
    return found
