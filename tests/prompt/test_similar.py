"""Lexical similarity: known values, Chinese, and what holds for any texts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.prompt.similar import Similar, terms

TEXTS = st.lists(st.text(alphabet="abc dE éß步行者好转 -,1", max_size=25), min_size=1, max_size=6)


def test_terms_are_words_and_chinese_characters_with_their_pairs() -> None:
    assert terms("The β-blocker, THE dose 5") == {
        "the": 2, "β": 1, "blocker": 1, "dose": 1, "5": 1,
    }  # fmt: skip
    assert terms("步行b12好") == {"步": 1, "行": 1, "步行": 1, "b12": 1, "好": 1}


def test_a_value_by_hand() -> None:
    """Pool {a b, a c}: idf(a) = ln(3/3) + 1 = 1, idf(b) = ln(3/2) + 1."""
    rare = math.log(3 / 2) + 1
    ab = [1.0, rare]
    norm = math.hypot(*ab)
    assert Similar(["a b", "a c"]).scores("a") == pytest.approx([1 / norm, 1 / norm])
    assert Similar(["a b", "a c"]).scores("b a") == pytest.approx([1.0, 1 / norm**2])


def test_the_nearest_is_about_the_same_thing() -> None:
    pool = [
        "Does aspirin prevent stroke?", "Is walking good for the heart?",
        "Can statins prevent a second stroke?", "步行对心脏有好处吗？", "阿司匹林能预防中风吗？",
    ]  # fmt: skip
    index = Similar(pool)
    assert index.ranked("Do statins prevent stroke?")[:2] == [2, 0]
    assert index.ranked("阿司匹林可以预防中风吗？")[0] == 4
    assert index.ranked("")[:5] == [0, 1, 2, 3, 4]  # nothing in common: the pool's order


@given(TEXTS)
def test_scores_are_cosines(pool: list[str]) -> None:
    index = Similar(pool)
    for number, text in enumerate(pool):
        found = index.scores(text)
        assert all(-1e-9 <= value <= 1 + 1e-9 for value in found)
        assert found[number] == pytest.approx(1.0 if terms(text) else 0.0)
        for other, value in enumerate(found):
            assert value == pytest.approx(index.scores(pool[other])[number])
        assert sorted(index.ranked(text)) == list(range(len(pool)))
        if terms(text):
            assert found[index.ranked(text)[0]] == max(found)
