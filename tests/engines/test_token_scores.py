from __future__ import annotations

from pathlib import Path

import pytest

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
