"""Intervals and paired tests. Pure functions; randomness comes only from a given seed.

The bootstrap resamples questions. Because every statistic here depends only on how often each
(gold, answer) combination occurs, drawing N questions with replacement is the same as drawing the
combination counts from a multinomial, which makes 10,000 resamples a matter of milliseconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A two-sided interval; `method` and `level` say how it was made."""

    low: float
    high: float
    method: str
    level: float = 0.95


@dataclass(frozen=True)
class McNemar:
    """Exact McNemar test; items only the second (`gained`) or the first (`lost`) got right."""

    gained: int
    lost: int
    p: float

    @property
    def discordant(self) -> int:
        return self.gained + self.lost


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval (Wilson 1927): (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).

    Raises ValueError unless 0 <= successes <= n and n > 0.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the exact bound is 0 or 1; rounding must not put it outside the estimate.
    low = 0.0 if successes == 0 else (middle - half) / scale
    high = 1.0 if successes == n else (middle + half) / scale
    return Interval(max(0.0, low), min(1.0, high), "wilson", level)


def mcnemar_exact(gained: int, lost: int) -> McNemar:
    """Two-sided exact McNemar: p = min(1, 2 sum_{i<=min(b,c)} C(b+c, i) / 2^(b+c)).

    Integer arithmetic throughout, so the result is correctly rounded. No discordant item gives 1.
    """
    if gained < 0 or lost < 0:
        raise ValueError(f"negative counts: {gained}, {lost}")
    n = gained + lost
    tail = sum(math.comb(n, i) for i in range(min(gained, lost) + 1))
    return McNemar(gained, lost, min(1.0, 2 * tail / 2**n))


def mcnemar_of(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """The test on two lists of item correctness in the same order."""
    pairs = list(zip(first, second, strict=True))
    return mcnemar_exact(
        gained=sum(b and not a for a, b in pairs), lost=sum(a and not b for a, b in pairs)
    )


def minimum_detectable_items(discordant: int, alpha: float = 0.05) -> int | None:
    """Smallest net gain in items that exact McNemar calls p < alpha at this many discordant items.

    None when even a one-sided split (all gained, none lost) is not enough.
    """
    for net in range(discordant % 2, discordant + 1, 2):
        lost = (discordant - net) // 2
        if mcnemar_exact(discordant - lost, lost).p < alpha:
            return net
    return None


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm (1979) adjusted p-values, in the order given: running max of (m - rank) p, at most 1."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[i])
        adjusted[i] = min(1.0, running)
    return adjusted


def bootstrap_macro_f1(
    truth: Sequence[str], preds: Sequence[str], *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """Percentile interval of macro-F1 over resampled questions; labels as in `metrics.macro_f1`."""
    cells = Counter(zip(truth, preds, strict=True))
    score = _macro_f1_of_counts(list(cells))
    return _percentile(score(_resample(list(cells.values()), seed, resamples)))


def bootstrap_accuracy(
    truth: Sequence[str], preds: Sequence[str], *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """Percentile interval of accuracy over resampled questions."""
    cells = Counter(zip(truth, preds, strict=True))
    score = _accuracy_of_counts(list(cells))
    return _percentile(score(_resample(list(cells.values()), seed, resamples)))


@dataclass(frozen=True)
class PairedIntervals:
    """Intervals of second minus first, from the same resampled questions."""

    accuracy: Interval
    macro_f1: Interval


def paired_bootstrap(
    truth: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> PairedIntervals:
    """Percentile intervals of the differences (second - first) over resampled questions."""
    cells = Counter(zip(truth, first, second, strict=True))
    counts = _resample(list(cells.values()), seed, resamples)
    before = [(t, a) for t, a, _ in cells]
    after = [(t, b) for t, _, b in cells]
    return PairedIntervals(
        accuracy=_percentile(
            _accuracy_of_counts(after)(counts) - _accuracy_of_counts(before)(counts)
        ),
        macro_f1=_percentile(
            _macro_f1_of_counts(after)(counts) - _macro_f1_of_counts(before)(counts)
        ),
    )


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int, resamples: int = 2_000
) -> Interval:
    """Percentile interval of sum(numerators) / sum(denominators) over resampled rows.

    Used for bits per byte, where a row is a document: long texts weigh by their bytes.
    """
    counts = _resample([1] * len(numerators), seed, resamples)
    return _percentile((counts @ np.asarray(numerators)) / (counts @ np.asarray(denominators)))


def bootstrap_change(
    before: Sequence[float], after: Sequence[float], *, seed: int, resamples: int = 2_000
) -> Interval:
    """Percentile interval of sum(after) / sum(before) - 1 over resampled pairs.

    Used for the change of bits per byte between two models on the same documents: their bytes
    cancel, and pairing removes the spread between documents.
    """
    counts = _resample([1] * len(before), seed, resamples)
    return _percentile((counts @ np.asarray(after)) / (counts @ np.asarray(before)) - 1)


def _resample(cells: Sequence[int], seed: int, resamples: int) -> Counts:
    """[resamples, cells] counts of N draws with replacement from cells of the given sizes."""
    sizes = np.asarray(cells, dtype=np.float64)
    generator = np.random.default_rng(seed)
    total = int(sizes.sum())
    return generator.multinomial(total, sizes / sizes.sum(), size=resamples)


def _accuracy_of_counts(cells: Sequence[tuple[str, str]]) -> Callable[[Counts], Floats]:
    hit = np.array([t == p for t, p in cells], dtype=np.float64)
    return lambda counts: np.asarray((counts @ hit) / counts.sum(axis=1), dtype=np.float64)


def _macro_f1_of_counts(cells: Sequence[tuple[str, str]]) -> Callable[[Counts], Floats]:
    """Macro-F1 of every row of counts; a label absent from a resample is no class of its mean."""
    labels = sorted({label for cell in cells for label in cell})
    gold = np.array([[t == k for k in labels] for t, _ in cells], dtype=np.float64)
    given = np.array([[p == k for k in labels] for _, p in cells], dtype=np.float64)

    def score(counts: Counts) -> Floats:
        hits = counts @ (gold * given)
        seen = counts @ (gold + given)
        f1 = np.divide(2 * hits, seen, out=np.zeros_like(hits), where=seen > 0)
        return np.asarray(f1.sum(axis=1) / (seen > 0).sum(axis=1), dtype=np.float64)

    return score


def _percentile(values: Floats, level: float = 0.95) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        float(low), float(high), f"bootstrap percentile, {len(values)} resamples", level
    )
