"""Votes: properties of the majority, ties told, and self-consistency from prompt to trace."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt.self_consistency import SelfConsistency
from medexpert.prompt.vote import majority
from medexpert.records import NO_ANSWER, Prediction, Question, UserError

CHOICES = ("a", "b", "c", "d")
VOTES = st.lists(st.sampled_from([*CHOICES, NO_ANSWER]), max_size=12)


@given(VOTES, st.randoms())
def test_majority(votes: list[str], random: object) -> None:
    found = majority(CHOICES, votes)
    parsed = [vote for vote in votes if vote != NO_ANSWER]
    assert sum(found.counts.values()) + found.unparsed == len(votes)
    assert found.unparsed == votes.count(NO_ANSWER)
    if not parsed:
        assert (found.choice, found.shares, found.tied) == (NO_ANSWER, {}, ())
        return
    assert found.counts[found.choice] == max(found.counts.values())
    assert math.isclose(sum(found.shares.values()), 1)
    assert bool(found.tied) == bool(found.broken_by)
    assert (list(found.counts.values()).count(max(found.counts.values())) > 1) == bool(found.tied)
    shuffled = list(votes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert majority(CHOICES, shuffled) == found
    more = majority(CHOICES, [*votes, found.choice])
    assert (more.choice, more.tied) == (found.choice, ())


@given(VOTES, st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=4, max_size=4))
def test_sums_only_break_ties(votes: list[str], values: list[float]) -> None:
    sums = dict(zip(CHOICES, values, strict=True))
    plain, found = majority(CHOICES, votes), majority(CHOICES, votes, sums)
    if not plain.tied:
        assert found == plain
        return
    top = max(sums[choice] for choice in plain.tied)
    assert found.choice == next(c for c in plain.tied if sums[c] == top)
    alone = [sums[c] for c in plain.tied].count(top) == 1
    assert found.broken_by == ("probability" if alone else "order")


class Script:
    """Says the given answers, one a call."""

    def __init__(self, *answers: str, has_logprobs: bool = True) -> None:
        self.left = list(answers)
        self.engine = ScriptedEngine(self.say, self.score, has_logprobs=has_logprobs)

    def say(self, _: str) -> str:
        answer = self.left.pop(0)
        return f" Reason {len(self.left)}.\nFinal answer: {answer}" if answer else " Hm."

    def score(self, prompt: str, choices: Sequence[str]) -> list[float]:
        """no is likelier, most of all behind reason 0."""
        return [math.log(p) for p in ((0.1, 0.8, 0.1) if "Reason 0" in prompt else (0.3, 0.4, 0.3))]


def ask(question: Question, script: Script, k: int) -> Prediction:
    (found,) = SelfConsistency(k=k).predict(
        [question], script.engine, protocol="reasoning-required", seed=3
    )
    return found


def test_transcript(walking: Question) -> None:
    script = Script("no", "yes", "", "yes")
    found = ask(walking, script, 4)
    prompts = {call.prompts for call in script.engine.calls}
    assert [call.kind for call in script.engine.calls] == ["complete"] * 4
    assert len(prompts) == 1
    seeds = [call.settings["seed"] for call in script.engine.calls]
    assert len(set(seeds)) == 4
    assert seeds[0] == 3
    assert not set(seeds[1:]) & {3, 4, 5, 6}  # no draw of a run with the next seed
    assert {call.settings["temperature"] for call in script.engine.calls} == {0.8}
    assert found.choice == "yes"
    assert found.probabilities == pytest.approx({"yes": 2 / 3, "no": 1 / 3, "maybe": 0})
    assert found.trace["parse"] == ["ok", "ok", "no_choice", "ok"]
    assert found.trace["vote"] == {
        "choice": "yes", "counts": {"yes": 2, "no": 1, "maybe": 0}, "unparsed": 1, "tied": (),
        "broken_by": "",
    }  # fmt: skip
    assert found.trace["calls"] == 4


def test_a_tie_goes_to_the_summed_probability_and_is_told(walking: Question) -> None:
    script = Script("yes", "no")
    found = ask(walking, script, 2)
    assert script.engine.calls[-1].kind == "choice_logprobs"
    assert script.engine.calls[-1].prompts[1].endswith("Reason 0.\nFinal answer:")
    assert found.choice == "no"
    assert found.trace["vote"]["tied"] == ("yes", "no")
    assert found.trace["vote"]["broken_by"] == "probability"
    assert found.probabilities == {"yes": 0.5, "no": 0.5, "maybe": 0.0}
    assert found.trace["calls"] == 4


def test_without_logprobs_the_declared_order_breaks_it_and_is_told(walking: Question) -> None:
    found = ask(walking, Script("no", "yes", has_logprobs=False), 2)
    assert (found.choice, found.trace["vote"]["broken_by"]) == ("yes", "order")


def test_nothing_parsed_is_no_answer(walking: Question) -> None:
    found = ask(walking, Script("", "", has_logprobs=False), 2)
    assert (found.choice, dict(found.probabilities)) == (NO_ANSWER, {})
    assert found.trace["vote"]["unparsed"] == 2


def test_greedy_samples_are_refused() -> None:
    with pytest.raises(UserError, match=r"temperature of self_consistency: 0\.0; allowed: more"):
        SelfConsistency(temperature=0.0)
    with pytest.raises(UserError, match="option k of self_consistency: 0"):
        SelfConsistency(k=0)
