"""Which solved questions are most like a question: TF-IDF cosine of their words, no model.

Medprompt picks neighbours by an embedding; this room may import no model, and a lexical measure is
the same on every machine. A text's terms are its words (any case) and, of Chinese, the characters
and the pairs of neighbouring characters. Weight of a term in a text: (1 + ln count) x idf with
idf = ln((1 + N) / (1 + n)) + 1, N texts in the pool and n of them with the term; a term the pool
lacks counts n = 0. Similarity is the cosine, 0 to 1 (Salton and Buckley 1988, weights "ltc", idf
smoothed).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

_UNIT = re.compile(r"[\u3400-\u9fff]+|[^\W_\u3400-\u9fff]+")


def terms(text: str) -> Counter[str]:
    """How often each term occurs."""
    found: Counter[str] = Counter()
    for unit in _UNIT.findall(text.casefold()):
        if "\u3400" <= unit[0] <= "\u9fff":
            found.update(unit)
            found.update(a + b for a, b in pairwise(unit))
        else:
            found[unit] += 1
    return found


class Similar:
    """A pool of texts, indexed once and asked many times."""

    def __init__(self, texts: Sequence[str]) -> None:
        counted = [terms(text) for text in texts]
        self._size = len(counted)
        self._having = Counter(term for found in counted for term in found)
        self._postings: dict[str, list[tuple[int, float]]] = {}
        for number, found in enumerate(counted):
            for term, weight in self._weights(found).items():
                self._postings.setdefault(term, []).append((number, weight))

    def _weights(self, found: Counter[str]) -> dict[str, float]:
        """Term -> weight, of length 1; {} for a text without terms."""
        raw = {
            term: (1 + math.log(count))
            * (math.log((1 + self._size) / (1 + self._having[term])) + 1)
            for term, count in sorted(found.items())
        }
        norm = math.sqrt(math.fsum(value * value for value in raw.values()))
        return {term: value / norm for term, value in raw.items()} if norm else {}

    def scores(self, text: str) -> list[float]:
        """The text's similarity to each text of the pool, in the pool's order."""
        found = [0.0] * self._size
        for term, weight in self._weights(terms(text)).items():
            for number, other in self._postings.get(term, ()):
                found[number] += weight * other
        return found

    def ranked(self, text: str) -> list[int]:
        """Places in the pool, the most similar first; equals in the pool's order."""
        found = self.scores(text)
        return sorted(range(self._size), key=lambda number: (-found[number], number))
