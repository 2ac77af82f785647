"""Truth and scores, on sets small enough to compute by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from corpus import write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from truth import Truth, equal_texts, join, score, shingle_sets, truth_of

LETTERS = list("abcdefghijklmn")


def test_shingles_are_of_five_lower_cased_words() -> None:
    first, second, other = shingle_sets(
        ["The dose was 5 mg, daily.", "the DOSE was 5 mg daily", "the dose was 10 mg daily"]
    )
    assert len(first) == 2
    assert np.array_equal(first, second)
    assert not np.intersect1d(first, other).size
    assert len(shingle_sets(["only four words here"])[0]) == 0


@given(st.lists(st.sets(st.integers(0, 30), max_size=15), max_size=12), st.sampled_from([0.5, 0.8]))
@settings(max_examples=60, deadline=None)
def test_join_equals_all_pairs(values: list[set[int]], least: float) -> None:
    sets = [np.array(sorted(v), dtype=np.uint64) for v in [*values, {1}]]
    plain = [{int(x) for x in s} for s in sets]
    expected = {}
    for a in range(len(plain)):
        for b in range(a + 1, len(plain)):
            either = len(plain[a] | plain[b])
            if either and len(plain[a] & plain[b]) / either >= least:
                expected[a, b] = len(plain[a] & plain[b]) / either
    assert join(sets, least) == pytest.approx(expected)


def test_equal_texts_are_groups() -> None:
    assert equal_texts("abcd", ["x", "y", "x", "x"]) == (("a", "c", "d"),)


def truth(**change: object) -> Truth:
    held = {
        "ids": tuple(LETTERS),
        "near": {("a", "b"): 0.9, ("c", "d"): 0.8, ("e", "f"): 0.7},
        "unsure": frozenset({("g", "h")}),
        "groups": (("i", "j"),),
        "doses": (("k", "l"),),
        "planted": {"context": ("m",), "question": ("n",)},
    }
    return Truth(**{**held, **change})  # type: ignore[arg-type]


def without(*gone: str) -> list[str]:
    return [name for name in LETTERS if name not in gone]


def test_a_perfect_tool() -> None:
    found = score(truth(), without("b", "d", "j", "m", "n"), ["m", "n"])
    assert (found["recall"], found["precision"], found["precision_kept"]) == (1.0, 1.0, 1.0)
    assert (found["near_pairs"], found["near_removed"]) == (2, 2)
    assert (found["exact_copies"], found["exact_found"], found["dose_errors"]) == (1, 1, 0)
    assert (found["contexts_found"], found["questions_found"]) == (1, 1)
    assert found["leaks_not_planted"] == 0


def test_a_tool_that_removes_nothing() -> None:
    found = score(truth(), LETTERS, [])
    assert (found["recall"], found["precision"], found["exact_found"]) == (0.0, None, 0)
    assert (found["contexts_found"], found["kept"]) == (0, 14)


def test_errors_are_counted_where_they_belong() -> None:
    found = score(truth(), without("b", "f", "l", "h", "a"), ["a"], ["h"])
    # a is a leak, so its pair is no near-duplicate to find; c and d both stay.
    assert (found["near_pairs"], found["recall"]) == (1, 0.0)
    # b has a near-duplicate, but none that stays; f has only one of 0.7; l is counted as a dose.
    assert (found["precision"], found["precision_kept"]) == (0.5, 0.0)
    assert (found["dose_errors"], found["leaks_not_planted"], found["filtered"]) == (1, 1, 1)
    assert found["by_similarity"]["0.7-0.8"] == {"pairs": 1, "removed": 1}


def test_an_unsure_pair_counts_for_nothing() -> None:
    found = score(truth(), without("g"), [])
    assert found["near_removed"] == 0
    assert found["unsure_pairs"] == 1


@pytest.mark.parametrize("language", ["en", "zh"])
def test_truth_of_a_generated_corpus(tmp_path: Path, language: str) -> None:
    write_corpus(tmp_path, 300, seed=2, language=language)
    found = truth_of(tmp_path)
    assert len(found.ids) == 300
    assert len(found.doses) == 3
    assert not {tuple(sorted(pair)) for pair in found.doses} & set(found.near)
    assert len(found.groups) >= 5
    # 0 to 14 words of about 250 replaced: from equal to about half of the shingles.
    near = [s for s in found.near.values() if s >= 0.8]
    assert 5 <= len(near) <= len(found.near)
    twins = {name for group in found.groups for name in group}
    kept = {name for name in found.ids if name not in twins}
    assert score(found, found.ids, [])["recall"] == 0.0
    assert score(found, kept, [])["exact_found"] == score(found, found.ids, [])["exact_copies"]
