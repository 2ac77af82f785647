"""Reading an answer from free text: what counts, what does not, and that it never fails."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.prompt.choices import name_choices
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
        "It is unclear whether the answer is yes.",
        "Suppose that the correct answer is no.",
        "If the final answer is yes, more of them had to improve.",
        "如果答案是A。",
        "C. difficile infection was frequent in both groups.",
        "The answer is C. difficile.",
        "A.baumannii was found.",
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


def test_what_is_only_supposed_leaves_the_statement_before_it() -> None:
    text = "The answer is no. It would differ if the answer is yes."
    assert parse_choice(text, VERDICTS) == "no"
    assert stated_choices("Suppose the answer is no. The answer is yes.", VERDICTS) == ["yes"]


def test_letters_of_a_prompt_that_stand_for_something_else() -> None:
    truth = ("true", "false")
    assert parse_choice("B", truth) == "false"
    assert parse_choice("B", truth, by_letter=False) == NO_ANSWER
    assert parse_choice("False.", truth, by_letter=False) == "false"


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


def read(text: str, *choices: str, lang: str = "en") -> str:
    return name_choices(choices, lang).read(text)


@pytest.mark.parametrize(
    ("text", "choices", "choice"),
    [
        ("Final answer: B", ("aspirin", "aspirin and clopidogrel"), "aspirin and clopidogrel"),
        ("Answer: aspirin and clopidogrel", ("aspirin", "aspirin and clopidogrel"),
         "aspirin and clopidogrel"),
        ("Answer: aspirin and heparin", ("aspirin", "aspirin and clopidogrel"), NO_ANSWER),
        ("Answer: aspirin.", ("aspirin", "aspirin and clopidogrel"), "aspirin"),
        ("答案：Ｂ", ("heart", "lung"), "lung"),
        ("（Ｂ）", ("heart", "lung"), "lung"),
        ("Answer: Ｂ. lung", ("heart", "lung"), "lung"),
        ("Answer: \u0412", ("heart", "lung"), NO_ANSWER),  # a Cyrillic Ve
        ("故选B。", ("heart", "lung"), "lung"),
        ("应选：A", ("heart", "lung"), "heart"),
        ("因此，正确选项是 B。", ("heart", "lung"), "lung"),
        ("选项B错误", ("heart", "lung"), NO_ANSWER),
        ("The correct option is (B).", ("heart", "lung"), "lung"),
        ("Another option is B.", ("heart", "lung"), NO_ANSWER),
        ("Answer: 5", ("5", "50"), "5"),
        ("Answer: 50", ("5", "50"), "50"),
        ("Answer: 5.5", ("5", "50"), NO_ANSWER),
        ("Answer: 5-10", ("5", "50"), NO_ANSWER),
        ("-5", ("5", "50"), NO_ANSWER),
        ("- B", ("5", "50"), "50"),
        ("Answer: 10²", ("102", "7"), NO_ANSWER),
        ("Answer: A", ("B", "A"), "B"),  # the letter the prompt showed
        ("Answer: A. B", ("B", "A"), "B"),
        ("Answer: O", ("A", "B", "AB", "O"), "O"),
        ("Answer: Crohn’s  disease", ("Crohn's disease", "ulcerative colitis"), "Crohn's disease"),
        ("Answer: anti\u2011TNF", ("anti-TNF", "rest"), "anti-TNF"),
        ("Answer: 5 μg", ("5 \u00b5g", "9 \u00b5g"), "5 \u00b5g"),  # Greek mu, micro sign
        ("Answer: 5 mg", ("5 mg", "５ mg"), NO_ANSWER),  # alike on the page: only letters tell
        ("Answer: B", ("5 mg", "５ mg"), "５ mg"),
        ("Answer: P", tuple(f"finding {n}" for n in range(16)), "finding 15"),
        ("Answer: Q", tuple(f"finding {n}" for n in range(16)), NO_ANSWER),
        ("Yes.", ("Yes", "No"), "Yes"),
        ("Answer: B. e. coli", ("Klebsiella", "E. coli"), "E. coli"),
        ("The answer is A. klebsiella, of course.", ("Klebsiella species", "rest"),
         "Klebsiella species"),
        ("B. because of the rest", ("Klebsiella", "rest"), "rest"),
        ("E. coli grew.", ("heart", "lung", "liver", "skin", "bone"), NO_ANSWER),
        ("The answer is E.coli.", ("heart", "lung", "liver", "skin", "bone"), NO_ANSWER),
        ("Answer: 50 %", ("50 %", "9 %", "50 % [C]"), NO_ANSWER),  # printed twice
        ("Answer: C. 50 %", ("50 %", "9 %", "50 % [C]"), "50 % [C]"),
        ("Answer: 9 %", ("50 %", "9 %", "50 % [C]"), "9 %"),
    ],
)  # fmt: skip
def test_labels_of_a_prompt(text: str, choices: tuple[str, ...], choice: str) -> None:
    assert read(text, *choices) == choice


DRUGS = ("aspirin", "heparin", "warfarin", "rest")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("A. aspirin\nB. heparin\nC. warfarin\nD. rest", NO_ANSWER),
        ("A. aspirin\n\nB. heparin\n\nC. warfarin", NO_ANSWER),
        ("A. aspirin\nC. warfarin", NO_ANSWER),
        ("- A) aspirin\n- B) heparin", NO_ANSWER),
        ("A aspirin\nC warfarin", NO_ANSWER),
        ("A\nB\nC\nD", NO_ANSWER),
        ("aspirin\nheparin", NO_ANSWER),
        ("A. Aspirin: it may be.\nD. Rest: it may be.", NO_ANSWER),
        ("A. aspirin\nIt thins blood.\nC. warfarin", NO_ANSWER),  # a list that was cut off
        ("A. aspirin\nB. heparin\nA. aspirin\nB. heparin", NO_ANSWER),  # the list again
        ("Answer:\nA. aspirin\nB. heparin\nC. warfarin\nD. rest", NO_ANSWER),
        ("Answer:\n\nA. aspirin\n\nB. heparin", NO_ANSWER),
        ("Answer: A. aspirin\nB. heparin", NO_ANSWER),
        ("A. aspirin\nB. heparin\nC. warfarin\nD. rest\nB. heparin", "heparin"),
        ("A. aspirin\nB. heparin\n\nIt thins blood.\nAnd more.\nB. heparin", "heparin"),
        ("A. aspirin\nB. heparin\nFinal answer: A", "aspirin"),
        ("A. aspirin thins blood.\nSo it is:\nC", "warfarin"),
        ("It thins blood.\nC. warfarin", "warfarin"),
        ("C. warfarin\nC. warfarin", "warfarin"),
        ("Answer: A. aspirin\nHeparin is wrong.", "aspirin"),
        ("Answer: A\n\nA. aspirin\nB. heparin", "aspirin"),
    ],
)
def test_a_list_of_options_is_no_answer(text: str, choice: str) -> None:
    assert read(text, *DRUGS) == choice


PIECES = ("final answer", "answer is", ":", "yes", "no", "(B)", "\n", "**", "是", "答案", "Ｂ", "-")
words = st.sampled_from(PIECES)
texts = st.one_of(st.text(max_size=80), st.lists(words, max_size=12).map(" ".join))
shown = st.text(min_size=1, max_size=12).filter(lambda t: any(c.isalnum() for c in t))
sets = st.lists(shown, min_size=2, max_size=7, unique=True).map(tuple)


@settings(max_examples=120, deadline=None)
@given(texts, st.lists(st.text(max_size=6), max_size=5))
def test_total(text: str, choices: list[str]) -> None:
    assert parse_choice(text, choices) in {*choices, NO_ANSWER}
    assert parse_choice(text, VERDICTS, labels=CHINESE) in {*VERDICTS, NO_ANSWER}


@settings(max_examples=50, deadline=None)
@given(sets, st.data())
def test_a_stated_label_is_read_whatever_the_choices(choices: tuple[str, ...], data: Any) -> None:
    named = name_choices(choices)
    choice = data.draw(st.sampled_from(choices))
    form = data.draw(
        st.sampled_from(("Final answer: {}", "The answer is ({}).", "答案：{}。", "{}"))
    )
    assert named.read("So.\n" + form.format(named.label(choice))) == choice


@settings(max_examples=50, deadline=None)
@given(texts, sets)
def test_total_with_letters(text: str, choices: tuple[str, ...]) -> None:
    assert name_choices(choices).read(text) in {*choices, NO_ANSWER}


@settings(max_examples=40, deadline=None)
@given(texts, sets)
def test_a_text_without_any_label_states_nothing(text: str, choices: tuple[str, ...]) -> None:
    stripped = "".join(char for char in text if not char.isalnum())
    assert name_choices(choices).read(stripped) == NO_ANSWER
