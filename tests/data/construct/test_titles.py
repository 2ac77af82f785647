"""Titles and objectives -> questions: what is turned, what it states, what is refused and why."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.data.construct.finite import find_finite
from medexpert.data.construct.morphology import (
    number_of,
    past,
    third_person,
    verb_of,
    word_set,
)
from medexpert.data.construct.objectives import ask_objective
from medexpert.data.construct.titles import Asked, ask, truecase

TURNED = [
    ("Velotine reduces gastric pain", "Does velotine reduce gastric pain?", "yes"),
    ("Statins reduce stroke in older adults.", "Do statins reduce stroke in older adults?", "yes"),
    (
        "Early walking is associated with shorter stays: a cohort study",
        "Is early walking associated with shorter stays?",
        "yes",
    ),
    (
        "Daily zinc does not improve wound healing: a randomised trial [NCT00000001]",
        "Does daily zinc improve wound healing?",
        "no",
    ),
    ("Older age is not linked to relapse", "Is older age linked to relapse?", "no"),
    ("Oral iron fails to raise haemoglobin", "Does oral iron raise haemoglobin?", "no"),
    ("Warm drinks have no effect on sleep", "Do warm drinks have an effect on sleep?", "no"),
    ("The diet reduced their blood pressure", "Did the diet reduce their blood pressure?", "yes"),
    ("Home visits led to fewer falls", "Did home visits lead to fewer falls?", "yes"),
    ("A simple splint can prevent stiffness", "Can a simple splint prevent stiffness?", "yes"),
    ("Cold air cannot cause these colds", "Can cold air cause these colds?", "no"),
    (
        "Long naps increase body weight and reduce alertness",
        "Do long naps increase body weight and reduce alertness?",
        "yes",
    ),
    (
        "Coastal living improves mood and reduces stress",
        "Does coastal living improve mood and reduce stress?",
        "yes",
    ),
    (
        "No effect of short naps on memory: a crossover trial",
        "Is there an effect of short naps on memory?",
        "no",
    ),
    (
        "Lack of the effect of short naps on memory",
        "Is there an effect of short naps on memory?",
        "no",
    ),
    (
        "ABACUS study: a web diary improves foot care",
        "Does a web diary improve foot care?",
        "yes",
    ),
]


@pytest.mark.parametrize(("title", "question", "label"), TURNED)
def test_statement_titles_become_questions(title: str, question: str, label: str) -> None:
    made = ask(
        title, "we saw early home oral older daily night coastal long warm cold statins velotine"
    )
    assert isinstance(made, Asked), made
    assert (made.question, made.label) == (question, label)


def test_a_hedged_title_says_so() -> None:
    made = ask("Green tea may reduce dental plaque")
    assert isinstance(made, Asked)
    assert made.question == "Does Green tea reduce dental plaque?"
    assert made.hedged


@pytest.mark.parametrize(
    "title",
    [
        "Does velotine shorten hospital stay?",
        "Foot pain in runners: is rest better for healing?",
        "Can nurses read these films? A pilot study",
    ],
)
def test_yes_no_questions_stay_as_they_are(title: str) -> None:
    made = ask(title)
    assert isinstance(made, Asked)
    assert made.question == title.split("?")[0] + "?"
    assert made.label == ""


@pytest.mark.parametrize(
    ("title", "reason"),
    [
        ("", "no_title"),
        ("Velotine reduces pain in " + "very " * 200 + "old people", "long_title"),
        ("Effects of velotine on gastric pain: a randomised trial", "noun_phrase"),
        ("Increases in weight after surgery", "noun_phrase"),
        ("Reduced dose heparin in dialysis", "noun_phrase"),
        ("Velotine reduces pain: study protocol for a trial", "protocol"),
        ("How do patients see their doctors?", "open_question"),
        ("Rest or exercise?", "no_yes_no_question"),
        ("Is rest better or is exercise better for backs?", "choice_question"),
        ("Does it work? Does it last?", "two_questions"),
        ("Walking improves sleep but not mood in adults", "mixed_title"),
        ("Patients who are old enough improve the ward", "clause_in_subject"),
        ("Night work raises weight: day work lowers weight gain", "two_statements"),
        ("Sleep in nurses: shift work raises their stress levels", "statement_in_subtitle"),
        ("This randomised trial demonstrates benefits of walking", "study_as_subject"),
        ("Neither heat nor cold reduces the pain", "mixed_title"),
        ("脑卒中患者的康复训练效果研究与分析", "not_english"),
    ],
)
def test_other_titles_give_a_reason(title: str, reason: str) -> None:
    assert ask(title) == reason


def test_headline_capitals_go_and_names_stay() -> None:
    body = (
        "We studied walking and mood in Oslo. Walking was easy for people with Parkinson's disease."
    )
    text = "Brisk Walking Improve Mood in Oslo in Parkinson's Disease"
    assert truecase(text, body) == "brisk walking improve mood in Oslo in Parkinson's disease"


def test_a_question_in_capitals_is_written_small() -> None:
    made = ask("CAN WALKS IN OSLO IMPROVE SLEEP?", "Walks by day in Oslo were easy.")
    assert isinstance(made, Asked)
    assert made.question == "Can walks in Oslo improve sleep?"


def test_articles_and_hyphens_in_capitals_are_written_small() -> None:
    title = "CAN A SHORT-TERM COURSE OF VITAMIN A IN PRIMARY-CARE PATIENTS WITH PARKINSON'S HELP?"
    made = ask(title, "The Care Council of Oslo paid.")
    assert isinstance(made, Asked)
    assert made.question == (
        "Can a short-term course of vitamin A in primary-care patients with Parkinson's help?"
    )


@pytest.mark.parametrize(
    ("verb", "third", "was"),
    [
        ("reduce", "reduces", "reduced"),
        ("modify", "modifies", "modified"),
        ("delay", "delays", "delayed"),
        ("occur", "occurs", "occurred"),
        ("undergo", "undergoes", "underwent"),
        ("have", "has", "had"),
    ],
)
def test_verb_forms_and_back(verb: str, third: str, was: str) -> None:
    assert (third_person(verb), past(verb)) == (third, was)
    for form in (verb, third, was):
        found = verb_of(form)
        assert found is not None
        assert found.base == verb


@pytest.mark.parametrize(
    ("phrase", "number"),
    [
        ("statins in older adults", "plural"),
        ("older patients", "plural"),
        ("type 2 diabetes", "singular"),
        ("heat and cold", "plural"),
        ("heat or cold", None),
        ("antibiotics", None),
        ("walking", "singular"),
        ("hepatitis", "singular"),
    ],
)
def test_number_of_a_subject(phrase: str, number: str | None) -> None:
    assert number_of(phrase.split()) == number


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text_gives_a_question_or_a_reason(title: str) -> None:
    for made in (ask(title), ask_objective(title)):
        if isinstance(made, Asked):
            assert made.question.endswith("?")
        else:
            assert made
            assert " " not in made


@given(
    st.lists(
        st.sampled_from(
            sorted(
                word_set(
                    "the velotine patients reduces reduce is not and of in pain increases may , "
                    "(a) who has improved no effect on does led to"
                )
            )
        ),
        max_size=14,
    )
)
@settings(max_examples=400, deadline=None)
def test_a_negated_question_never_comes_out(words: list[str]) -> None:
    made = ask(" ".join(words))
    if isinstance(made, Asked) and made.kind == "statement":
        assert not {"not", "cannot", "nor", "neither"} & set(
            made.question.rstrip("?").lower().split()
        )


def test_the_verb_of_a_noun_phrase_is_not_found() -> None:
    assert find_finite(["effects", "of", "dose", "increases", "in", "children"]) == "noun_phrase"


@pytest.mark.parametrize(
    ("objective", "question"),
    [
        (
            "To determine whether velotine reduces pain after surgery.",
            "Does velotine reduce pain after surgery?",
        ),
        (
            "Pain is common. We aimed to test if early walking is safe, and to describe its cost.",
            "Is early walking safe?",
        ),
        (
            "We tested the hypothesis that a daily call would improve adherence to tablets.",
            "Does a daily call improve adherence to tablets?",
        ),
        ("To examine whether masks can be reused safely.", "Can masks be reused safely?"),
    ],
)
def test_objectives_become_questions_that_state_nothing(objective: str, question: str) -> None:
    made = ask_objective(objective)
    assert isinstance(made, Asked)
    assert (made.question, made.label, made.kind) == (question, "", "objective")


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        ("To describe the effect of walking on mood.", "no_whether"),
        ("To determine whether it reduces pain.", "vague_subject"),
        ("To test whether (a) heat reduces pain and (b) cold does.", "listed_objectives"),
        ("To test whether " + "very " * 60 + "long naps reduce pain.", "long_objective"),
    ],
)
def test_other_objectives_give_a_reason(objective: str, reason: str) -> None:
    assert ask_objective(objective) == reason
