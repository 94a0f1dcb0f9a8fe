"""F18: each of the mutants is caught; docs/guarantees.md has them, from `pytest tests/faults --write-docs`."""

from __future__ import annotations

import re
from typing import Final

import pytest

from faults.matrix import DOCUMENT
from faults.mutants import MUTANTS, Mutant, table

pytestmark = pytest.mark.timeout(300)

_PLACE: Final = re.compile(r"(<!-- mutants -->\n).*?(<!-- /mutants -->)", re.DOTALL)


#: On fakes, and so in a few seconds: enough to see, each time, that mutants are made and caught.
QUICK: Final = "what was revoked stays in the polls in flight"


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(mutant, id=mutant.name, marks=[] if mutant.name == QUICK else pytest.mark.faults)
        for mutant in MUTANTS
    ],
)
def test_a_mutant_is_caught(mutant: Mutant, request: pytest.FixtureRequest) -> None:
    """By the test that the table names, and for the reason that it names."""
    if not mutant.test.startswith("loop/"):
        # Not used: it says whether there can be one, and the mutant's test starts its own.
        request.getfixturevalue("real_kafka")
    mutant.check()


def test_the_document_has_every_mutant(request: pytest.FixtureRequest) -> None:
    """As they are run here."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert _PLACE.search(text), f"{DOCUMENT.name} has no place for the mutants"
    written = _PLACE.sub(lambda place: f"{place[1]}\n{table()}\n\n{place[2]}", text)
    if request.config.getoption("--write-docs"):
        DOCUMENT.write_text(written, encoding="utf-8")
    else:
        assert written == text, "another table: run `pytest tests/faults/test_mutants.py --write-docs`"
