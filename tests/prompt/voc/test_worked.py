"""Few-shot Voc: whole worked items in front, gold answers in turn, the same before every prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt.template import ChatFormat
from medexpert.prompt.voc import Voc
from medexpert.records import Prediction, Question, UserError
from voc_prompts import FILTERED, OPENING, WHY, Refusing, verify

REQUIRED = "reasoning-required"


def examples(walking: Question) -> list[Question]:
    golds = ("yes", "yes", "yes", "yes", "no", "maybe")
    return [
        replace(walking, id=f"e{n}", question=f"Does {'rest' if n else 'walking'} {n} help?",
                contexts=(f"Context {n}.",), answer=gold)
        for n, gold in enumerate(golds)
    ]  # fmt: skip


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(lambda p: WHY, lambda p, cs: [-1.0, -2.0, -3.0][: len(cs)])


def block(example: Question) -> str:
    opening = (
        f"Abstract: {example.contexts[0]}\nQuestion: {example.question}\n"
        "Choices: yes / no / maybe.\n"
    )
    reasons = dict.fromkeys(example.choices, WHY)
    return verify(example.choices, reasons, opening) + f" {example.answer}\n\n"


def test_worked_items_are_balanced_and_before_every_prompt(
    walking: Question, engine: ScriptedEngine
) -> None:
    pool = {q.id: q for q in examples(walking)}
    asked = [walking, replace(walking, id="2", question="Does running help?")]
    voc = Voc(shots=3, mode="likelihood", contradictions=True)
    found = list(
        voc.predict(asked, engine, protocol=REQUIRED, seed=0, examples=list(pool.values()))
    )
    shown = found[0].trace["shots"]
    assert {pool[i].answer for i in shown} == {"yes", "no", "maybe"}
    assert found[1].trace["shots"] == shown  # fixed: one beginning for all questions
    before = "".join(block(pool[i]) for i in shown)
    explained, direct, *rest = engine.calls
    assert len(explained.prompts) == 9  # three examples, each choice, once for both questions
    assert not any(p.startswith(before) for p in (*explained.prompts, *direct.prompts))
    prompts = [p for call in rest for p in call.prompts]
    assert all(p.startswith(before) for p in prompts)
    assert prompts[0].startswith(before + OPENING)


def test_nearest_are_the_most_alike_and_the_last_is_next_to_the_question(
    walking: Question, engine: ScriptedEngine
) -> None:
    voc = Voc(shots=1, pick="nearest")
    (found,) = voc.predict([walking], engine, protocol=REQUIRED, seed=0, examples=examples(walking))
    assert found.trace["shots"] == ("e0",)


def test_a_chat_model_sees_them_inside_the_users_message(
    walking: Question, smollm2: ChatFormat
) -> None:
    engine = ScriptedEngine(lambda p: WHY, lambda p, cs: [-1.0, -2.0, -3.0], chat=smollm2)
    pool = examples(walking)[:1]
    list(Voc(shots=1).predict([walking], engine, protocol=REQUIRED, seed=0, examples=pool))
    for call in engine.calls[1:]:
        assert all(f"user\n{block(pool[0])}{OPENING}" in p for p in call.prompts)


def test_too_few_examples(walking: Question, engine: ScriptedEngine) -> None:
    with pytest.raises(UserError, match="question 1: 7 solved examples are to be shown and 6 can"):
        list(Voc(shots=7).predict(
            [walking], engine, protocol=REQUIRED, seed=0, examples=examples(walking)
        ))  # fmt: skip
    other = [replace(q, choices=("yes", "no")) for q in examples(walking)[:4]]
    with pytest.raises(UserError, match="1 solved examples are to be shown and 0 can be"):
        list(Voc(shots=1).predict([walking], engine, protocol=REQUIRED, seed=0, examples=other))


def shown(
    engine: ScriptedEngine, asked: Sequence[Question], pool: Sequence[Question], shots: int
) -> list[Prediction]:
    voc = Voc(shots=shots, batch=1)
    return list(voc.predict(asked, engine, protocol=REQUIRED, seed=0, examples=pool))


def explains(*examples: Question) -> Refusing:
    """Refuses to explain these, where nothing stands before them."""
    marks = tuple(f"Abstract: {example.contexts[0]}\n" for example in examples)
    return Refusing(lambda prompt: prompt.startswith(marks) and "Walkers" not in prompt)


def test_an_example_that_is_refused_is_passed_over_for_the_next(
    walking: Question, engine: ScriptedEngine
) -> None:
    asked, pool = [walking, replace(walking, id="2")], examples(walking)
    order = shown(engine, [walking], pool, 6)[0].trace["shots"]
    lost = next(example for example in pool if example.id == order[1])
    refusing = explains(lost)
    found = shown(refusing, asked, pool, 3)
    assert len({one.trace["shots"] for one in found}) == 1
    assert len(found[0].trace["shots"]) == 3
    assert lost.id not in found[0].trace["shots"]
    assert [one.trace["refused_examples"] for one in found] == [{lost.id: FILTERED}] * 2
    # With the others and by itself; not again for the second question.
    assert len(refusing.refused) == 2
    # Where nothing is refused the trace tells of nothing.
    assert "refused_examples" not in shown(engine, asked, pool, 3)[0].trace


def test_where_no_example_is_left_fewer_are_shown(walking: Question) -> None:
    pool = examples(walking)
    (found,) = shown(explains(pool[2], pool[5]), [walking], pool, 6)
    assert sorted(found.trace["shots"]) == ["e0", "e1", "e3", "e4"]
    assert sorted(found.trace["refused_examples"]) == ["e2", "e5"]


def test_a_broken_answer_to_an_example_is_no_refusal(
    walking: Question, engine: ScriptedEngine
) -> None:
    pool = examples(walking)
    once = iter([True])
    refusing = Refusing(lambda prompt: next(once, False))
    assert shown(refusing, [walking], pool, 3) == shown(engine, [walking], pool, 3)


def test_where_all_examples_are_refused_the_run_ends_with_a_line(walking: Question) -> None:
    pool = examples(walking)
    with pytest.raises(UserError, match=r"no solved example can be shown: all 6 .*content_filter"):
        shown(explains(*pool), [walking], pool, 2)
    many = [replace(pool[0], id=f"m{n}", question=f"Question {n}?") for n in range(100)]
    refusing = explains(*many)
    with pytest.raises(UserError, match="no solved example can be shown: all 8 asked are refused"):
        shown(refusing, [walking], many, 2)
    assert len(refusing.refused) < 40
