from __future__ import annotations

from collections.abc import Callable, Sequence
from math import factorial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.evaluate.sensitivity import (
    Variant,
    orders_of,
    summary,
    unlike,
    varied,
    varied_task,
)
from medexpert.prompt.asking import direct_prompt
from medexpert.prompt.chat import ChatFormat
from medexpert.prompt.choices import naming
from medexpert.records import NO_ANSWER, Prediction, Question, UserError


@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 5))
def test_orders_are_different_permutations_the_given_one_first(k: int, n: int, seed: int) -> None:
    found = orders_of(k, n, seed)
    assert found == orders_of(k, n, seed)
    assert len(found) == len(set(found)) == min(n, factorial(k))
    assert all(sorted(order) == list(range(k)) for order in found)
    assert found[0] == tuple(range(k))
    if n >= k:  # every choice in every place once
        assert all(len({order[j] for order in found[:k]}) == k for j in range(k))


QUESTION = Question(id="q", question="Does it?", choices=("yes", "no", "maybe"), answer="no")


def test_a_question_under_other_orders_and_names() -> None:
    turned = varied(QUESTION, Variant("words", 1), (1, 2, 0))
    assert (turned.choices, turned.answer) == (("no", "maybe", "yes"), "no")
    lettered = varied(QUESTION, Variant("letters", 1), (1, 2, 0))
    assert lettered.choices == ("A", "B", "C")
    assert lettered.answer == "A"
    assert lettered.question == "Does it?\nA. no\nB. maybe\nC. yes"
    assert varied(QUESTION, Variant("numbers", 0), (0, 1, 2)).answer == "2"
    with pytest.raises(UserError, match=r"unknown names of the choices 'leters'.*'letters'"):
        varied(QUESTION, Variant("leters", 0), (0, 1, 2))


@pytest.mark.parametrize("choices", [("yes", "no", "maybe"), ("iron\npills", "zinc", "none")])
def test_a_choice_is_asked_by_the_name_of_its_variant(choices: tuple[str, ...]) -> None:
    question = Question(id="q", question="Which?", choices=choices, answer=choices[1])
    for kind, labels in (("letters", "ABC"), ("numbers", "123")):
        asked = varied(question, Variant(kind, 0), (0, 1, 2))
        scored = direct_prompt(asked, "question-only", ChatFormat(""))
        assert scored.labels == tuple(f" {label}" for label in labels)
        listed = "\n".join(f"{label}. {text}" for label, text in zip(labels, choices, strict=True))
        assert scored.prompt == f"Question: Which?\n{listed}\nAnswer:"
        assert naming(asked).read(f"Final answer: {labels[2]}") == labels[2]


def test_numbers_that_the_question_does_not_list_are_texts_as_any() -> None:
    asked = Question(id="q", question="1. a\nHow many?", choices=("1", "2", "3"), answer="2")
    assert naming(asked).labels == ("A", "B", "C")


def test_what_is_named_by_letter_anyway_is_not_asked_twice() -> None:
    lettered = Question(id="q", question="Which?", choices=("iron", "zinc"), answer="iron")
    said: list[str] = []
    assert unlike(["words", "letters", "numbers"], [lettered], said.append) == ["words", "numbers"]
    assert said == ["prompts name these choices by letter: letters are not asked beside words"]
    assert unlike(["letters"], [lettered], said.append) == ["letters"]
    assert unlike(["words", "letters"], [lettered, QUESTION], said.append) == ["words", "letters"]
    assert len(said) == 1


def answers(
    questions: Sequence[Question],
    pick: Callable[[Question], str],
    kinds: Sequence[str] = ("words",),
) -> dict[Variant, list[Prediction]]:
    """What `pick` answers to every variant with all cyclic orders."""
    found = {}
    for kind in kinds:
        for number, order in enumerate(orders_of(3, 3)):
            asked = [varied(q, Variant(kind, number), order) for q in questions]
            found[Variant(kind, number)] = [Prediction(q.id, pick(q), q.answer) for q in asked]
    return found


def test_one_who_always_takes_the_first_place(fakes: SimpleNamespace) -> None:
    questions = fakes.questions(60)
    found = summary(questions, answers(questions, lambda q: q.choices[0]), 3)
    told = found["orders"]["words"]
    assert told["flip_rate"] == 1
    assert told["consistent"] == 0
    pulls = [place["pull"] for place in told["places"]]
    assert pulls == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    assert found["variants"]["words-0"]["accuracy"] == 33 / 60  # always yes


def test_one_who_reads_the_content(fakes: SimpleNamespace) -> None:
    questions = fakes.questions(60)
    kinds = ("words", "letters", "numbers")
    found = summary(questions, answers(questions, lambda q: q.answer, kinds), 3)
    for kind in kinds:
        told = found["orders"][kind]
        assert (told["flip_rate"], told["consistent"]) == (0, 1)
        assert (told["lowest"], told["highest"]) == (1, 1)
        for place in told["places"]:
            assert place["pull"] == 0
            assert place["interval"]["low"] == place["interval"]["high"] == 0
    assert [pair["disagree"] for pair in found["names"]] == [0, 0, 0]


def test_unparsed_answers_are_counted_and_pull_nowhere(fakes: SimpleNamespace) -> None:
    questions = fakes.questions(20)

    def pick(question: Question) -> str:
        return NO_ANSWER if question.id < "q010" else question.choices[2]

    found = summary(questions, answers(questions, pick), 3)
    assert found["variants"]["words-1"]["unparsed"] == 10
    assert [place["n"] for place in found["orders"]["words"]["places"]] == [10, 10, 10]


def test_too_few_orders_give_no_pull(fakes: SimpleNamespace) -> None:
    questions = fakes.questions(20)
    rows = answers(questions, lambda q: q.choices[0])
    two = {v: r for v, r in rows.items() if v.order < 2}
    assert summary(questions, two, 2)["orders"]["words"]["places"] is None
    one = {v: r for v, r in rows.items() if v.order < 1}
    assert summary(questions, one, 1)["orders"]["words"]["flip_rate"] is None


def test_an_order_asked_again_is_no_order_that_agrees() -> None:
    """Two choices have two orders, and four were asked for: the third is the first again."""
    question = Question(id="q", question="Does it?", choices=("yes", "no"), answer="no")
    rows = {}
    for number in range(4):
        order = orders_of(2, 4)[number % 2]
        first = varied(question, Variant("words", number), order).choices[0]
        rows[Variant("words", number)] = [Prediction("q", first, "no")]
    told = summary([question], rows, 4)["orders"]["words"]
    assert (told["flip_rate"], told["consistent"]) == (1, 0)


def test_a_variant_is_an_evaluation_that_is_never_official(
    evaluate: Callable[..., Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    task = varied_task(fakes.task(), Variant("words", 2), 3)
    result = evaluate(tmp_path / "e", task=task)
    assert result["task_version"] == "1+words-2 of 3 seed 0 v2"
    assert result["official"] is False
    assert result["n"] == 40
    assert varied_task(fakes.task(), Variant("letters", 0), 3).choices == ("A", "B", "C")
