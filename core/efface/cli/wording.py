"""How the commands put things that several of them speak of."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from efface.wording import counted as counted
from efface.wording import size as size

if TYPE_CHECKING:
    from efface.concept import Concept

LONGEST_SLUG = 48


def origin(distribution: str, version: str) -> str:
    return f"({distribution} {version})" if distribution else "(from no installed plugin)"


def becomes(concept: Concept, unanchored: Iterable[str] = ()) -> str:
    """`cat (also kitten) -> dog`; says so where the anchor was nobody's choice."""
    also = f" (also {', '.join(concept.synonyms)})" if concept.synonyms else ""
    anchor = concept.anchor or "the empty prompt"
    neutral = " (neutral prompt: no anchor was given)" if concept.text in unanchored else ""
    return f"{concept.text}{also} -> {anchor}{neutral}"


def slug(text: str, fallback: str) -> str:
    """A text as part of a file name: letters and digits of any script in lower case, hyphens between."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).casefold())
    return "-".join(words)[:LONGEST_SLUG].strip("-") or fallback


def slugs(texts: Iterable[str], fallback: str) -> Iterator[str]:
    """Slugs that differ from each other, numbered where texts look the same."""
    taken: set[str] = set()
    for text in texts:
        stem = slug(text, fallback)
        name, number = stem, 2
        while name in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name)
        yield name
