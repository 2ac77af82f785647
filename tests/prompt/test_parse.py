"""Reading an answer from free text: what counts, what does not, and that it never fails."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.prompt.parse import parse_choice, stated_choices
from medexpert.records import NO_ANSWER

VERDICTS = ("yes", "no", "maybe")
CHINESE = {"yes": "是", "no": "否", "maybe": "不确定"}


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("Final answer: yes", "yes"),
        ("final answer is **No**.", "no"),
        ("**Final Answer:**\n\nMAYBE", "maybe"),
        ("So the answer is maybe.", "maybe"),
        ("The answer is (B)", "no"),
        ("The answer is B) no", "no"),
        ("Final answer: A yes", "yes"),
        ("The answer is yes because walkers improved", "yes"),
        ("answer: yes\nOn reflection, final answer: no", "no"),
        ("Reasons.\n\n**Yes.**", "yes"),
        ("No, because the groups did not differ", "no"),
        ("B) no", "no"),
        ("(C)", "maybe"),
    ],
)
def test_stated_answers(text: str, choice: str) -> None:
    assert parse_choice(text, VERDICTS) == choice


@pytest.mark.parametrize(
    "text",
    [
        "",
        "There is no evidence",
        "no answer",
        "maybe not",
        "yes and no",
        "A randomised trial",
        "a",
        "No. 5 is the last item",
        "no-one knows",
        "The answer is no longer clear",
        "The answer is no evidence",
        "The final answer is not yes",
        "Final answer: yes or no",
        "Final answer: yes, no or maybe",
        "Final answer: yes/no/maybe",
        "Final answer: A no",
        "Yes, there is no difference",
        "The answer is yes and no.",
        "答案：是",
    ],
)
def test_what_states_nothing_is_no_answer(text: str) -> None:
    assert parse_choice(text, VERDICTS) == NO_ANSWER


def test_an_ambiguous_last_statement_is_not_replaced_by_an_earlier_one() -> None:
    assert parse_choice("Final answer: yes\nFinal answer: yes or no", VERDICTS) == NO_ANSWER


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("最终答案：不确定。", "maybe"),
        ("因此，答案是否。", "no"),
        ("答案：是", "yes"),
        ("是", "yes"),
        ("否。", "no"),
        ("答案是否定的", NO_ANSWER),
        ("答案：不是", NO_ANSWER),
        ("这不是", NO_ANSWER),
    ],
)
def test_chinese_labels_count_where_declared(text: str, choice: str) -> None:
    assert parse_choice(text, VERDICTS, labels=CHINESE) == choice


def test_other_choices_words_and_letters() -> None:
    drugs = ("aspirin", "low-dose aspirin", "B-type (III)")
    assert parse_choice("The answer is low-dose aspirin.", drugs) == "low-dose aspirin"
    assert parse_choice("Answer: B-type (III)", drugs) == "B-type (III)"
    assert parse_choice("Answer: C", drugs) == "B-type (III)"
    assert parse_choice("Answer: A", ("B", "A")) == "A"
    assert parse_choice("Answer: yes", ("Yes", "yes")) == NO_ANSWER
    assert parse_choice("Answer: yes", ()) == NO_ANSWER


def test_stated_choices_lists_them_all() -> None:
    text = "The answer is no.\nStill, the correct answer is yes.\nAnswer: yes or no"
    assert stated_choices(text, VERDICTS) == ["no", "yes"]


PIECES = ("final answer", "answer is", ":", "yes", "no", "(B)", "\n", "**", "是", "答案")
words = st.sampled_from(PIECES)
texts = st.one_of(st.text(max_size=80), st.lists(words, max_size=12).map(" ".join))


@settings(max_examples=300, deadline=None)
@given(texts, st.lists(st.text(max_size=6), max_size=5))
def test_total(text: str, choices: list[str]) -> None:
    assert parse_choice(text, choices) in {*choices, NO_ANSWER}
    assert parse_choice(text, VERDICTS, labels=CHINESE) in {*VERDICTS, NO_ANSWER}
