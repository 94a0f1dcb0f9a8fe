"""What the documents refer to is there, and the README is short."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

import pytest

from documents import DOCUMENTS, ROOT

if TYPE_CHECKING:
    from pathlib import Path

FENCE: Final = re.compile(r"^```(\S*).*?^```$", re.DOTALL | re.MULTILINE)
HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

#: `sh` and `console` are run by a test, `python` too; of the others none is a command.
LANGUAGES: Final = {"sh", "console", "python", "json", "toml", "yaml", "promql", "text"}


def _prose(document: Path) -> str:
    """Return a document without its blocks."""
    return FENCE.sub("", document.read_text(encoding="utf-8"))


@functools.cache
def _anchors(document: Path) -> frozenset[str]:
    """Return the anchors that GitHub makes of headings."""
    return frozenset(
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(_prose(document))
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    """To a file that is there, and where it names an anchor to a heading in it."""
    lost = []
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", _prose(document))):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            lost.append(target)
    assert not lost


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_block_of_a_document_says_what_it_is(document: Path) -> None:
    """A block without a language might hold a command that nobody tries."""
    assert set(FENCE.findall(document.read_text(encoding="utf-8"))) <= LANGUAGES


def test_every_page_is_in_the_readme() -> None:
    """A newcomer finds each from there."""
    linked = set(LINK.findall(_prose(ROOT / "README.md")))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


def test_the_readme_is_short() -> None:
    """It is what somebody reads who has not decided anything yet."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200
