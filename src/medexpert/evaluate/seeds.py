"""Several seeds of one system, aggregated by item: one number, one interval, one paired test.

Averaging the seeds' accuracies and taking n x seeds for the sample size would count a question once
a seed. Here a question has one value, the share of seeds that answered it right, and the sample
size stays the number of questions. Pure functions; randomness comes only from a given seed.

Legend: S seeds, N questions, `correct` is [S, N] of 0 and 1, columns in one order of questions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medexpert.evaluate.statistics import RESAMPLES, Floats, Interval
from medexpert.records import Prediction, UserError

BLOCK = 1 << 22
"""Resampled counts held at once (elements)."""


@dataclass(frozen=True)
class Seeded:
    """Accuracy of a system over its seeds. `deviation` is the sample standard deviation of the
    seeds' accuracies, None for one seed; `interval` covers questions and seeds."""

    n: int
    seeds: int
    accuracy: float
    per_seed: tuple[float, ...]
    deviation: float | None
    interval: Interval


@dataclass(frozen=True)
class SeededDifference:
    """Second minus first over the same questions, as shares.

    `p` is the exact sign-flip test on the questions' differences, which for one seed on each side
    is exact McNemar. `detectable` is the smallest difference that this test would call p < .05 with
    these changed questions, None when no split of them could be. `changed` counts questions whose
    value differs.
    """

    n: int
    seeds_first: int
    seeds_second: int
    difference: float
    interval: Interval
    changed: int
    gained: int
    lost: int
    p: float
    detectable: float | None


def correctness(runs: Sequence[Sequence[Prediction]]) -> NDArray[np.int64]:
    """[S, N] from the predictions of S seeds, columns in the order of the first.

    Raises UserError when the seeds did not answer the same questions with the same gold answers.
    """
    if not runs or not runs[0]:
        raise ValueError("no predictions")
    first = {row.id: row for row in runs[0]}
    rows = []
    for run in runs:
        given = {row.id: row for row in run}
        if set(given) != set(first) or any(given[i].answer != first[i].answer for i in first):
            raise UserError(
                f"the seeds answered other questions: {len(first)} in the first, {len(given)} in "
                "another, or other gold answers",
                allowed="results on the same questions",
            )
        rows.append([int(given[i].correct) for i in first])
    return np.array(rows, dtype=np.int64)


def seeded_accuracy(correct: NDArray[np.int64], *, seed: int, resamples: int = RESAMPLES) -> Seeded:
    """Mean over questions of their mean over seeds, with a two-way bootstrap interval.

    Every resample draws N questions and, independently, S seeds with replacement (the crossed, or
    pigeonhole, bootstrap of Owen 2007: a seed is shared by all questions, so it is drawn once for
    all of them). One seed has no spread of its own: then only questions are drawn.
    """
    values = correct.mean(axis=1)
    return Seeded(
        n=correct.shape[1],
        seeds=correct.shape[0],
        accuracy=float(correct.mean()),
        per_seed=tuple(float(value) for value in values),
        deviation=float(values.std(ddof=1)) if len(values) > 1 else None,
        interval=_interval(_two_way([correct], seed, resamples)[0]),
    )


def seeded_difference(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    alpha: float = 0.05,
) -> SeededDifference:
    """Two systems with any numbers of seeds on the same N questions.

    The interval resamples questions jointly and each system's seeds on their own. Raises ValueError
    when the numbers of questions differ.
    """
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{first.shape[1]} and {second.shape[1]} questions")
    n = first.shape[1]
    one, other = first.shape[0], second.shape[0]
    # Whole numbers: S1 * sum over the second's seeds - S2 * sum over the first's, an item's
    # difference times S1 * S2.
    deltas = one * second.sum(axis=0) - other * first.sum(axis=0)
    unit = one * other
    before, after = _two_way([first, second], seed, resamples)
    null = sign_flip_null(deltas)
    least = critical(null, alpha)
    return SeededDifference(
        n=n,
        seeds_first=one,
        seeds_second=other,
        difference=int(deltas.sum()) / (unit * n),
        interval=_interval(after - before),
        changed=int((deltas != 0).sum()),
        gained=int((deltas > 0).sum()),
        lost=int((deltas < 0).sum()),
        p=_two_sided(null, abs(int(deltas.sum()))),
        detectable=None if least is None else least / (unit * n),
    )


def sign_flip(deltas: Sequence[int] | NDArray[np.int64]) -> float:
    """Exact two-sided p of the paired sign-flip test on whole-number differences.

    Under the null an item's difference is as likely to have either sign, so T = sum of +-|d_i| has
    a known distribution (Fisher 1935); p = P(|T| >= |sum d_i|). With differences of -1, 0 and 1
    this is exact McNemar.
    """
    values = np.asarray(deltas, dtype=np.int64)
    return _two_sided(sign_flip_null(values), abs(int(values.sum())))


def sign_flip_null(deltas: Sequence[int] | NDArray[np.int64]) -> dict[int, float]:
    """{value of T: probability} under random signs, by convolving the equal differences' parts."""
    null = {0: 1.0}
    sizes = Counter(abs(int(d)) for d in deltas if d)
    for size, count in sorted(sizes.items()):
        shares = _binomial(count)
        grown: dict[int, float] = {}
        for value, share in null.items():
            for heads, chance in enumerate(shares):
                at = value + size * (2 * heads - count)
                grown[at] = grown.get(at, 0.0) + share * chance
        null = grown
    return null


def critical(null: dict[int, float], alpha: float = 0.05) -> int | None:
    """The smallest |T| whose two-sided p is below `alpha`; None when there is none."""
    found = None
    tail = 0.0
    for value in sorted({abs(v) for v in null}, reverse=True):
        tail += sum(null.get(v, 0.0) for v in {value, -value})
        if tail >= alpha:
            break
        found = value
    return found if found else None


def _binomial(count: int) -> list[float]:
    """P(heads = 0..count) of fair coins, from whole numbers."""
    whole = 1 << count
    return [math.comb(count, heads) / whole for heads in range(count + 1)]


def _two_sided(null: dict[int, float], reached: int) -> float:
    if reached == 0:
        return 1.0
    # Summed from the smallest share up, so that a tiny tail keeps its digits.
    return min(1.0, math.fsum(share for value, share in null.items() if abs(value) >= reached))


def _two_way(systems: Sequence[NDArray[np.int64]], seed: int, resamples: int) -> list[Floats]:
    """A [resamples] vector of mean correctness a system: questions drawn jointly, seeds apart.

    Questions with equal columns are exchangeable, so their counts are drawn at once.
    """
    stacked = np.concatenate(systems, axis=0)
    patterns, sizes = np.unique(stacked, axis=1, return_counts=True)
    total = int(sizes.sum())
    generator = np.random.default_rng(seed)
    found: list[list[Floats]] = [[] for _ in systems]
    step = max(1, BLOCK // len(sizes))
    for at in range(0, resamples, step):
        rows = min(step, resamples - at)
        items = generator.multinomial(total, sizes / total, size=rows)  # [rows, patterns]
        per_seed = items @ patterns.T / total  # [rows, seeds of all systems]
        start = 0
        for k, system in enumerate(systems):
            count = system.shape[0]
            weights = generator.multinomial(count, [1 / count] * count, size=rows) / count
            found[k].append((per_seed[:, start : start + count] * weights).sum(axis=1))
            start += count
    return [np.concatenate(parts) for parts in found]


def _interval(values: Floats, level: float = 0.95) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    method = f"bootstrap percentile over questions and seeds, {len(values)} resamples"
    return Interval(float(low), float(high), method, level)
