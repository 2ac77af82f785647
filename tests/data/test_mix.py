from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.data import mix
from medexpert.records import UserError

COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 60), min_size=1)
SEED = st.integers(0, 5)


def shares(counts: dict[str, int], **weights: float) -> dict[str, float]:
    return mix.targets(counts, weights, tau=0.8, cap=100)


def test_formula() -> None:
    found = shares({"a": 50, "b": 1000, "none": 0})
    assert found == pytest.approx(
        {"a": 50**0.8 / (50**0.8 + 100**0.8), "b": 100**0.8 / (50**0.8 + 100**0.8)}
    )


def test_weights() -> None:
    assert shares({"a": 1, "b": 1}, a=3, b=1) == {"a": 0.75, "b": 0.25}
    assert shares({"a": 9, "b": 5, "c": 5}, a=0.5) == pytest.approx(
        {"a": 0.5, "b": 0.25, "c": 0.25}
    )
    with pytest.raises(UserError, match=r"the weights sum to 1, which leaves nothing for b"):
        shares({"a": 9, "b": 5}, a=1.0)


@given(COUNTS, SEED)
def test_every_record_exactly_once_and_deterministic(counts: dict[str, int], seed: int) -> None:
    order = mix.order_group(counts, shares(counts), seed)
    assert sorted(order) == sorted((name, i) for name, n in counts.items() for i in range(n))
    assert order == mix.order_group(dict(reversed(counts.items())), shares(counts), seed)


@given(COUNTS, SEED)
def test_prefix_holds_the_shares_until_a_source_runs_out(counts: dict[str, int], seed: int) -> None:
    target = shares(counts)
    taken = dict.fromkeys(target, 0)
    for step, (name, _) in enumerate(mix.order_group(counts, target, seed), 1):
        taken[name] += 1
        assert all(abs(taken[n] - target[n] * step) <= len(target) for n in target)
        if taken[name] == counts[name]:
            break


def test_another_seed_is_another_order() -> None:
    counts = {"a": 30, "b": 30}
    assert mix.order_group(counts, shares(counts), 1) != mix.order_group(counts, shares(counts), 2)


SIZES = st.lists(st.integers(1, 50), max_size=40)


@given(SIZES, SIZES, st.sampled_from([0.0, 0.1, 0.3, 0.9, 1.0]))
def test_replay_share_by_characters(train: list[int], replay: list[int], share: float) -> None:
    sizes = {"t": train, "r": replay}
    order = [("r", i) for i in range(len(replay))]
    used, surplus = mix.choose_replay(order, sizes, sum(train), share)
    assert used + surplus == order
    got = sum(sizes[n][i] for n, i in used)
    if surplus:
        assert abs(got - share / (1 - share) * sum(train)) <= 25


@given(SIZES, SIZES)
def test_interleave_keeps_orders_and_prefix_shares(train: list[int], replay: list[int]) -> None:
    sizes = {"t": train, "r": replay}
    groups = [[(name, i) for i in range(len(sizes[name]))] for name in "tr"]
    order = mix.interleave(groups[0], groups[1], sizes)
    assert [ref for ref in order if ref[0] == "t"] == groups[0]
    assert [ref for ref in order if ref[0] == "r"] == groups[1]
    share = sum(replay) / max(sum(train) + sum(replay), 1)
    done = {"t": 0, "r": 0}
    for name, i in order:
        done[name] += sizes[name][i]
        assert abs(done["r"] - share * sum(done.values())) <= 50


def test_realised() -> None:
    found = mix.realised([("a", 0), ("b", 0), ("b", 1)], {"a": [10], "b": [20, 10]})
    assert found["a"] == {"records": 0.3333, "characters": 0.25}
    assert found["b"] == {"records": 0.6667, "characters": 0.75}
