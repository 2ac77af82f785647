"""Languages by script, by function words and by model; texts are invented."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.data.filters.language import SAMPLE, language, language_reason, sample

CLASSICAL = "夫病之始生也，极微极精，必先入结于皮肤。今良工皆称曰病成，名曰逆，则针石不能治也。"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The dose was halved on the third day and the rash had gone by the end of it.", "en"),
        (CLASSICAL, "zh"),
        ("患者は昨日から熱があり、薬を飲んで休んでいるといいます。", "ja"),
        ("환자는 어제부터 열이 나서 약을 먹고 쉬고 있습니다.", "ko"),
        (
            "El paciente tomó la medicina por la noche y durmió bien hasta la mañana siguiente.",
            "es",
        ),
        ("BP 120/80, HR 70, SpO2 98%, 诊断流感, plan: rest and water, 随访 by phone", ""),
    ],
)
def test_language(text: str, expected: str) -> None:
    assert language(text)[0] == expected


def test_short_mixed_and_wanted_texts_are_not_dropped() -> None:
    spanish = "El paciente tomó la medicina por la noche y durmió bien hasta la mañana. " * 4

    def reason(text: str, languages: tuple[str, ...] = ("en", "zh")) -> str | None:
        return language_reason(text, languages, confidence=0.95, min_chars=200)

    assert reason(spanish) == "language_es"
    assert reason(spanish[:150]) is None
    assert reason(spanish, ("es",)) is None
    assert reason(spanish, ()) is None
    assert reason(CLASSICAL * 9) is None
    assert reason(CLASSICAL * 9, ("en",)) == "language_zh"
    assert reason("Aspirin 阿司匹林 100 mg qd 每日一次, clopidogrel 氯吡格雷 75 mg. " * 8) is None


@settings(deadline=None)
@given(st.text(max_size=3000))
def test_any_text_has_an_answer(text: str) -> None:
    assert len(sample(text)) <= SAMPLE + 2
    name, probability = language(text)
    assert isinstance(name, str)
    assert 0 <= probability <= 1.001
