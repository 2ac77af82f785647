from __future__ import annotations

import pytest

from medexpert.data import filters
from medexpert.records import Document, Example

PROSE = " ".join(f"Patient {i} was seen on day {i * 7 % 31} and sent home." for i in range(60))


def reason(text: str, min_chars: int = 20) -> str | None:
    return filters.document_reason(Document("a", text, "s"), min_chars=min_chars)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROSE, None),
        ("发热三天，咳嗽，无胸痛，既往体健，无药物过敏史。", None),
        ("Größe, naïve, 5 µg, ≥ 3 °C: ordinary accents and signs.", None),
        (" \n ", "empty"),
        ("Too short.", "too_short"),
        ("value \x04 and \x05 and \x06 are lost control bytes", "control_characters"),
        ("The patientâ€™s sonâ€™s doctorâ€™s note was lost", "mojibake"),
        ("lak\ufffds\ufffdsz\ufffdt\ufffds is unreadable now", "mojibake"),
        ("The same sentence again. " * 80, "repetition"),
        (PROSE[:600] + "\n" + "\n".join(["A menu line of the page"] * 60), "repetition"),
    ],
)
def test_each_filter_keeps_and_drops(text: str, expected: str | None) -> None:
    assert reason(text) == expected


def test_clean() -> None:
    assert filters.clean("e\u0301te\u0301\r\nb\rc\x00\ufeff\td ") == "été\nb\nc\td"
    assert filters.clean("â\x80\x9cquotedâ\x80\x9d") == "“quoted”"
    assert filters.clean("half \ud800 of a pair") == "half  of a pair"


def test_repaired_punctuation_is_no_damage() -> None:
    assert reason("It wasnâ\x80\x99t what theyâ\x80\x99d said, she didnâ\x80\x99t mind.") is None


def test_clean_value_and_strings_go_through_lists_and_objects() -> None:
    value = {"a": ["x\x00", {"b": "y "}], "n": 3}
    assert filters.clean_value(value) == {"a": ["x", {"b": "y"}], "n": 3}
    assert filters.strings(value) == ["x\x00", "y "]


def test_examples() -> None:
    def of(answer: str) -> str | None:
        fields = {"question": "q", "answer": answer}
        return filters.example_reason(Example("a", "s", "qa", "chat.qa", fields))

    assert of("No.") is None
    assert of("\ufffd\ufffd\ufffd") == "mojibake"
    assert of("again and again " * 100) == "repetition"
