"""The Python that the documents show runs as it is written; `python hub` needs what is not there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from documents import DOCUMENTS
from processes import PATIENCE

if TYPE_CHECKING:
    from served import Served

pytestmark = pytest.mark.timeout(2 * PATIENCE)

FENCE: Final = re.compile(r"^```python( hub)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)

EXAMPLES: Final = [
    pytest.param(
        code,
        id=f"{document.name}-{number}",
        marks=[pytest.mark.skip(reason=f"{document.name} needs the hub")] * bool(hub),
    )
    for document in DOCUMENTS
    for number, (hub, code) in enumerate(FENCE.findall(document.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_runs_and_prints(served: Served, code: str) -> None:
    """Against a worker of the task that it asks for; only the broker's address and the topics' prefix are others."""
    code = code.replace("localhost:9092", served.topics.servers)
    environment = os.environ | {"NLP_WORKER_TOPIC_PREFIX": served.topics.prefix}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout


def test_there_are_examples() -> None:
    """Of the README and of the client's page."""
    assert len(EXAMPLES) >= 4
