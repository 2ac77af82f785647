"""What a conclusion answers, and the section that holds it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.data.construct.conclusions import read, sentences
from medexpert.data.construct.sections import cut, role_of

ASKED = "Does velotine reduce gastric pain in older adults?"


@pytest.mark.parametrize(
    ("conclusion", "answer", "why"),
    [
        ("Velotine reduced gastric pain in older adults.", "yes", "plain"),
        ("Velotine may reduce gastric pain in older adults.", "yes", "weak"),
        ("Velotine did not reduce gastric pain in older adults.", "no", "plain"),
        ("No reduction of gastric pain by velotine was found.", "no", "plain"),
        ("Gastric pain was similar with velotine and placebo.", "no", "plain"),
        ("Velotine failed to reduce gastric pain.", "no", "plain"),
        (
            "Velotine reduced gastric pain but not gastric pain in older adults.",
            "maybe",
            "conflict",
        ),
        ("Velotine reduced gastric pain only in selected patients.", "maybe", "doubt"),
        ("Whether velotine reduces gastric pain remains unknown.", "maybe", "doubt"),
        ("Although costs did not fall, velotine reduced gastric pain.", "yes", "plain"),
        ("Velotine reduced gastric pain. No serious adverse events occurred.", "yes", "plain"),
        (
            "Velotine reduced gastric pain. However, velotine did not reduce pain in adults.",
            "maybe",
            "conflict",
        ),
        ("Nurses were content with the new rooms. They stayed longer.", None, "off_topic"),
        ("", None, "off_topic"),
    ],
)
def test_reading(conclusion: str, answer: str | None, why: str) -> None:
    reading = read(ASKED, conclusion)
    assert (reading.answer, reading.why) == (answer, why)


@pytest.mark.parametrize(
    ("question", "conclusion", "answer"),
    [
        (
            "Is velotine as effective as rest for gastric pain?",
            "Velotine and rest were equally effective for gastric pain.",
            "yes",
        ),
        (
            "Is velotine the same as rest for gastric pain?",
            "Velotine gave longer gastric relief than rest.",
            "no",
        ),
        (
            "Is a scan necessary before gastric surgery?",
            "A history is sufficient before gastric surgery; a scan can be omitted.",
            "no",
        ),
        (
            "Does insufficient sleep raise blood pressure?",
            "Insufficient sleep raised blood pressure.",
            "yes",
        ),
    ],
)
def test_the_question_decides_how_a_word_counts(
    question: str, conclusion: str, answer: str
) -> None:
    assert read(question, conclusion).answer == answer


@given(st.text(max_size=150), st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_can_be_read(question: str, conclusion: str) -> None:
    assert read(question, conclusion).answer in {"yes", "no", "maybe", None}
    assert "".join("".join(sentences(conclusion)).split()) == "".join(conclusion.split())


@pytest.mark.parametrize(
    ("label", "role"),
    [
        ("CONCLUSIONS:", "conclusion"),
        ("Conclusion(s).", "conclusion"),
        ("INTERPRETATION", "conclusion"),
        ("[Conclusion]", "conclusion"),
        ("Abstract > Conclusions", "conclusion"),
        ("Conclusions and clinical importance", "conclusion"),
        ("Results and conclusions", "mixed"),
        ("Results:", "results"),
        ("METHODS AND FINDINGS", "results"),
        ("Trial registration", "registration"),
        ("Trail registration number", "registration"),
        ("Funding", "registration"),
        ("Clinical implications", "closing"),
        ("Aims", "objective"),
        ("Background", "context"),
        ("", "context"),
    ],
)
def test_roles_of_headings(label: str, role: str) -> None:
    assert role_of(label) == role


def test_an_abstract_is_cut_into_its_parts() -> None:
    parts = cut(
        [
            ("Objective", "To see."),
            ("Results", " It\n fell. "),
            ("Empty", "  "),
            ("Conclusions", "It falls."),
            ("Trial registration", "NCT1"),
        ]
    )
    assert parts.contexts == ("To see.", "It fell.")
    assert (parts.conclusion, parts.objective) == ("It falls.", "To see.")
    assert parts.has_results
    assert parts.removed == ("registration",)
    assert not parts.mixed
