"""Which solved examples are shown: balance, nearness, and never the question's own answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt.direct import Direct
from medexpert.prompt.shots import Shots
from medexpert.records import Question, UserError

CHOICES = ("yes", "no", "maybe")


def example(number: int, answer: str, about: str = "drug") -> Question:
    return Question(
        id=f"e{number}", question=f"Does {about} {number} help?", choices=CHOICES, answer=answer,
        contexts=(f"Trial {number}.",),
    )  # fmt: skip


POOL = [example(n, "yes" if n < 7 else "no" if n < 10 else "maybe") for n in range(12)]


def test_direct_shows_shots_as_lm_eval_joins_them(walking: Question) -> None:
    engine = ScriptedEngine(logprobs=lambda p, cs: [0.0, -1.0, -2.0])
    strategy = Direct(shots=1, pick="nearest")
    near = example(3, "no", "walking")
    (found,) = strategy.predict(
        [walking], engine, protocol="reasoning-required", seed=0, examples=[*POOL, near]
    )
    assert engine.calls[0].prompts == (
        "Abstract: Trial 3.\nQuestion: Does walking 3 help?\nAnswer: no\n\n"
        "Abstract: Half of 90 adults walked.\nWalkers improved.\nQuestion: Does walking help?\n"
        "Answer:",
    )
    assert (found.trace["shots"], found.trace["calls"]) == (["e3"], 1)
    assert found.trace["tokens"]["prompt"] == len(engine.calls[0].prompts[0].split())


def test_balanced_answers_take_turns(walking: Question) -> None:
    shots = Shots(POOL, seed=1)
    for pick in ("fixed", "nearest"):
        found = shots.chosen(walking, 6, pick, balanced=True)
        assert Counter(q.answer for q in found) == {"yes": 2, "no": 2, "maybe": 2}
    assert shots.chosen(walking, 6, "fixed", balanced=True)[:3] == shots.chosen(
        walking, 3, "fixed", balanced=True
    )
    assert len(shots.chosen(walking, 12, "fixed", balanced=True)) == 12
    lettered = [
        replace(q, choices=(f"a{n}", f"b{n}"), answer=f"{'ab'[n % 4 == 0]}{n}")
        for n, q in enumerate(POOL)
    ]
    found = Shots(lettered, seed=1).chosen(walking, 4, "fixed", balanced=True)
    assert Counter(q.choices.index(q.answer) for q in found) == {0: 2, 1: 2}


def test_the_nearest_stands_next_to_the_question(walking: Question) -> None:
    pool = [example(1, "no", "walking slowly"), example(2, "yes", "walking"), *POOL]
    found = Shots(pool, seed=3).chosen(walking, 3, "nearest")
    assert [q.question for q in found[1:]] == [
        "Does walking slowly 1 help?",
        "Does walking 2 help?",
    ]


def test_seed_and_not_the_order_of_reading_decides(walking: Question) -> None:
    def ids(pool: list[Question], seed: int) -> list[str]:
        return [q.id for q in Shots(pool, seed=seed).chosen(walking, 5, "fixed")]

    assert ids(POOL, 1) == ids(POOL[::-1], 1)
    assert len({tuple(ids(POOL, seed)) for seed in range(6)}) > 1


@given(st.integers(0, 3), st.sampled_from(["fixed", "nearest"]), st.booleans())
def test_a_question_never_sees_itself(seed: int, pick: str, balanced: bool) -> None:
    twin = replace(POOL[0], id="twin", question="Does  drug 0 help?")
    other = replace(POOL[1], id="zh", lang="zh")
    pool = [*POOL, twin, other]
    found = Shots(pool, seed=seed).ranked(POOL[0], pick, balanced=balanced)
    assert {q.id for q in found} == {q.id for q in POOL[1:]}


def test_too_few(walking: Question) -> None:
    with pytest.raises(UserError, match="question 1: 3 solved examples are to be shown and 0 can"):
        list(
            Direct(shots=3).predict(
                [walking], ScriptedEngine(), protocol="question-only", seed=0, examples=()
            )
        )
