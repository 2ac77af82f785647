"""Exact duplicates, on normalised text, within a source and across the sources of a stage.

Normalised = NFKC, case folded, runs of white space as one space. Punctuation stays: two items that
differ only in `<` and `>` are different. Near-duplicates are another matter (MinHash).
"""

from __future__ import annotations

import hashlib
import unicodedata

from medexpert.data.filters import strings
from medexpert.records import Document, Example


def normalise(text: str) -> str:
    """The text as compared."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def fingerprint(record: Document | Example) -> bytes:
    """16 bytes that are equal for records of equal normalised content (title and ids left out)."""
    texts = [record.text] if isinstance(record, Document) else strings(record.fields)
    joined = "\x1f".join(normalise(text) for text in texts)
    return hashlib.blake2b(joined.encode("utf-8", "replace"), digest_size=16).digest()


class Seen:
    """Fingerprints of one stage; about 100 bytes of memory a record."""

    def __init__(self) -> None:
        self._first: dict[bytes, str] = {}

    def reason(self, record: Document | Example, source: str) -> str | None:
        """None for the first of its kind, else `duplicate` or `duplicate_of_<source>`."""
        mark = fingerprint(record)
        first = self._first.get(mark)
        if first is None:
            self._first[mark] = source
            return None
        return "duplicate" if first == source else f"duplicate_of_{first}"
