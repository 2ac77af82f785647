"""How much of a reference an answer says: token F1 and ROUGE-L. Pure functions of text.

Overlap measures wording, not truth: a fluent wrong answer can score above a right one in other
words. Tokens are runs of a to z and 0 to 9 in lower case, as in the rouge-score package without its
stemmer, and single Chinese characters, which that package drops.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

_TOKEN = re.compile(r"[a-z0-9]+|[\u3400-\u9fff]")


def tokens(text: str) -> list[str]:
    """The text's tokens, see the module."""
    return _TOKEN.findall(text.lower())


def token_f1(answer: str, reference: str) -> float:
    """F1 of the shared tokens, each counted as often as both have it (Rajpurkar et al. 2016)."""
    given, wanted = tokens(answer), tokens(reference)
    return _f1(sum((Counter(given) & Counter(wanted)).values()), given, wanted)


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of tokens (Lin 2004, beta = 1)."""
    given, wanted = tokens(answer), tokens(reference)
    lengths = [0] * (len(wanted) + 1)
    for token in given:
        diagonal = 0
        for k, other in enumerate(wanted, 1):
            above = lengths[k]
            lengths[k] = diagonal + 1 if token == other else max(above, lengths[k - 1])
            diagonal = above
    return _f1(lengths[-1], given, wanted)


def best(score: Callable[[str, str], float], answer: str, references: Sequence[str]) -> float:
    """The score against the nearest reference."""
    return max(score(answer, reference) for reference in references)


def _f1(shared: int, given: Sequence[str], wanted: Sequence[str]) -> float:
    """2 shared / (given + wanted), the harmonic mean of precision and recall; 0 for no token."""
    return 2 * shared / (len(given) + len(wanted)) if shared else 0.0
