"""`self_verification`: candidates from samples, judged as conclusions; how equals are settled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from medexpert.engines.base import NoLogprobs
from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt.self_verification import SelfVerification
from medexpert.records import NO_ANSWER, Prediction, Question, UserError

GIVEN = (
    "Abstract: Half of 90 adults walked.\nWalkers improved.\nQuestion: Does walking help?\n"
    "Choices: yes / no / maybe.\n"
)


def judged(choice: str) -> str:
    return (
        f'{GIVEN}Conclusion: the answer to the question is "{choice}".\nTaking all that the'
        " abstract states as given, is this conclusion true or false?\nAnswer:"
    )


class Script:
    """Answers in turn, then judgements by the conclusion asked about."""

    def __init__(
        self, answers: Sequence[str], truth: Mapping[str, Sequence[str] | float], **kind: bool
    ) -> None:
        self.answers = list(answers)
        self.truth = {k: v if isinstance(v, float) else list(v) for k, v in truth.items()}
        self.engine = ScriptedEngine(self.say, self.score, **kind)  # type: ignore[arg-type]

    def about(self, prompt: str) -> str:
        return next(c for c in self.truth if f'question is "{c}"' in prompt)

    def say(self, prompt: str) -> str:
        if "Conclusion:" not in prompt:
            return f" So.\nFinal answer: {self.answers.pop(0)}"
        found = self.truth[self.about(prompt)]
        assert not isinstance(found, float)
        return f" {found.pop(0)}"  # type: ignore[attr-defined]

    def score(self, prompt: str, choices: Sequence[str]) -> list[float]:
        true = self.truth[self.about(prompt)]
        assert isinstance(true, float)
        return [math.log(true), math.log(1 - true)]


def ask(question: Question, script: Script, **options: object) -> Prediction:
    (found,) = SelfVerification(**options).predict(  # type: ignore[arg-type]
        [question], script.engine, protocol="reasoning-required", seed=3
    )
    return found


def test_transcript(walking: Question) -> None:
    script = Script(["no", "yes", "no"], {"yes": 0.75, "no": 0.25})
    found = ask(walking, script, k=3)
    assert [call.kind for call in script.engine.calls] == ["complete"] * 3 + ["choice_logprobs"]
    last = script.engine.calls[-1]
    assert last.prompts == (judged("yes"), judged("no"))
    assert last.choices == (" true", " false")
    assert found.choice == "yes"  # against the majority of the samples
    assert found.probabilities == pytest.approx({"yes": 0.75, "no": 0.25, "maybe": 0.0})
    assert found.trace["candidates"] == {"yes": 1, "no": 2, "maybe": 0}
    assert (found.trace["tie"], found.trace["calls"]) == ("", 5)
    assert found.trace["parse"] == ["ok"] * 3


def test_judgements_can_be_sampled_and_counted(walking: Question) -> None:
    truth = {"yes": ["true", "True.", "false"], "no": ["false", "well", "false\nAnswer: true"]}
    script = Script(["yes", "no"], truth, has_logprobs=False)
    found = ask(walking, script, k=2, checks=3, readout="sampled")
    assert found.choice == "yes"
    assert found.trace["verified"]["yes"]["judgements"] == {"true": 2, "false": 1, NO_ANSWER: 0}
    assert found.trace["verified"]["no"]["judgements"] == {"true": 0, "false": 2, NO_ANSWER: 1}
    assert found.probabilities == {"yes": 1.0, "no": 0.0, "maybe": 0.0}
    seeds = [call.settings["seed"] for call in script.engine.calls[2:]]
    assert len(set(seeds)) == 3


def test_one_candidate_is_not_verified(walking: Question) -> None:
    script = Script(["maybe", "maybe"], {}, has_logprobs=False)
    found = ask(walking, script, k=2)
    assert (found.choice, found.probabilities["maybe"]) == ("maybe", 1.0)
    assert (found.trace["verified"], found.trace["calls"]) == ({}, 2)


def test_equals_go_to_more_samples_then_to_the_declared_order(walking: Question) -> None:
    even = {"yes": 0.5, "no": 0.5}
    more = ask(walking, Script(["no", "yes", "no"], even), k=3)
    assert (more.choice, more.trace["tie"]) == ("no", "samples")
    first = ask(walking, Script(["no", "yes"], even), k=2)
    assert (first.choice, first.trace["tie"]) == ("yes", "order")
    never = Script(["no", "yes"], {"yes": ["false"], "no": ["false"]}, has_logprobs=False)
    nothing = ask(walking, never, k=2, checks=1, readout="sampled")
    assert (nothing.choice, dict(nothing.probabilities)) == ("yes", {})


def test_no_candidate_is_no_answer(walking: Question) -> None:
    found = ask(walking, Script(["?", "?"], {}), k=2)
    assert (found.choice, dict(found.probabilities)) == (NO_ANSWER, {})


def test_lettered_conclusions_say_the_text(walking: Question) -> None:
    drugs = replace(walking, choices=("aspirin", "heparin"), answer="heparin")
    script = Script(["A", "B"], {"A. aspirin": 0.2, "B. heparin": 0.9})
    assert ask(drugs, script, k=2).correct


def test_a_letter_of_the_question_is_no_judgement(walking: Question) -> None:
    drugs = replace(walking, choices=("aspirin", "heparin"), answer="heparin")
    truth = {"A. aspirin": ["A"], "B. heparin": ["B"]}
    script = Script(["A", "B", "B"], truth, has_logprobs=False)
    found = ask(drugs, script, k=3, checks=1, readout="sampled")
    nothing = {"true": 0, "false": 0, NO_ANSWER: 1}
    assert [row["judgements"] for row in found.trace["verified"].values()] == [nothing, nothing]
    assert (found.choice, found.trace["tie"]) == ("heparin", "samples")


def test_without_logprobs_the_way_out_is_named(walking: Question) -> None:
    script = Script(["yes", "no"], {"yes": 0.5, "no": 0.5}, has_logprobs=False)
    with pytest.raises(NoLogprobs, match="allowed: self_verification:readout=sampled"):
        ask(walking, script, k=2)
    with pytest.raises(UserError, match="unknown readout of self_verification 'counted'"):
        SelfVerification(readout="counted")
