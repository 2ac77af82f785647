"""Signatures estimate Jaccard similarity; bands meet as often as the formula says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.data import minhash


def pair(similarity: float, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two random sets of `size` with about this Jaccard similarity."""
    common = round(2 * size * similarity / (1 + similarity))
    every = np.random.default_rng(seed).integers(0, 2**63, 2 * size - common, dtype=np.uint64)
    return every[:size], every[size - common :]


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8, 0.9])
def test_estimate_and_meeting_rate(similarity: float) -> None:
    estimates, met = [], []
    for seed in range(200):
        first, second = (minhash.signature(s) for s in pair(similarity, 150, seed))
        estimates.append((first == second).mean())
        met.append((minhash.bands(first) == minhash.bands(second)).any())
    error = (similarity * (1 - similarity) / minhash.PERMUTATIONS / 200) ** 0.5
    assert np.mean(estimates) == pytest.approx(similarity, abs=5 * error + 0.005)
    expected = 1 - (1 - similarity**minhash.ROWS) ** minhash.BANDS
    assert np.mean(met) == pytest.approx(expected, abs=0.11)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=60), st.randoms())
def test_a_signature_is_of_the_set(values: list[int], random: object) -> None:
    ordered = np.array(values, dtype=np.uint64)
    again = np.array(values[::-1] + values, dtype=np.uint64)
    assert (minhash.signature(ordered) == minhash.signature(again)).all()


def test_long_sets_are_done_in_chunks() -> None:
    values = np.random.default_rng(0).integers(0, 2**63, 20_000, dtype=np.uint64)
    whole = minhash.signature(values)
    parts = [minhash.signature(part) for part in np.array_split(values, 7)]
    assert (whole == np.minimum.reduce(parts)).all()


def test_empty_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="empty set"):
        minhash.signature(np.empty(0, dtype=np.uint64))
