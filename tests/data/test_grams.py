"""Tokens, n-gram hashes and sets, against plain Python."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.data import grams

TEXT = st.text(alphabet=st.sampled_from("ab 5.,mg\n\u4e2d\u81fa\uff15\u00e9-"), max_size=60)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Give 5mg, 2.5 MG", ["give", "5", "mg", "2.5", "mg"]),
        ("double-blind, COVID19", ["double", "blind", "covid", "19"]),
        ("\u81fa\u7063\u7684\u85e5", ["\u53f0", "\u6e7e", "\u7684", "\u836f"]),
        ("\uff15\uff4d\uff47", ["5", "mg"]),
        ("p < 0.05", ["p", "0.05"]),
        ("", []),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert grams.tokens(text) == tokens


@given(TEXT, st.integers(1, 6))
def test_windows_are_equal_exactly_where_their_tokens_are(text: str, n: int) -> None:
    tokens = grams.tokens(text)
    windows = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    hashes = grams.ngrams(grams.hash_tokens(tokens), n).tolist()
    assert len(hashes) == len(windows)
    assert len(set(zip(windows, hashes, strict=True))) == len(set(windows)) == len(set(hashes))


@given(TEXT, TEXT)
def test_jaccard_is_that_of_the_sets(first: str, second: str) -> None:
    sets, hashed = [], []
    for text in (first, second):
        tokens = grams.tokens(text)
        n = min(3, len(tokens)) or 1
        sets.append({tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)})
        hashed.append(grams.shingles(grams.hash_tokens(tokens), 3))
    union = len(sets[0] | sets[1])
    expected = len(sets[0] & sets[1]) / union if union else 1.0
    assert grams.jaccard(*hashed) == pytest.approx(expected)


def test_order_matters_and_five_is_not_ten() -> None:
    five, ten = (grams.ngrams(grams.hashes(f"take {n} mg daily"), 4) for n in (5, 10))
    assert five[0] != ten[0]
    assert grams.ngrams(grams.hashes("a b"), 2)[0] != grams.ngrams(grams.hashes("b a"), 2)[0]


def test_the_same_in_every_process() -> None:
    code = (
        "from medexpert.data import grams; print(grams.ngrams(grams.hashes('a b c'), 2).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(grams.ngrams(grams.hashes("a b c"), 2).tolist())


def test_a_window_holds_a_token() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        grams.ngrams(np.empty(0, dtype=np.uint64), 0)
