"""What the dead letters and the error answers of a ledger say."""

from __future__ import annotations

import json
from collections import Counter

from faults.ledger import QUIET_SECONDS, Ledger
from faults.reading import read_all
from faults.verdict import Source, Verdict, source_of
from nlp_schemas import DeadLetter


class Letters(Ledger):
    """A ledger of dead letters that may lack their value, and that says why they were written."""

    @property
    def letters(self) -> dict[Source, list[DeadLetter]]:
        """What the dead letters of each request say."""
        reasons: dict[Source, list[DeadLetter]] = {}
        for seen in read_all(self._broker, [self.dead_letters]):
            reasons.setdefault(source_of(seen), []).append(DeadLetter.from_headers(seen.headers))
        return reasons

    @property
    def codes(self) -> Counter[str]:
        """How many requests were answered with which error."""
        seen = {source_of(each): json.loads(each.value or b"") for each in read_all(self._broker, [self.results])}
        return Counter(answer["error"]["code"] for answer in seen.values() if answer["status"] == "error")

    def verdict(self, group: str | None = None, seconds: float = QUIET_SECONDS) -> Verdict:
        """Judge; what stands in for a value that could not be written is not the request's, and right."""
        verdict = super().verdict(group, seconds)
        omitted = {
            f"{self.dead_letters} {source}"
            for source, reasons in self.letters.items()
            if source in self.acknowledged and any(reason.value_omitted for reason in reasons)
        }
        return verdict._replace(invented=tuple(each for each in verdict.invented if each not in omitted))
