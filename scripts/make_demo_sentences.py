r"""Make the demo's sentences.tsv from Jane Austen's six novels, with labels by VADER.

The novels are read from the Debian package r-cran-janeaustenr (no R needed)::

    apt-get download r-cran-janeaustenr
    dpkg-deb -x r-cran-janeaustenr_*.deb novels
    pip install vaderSentiment==3.3.2
    python scripts/make_demo_sentences.py novels/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb \
        worker/nlp_worker/demo/sentences.tsv

The same package and the same VADER write the same file. SENTENCES.md beside it says what the labels are worth.
"""

from __future__ import annotations

import argparse
import random
import re
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Sentences of each label: enough to learn from, and the file stays below 900 KB.
PER_LABEL: Final = 2400
#: Words of a sentence. Above the upper bound it might not fit the 512 positions of the demo's model.
WORDS: Final = range(3, 201)
#: How far VADER's compound score, -1 to 1, must be from 0: what lies nearer is as often wrong as right.
MARGIN: Final = 0.5
SEED: Final = 0

#: A string in R's serialisation (XDR): flags that say "characters, in ASCII or UTF-8", then the length, big-endian.
R_STRING_FLAGS: Final = (b"\x00\x04\x00\x09", b"\x00\x00\x80\x09")
#: The line at which a paragraph is not the novel's text: titles and headings, all in capitals.
HEADING: Final = re.compile(r"(?:chapter|volume|finis|the end)\b|[^a-z]*$", re.IGNORECASE)
#: A sentence from its capital to its full stop; the rest are titles, and beginnings that a speech breaks off.
SENTENCE: Final = re.compile(r"""["'(]?[A-Z].*[.!?]["')]*$""")
ABBREVIATIONS: Final = ("Mr", "Mrs", "Messrs", "Dr", "St", "Esq", "etc", "viz")
#: The white space between two sentences: after a full stop that ends neither an abbreviation nor an initial.
SENTENCE_END: Final = re.compile(
    r"(?<=[.!?])"
    + "".join(rf"(?<!\b{word}\.)" for word in ABBREVIATIONS)
    + r"(?<!\b[A-Z]\.)"
    + r"""(?P<closing>["')]*)\s+(?=["'(]?[A-Z])"""
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("novels", type=Path, help="Rdata.rdb of the R package janeaustenr")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    sentences = _sentences(arguments.novels.read_bytes())
    labelled = _balance(_label(sentences))
    arguments.output.write_text("".join(f"{label}\t{text}\n" for label, text in labelled), encoding="utf-8")
    print(f"{len(labelled)} of {len(sentences)} sentences, {arguments.output.stat().st_size} bytes")


def _sentences(database: bytes) -> list[str]:
    """Return the different sentences of the novels, in order."""
    paragraphs = (paragraph for novel in _novels(database) for paragraph in _paragraphs(novel))
    sentences = (sentence for paragraph in paragraphs for sentence in _split(paragraph))
    complete = (sentence for sentence in sentences if SENTENCE.match(sentence) and len(sentence.split()) in WORDS)
    return list(dict.fromkeys(complete))


def _novels(database: bytes) -> Iterator[list[str]]:
    """Yield the lines of each novel; the database is a row of zlib streams, each after four bytes for its length."""
    while database:
        stream = zlib.decompressobj()
        yield _strings(stream.decompress(database[4:]))
        database = stream.unused_data


def _strings(serialised: bytes) -> list[str]:
    """Return the elements of a serialised vector of strings."""
    position, strings = serialised.index(R_STRING_FLAGS[0]), []
    while serialised[position : position + 4] in R_STRING_FLAGS:
        (length,) = struct.unpack_from(">i", serialised, position + 4)
        position += 8
        strings.append(serialised[position : position + length].decode())
        position += length
    return strings


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            paragraph.append(line.strip())
            continue
        if paragraph and not HEADING.match(paragraph[0]):
            yield " ".join(paragraph)
        paragraph = []


def _split(paragraph: str) -> Iterator[str]:
    """Split a paragraph; a speech of several sentences gets its quotation marks in each of them."""
    plain = " ".join(paragraph.replace("_", "").split())  # underscores are the edition's italics
    start, opening = 0, ""
    for end in [*SENTENCE_END.finditer(plain), None]:
        stop = end.end("closing") if end else len(plain)
        closing = '"' if plain.count('"', 0, stop) % 2 else ""
        yield f"{opening}{plain[start:stop]}{closing}"
        start, opening = end.end() if end else stop, closing


def _label(sentences: Iterable[str]) -> Iterator[tuple[str, str]]:
    analyzer = SentimentIntensityAnalyzer()
    for sentence in sentences:
        compound = analyzer.polarity_scores(sentence)["compound"]
        if abs(compound) >= MARGIN:
            yield "POSITIVE" if compound > 0 else "NEGATIVE", sentence


def _balance(labelled: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Draw as many of each label, and shuffle: neighbours in a novel would else be neighbours in the demo."""
    candidates = sorted(labelled)
    generator = random.Random(SEED)  # noqa: S311 - a sample, not a secret
    drawn: list[tuple[str, str]] = []
    for label in ("NEGATIVE", "POSITIVE"):
        drawn += generator.sample([entry for entry in candidates if entry[0] == label], PER_LABEL)
    generator.shuffle(drawn)
    return drawn


if __name__ == "__main__":
    main()
