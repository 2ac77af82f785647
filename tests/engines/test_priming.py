from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from medexpert.engines.priming import Prefix, by_prefix, cached_tokens, common, waves

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=14), max_size=12)


def test_a_question_with_three_branches_is_encoded_once() -> None:
    one, two = [1] * 4 + [2] * 6, [1] * 4 + [3] * 6
    rows = [[*head, *tail] for head in (one, two) for tail in ([7], [8, 8], [9])]
    found = waves(rows, block=2)
    # First what all share, then each question's own part, which builds on it.
    assert found == [
        [Prefix((1,) * 4, 0, 6)],
        [Prefix(tuple(one), 4, 3), Prefix(tuple(two), 4, 3)],
    ]
    assert [cached_tokens(row, found) for row in rows] == [10] * 6


def test_less_than_a_block_and_single_prompts_are_not_worth_a_request() -> None:
    assert waves([[1, 2, 3], [1, 2, 4]], block=4) == []
    assert waves([[1] * 100], block=4) == []
    assert waves([], block=4) == []


def test_the_same_prompt_twice_leaves_one_token_to_encode() -> None:
    rows = [[5] * 8, [5] * 8]
    found = waves(rows, block=4)
    assert found == [[Prefix((5,) * 8, 0, 2)]]
    assert cached_tokens(rows[0], found) == 7


@given(ROWS, st.integers(1, 4))
def test_each_prefix_is_shared_and_builds_on_the_wave_before(
    rows: list[list[int]], block: int
) -> None:
    found = waves(rows, block)
    before: set[tuple[int, ...]] = {()}
    for wave in found:
        assert wave
        for prefix in wave:
            size = len(prefix.ids)
            sharing = sum(tuple(row[:size]) == prefix.ids for row in rows)
            assert sharing == prefix.rows >= 2
            assert size % block == 0
            assert size >= prefix.known + block
            assert prefix.ids[: prefix.known] in before
        assert len({prefix.ids for prefix in wave}) == len(wave)
        before = {prefix.ids for prefix in wave}


@given(ROWS, st.integers(1, 4))
def test_nothing_that_two_rows_share_is_encoded_twice(rows: list[list[int]], block: int) -> None:
    """Whole blocks shared by two rows are known before either of them is encoded."""
    found = waves(rows, block)
    for k, one in enumerate(rows):
        for other in rows[:k]:
            whole = common(one, other) // block * block
            assert cached_tokens(one, found) >= min(whole, len(one) - 1)
    encoded = sum(len(row) - cached_tokens(row, found) for row in rows)
    encoded += sum(len(p.ids) - p.known for wave in found for p in wave)
    assert encoded <= sum(map(len, rows)) + sum(len(row) % block == 0 for row in rows)


@given(ROWS)
def test_neighbours_share_most(rows: list[list[int]]) -> None:
    order = by_prefix(rows)
    assert sorted(order) == list(range(len(rows)))
    for at in range(2, len(order)):
        far, near = rows[order[at - 2]], rows[order[at - 1]]
        assert common(rows[order[at]], near) >= common(rows[order[at]], far)
