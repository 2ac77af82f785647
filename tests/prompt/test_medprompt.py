"""`medprompt`: whose reasoning is shown, in how many orders, and what it cost."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.engines.base import PromptError
from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt.medprompt import Medprompt, orders
from medexpert.records import NO_ANSWER, Prediction, Question, UserError

CHOICES = ("yes", "no", "maybe")
NEAR = [
    Question(
        id=f"e{n}", question=f"Does walking {'so ' * n}help?", choices=CHOICES, answer=answer,
        contexts=(f"Trial {n}.",),
    )
    for n, answer in enumerate(["yes", "no", "yes", "yes", "maybe"], 1)
]  # fmt: skip
TASK = (
    "Reason step by step from what the abstract states, in a few sentences. Then give one of the"
    " choices in a last line of this form:\nFinal answer: (choice)\nReasoning:"
)


def opening(question: Question, choices: tuple[str, ...] = CHOICES) -> str:
    text = "\n".join(question.contexts)
    return (
        f"Abstract: {text}\nQuestion: {question.question}\nChoices: {' / '.join(choices)}.\n{TASK}"
    )


def says_yes(prompt: str) -> str:
    """Right on e1, e3 and e4 alone; nothing on e5."""
    if prompt.endswith(opening(NEAR[4])):
        return " Hm."
    number = prompt.rsplit("Trial ", 1)[1][0] if prompt.count("Abstract:") == 1 else "q"
    return f" Reason {number}.\nFinal answer: yes"


def ask(question: Question, engine: ScriptedEngine, **options: int) -> Prediction:
    (found,) = Medprompt(**options).predict(  # type: ignore[arg-type]
        [question], engine, protocol="reasoning-required", seed=2, examples=NEAR
    )
    return found


def test_transcript(walking: Question) -> None:
    def say(prompt: str) -> str:
        return says_yes(prompt) if "Walkers" not in prompt else " So.\nFinal answer: no"

    engine = ScriptedEngine(say, has_logprobs=False)
    found = ask(walking, engine, shots=2, orders=3, tries=5)
    first, second, last = engine.calls
    # e1 and e2 are the nearest; the model is wrong on e2, so e3 is tried.
    assert first.prompts == (opening(NEAR[0]), opening(NEAR[1]))
    assert second.prompts == (opening(NEAR[2]),)
    shown = "".join(
        f"{opening(example)} Reason {example.id[1]}.\nFinal answer: yes\n\n"
        for example in (NEAR[2], NEAR[0])
    )
    forms = orders(walking, 3, 2)
    assert last.prompts == tuple(shown + opening(walking, order) for order in forms)
    assert {call.settings["temperature"] for call in engine.calls} == {0.0}
    assert (found.choice, found.probabilities["no"]) == ("no", 1.0)
    assert found.trace["shots"] == ["e3", "e1"]
    assert found.trace["neighbours"] == {"e1": "kept", "e2": "wrong", "e3": "kept"}
    assert found.trace["orders"] == forms
    words = sum(len(p.split()) for p in (*first.prompts, *second.prompts))
    assert found.trace["preparation"] == {"calls": 3, "prompt": words, "generated": 15}
    assert found.trace["calls"] == 3


def test_examples_are_reasoned_on_once_and_fewer_are_told(walking: Question) -> None:
    engine = ScriptedEngine(lambda p: says_yes(p) if "Walkers" not in p else "", None)
    both = [walking, replace(walking, id="2")]
    found = list(
        Medprompt(shots=4, tries=5, orders=1, batch=1).predict(
            both, engine, protocol="reasoning-required", seed=2, examples=NEAR
        )
    )
    assert sum(len(call.prompts) for call in engine.calls) == len(NEAR) + 2
    for one in found:
        assert one.choice == NO_ANSWER
        assert sorted(one.trace["shots"]) == ["e1", "e3", "e4"]
        assert one.trace["neighbours"]["e5"] == "no_choice"
    costs = [one.trace["preparation"]["calls"] for one in found]
    assert costs == [5, 0]


def test_an_example_that_the_engine_refuses_is_passed_over(walking: Question) -> None:
    class Refusing(ScriptedEngine):
        def complete(self, prompts, **settings):  # type: ignore[no-untyped-def]
            for index, prompt in enumerate(prompts):
                if prompt == opening(NEAR[0]):
                    raise PromptError("refused (400)", index=index)
            return super().complete(prompts, **settings)

    found = ask(walking, Refusing(lambda p: says_yes(p) if "Walkers" not in p else ""), shots=2,
                orders=1, tries=5)  # fmt: skip
    assert found.trace["neighbours"] == {
        "e1": "refused", "e2": "wrong", "e3": "kept", "e4": "kept",
    }  # fmt: skip
    assert found.trace["shots"] == ["e4", "e3"]
    assert found.trace["refused_examples"] == {"e1": "refused (400)"}


def test_a_broken_answer_to_an_example_is_no_refusal(walking: Question) -> None:
    once = iter([True])

    class Slips(ScriptedEngine):
        def complete(self, prompts, **settings):  # type: ignore[no-untyped-def]
            if next(once, False):
                raise PromptError("no text", index=0)
            return super().complete(prompts, **settings)

    def say(prompt: str) -> str:
        return says_yes(prompt) if "Walkers" not in prompt else ""

    options = {"shots": 2, "orders": 1, "tries": 5}
    whole = ask(walking, ScriptedEngine(say), **options)
    found = ask(walking, Slips(say), **options)
    assert found == whole
    assert "refused_examples" not in found.trace


def test_where_all_examples_are_refused_the_run_ends_with_a_line(walking: Question) -> None:
    class Refusing(ScriptedEngine):
        def complete(self, prompts, **settings):  # type: ignore[no-untyped-def]
            raise PromptError("refused (400)", index=0)

    with pytest.raises(UserError, match=r"no solved example can be shown: all 5 asked .*\(400\)"):
        ask(walking, Refusing(), shots=2, tries=5)


def test_letters_follow_the_order_shown(walking: Question) -> None:
    """The model always says A: every order votes for what stands first in it."""
    drugs = replace(walking, choices=("aspirin", "heparin", "rest", "diet"), answer="rest")
    engine = ScriptedEngine(lambda _: " It is so.\nFinal answer: A", lambda p, cs: [-1.0] * 4)
    pool = [replace(q, choices=drugs.choices, answer="aspirin") for q in NEAR]
    (found,) = Medprompt(shots=1, orders=4).predict(
        [drugs], engine, protocol="reasoning-required", seed=0, examples=pool
    )
    firsts = [order[0] for order in found.trace["orders"]]
    assert [row["choice"] for row in found.trace["samples"]] == firsts
    assert found.trace["vote"]["counts"] == {c: firsts.count(c) for c in drugs.choices}


@settings(max_examples=40)
@given(st.integers(2, 8), st.integers(1, 12), st.integers(0, 5))
def test_orders(size: int, number: int, seed: int) -> None:
    choices = tuple("abcdefgh"[:size])
    question = Question(id="q", question="?", choices=choices, answer="a")
    found = orders(question, number, seed)
    assert len(found) == len(set(found)) == min(number, math.factorial(size))
    assert found[0] == choices
    assert all(sorted(order) == sorted(choices) for order in found)
    assert found == orders(question, number, seed)
    assert orders(question, number + 1, seed)[: len(found)] == found


def test_orders_depend_on_seed_and_question() -> None:
    question = Question(id="q", question="?", choices=tuple("abcdef"), answer="a")
    drawn = {orders(replace(question, id=f"q{n}"), 2, s)[1] for n in range(3) for s in range(3)}
    assert len(drawn) > 3


def test_bad_options(walking: Question) -> None:
    with pytest.raises(UserError, match=r"tries of medprompt: 2; allowed: shots \(5\) or more"):
        Medprompt(tries=2)
    with pytest.raises(UserError, match="question 1: 6 solved examples are to be shown and 5 can"):
        ask(walking, ScriptedEngine(), shots=6)
