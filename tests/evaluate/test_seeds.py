from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.evaluate.seeds import (
    correctness,
    critical,
    seeded_accuracy,
    seeded_difference,
    sign_flip,
    sign_flip_null,
)
from medexpert.evaluate.statistics import (
    bootstrap_accuracy,
    holm,
    mcnemar_exact,
    minimum_detectable_items,
)
from medexpert.records import Prediction, UserError

GOLDENS = json.loads(
    (Path(__file__).parents[1] / "reference" / "statistic_goldens.json").read_text()
)


@pytest.mark.parametrize("case", GOLDENS["sign_flip"])
def test_sign_flip_equals_the_enumeration_of_scipy(case: dict[str, object]) -> None:
    assert sign_flip(case["deltas"]) == pytest.approx(case["p"], rel=1e-12)


@given(gained=st.integers(0, 60), lost=st.integers(0, 60))
def test_with_one_seed_sign_flip_is_exact_mcnemar(gained: int, lost: int) -> None:
    deltas = [1] * gained + [-1] * lost + [0] * 5
    assert sign_flip(deltas) == pytest.approx(mcnemar_exact(gained, lost).p, rel=1e-9)
    assert critical(sign_flip_null(deltas)) == minimum_detectable_items(gained + lost)


@settings(max_examples=50)
@given(st.lists(st.integers(-4, 4), max_size=30))
def test_the_null_is_a_symmetric_distribution(deltas: list[int]) -> None:
    null = sign_flip_null(deltas)
    assert sum(null.values()) == pytest.approx(1)
    assert all(null[v] == pytest.approx(null[-v]) for v in null)
    least = critical(null)
    for value in {abs(v) for v in null}:
        p = min(1.0, sum(share for v, share in null.items() if abs(v) >= value))
        assert (p < 0.05) == (least is not None and value >= least and value > 0)


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_is_monotone_and_never_below_the_raw_p(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(p <= a <= 1 for p, a in zip(values, adjusted, strict=True))
    order = sorted(range(len(values)), key=lambda i: values[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)
    if values:
        assert min(adjusted) == min(1.0, len(values) * min(values))


def test_seeds_do_not_multiply_the_questions() -> None:
    """Five equal seeds know no more than one: the interval must not shrink."""
    one = (np.random.default_rng(0).random((1, 300)) < 0.6).astype(np.int64)
    alone, copied = seeded_accuracy(one, seed=1), seeded_accuracy(np.repeat(one, 5, 0), seed=1)
    assert (alone.n, copied.n, copied.seeds) == (300, 300, 5)
    assert alone.accuracy == copied.accuracy
    assert alone.deviation is None
    assert copied.deviation == 0
    widths = [s.interval.high - s.interval.low for s in (alone, copied)]
    assert widths[1] == pytest.approx(widths[0], rel=0.05)
    plain = bootstrap_accuracy(["y"] * 300, ["y" if v else "n" for v in one[0]], seed=1)
    assert widths[0] == pytest.approx(plain.high - plain.low, rel=0.05)


def test_seeds_that_differ_widen_the_interval() -> None:
    generator = np.random.default_rng(3)
    spread = np.array([(generator.random(400) < p).astype(np.int64) for p in (0.4, 0.6, 0.8)])
    found = seeded_accuracy(spread, seed=0)
    assert found.deviation == pytest.approx(np.std(spread.mean(axis=1), ddof=1))
    assert found.per_seed == tuple(spread.mean(axis=1))
    single = seeded_accuracy(spread[1:2], seed=0)
    assert found.interval.high - found.interval.low > 2 * (
        single.interval.high - single.interval.low
    )


def test_difference_of_unlike_numbers_of_seeds() -> None:
    first = np.array([[0, 0, 1, 1, 0, 1]])
    second = np.array([[1, 0, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1], [1, 0, 1, 1, 1, 1]])
    found = seeded_difference(first, second, seed=0)
    assert found.difference == pytest.approx(second.mean() - first.mean())
    assert (found.changed, found.gained, found.lost) == (4, 3, 1)
    assert found.p == sign_flip([3, 1, 0, -1, 3, 0])
    assert found.detectable is None
    assert (found.seeds_first, found.seeds_second) == (1, 3)


def test_no_change_is_exactly_nothing() -> None:
    same = (np.random.default_rng(0).random((2, 50)) < 0.5).astype(np.int64)
    found = seeded_difference(same, same, seed=0)
    assert (found.difference, found.p, found.changed) == (0, 1, 0)


def rows(ids: list[str], gold: str = "yes") -> list[Prediction]:
    rng = random.Random(str(ids))
    return [Prediction(id=i, choice=rng.choice(["yes", "no"]), answer=gold) for i in ids]


def test_correctness_orders_by_question_and_refuses_others() -> None:
    one, turned = rows(["a", "b", "c"]), rows(["a", "b", "c"])[::-1]
    table = correctness([one, turned])
    assert table[0].tolist() == table[1].tolist() == [int(r.correct) for r in one]
    with pytest.raises(UserError, match="answered other questions"):
        correctness([one, rows(["a", "b"])])
    with pytest.raises(UserError, match="answered other questions"):
        correctness([one, rows(["a", "b", "c"], gold="no")])
