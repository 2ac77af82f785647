"""The labels of choices: words for verdicts, letters for all else, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from medexpert.prompt.choices import name_choices, naming
from medexpert.prompt.options import distinct, printed
from medexpert.records import Question, UserError


@pytest.mark.parametrize(
    ("choices", "lang", "labels"),
    [
        (("yes", "no", "maybe"), "en", ("yes", "no", "maybe")),
        (("yes", "no"), "en", ("yes", "no")),
        (("Yes", "No"), "en", ("Yes", "No")),
        (("yes", "no", "maybe"), "zh", ("是", "否", "不确定")),
        (("No", "Yes"), "zh", ("否", "是")),
        (("是", "否"), "zh", ("是", "否")),
        (("yes", "no", "it depends"), "en", ("A", "B", "C")),
        (("aspirin", "warfarin"), "zh", ("A", "B")),
        (("1", "2", "3", "4"), "en", ("A", "B", "C", "D")),
        (("yes", "是"), "zh", ("A", "B")),  # both would be called the same
    ],
)
def test_labels(choices: tuple[str, ...], lang: str, labels: tuple[str, ...]) -> None:
    named = name_choices(choices, lang)
    assert named.labels == labels
    assert named.lettered == (labels[0] == "A")
    assert list(named.options) == list(labels)
    assert [named.label(c) for c in choices] == list(labels)
    assert [named.choice(label) for label in labels] == list(choices)


def test_a_text_the_benchmark_prints_twice_is_printed_twice() -> None:
    assert name_choices(("50 %", "9 %", "50 % [C]")).options == {
        "A": "50 %",
        "B": "9 %",
        "C": "50 %",
    }


def test_letters_go_to_z() -> None:
    many = tuple(f"finding {n}" for n in range(26))
    assert name_choices(many).labels[-1] == "Z"
    with pytest.raises(UserError, match="27 choices, more than there are letters; allowed: up to"):
        name_choices((*many, "one more"))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (("yes",), "question 1: 1 choices; allowed: two or more"),
        (("a", "  "), "question 1: choice 2, '  ', shows nothing"),
        (("a", "\u200b\ufeff"), "choice 2, .* shows nothing"),
        (("a", ""), "choice 2, '', shows nothing"),
        (("a", "b", "a"), "choice 'a' is there twice"),
    ],
)
def test_refused(walking: Question, choices: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        naming(replace(walking, choices=choices))


def test_a_text_printed_twice_is_printed_so_in_any_order() -> None:
    made = distinct(("50 %", "9 %", "50 %"))
    assert made == ("50 %", "9 %", "50 % [C]")
    for order in permutations(made):
        assert sorted(printed(order)) == ["50 %", "50 %", "9 %"]
    assert printed(("vitamin [A]", "vitamin [D]")) == ("vitamin [A]", "vitamin [D]")
