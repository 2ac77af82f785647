from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.evaluate.folders import folder_of, name_of
from medexpert.records import UserError


def test_a_strategy_with_options_is_readable() -> None:
    assert folder_of("voc:k=3:verdict=generated") == "voc+k=3+verdict=generated"
    assert folder_of("direct") == "direct"
    assert folder_of("file:../a b/题.jsonl") == "file+..%2Fa%20b%2F%E9%A2%98.jsonl"
    assert folder_of("..") == "%2E."
    with pytest.raises(UserError, match="empty"):
        folder_of("")
    with pytest.raises(UserError, match="too long"):
        folder_of("题" * 40)


@given(st.text(min_size=1, max_size=20, alphabet=st.characters(codec="utf-8")))
def test_safe_and_reversible(name: str) -> None:
    folder = folder_of(name)
    assert name_of(folder) == name
    assert re.fullmatch(r"[A-Za-z0-9_=,.+%-]+", folder)
    assert not folder.startswith(".")
