"""F18: the worker with one guarantee broken, and the test that catches it.

A mutant is a copy of the package with one place changed, which the test's own process and the workers that it starts
import in the place of the package. A test that passes with it, or fails for another reason, could not fail.

    python tests/faults/mutants.py  # runs them all, and prints the table
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "worker" / "nlp_worker"

#: Seconds for one test, its own broker included.
MOST_SECONDS: Final = 240.0

_HEAD: Final = "| mutant | changed | caught by | how it showed |\n|---|---|---|---|"


class Mutant(NamedTuple):
    """One change, and what it leads to."""

    name: str
    module: str
    old: str
    new: str
    """What stands in the place of the old text, which is there once."""
    test: str
    """Where the mutant is caught, as pytest names it, under tests."""
    showed: str
    sign: str
    """What pytest prints then: a regular expression."""

    def apply(self, folder: Path) -> None:
        """Put the mutated package into a folder."""
        copy = shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        module = copy / self.module
        text = module.read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self.module} has changed: adapt the mutant {self.name!r}"
        module.write_text(text.replace(self.old, self.new), encoding="utf-8")

    def check(self) -> None:
        """Run the test, and see that it catches the mutant."""
        with tempfile.TemporaryDirectory() as folder:
            self.apply(Path(folder))
            # Before the package, which is installed in editable mode: that comes last.
            environment = os.environ | {"PYTHONPATH": folder}
            options = ["-x", "-q", "-l", "-rN", "-p", "no:randomly", "-p", "no:cacheprovider"]
            command = [sys.executable, "-m", "pytest", *options, f"tests/{self.test}"]
            run = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=MOST_SECONDS, check=False
            )
        assert run.returncode == 1, f"{self.name} is not caught:\n{run.stdout[-2_000:]}"
        assert re.search(self.sign, run.stdout), f"{self.name} shows in another way:\n{run.stdout[-4_000:]}"

    def __str__(self) -> str:
        file, _, test = self.test.partition("::")
        return f"| {self.name} | `{self.module}` | `{test}` in `tests/{file}` | {self.showed} |"


MUTANTS: Final = (
    Mutant(
        "at least once commits before it publishes",
        "delivery.py",
        "        if not poll.published:\n            # Its",
        "        self._consumer.commit(offsets)\n        if not poll.published:\n            # Its",
        "faults/test_kills.py::test_a_worker_is_killed_at_a_point[before_publish-at-least-once]",
        "requests without an answer",
        r"verdict += Verdict\(lost=\('faults",
    ),
    Mutant(
        "a commit takes the client's positions, not the poll's offsets",
        "consumer.py",
        "self._client.commit(kafka_offsets(offsets), timeout_ms",
        "self._client.commit(timeout_ms",
        "faults/test_tools.py::test_a_worker_is_killed_at_each_point[at-least-once-repeated0]",
        "requests without an answer",
        r"verdict += Verdict\(lost=\('faults",
    ),
    Mutant(
        "a producer is used again after its transaction was aborted",
        "transactions.py",
        '            log.warning("commit_later", reason=type(error).__name__)\n',
        '            log.warning("commit_later", reason=type(error).__name__)\n'
        "            self._client.abort_transaction()\n"
        "            self._failed = False\n",
        "faults/test_transactions.py::test_what_was_aborted_is_not_committed_by_the_next",
        "offsets committed whose requests had no answer",
        r"AssertionError: \[Source\(.* committed, not answered",
    ),
    Mutant(
        "an eager assignor: what was in flight when a partition went is not fetched when it comes back",
        "kafka_clients.py",
        "cooperative_sticky import CooperativeStickyAssignor\n",
        "range import RangePartitionAssignor as CooperativeStickyAssignor\n",
        "faults/test_rebalances.py::test_a_storm_of_rebalances[dynamic-at-least-once]",
        "requests without an answer",
        r"verdict += Verdict\(lost=\('faults",
    ),
    Mutant(
        "a poll whose commit was put off counts as committed",
        "loop.py",
        "        return committed is not Committed.LATER\n",
        "        return True\n",
        "loop/test_loop.py::test_a_commit_during_a_rebalance_is_kept_and_done_after_it",
        "an offset that is never committed",
        r"E +assert 0 == 1",
    ),
    Mutant(
        "what was revoked stays in the polls in flight",
        "loop.py",
        "        if not revoked:\n            return\n",
        "        return\n",
        "loop/test_loop.py::test_what_was_revoked_is_neither_published_nor_committed",
        "an answer and an offset of another member's partition",
        r"assert \['kept', 'lost'\] == \['kept'\]",
    ),
    Mutant(
        "a transaction of unknown outcome is repeated without a look at the committed offsets",
        "delivery.py",
        "                if not self._is_committed(offsets, deadline):\n",
        "                if not (self._is_committed(offsets, deadline) and False):\n",
        "faults/test_transactions.py::test_the_end_of_a_transaction_is_unknown[answer]",
        "requests with two answers",
        r"AssertionError: \('faults\S+\.results faults",
    ),
    Mutant(
        "a transaction is made without a generation",
        "consumer.py",
        "        return member if joined else None\n",
        "        return member\n",
        "contract/test_transactions.py::test_a_member_that_was_thrown_out_has_nothing_to_fence_a_transaction_with",
        "offsets that no generation fences",
        r"assert ConsumerGroupMetadata\(.*is None",
    ),
    Mutant(
        "marks are not committed",
        "quarantine.py",
        "        if self._consumer.begin(marks, before) is not Committed.DONE:\n            return False\n",
        "        del marks, before\n",
        "loop/test_quarantine.py::test_a_record_that_ends_the_process_is_quarantined[0]",
        "a record that ends one worker after the other, for ever",
        "Failed: the worker is stuck",
    ),
)


def table() -> str:
    return "\n".join([_HEAD, *map(str, MUTANTS)])


if __name__ == "__main__":
    for mutant in MUTANTS:
        mutant.check()
    print(table())  # noqa: T201 - it is what this is for
