"""MinHash signatures cut into bands, so that near-duplicates meet in a bucket (Broder 1997).

128 permutations in 16 bands of 8 rows: two texts of Jaccard similarity s share a bucket with
probability 1 - (1 - s^8)^16: 0.95 at 0.8, 0.998 at 0.85, 0.06 at 0.5. What meets is a candidate
only; :mod:`medexpert.data.dedup` confirms each on the exact sets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medexpert.data.grams import Hashes

PERMUTATIONS = 128
BANDS = 16
ROWS = PERMUTATIONS // BANDS
SHINGLE = 5
"""Tokens in a shingle: words, or single characters of Chinese."""

# A permutation is h -> a*h + b modulo 2**32 on the upper half of the shingle's hash, a odd.
_random = np.random.Generator(np.random.PCG64(2312))
_A = _random.integers(0, 1 << 32, (PERMUTATIONS, 1), dtype=np.uint32) | np.uint32(1)
_B = _random.integers(0, 1 << 32, (PERMUTATIONS, 1), dtype=np.uint32)
_MIX = _random.integers(0, 1 << 63, (ROWS,), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_CHUNK = 4096  # shingles at once: the table of a chunk stays within the processor's cache


def signature(shingles: Hashes) -> NDArray[np.uint32]:
    """The least value of each permutation over a set of shingles, shape [PERMUTATIONS].

    Raises ValueError for an empty set, which has no least value.
    """
    if not len(shingles):
        raise ValueError("an empty set of shingles has no signature")
    upper = (shingles >> np.uint64(32)).astype(np.uint32)
    least = _least(upper[:_CHUNK])
    for start in range(_CHUNK, len(upper), _CHUNK):
        np.minimum(least, _least(upper[start : start + _CHUNK]), out=least)
    return least


def _least(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    table = values[None, :] * _A
    table += _B
    least: NDArray[np.uint32] = table.min(axis=1)
    return least


def bands(least: NDArray[np.uint32]) -> Hashes:
    """One hash for each band of a signature, shape [BANDS]; equal bands give equal hashes."""
    rows = least.reshape(BANDS, ROWS).astype(np.uint64)
    mixed = (rows * _MIX).sum(axis=1, dtype=np.uint64)
    mixed ^= mixed >> np.uint64(29)
    result: Hashes = mixed * np.uint64(0xBF58476D1CE4E5B9)
    return result


NO_BANDS: Hashes = np.zeros(BANDS, dtype=np.uint64)
"""Stands for a text without a token: bands that are compared with nothing."""
