"""Few-shot Voc: whole worked items in front, gold answers in turn, the same before every prompt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt.template import ChatFormat
from medexpert.prompt.voc import Voc
from medexpert.records import Question, UserError
from voc_prompts import OPENING, verify

REQUIRED = "reasoning-required"
WHY = "A reason with more than eight words, for any choice."


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
