from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.evaluate import metrics, statistics

GOLDENS = json.loads(
    (Path(__file__).parents[1] / "reference" / "metric_goldens.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(("k", "n", "low", "high"), GOLDENS["wilson"])
def test_wilson_equals_scipy(k: int, n: int, low: float, high: float) -> None:
    interval = statistics.wilson(k, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=0, abs=1e-12)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_estimate_inside_0_and_1(case: tuple[int, int]) -> None:
    k, n = case
    interval = statistics.wilson(k, n)
    assert 0 <= interval.low <= k / n <= interval.high <= 1
    mirrored = statistics.wilson(n - k, n)
    assert mirrored.low == pytest.approx(1 - interval.high, abs=1e-12)


def test_wilson_refuses_impossible_counts() -> None:
    with pytest.raises(ValueError, match="3 successes of 2"):
        statistics.wilson(3, 2)


@pytest.mark.parametrize(("gained", "lost", "p"), GOLDENS["mcnemar"])
def test_mcnemar_equals_scipy(gained: int, lost: int, p: float) -> None:
    assert statistics.mcnemar_exact(gained, lost).p == pytest.approx(p, rel=1e-10)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_symmetric_and_a_probability(b: int, c: int) -> None:
    p = statistics.mcnemar_exact(b, c).p
    assert 0 < p <= 1
    assert p == statistics.mcnemar_exact(c, b).p
    assert statistics.mcnemar_exact(b, b).p == 1


def test_mcnemar_of_lists() -> None:
    test = statistics.mcnemar_of([True, True, False, False], [True, False, True, True])
    assert (test.gained, test.lost, test.discordant) == (2, 1, 3)


@pytest.mark.parametrize(
    ("discordant", "net"),
    [(0, None), (5, None), (6, 6), (20, 10), (40, 14), (60, 18), (80, 20), (100, 22)],
)
def test_minimum_detectable_items(discordant: int, net: int | None) -> None:
    assert statistics.minimum_detectable_items(discordant) == net


@given(st.integers(6, 200))
def test_minimum_detectable_is_the_edge(discordant: int) -> None:
    net = statistics.minimum_detectable_items(discordant)
    assert net is not None
    lost = (discordant - net) // 2
    assert statistics.mcnemar_exact(discordant - lost, lost).p < 0.05
    if net >= 2:
        assert statistics.mcnemar_exact(discordant - lost - 1, lost + 1).p >= 0.05


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([]) == []
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_never_lowers_and_keeps_the_order(ps: list[float]) -> None:
    adjusted = statistics.holm(ps)
    assert all(p <= a <= 1 for p, a in zip(ps, adjusted, strict=True))
    ranked = [adjusted[i] for i in sorted(range(len(ps)), key=lambda i: ps[i])]
    assert ranked == sorted(ranked)


def answers(n: int, skill: float, seed: int) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    truth = rng.choices(["yes", "no", "maybe"], [0.55, 0.34, 0.11], k=n)
    preds = [t if rng.random() < skill else rng.choice(["yes", "no", "maybe"]) for t in truth]
    return truth, preds


def test_bootstrap_is_seeded_and_near_wilson() -> None:
    truth, preds = answers(500, 0.5, 3)
    one = statistics.bootstrap_accuracy(truth, preds, seed=5)
    assert one == statistics.bootstrap_accuracy(truth, preds, seed=5)
    macro = statistics.bootstrap_macro_f1(truth, preds, seed=5)
    assert macro == statistics.bootstrap_macro_f1(truth, preds, seed=5)
    assert macro != statistics.bootstrap_macro_f1(truth, preds, seed=6)
    exact = statistics.wilson(sum(t == p for t, p in zip(truth, preds, strict=True)), 500)
    assert (one.low, one.high) == pytest.approx((exact.low, exact.high), abs=0.01)
    assert one.method == "bootstrap percentile, 10000 resamples"


def test_bootstrap_equals_resampling_of_items() -> None:
    """The multinomial short cut against the plain loop over drawn items."""
    truth, preds = answers(80, 0.5, 4)
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(3000):
        chosen = rng.integers(0, 80, size=80)
        scores.append(metrics.macro_f1([truth[i] for i in chosen], [preds[i] for i in chosen]))
    low, high = np.quantile(scores, [0.025, 0.975])
    made = statistics.bootstrap_macro_f1(truth, preds, seed=1)
    assert (made.low, made.high) == pytest.approx((low, high), abs=0.015)


@given(
    st.lists(st.tuples(*[st.sampled_from(["yes", "no", "NO_ANSWER"])] * 3), min_size=1, max_size=30)
)
def test_paired_bootstrap_bounds(rows: list[tuple[str, str, str]]) -> None:
    truth, first, second = ([row[i] for row in rows] for i in range(3))
    made = statistics.paired_bootstrap(truth, first, second, seed=0, resamples=200)
    for interval in (made.accuracy, made.macro_f1):
        assert -1 <= interval.low <= interval.high <= 1
    same = statistics.paired_bootstrap(truth, first, first, seed=0, resamples=200)
    assert (same.accuracy.low, same.accuracy.high) == (0, 0)
    assert (same.macro_f1.low, same.macro_f1.high) == (0, 0)


def test_bootstrap_ratio_of_constant_rows() -> None:
    made = statistics.bootstrap_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0], seed=0)
    assert (made.low, made.high) == pytest.approx((2, 2))


def test_the_change_of_a_ratio_is_paired() -> None:
    before = [100.0, 900.0, 40.0, 500.0]
    halved = statistics.bootstrap_change(before, [b / 2 for b in before], seed=0)
    assert halved.low == pytest.approx(-0.5)
    assert halved.high == pytest.approx(-0.5)
    mixed = statistics.bootstrap_change(before, [110.0, 880.0, 41.0, 500.0], seed=0)
    assert mixed.low < 0 < mixed.high
