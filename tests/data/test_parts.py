from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from medexpert.data.parts import cut

TEXT = st.text(st.sampled_from("ab 。.\n！,é"), max_size=300)


@given(TEXT, st.integers(1, 50))
def test_no_character_is_lost(text: str, size: int) -> None:
    parts = cut(text, size)
    assert "".join(parts) == text
    assert all(len(part) <= size for part in parts)
    assert all(parts) or parts == [""]


def test_short_text_is_one_part() -> None:
    assert cut("abc", 3) == ["abc"]


def test_best_break_first() -> None:
    assert cut("One. Two.\n\nThree. Four. Five", 20) == ["One. Two.\n\n", "Three. Four. Five"]
    assert cut("One two. Three four", 14) == ["One two. ", "Three four"]
    assert cut("One two three", 9) == ["One two ", "three"]
    assert cut("甲乙丙丁。戊己庚辛壬癸", 8) == ["甲乙丙丁。", "戊己庚辛壬癸"]
    assert cut("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]


def test_dense_text_without_breaks_is_quick() -> None:
    assert sum(map(len, cut("字" * 1_000_000, 1000))) == 1_000_000
