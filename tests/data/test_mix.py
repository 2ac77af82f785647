"""Shares, epochs and replay: any prefix of the order holds what the recipe asked for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.data import mix
from medexpert.records import UserError

COUNTS = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 60), min_size=1)


def pools(counts: dict[str, int]) -> list[mix.Pool]:
    """Sources one after the other, a random rank for each line."""
    made, start = [], 0
    for name, n in counts.items():
        rank = np.random.default_rng(start).integers(0, 2**63, n, dtype=np.uint64)
        made.append(mix.Pool(name, np.arange(start, start + n), rank))
        start += n
    return made


def owners(counts: dict[str, int]) -> np.ndarray:
    return np.repeat(list(counts), list(counts.values()))


def ordered(counts: dict[str, int], seed: int, epochs: float = 1.0) -> mix.Refs:
    share = mix.targets(counts, {}, tau=0.8, cap=100)
    return mix.order_group(pools(counts), share, mix.draws(counts, share, epochs), seed)


def test_formula() -> None:
    share = mix.targets({"a": 100, "b": 1000, "c": 0}, {}, tau=0.5, cap=400)
    assert share == pytest.approx({"a": 10 / 30, "b": 20 / 30})


def test_weights() -> None:
    share = mix.targets({"a": 5, "b": 1, "c": 1}, {"a": 0.5}, tau=1, cap=10)
    assert share == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25})
    assert mix.targets({"a": 5, "b": 1}, {"a": 3, "b": 1}, tau=1, cap=10)["a"] == 0.75
    with pytest.raises(UserError, match="weights sum to 1, which leaves nothing for b"):
        mix.targets({"a": 5, "b": 1}, {"a": 1.0}, tau=1, cap=10)


@given(COUNTS, st.integers(0, 3))
def test_every_record_once_and_deterministic(counts: dict[str, int], seed: int) -> None:
    order = ordered(counts, seed)
    assert sorted(order.tolist()) == list(range(sum(counts.values())))
    assert (order == ordered(counts, seed)).all()


@given(COUNTS, st.integers(0, 3))
def test_prefix_holds_the_shares_until_a_source_runs_out(counts: dict[str, int], seed: int) -> None:
    share = mix.targets(counts, {}, tau=0.8, cap=100)
    taken = Counter[str]()
    for step, name in enumerate(owners(counts)[ordered(counts, seed)], 1):
        if any(taken[other] == counts[other] for other in counts):
            break
        taken[name] += 1
        for other in counts:
            assert abs(taken[other] - share[other] * step) <= len(counts)


@given(COUNTS, st.floats(1, 4))
def test_epochs_hold_the_share_and_are_capped(counts: dict[str, int], epochs: float) -> None:
    share = mix.targets(counts, {}, tau=0.8, cap=100)
    order = ordered(counts, 1, epochs)
    uses = Counter(order.tolist())
    for name, n in counts.items():
        mine = [uses[i] for i, owner in enumerate(owners(counts)) if owner == name]
        assert n <= sum(mine) <= max(n, epochs * n)
        assert max(mine) - min(mine) <= 1  # no record twice before each came once
    length = max(n / share[name] for name, n in counts.items())
    if epochs == 4:
        for name, n in counts.items():
            assert sum(uses[i] for i in np.flatnonzero(owners(counts) == name)) >= min(
                round(share[name] * length), 4 * n
            )


def test_order_depends_on_ranks_not_on_places() -> None:
    rank = np.array([5, 9, 2, 7], dtype=np.uint64)
    forward = mix.shuffled(mix.Pool("a", np.arange(4), rank), 1, 0)
    backward = mix.shuffled(mix.Pool("a", np.arange(4), rank[::-1]), 1, 0)
    assert rank[forward].tolist() == rank[::-1][backward].tolist()


def test_another_seed_or_epoch_is_another_order() -> None:
    pool = pools({"a": 50})[0]
    orders = {tuple(mix.shuffled(pool, seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}
    assert len(orders) == 4


SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(SIZES, SIZES, st.floats(0, 0.6))
def test_replay_share_by_characters(train: list[int], replay: list[int], share: float) -> None:
    sizes = np.array(train + replay)
    order = np.arange(len(train), len(sizes))
    used = mix.take_replay(order, sizes, sum(train), share)
    wanted = share / (1 - share) * sum(train)
    got = sizes[order[:used]].sum()
    if used < len(replay):
        assert abs(got - wanted) <= max(replay) / 2 + 1e-6
    else:
        assert got <= wanted + max(replay) / 2 + 1e-6


@given(SIZES, SIZES)
def test_interleave_keeps_orders_and_prefix_shares(train: list[int], replay: list[int]) -> None:
    sizes = np.array(train + replay)
    first, second = np.arange(len(train)), np.arange(len(train), len(sizes))
    order = mix.interleave(first, second, sizes)
    assert [i for i in order if i < len(train)] == first.tolist()
    assert [i for i in order if i >= len(train)] == second.tolist()
    share = sum(replay) / sizes.sum()
    seen = np.cumsum(sizes[order])
    mine = np.cumsum(np.where(order >= len(train), sizes[order], 0))
    assert (abs(mine - share * seen) <= sizes.max()).all()
