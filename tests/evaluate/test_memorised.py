from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.evaluate.memorised import memorisation, min_k
from medexpert.records import UserError


def test_min_k_is_the_mean_of_the_lowest() -> None:
    assert min_k([-1, -5, -2, -3, -4, -0.5, -0.1, -0.2, -0.3, -0.4], 0.2) == -4.5
    assert min_k([-1, -2], 0.2) == -2  # at least one token
    for bad in ([], [-1.0]):
        with pytest.raises(ValueError, match="share"):
            min_k(bad, 0.0)


@given(st.lists(st.floats(-50, 0), min_size=1), st.floats(0.01, 1))
def test_min_k_lies_between_the_least_and_the_mean(values: list[float], share: float) -> None:
    found = min_k(values, share)
    assert min(values) - 1e-9 <= found <= sum(values) / len(values) + 1e-9


class Scorer:
    """Texts with "known" in them have no unlikely token."""

    def token_logprobs(self, texts: Sequence[str]) -> list[list[float]]:
        return [[-1.0 if "known" in t else -2.0 - len(t) / 100] * 10 for t in texts]


def test_texts_that_were_read_stand_out(fakes: SimpleNamespace) -> None:
    read, unread = fakes.questions(30, " known"), fakes.questions(30)
    found = memorisation(Scorer(), read, unread)
    assert found["auroc"] == 1
    assert found["interval"]["low"] == 1
    assert found["items"]["mean"] == -1
    assert "not proof" in found["limits"]
    same = memorisation(Scorer(), unread, unread)
    assert same["auroc"] == 0.5
    assert same["interval"]["low"] < 0.5 < same["interval"]["high"]


def test_bad_input_is_told(fakes: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="two sets"):
        memorisation(Scorer(), [], fakes.questions(2))
    silent = SimpleNamespace(token_logprobs=lambda texts: [[] for _ in texts])
    with pytest.raises(UserError, match="question q000: the model gives its text no token"):
        memorisation(silent, fakes.questions(2), fakes.questions(2))
    for odd in (float("nan"), float("-inf")):  # an endpoint may tell that a token cannot be
        broken = SimpleNamespace(token_logprobs=lambda texts, p=odd: [[-1.0, p] for _ in texts])
        with pytest.raises(UserError, match=r"question q000: .* no usable probability"):
            memorisation(broken, fakes.questions(2), fakes.questions(2))
