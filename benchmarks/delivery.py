"""What exactly once costs: its throughput over that of at least once, with no model and with a small one.

Side by side on one Apache Kafka, in turn; the median of the rounds is what counts. Run it with `make bench-delivery`,
alone.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from transformers import AutoTokenizer, DistilBertConfig, DistilBertForSequenceClassification

from apache_kafka import ApacheKafka, why_not
from checkpoints import build_checkpoint
from rate import NO_MODEL, rate, run_command

if TYPE_CHECKING:
    from collections.abc import Sequence

DELIVERIES: Final = ("at-least-once", "exactly-once")
ROUNDS: Final = 3

#: So many that a round takes ten seconds or more, and that starting counts for little.
REQUESTS_NO_MODEL: Final = 60_000
REQUESTS_SMALL_MODEL: Final = 1_500


def main() -> None:
    if (reason := why_not()) is not None:
        sys.exit(f"no Apache Kafka: {reason}")
    with ApacheKafka() as broker, tempfile.TemporaryDirectory() as folder:
        checkpoint = _small_checkpoint(Path(folder))
        _compare(broker, "no model", NO_MODEL, REQUESTS_NO_MODEL)
        _compare(broker, "DistilBERT, 6 layers of 384", run_command(checkpoint), REQUESTS_SMALL_MODEL)


def _small_checkpoint(folder: Path) -> Path:
    """Build a DistilBERT of MiniLM's size, of random weights: what it says does not matter here."""
    build_checkpoint("distilbert", "sequence-classification", folder)  # for its tokenizer
    tokens = len(AutoTokenizer.from_pretrained(folder))
    config = DistilBertConfig(vocab_size=tokens, dim=384, hidden_dim=1536, n_layers=6, n_heads=12)
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    return folder


def _compare(broker: ApacheKafka, name: str, command: Sequence[str], requests: int) -> None:
    rates: dict[str, list[float]] = {delivery: [] for delivery in DELIVERIES}
    for number in range(ROUNDS):
        for delivery in DELIVERIES:
            rates[delivery].append(rate(broker, command, requests, delivery=delivery))
            print(f"{name}, round {number + 1}, {delivery}: {rates[delivery][-1]:,.0f} requests/s")
    at_least, exactly = (statistics.median(rates[delivery]) for delivery in DELIVERIES)
    print(f"{name}: exactly once {exactly:,.0f} / at least once {at_least:,.0f} requests/s = {exactly / at_least:.2f}")


if __name__ == "__main__":
    main()
