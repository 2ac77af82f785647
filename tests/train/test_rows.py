"""The plan: every piece once an epoch, no row over its size, the same whoever reads it."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.records import UserError
from medexpert.train.batches import IGNORE, Batch, Piece
from medexpert.train.rows import Plan, best_fit, pack

CAPACITY = 24
SIZES = st.lists(st.integers(1, CAPACITY), min_size=1, max_size=50)


def made(lengths: list[int], tasks: int = 1) -> list[Piece]:
    """Pieces of which every input is another number, from 1; about half of it has a target."""
    pieces = []
    for number, (start, stop) in enumerate(itertools.pairwise(np.cumsum([1, *lengths]).tolist())):
        ids = np.arange(start, stop, dtype=np.int32)
        targets = np.where(ids % 2 == 0, ids + 1000, IGNORE).astype(np.int32)
        pieces.append(Piece(ids, targets, task=number % tasks))
    return pieces


def plan_of(pieces: Any, **changes: Any) -> Plan:
    arguments: dict[str, Any] = {
        "capacity": CAPACITY, "epochs": 1.0, "max_tokens": 0, "rows_per_step": 5, "seed": 3,
        "shuffle": True,
    }  # fmt: skip
    return Plan(pieces, **{**arguments, **changes})


def fed(batches: list[Batch]) -> list[int]:
    """All inputs that are no padding (which is 0 here)."""
    return [int(t) for b in batches for t in b.inputs[b.inputs > 0]]


@given(SIZES, st.randoms())
def test_pack_uses_every_piece_once_and_fits(lengths: list[int], random: Any) -> None:
    order = list(range(len(lengths)))
    random.shuffle(order)
    rows = list(pack(lengths, CAPACITY, order))
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= CAPACITY for row in rows)


@given(SIZES)
def test_each_piece_goes_to_the_fullest_row_that_takes_it(lengths: list[int]) -> None:
    """Against best-fit-decreasing written the slow way."""
    slow: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        room = [CAPACITY - sum(lengths[j] for j in row) for row in slow]
        fits = [r for r in range(len(slow)) if room[r] >= lengths[i]]
        if fits:
            slow[min(fits, key=lambda r: (room[r], r))].append(i)
        else:
            slow.append([i])
    assert best_fit(range(len(lengths)), lengths, CAPACITY) == slow


def test_pack_refuses_what_cannot_fit() -> None:
    with pytest.raises(ValueError, match="piece of 40 tokens in rows of 32"):
        list(pack([40], 32, [0]))
    with pytest.raises(ValueError, match="piece of 40 tokens in rows of 32"):
        plan_of(made([8, 40]), capacity=32)


def test_rows_of_short_pieces_are_nearly_full() -> None:
    """Windows grow with the row: half a window's last row is lost, not half of every row."""
    lengths = np.random.default_rng(0).integers(20, 300, 20_000).tolist()
    for capacity in (512, 2048, 8192):
        rows = list(pack(lengths, capacity, range(len(lengths))))
        assert sum(lengths) / (len(rows) * capacity) > 0.985


@given(SIZES, st.integers(0, 5), st.sampled_from([1.0, 2.0]), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_token_is_fed_once_an_epoch(
    lengths: list[int], seed: int, epochs: float, shuffle: bool, by_task: bool
) -> None:
    pieces = made(lengths, tasks=3)
    plan = plan_of(pieces, epochs=epochs, seed=seed, shuffle=shuffle, by_task=by_task)
    batches = [b for step in range(plan.steps) for b in plan.batches(step, 2, pad=0)]
    assert Counter(fed(batches)) == Counter(dict.fromkeys(range(1, sum(lengths) + 1), int(epochs)))
    targets = Counter(int(t) for b in batches for t in b.targets[b.targets != IGNORE])
    assert targets == Counter(
        {int(t): int(epochs) for p in pieces for t in p.targets if t != IGNORE}
    )
    assert plan.tokens == epochs * sum(lengths)
    for batch in batches:
        here = batch.targets != IGNORE
        assert (batch.targets[here] == batch.inputs[here] + 1000).all()
        assert (batch.inputs > 0).sum(1).max() <= CAPACITY
    units = [plan.units(step) for step in range(plan.steps)]
    assert units == [
        sum(b.loss_tokens for b in plan.batches(step, 2, pad=0)) for step in range(plan.steps)
    ]


@given(SIZES, st.sampled_from([0.3, 1.0, 1.5, 3.0]), st.integers(0, 700), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_plan_stops_where_it_should_and_its_facts_add_up(
    lengths: list[int], epochs: float, cap: int, by_task: bool
) -> None:
    plan = plan_of(made(lengths, tasks=2), epochs=epochs, max_tokens=cap, by_task=by_task)
    wanted = min(epochs * sum(lengths), cap or np.inf)
    sizes = [sum(lengths[i] for i in row) for row in plan.rows]
    assert sum(sizes) == plan.tokens >= wanted
    assert sum(sizes[:-1]) < wanted
    facts = plan.facts()
    assert facts["fed_tokens"] + facts["left_out_tokens"] == plan.epochs * sum(lengths)
    assert facts["fed_tokens"] + facts["padding"] == facts["rows"] * CAPACITY
    assert facts["left_out_tokens"] < sum(lengths)
    seen = Counter(i for row in plan.rows for i in row.tolist())
    assert max(seen.values()) <= plan.epochs
    if plan.epochs > 1:  # all epochs but the last are whole
        assert min(seen[i] for i in range(len(lengths))) >= plan.epochs - 1


@given(
    SIZES,
    st.sampled_from([1, 2, 3, 4, 8]),
    st.integers(1, 4),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from([0, CAPACITY, CAPACITY + 3]),
)
@settings(max_examples=150, deadline=None)
def test_processes_share_a_step_without_loss_and_call_equally_often(
    lengths: list[int], size: int, micro: int, per_step: int, by_task: bool, width: int
) -> None:
    plan = plan_of(made(lengths, tasks=3), rows_per_step=per_step, by_task=by_task)
    shapes = set()
    for step in range(plan.steps):
        alone = plan.batches(step, micro, 0)
        shared = [plan.batches(step, micro, 0, rank, size, width) for rank in range(size)]
        assert len({len(batches) for batches in shared}) == 1
        every = [batch for batches in shared for batch in batches]
        assert sorted(fed(every)) == sorted(fed(alone))
        assert sum(b.loss_tokens for b in every) == plan.units(step)
        rows = {tuple(row[row > 0].tolist()) for b in every for row in b.inputs} - {()}
        assert rows == {tuple(row[row > 0].tolist()) for b in alone for row in b.inputs}
        assert all(len(b.inputs) <= micro for b in every)
        assert all(b.padding == int((b.inputs == 0).sum()) for b in every)
        shapes |= {tuple(b.inputs.shape) for b in every}
        if by_task:
            assert all(len(set(b.tasks.tolist())) == 1 for b in every)
            for task in range(3):
                mine = [t for b in every if b.loss_tokens and b.tasks[0] == task for t in fed([b])]
                tasks = {p.task for p in plan.pieces if set(p.inputs.tolist()) & set(mine)}
                assert tasks <= {task}
    if width:
        assert len(shapes) == 1
        assert shapes.pop()[1] == width


def test_no_process_waits_where_there_are_rows_enough() -> None:
    plan = plan_of(made([CAPACITY] * 8), rows_per_step=8)
    for size, micro, wanted in ((1, 4, [4, 4]), (4, 4, [2]), (2, 3, [2, 2]), (8, 2, [1])):
        for rank in range(size):
            assert [len(b.inputs) for b in plan.batches(0, micro, 0, rank, size)] == wanted
    last = plan_of(made([CAPACITY] * 20), rows_per_step=16)
    assert [len(last.batches(1, 4, 0, rank, 4)[0].inputs) for rank in range(4)] == [1] * 4


def test_a_process_without_a_row_gets_padding_without_a_target() -> None:
    plan = plan_of(made([CAPACITY] * 3), rows_per_step=3)
    first, *_, last = [plan.batches(0, 1, pad=0, rank=rank, size=4) for rank in range(4)]
    assert first[0].loss_tokens == CAPACITY // 2
    assert (last[0].loss_tokens, last[0].inputs.shape) == (0, (1, CAPACITY))
    assert last[0].padding == CAPACITY


def test_a_row_wider_than_the_width_is_refused() -> None:
    with pytest.raises(ValueError, match="row of 24 tokens in a batch of width 23"):
        plan_of(made([CAPACITY])).batches(0, 1, 0, width=CAPACITY - 1)


def test_the_order_depends_on_the_seed_and_the_epoch_alone() -> None:
    pieces = made([7] * 100)

    def rows(**changes: Any) -> list[list[int]]:
        return [row.tolist() for row in plan_of(pieces, **changes).rows]

    assert rows() == rows(rows_per_step=2) == rows(epochs=2)[: len(rows())]
    assert rows() != rows(seed=4)
    assert rows(epochs=2)[len(rows()) :] != rows()
    assert rows(max_tokens=300) == rows()[: len(rows(max_tokens=300))]
    text = list(range(5000))
    kept = [i for row in plan_of(made([7] * 5000), shuffle=False).rows for i in row.tolist()]
    assert sorted(kept) == text
    assert max(abs(place - i) for place, i in enumerate(kept)) <= 512  # within a packing window


def test_rows_of_one_task_are_spread_over_the_epoch() -> None:
    """Three tasks in shares 4:2:2: every stretch of training sees all of them."""
    lengths = [6] * 4000
    pieces = [
        Piece(p.inputs, p.targets, task=[0, 0, 0, 0, 1, 1, 2, 2][n % 8])
        for n, p in enumerate(made(lengths))
    ]
    plan = plan_of(pieces, by_task=True)
    tasks = [{pieces[i].task for i in row.tolist()} for row in plan.rows]
    assert all(len(task) == 1 for task in tasks)
    for start in range(0, 1000, 100):
        share = Counter(task for row in tasks[start : start + 100] for task in row)
        assert abs(share[0] - 50) <= 10
        assert min(share[1], share[2]) >= 15


def test_a_step_of_pairs_is_a_mean_over_pieces() -> None:
    plan = plan_of(made([5] * 9), unit="piece", rows_per_step=1)
    assert sorted(plan.units(step) for step in range(plan.steps)) == [1, 4, 4]
    assert plan.units(0) == len(plan.step_rows(0)[0])


def test_a_plan_takes_an_iterator() -> None:
    pieces = made([4, 8, 3])
    assert len(plan_of(iter(pieces)).pieces) == 3
    with pytest.raises(UserError, match="no training data is left"):
        plan_of(iter(()))


@given(SIZES, st.integers(0, 60), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_nothing_crosses_a_fence(lengths: list[int], fence: int, epochs: int) -> None:
    plan = plan_of(made(lengths), shuffle=False, fence=fence, epochs=epochs)
    order = [row.tolist() for row in plan.rows]
    sides = [{i >= fence for i in row} for row in order]
    assert fence == 0 or all(len(side) == 1 for side in sides)
    assert Counter(i for row in order for i in row) == Counter(list(range(len(lengths))) * epochs)
    if fence and epochs == 1:
        assert [side == {True} for side in sides] == sorted(side == {True} for side in sides)


def test_a_fence_needs_the_given_order() -> None:
    for changes in ({"shuffle": True}, {"shuffle": False, "by_task": True}):
        with pytest.raises(ValueError, match="a fence needs pieces that are read in their order"):
            plan_of(made([4, 5]), fence=1, **changes)


class Lengths(Sequence[Piece]):
    """A store of many pieces of which none is ever read."""

    def __init__(self, lengths: np.ndarray[Any, Any]) -> None:
        self.lengths = lengths
        self.target_counts = lengths
        self.tasks = np.zeros_like(lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, at: Any) -> Any:
        raise AssertionError("a plan reads no piece")


@pytest.mark.slow
def test_ten_million_pieces_are_planned_without_reading_one() -> None:
    import resource

    lengths = np.random.default_rng(0).integers(20, 512, 10_000_000).astype(np.int32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    plan = plan_of(Lengths(lengths), capacity=512, rows_per_step=256)
    seconds = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    print(f"{seconds:.1f} s, {grown:.0f} MiB more, fill {plan.facts()['fill']:.4f}")
    assert plan.tokens == lengths.sum(dtype=np.int64)
    assert np.array_equal(np.sort(plan.rows.pieces), np.arange(10_000_000))
    assert seconds < 120
    assert grown < 2000
