from __future__ import annotations

from pathlib import Path

import pytest

from medexpert.engines.base import TextScore, text_scores
from medexpert.engines.local import LocalEngine


def test_tokens_add_up_to_the_text(base_model: Path) -> None:
    engine = LocalEngine.open(base_model)
    texts = ["A trial of one drug.", "word " * 1500, ""]
    rows = engine.token_logprobs(texts)
    for row, whole in zip(rows, engine.text_logprobs(texts), strict=True):
        assert len(row) == whole.tokens
        assert sum(row) == pytest.approx(whole.logprob, rel=1e-5, abs=1e-6)
    assert len(rows[1]) > 1024  # more than one window
    assert rows[2] == []


def test_a_text_is_the_sum_of_its_tokens_rounded_once() -> None:
    rows = [[-1e16, -1.0, -1.0], []]
    assert text_scores(["\N{GREEK SMALL LETTER ALPHA}b", ""], rows) == [
        TextScore(-1e16 - 2.0, 3, 3), TextScore(0.0, 0, 0),
    ]  # fmt: skip
