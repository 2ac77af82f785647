"""Exact and near-duplicates: what is equal, what never is, which copy stays."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.data import dedup, grams
from medexpert.records import Document, Example


def test_normalisation() -> None:
    assert dedup.normalise("  A\u00a0B\n c ") == "a b c"
    assert dedup.normalise("\uff21\uff22") == "ab"
    assert dedup.normalise("p < 0.05") != dedup.normalise("p > 0.05")


def test_fields_are_not_run_together() -> None:
    def example(question: str, answer: str) -> Example:
        fields = {"question": question, "answer": answer}
        return Example(id="", source="", kind="qa", template="chat.qa", fields=fields)

    assert dedup.fingerprint(example("a b", "c")) != dedup.fingerprint(example("a", "b c"))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=30))
def test_exact_copies_name_the_best_of_equals(rows: list[tuple[int, int]]) -> None:
    exact = np.array([[value, 7] for value, _ in rows], dtype=np.uint64)
    prefer = np.array([rank for _, rank in rows])
    kept = dedup.exact_copies(exact, prefer)
    for number, (value, _) in enumerate(rows):
        equals = [i for i, (other, _) in enumerate(rows) if other == value]
        assert kept[number] == min(equals, key=lambda i: (rows[i][1], i))


PAIRS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)).filter(lambda p: p[0] != p[1]))


@given(PAIRS, st.lists(st.integers(0, 3), min_size=20, max_size=20))
def test_each_that_leaves_is_like_one_that_stays(
    pairs: list[tuple[int, int]], ranks: list[int]
) -> None:
    confirmed = dedup.unique(np.array(pairs, dtype=np.int64).reshape(-1, 2))
    exact = np.stack([np.arange(20, dtype=np.uint64)] * 2, axis=1)
    _, near = dedup.decide(exact, np.array(ranks), confirmed)
    known = {tuple(pair) for pair in confirmed.tolist()}
    for number, kept in enumerate(near.tolist()):
        if kept >= 0:
            assert near[kept] < 0
            assert tuple(sorted((number, kept))) in known
            assert (ranks[kept], kept) < (ranks[number], number)
    for a, b in known:  # nothing that stays is like another that stays
        assert near[a] >= 0 or near[b] >= 0


@pytest.mark.parametrize(
    ("first", "second", "agree"),
    [
        ("Give 5 mg twice.", "Give 10 mg twice.", False),
        ("Give 5mg twice.", "Give 5 mg twice.", True),
        ("p < 0.05", "p > 0.05", False),
        ("Dose 5 mg.", "Dose 5 mg, repeated after 6 hours.", True),
        ("5 mg, then 5 mg", "5 mg, then 7 mg", False),
        ("2.5 mg", "25 mg", False),
        ("No number.", "Nor here.", True),
    ],
)
def test_numbers_that_contradict(first: str, second: str, agree: bool) -> None:
    counts = [Counter(dedup.numbers_of(text)) for text in (first, second)]
    assert dedup.numbers_agree(*counts) is agree


@pytest.mark.parametrize(
    ("licence", "rank"),
    [
        ("CC BY 4.0", 0), ("CC0", 0), ("MIT", 0), ("this package's licence", 0), ("CC-BY-SA", 1),
        ("CC BY-NC 4.0", 2), ("CC-BY-ND", 2), ("research only", 2), ("none stated", 3), ("", 3),
        ("all rights reserved", 3), ("your own: say what", 3), ("ODC-BY", 1),
    ],
)  # fmt: skip
def test_licence_rank(licence: str, rank: int) -> None:
    assert dedup.licence_rank(licence) == rank


def test_preference_puts_the_licence_first() -> None:
    free = Document(id="a", text="t", source="s", licence="MIT")
    named = Document(id="a", text="t", source="s", ids={"pmid": "1"}, title="T")
    assert dedup.preference(free) < dedup.preference(named)


def test_large_buckets_cost_no_square() -> None:
    bucket = np.arange(1000)
    pairs = dedup._pairs(bucket)
    assert len(pairs) < 1000 * dedup.BUCKET
    assert {int(b) for a, b in pairs if a == 0} == set(range(1, 1000))
    assert {(i, i + 1) for i in range(999)} <= {(int(a), int(b)) for a, b in pairs}


def test_what_tells_alike_texts_apart() -> None:
    def of(text: str) -> int:
        return dedup.detail(grams.tokens(text), Document(id="", text=text, source=""))

    assert of("Take 5 mg twice.") == of("Swallow 5 mg twice.")
    assert of("Take 5 mg twice.") != of("Take 10 mg twice.")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("p<0.05 and p > 0.1", ["<0.05", ">0.1"]),
        ("\uff13\uff10 mg", ["30"]),
        ("\u22124 or -4", ["-4", "-4"]),
        ("1,000 of 2.5", ["1,000", "2.5"]),
    ],
)
def test_numbers_with_their_signs(text: str, numbers: list[str]) -> None:
    assert dedup.numbers_of(text) == numbers
