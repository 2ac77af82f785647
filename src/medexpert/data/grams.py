"""Text -> tokens -> 64-bit n-gram hashes: one notion of "same words" for the whole room.

A token is a word, a number, or one Chinese, Japanese or Korean character, after NFKC, case folding
and conversion of traditional to simplified characters. Digits are kept and stand apart from
letters: `5mg` is `5`, `mg` and never equals `10 mg`. Punctuation separates and is else ignored.
An array of hashes has one entry a token (or a window), dtype uint64. Hashes are the same in every
process, on every machine and under every Python.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

from medexpert.records import Document, Example

Hashes = NDArray[np.uint64]

_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af\U00020000-\U0003134f"
_TOKEN = re.compile(rf"\d+(?:[.,]\d+)*|[{_CJK}]|[^\W\d_{_CJK}]+")
_ASCII_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[a-z]+", re.ASCII)  # the same tokens, faster
_HAS_CJK = re.compile(f"[{_CJK}]")
_BASE = 0x9E3779B97F4A7C15  # odd, so that multiplying by it loses nothing modulo 2**64
_WORDS_KEPT = 1 << 20


class _Words(dict[str, int]):
    """Hashes of the words seen so far; a new one is hashed when it is asked for."""

    def __missing__(self, word: str) -> int:
        raw = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8)
        value = self[word] = int.from_bytes(raw.digest(), "little")
        return value


_words = _Words()


def normalise(text: str) -> str:
    """NFKC, case folded, traditional characters simplified one by one."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", text).casefold()
    return text.translate(_simplified()) if _HAS_CJK.search(text) else text


def tokens(text: str) -> list[str]:
    """The tokens of a text, in order."""
    text = normalise(text)
    return (_ASCII_TOKEN if text.isascii() else _TOKEN).findall(text)


def hash_tokens(words: list[str]) -> Hashes:
    """One hash a token, shape [len(words)]."""
    if len(_words) > _WORDS_KEPT:
        _words.clear()
    return np.fromiter(map(_words.__getitem__, words), np.uint64, len(words))


def hashes(text: str) -> Hashes:
    """One hash a token of `text`."""
    return hash_tokens(tokens(text))


def ngrams(words: Hashes, n: int) -> Hashes:
    """Hash of every window of `n` tokens, shape [max(0, len(words) - n + 1)].

    Polynomial in the token hashes modulo 2**64, mixed by the finaliser of splitmix64 (Steele et al.
    2014), so that windows of other tokens, or of the same in another order, differ.
    """
    if n < 1:
        raise ValueError(f"n = {n}; a window holds at least one token")
    size = len(words) - n + 1
    if size <= 0:
        return np.empty(0, dtype=np.uint64)
    window = words[:size].copy()
    for start in range(1, n):
        window *= np.uint64(_BASE)
        window += words[start : start + size]
    window ^= window >> np.uint64(30)
    window *= np.uint64(0xBF58476D1CE4E5B9)
    window ^= window >> np.uint64(27)
    window *= np.uint64(0x94D049BB133111EB)
    window ^= window >> np.uint64(31)
    return window


def shingles(words: Hashes, n: int) -> Hashes:
    """The set of n-gram hashes, sorted; a text shorter than `n` tokens is one shingle."""
    return np.unique(ngrams(words, min(n, len(words)) or 1))


def jaccard(first: Hashes, second: Hashes) -> float:
    """|A and B| / |A or B| of two sorted sets; two empty sets are equal (1.0)."""
    if not len(first) and not len(second):
        return 1.0
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)


def content(record: Document | Example) -> str:
    """What a record says, without ids: a document's text; the strings of an example's fields.

    A multi-choice example gives question, options in order, explanation.
    """
    if isinstance(record, Document):
        return record.text
    from medexpert.data.filters import strings

    return "\n".join(strings(record.fields))


@cache
def _simplified() -> dict[int, str]:
    """Traditional -> simplified, character by character, from OpenCC's table."""
    from opencc import OpenCC

    characters = "".join(map(chr, (*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000))))
    convert = OpenCC("t2s").convert
    pairs = ((c, convert(c)) for c in characters)
    return {ord(old): new for old, new in pairs if old != new and len(new) == 1}
