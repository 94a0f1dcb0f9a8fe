"""The demo's sentences: sentences.tsv, whose origin SENTENCES.md tells."""

from importlib import resources


def load_sentences() -> list[tuple[str, str]]:
    """Return each sentence's label, NEGATIVE or POSITIVE, and its text."""
    lines = resources.files("nlp_worker.demo").joinpath("sentences.tsv").read_text(encoding="utf-8").splitlines()
    fields = [line.partition("\t") for line in lines]
    return [(label, text) for label, _, text in fields]
