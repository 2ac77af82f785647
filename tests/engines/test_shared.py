"""The tree of shared beginnings: what is put where, what is kept, what is never shared."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.engines.shared import (
    LEAST,
    Leaf,
    Node,
    Store,
    common,
    levels,
    plan,
    plan_whole,
    waves,
)

HEAD = list(range(100, 140))
tokens = st.lists(st.integers(0, 3), max_size=40)


def computed(leaves: list[Leaf]) -> int:
    """Tokens that the nodes of these leaves need; they count as computed afterwards."""
    done = 0
    for nodes in levels(leaves):
        for node in nodes:
            assert node.parent is None or node.parent.kept is not None
            node.kept, done = object(), done + node.size
    return done


@given(tokens, tokens)
def test_common_is_the_longest_common_beginning(one: list[int], other: list[int]) -> None:
    length = common(one, other)
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), tokens), min_size=1, max_size=9),
    st.lists(st.integers(1, 3), min_size=9, max_size=9),
)
def test_leaves_hold_their_rows_and_leave_free_what_is_wanted(
    made: list[tuple[int, int, list[int]]], wanted: list[int]
) -> None:
    rows = [[head + t for t in HEAD[:size]] + tail + [7, 8, 9] for head, size, tail in made]
    store = Store(10**6)
    for _ in range(2):  # the second time from what was kept
        leaves = plan(rows, wanted[: len(rows)], store)
        assert sorted(leaf.index for leaf in leaves) == list(range(len(rows)))
        computed(leaves)
        for leaf in leaves:
            assert leaf.ids == rows[leaf.index]
            assert len(leaf.rest) >= wanted[leaf.index]
            spans = list(leaf.base.chain(leaf.depth)) if leaf.base else []
            held = [t for node, a, b in reversed(spans) for t in node.ids[a:b]]
            assert held == leaf.ids[: leaf.depth]
            if leaf.base is not None:
                store.use(leaf.base)


def test_branches_of_one_question_are_encoded_once() -> None:
    rows = [[*HEAD, k, 5, 6] for k in range(3)]
    leaves = plan(rows, [1, 1, 1], Store(1000))
    assert {id(leaf.base) for leaf in leaves} == {id(leaves[0].base)}
    assert [leaf.rest for leaf in leaves] == [[k, 5, 6] for k in range(3)]
    assert computed(leaves) == len(HEAD)


def test_shots_shared_by_all_stand_above_questions() -> None:
    shots, question = list(range(200)), [300 + k for k in range(40)]
    other = [400 + k for k in range(40)]
    rows = [shots + q + [k] for q in (question, other) for k in range(3)]
    leaves = plan(rows, [1] * 6, Store(1000))
    assert computed(leaves) == 200 + 40 + 40
    assert all(leaf.depth == 240 for leaf in leaves)
    assert leaves[0].base is not None
    assert leaves[0].base.parent is not None
    assert leaves[0].base.parent.ids == shots


def test_little_in_common_is_not_worth_a_node() -> None:
    long = [list(range(10 * k, 10 * k + 400)) for k in (100, 200)]
    assert all(x.base is None for x in plan([HEAD[:20] + r for r in long], [1, 1], Store(99)))
    short = [[*HEAD[: LEAST - 1], k] for k in range(3)]
    assert all(leaf.base is None for leaf in plan(short, [1] * 3, Store(99)))


def test_a_later_call_uses_a_part_of_a_node() -> None:
    store = Store(1000)
    first = plan([[*HEAD, k] for k in (1, 2)], [1, 1], store)
    computed(first)
    assert first[0].base is not None
    store.use(first[0].base)
    (leaf,) = plan([HEAD[:30] + [9] * 20], [1], store)
    assert (leaf.base, leaf.depth) == (first[0].base, 30)


def test_the_oldest_nodes_go_first_and_parents_stay_while_children_do() -> None:
    store = Store(60)
    root = Node(list(range(20)))
    child = Node([*range(20), *range(50, 70)], 20, root)
    old = Node(list(range(80, 100)))
    for node in (old, child):
        store.use(node)
    assert store.tokens == 60
    store.use(root)
    store.use(Node(list(range(200, 220))))
    assert store.whole(old.ids) is None
    assert store.whole(root.ids) is root
    store.use(Node(list(range(300, 330))))
    assert store.whole(child.ids) is None
    assert store.tokens <= 60
    store.use(Node(list(range(1000))))
    assert store.tokens == 0


def test_both_ways_only_whole_prompts_are_shared() -> None:
    prompt, longer = HEAD, [*HEAD, 1]
    rows = [prompt, prompt, longer, [*prompt, 5, 6]]
    leaves = plan_whole(rows, [1, 1, 1, 3], [40, 40, 41, 40], Store(999), always=False)
    by_row = {leaf.index: leaf for leaf in leaves}
    assert by_row[0].base is by_row[1].base is by_row[3].base is not None
    assert by_row[2].base is None
    assert [by_row[k].depth for k in (0, 1, 3)] == [39, 39, 39]
    (alone,) = plan_whole([longer], [1], [41], Store(999), always=True)
    assert (alone.depth, alone.base is not None) == (40, True)


def test_waves_bound_what_is_computed_before_it_is_used() -> None:
    rows = [[1000 * q, *HEAD, q, k] for q in range(6) for k in range(2)]
    leaves = plan(rows, [1] * 12, Store(0))
    found = [(len(wave), computed(wave)) for wave in waves(leaves, 90)]
    assert found == [(4, 84), (4, 84), (4, 84)]
    assert [len(w) for w in waves(plan(rows, [1] * 12, Store(0)), 1)] == [2] * 6
