"""The verdict: orders, draws, written checks and what happens when they say nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from medexpert.engines.base import NoLogprobs
from medexpert.engines.scripted import ScriptedEngine
from medexpert.evaluate.run import _check
from medexpert.prompt.ledger import draw_seed
from medexpert.prompt.voc import Voc
from medexpert.prompt.voc.verdict import orders
from medexpert.records import NO_ANSWER, Prediction, Question, UserError
from voc_prompts import (
    DIRECT,
    ORDERS,
    REASONS,
    blind,
    check,
    hypothesise,
    logs,
    scripted,
    verify,
)  # fmt: skip

REQUIRED = "reasoning-required"


def voc(**options: Any) -> Voc:
    """In three orders unless told otherwise."""
    return Voc(**{"permutations": "cyclic", **options})


def asked(how: Voc, question: Question, engine: ScriptedEngine, seed: int = 0) -> Prediction:
    (found,) = how.predict([question], engine, protocol=REQUIRED, seed=seed)
    _check(found, [question], 0, how.name)  # the promise every strategy is held to
    return found


def test_orders() -> None:
    assert orders(("a", "b", "c"), "1") == [("a", "b", "c")]
    assert orders(("a", "b", "c"), "cyclic") == [
        ("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b"),
    ]  # fmt: skip
    assert len(set(orders(("a", "b", "c"), "all"))) == 6
    with pytest.raises(UserError, match="permutations=all of 6 choices; allowed: up to 5"):
        orders("abcdef", "all")


def test_one_order_unless_more_are_asked_for(walking: Question) -> None:
    engine = scripted()
    found = asked(Voc(), walking, engine)
    assert [call.prompts for call in engine.calls[1:]] == [(verify(ORDERS[0]),)]
    assert list(found.probabilities.values()) == pytest.approx([0.6, 0.3, 0.1])
    assert found.trace["flip_rate"] == 0.0


def test_all_orders_average_by_content(walking: Question) -> None:
    engine = ScriptedEngine(
        lambda p: "Eight words or more are needed for this one.",
        # Whatever stands first is liked: in all orders together nothing is.
        lambda p, cs: [-1.0 if f"right.\n[{c.strip()}]" in p else -3.0 for c in cs],
    )
    for which in ("cyclic", "all"):
        found = asked(voc(permutations=which), walking, engine)
        assert list(found.probabilities.values()) == pytest.approx([1 / 3] * 3)
        assert found.trace["flip_rate"] == pytest.approx(2 / 3)
    assert len(engine.calls[-1].prompts) == 6


def test_draws_are_sampled_filtered_and_averaged_as_probabilities(walking: Question) -> None:
    texts = {
        0: "First reason, with a full eight words in it.",
        1: "Short.",
        2: "Third reason, with a full eight words in it.",
    }

    seeds = [draw_seed(7, draw) for draw in range(3)]

    class Sampling(ScriptedEngine):
        def complete(self, prompts, **settings):  # type: ignore[no-untyped-def]
            self._completions = lambda prompt: texts[seeds.index(settings["seed"])]
            return super().complete(prompts, **settings)

    def score(prompt: str, choices: object) -> list[float]:
        return logs(0.8, 0.1, 0.1) if "First" in prompt else logs(0.2, 0.7, 0.1)

    engine = Sampling(logprobs=score)
    found = asked(voc(k=3), walking, engine, seed=7)
    drawn = [call for call in engine.calls if call.kind == "complete"]
    assert [call.settings["seed"] for call in drawn] == seeds
    assert {(c.settings["temperature"], c.settings["top_p"]) for c in drawn} == {(0.7, 0.95)}
    # Three passes: three draws in three orders. The short draw is left out, First fills its place.
    passes = found.trace["verify"]
    assert [(p["draw"], p["order"]) for p in passes] == list(enumerate(ORDERS))
    assert ["First" in p for p in engine.calls[-1].prompts] == [True, False, True]
    assert list(found.probabilities.values()) == pytest.approx([0.6, 0.3, 0.1])
    assert [r["fault"] for r in found.trace["draws"]["no"]] == ["", "too_short", ""]
    assert [r["shown"] for r in found.trace["draws"]["no"]] == [True, False, True]
    assert found.trace["rationales"]["no"]["text"] == texts[0]


def test_pmi_subtracts_what_the_labels_get_without_the_evidence(walking: Question) -> None:
    prior = logs(0.5, 0.25, 0.25)
    engine = scripted(scores={blind(order): prior for order in ORDERS})
    found = asked(voc(pmi=True, permutations="1"), walking, engine)
    net = [0.6 / 0.5, 0.3 / 0.25, 0.1 / 0.25]
    assert list(found.probabilities.values()) == pytest.approx([n / sum(net) for n in net])
    assert found.trace["verify"][0]["prior"] == pytest.approx(
        dict(zip(walking.choices, prior, strict=True))
    )
    with pytest.raises(UserError, match=r"question 1: voc leaves .*a task whose questions have"):
        list(voc(pmi=True).predict([walking], scripted(), protocol="question-only", seed=0))


def test_labels_without_a_probability_are_the_least_likely_and_no_nan(walking: Question) -> None:
    """As endpoints that list a few tokens, or answer one of the labels, tell them."""

    def decides(prompt: str, labels: Sequence[str]) -> list[float]:
        if "Proposed answer" in prompt:
            return [0.0, -math.inf] if "answer: maybe" in prompt else [-math.inf, 0.0]
        if "at most one is right" not in prompt:
            return [0.0, -math.inf, -math.inf]
        found = " yes" if "right.\n[yes]" in prompt else " no"
        return [0.0 if label == found else -math.inf for label in labels]

    engine = ScriptedEngine({hypothesise(c): text for c, text in REASONS.items()}, decides)
    assert asked(voc(), walking, engine).probabilities == pytest.approx(
        {"yes": 0.0, "no": 1.0, "maybe": 0.0}
    )
    assert asked(voc(mode="ptrue"), walking, engine).choice == "maybe"
    found = asked(voc(mode="likelihood", w_direct=0.0), walking, engine)
    assert all(math.isfinite(v) for row in found.trace["features"].values() for v in row.values())
    with pytest.raises(UserError, match="question 1: a label has no probability without the evi"):
        asked(voc(pmi=True), walking, engine)


def test_top2_contests_the_direct_two_and_keeps_the_rest(walking: Question) -> None:
    two = ("yes", "no")
    engine = scripted(scores={
        verify(two): [-1.0, -1.0], verify(two[::-1]): [-1.0, -1.0], DIRECT: logs(0.5, 0.3, 0.2),
    })  # fmt: skip
    found = asked(voc(top2=True), walking, engine)
    assert engine.calls[1].prompts == tuple(map(hypothesise, two))
    assert engine.calls[2].choices == (" yes", " no")
    assert found.probabilities == pytest.approx({"yes": 0.4, "no": 0.4, "maybe": 0.2})
    assert found.trace["contested"] == two


def said(*texts: str) -> dict[str, str]:
    return {check(order): text for order, text in zip(ORDERS, texts, strict=True)}


def test_generated_verdict_is_the_vote_of_parsed_checks(walking: Question) -> None:
    engine = scripted(said(" no: fine.\nFinal answer: no", "Final answer: no", "Hard to say."))
    found = asked(voc(verdict="generated"), walking, engine)
    assert engine.calls[1].prompts == tuple(check(order) for order in ORDERS)
    assert engine.calls[1].settings["max_tokens"] == 80
    assert [call.kind for call in engine.calls] == ["complete", "complete"]
    assert (found.choice, found.probabilities) == ("no", {})
    assert found.trace["parse"] == ["ok", "ok", "unparsed"]
    verdict = found.trace["verdict"]
    assert (verdict["decided_by"], verdict["votes"]) == ("generated", {"no": 2})
    assert verdict["checks"][0]["text"] == "no: fine.\nFinal answer: no"


def test_a_check_ends_where_the_model_invents_another_item(walking: Question) -> None:
    more = "Final answer: no\n{}: Does rest help?\nFinal answer: yes"
    engine = scripted(said(*map(more.format, ("Question", "Abstract", "Context"))))
    found = asked(voc(verdict="generated"), walking, engine)
    assert found.trace["verdict"]["votes"] == {"no": 3}
    assert found.choice == "no"


@pytest.mark.parametrize(
    ("texts", "votes", "choice"),
    [
        (("", "I cannot tell.", "因为步行者好转。"), {}, "yes"),  # the scored verdict of all
        # Of the two that tie the scored verdict takes the better; a tie is no vote for the first.
        (("Final answer: maybe", "Final answer: no", ""), {"maybe": 1, "no": 1}, "no"),
    ],
)
def test_unparsed_or_tied_checks_fall_back_to_the_scored_verdict(
    walking: Question, texts: tuple[str, ...], votes: dict[str, int], choice: str
) -> None:
    engine = scripted(said(*texts))
    found = asked(voc(verdict="generated"), walking, engine)
    assert engine.calls[-1].prompts == tuple(verify(order) for order in ORDERS)
    assert (found.choice, found.probabilities) == (choice, {})
    verdict = found.trace["verdict"]
    assert (verdict["decided_by"], verdict["votes"]) == ("scored", votes)
    assert found.trace["parse"].count("unparsed") == 3 - sum(votes.values())


def test_a_choice_that_is_out_does_not_win(walking: Question) -> None:
    two = ("yes", "no")
    out = {check(order): "Final answer: maybe" for order in (two, two[::-1])}
    scores = {
        DIRECT: logs(0.5, 0.3, 0.2),
        verify(two): [-1.0, -2.0],
        verify(two[::-1]): [-1.0, -2.0],
    }
    found = asked(voc(verdict="generated", top2=True), walking, scripted(out, scores))
    assert found.trace["parse"] == ["not_contested", "not_contested"]
    assert (found.choice, found.trace["verdict"]["decided_by"]) == ("yes", "scored")


def test_an_engine_without_logprobs(walking: Question) -> None:
    everything = {
        **{hypothesise(c): text for c, text in REASONS.items()},
        **said("Final answer: no", "Final answer: no", ""),
    }
    engine = ScriptedEngine(everything, has_logprobs=False)
    found = asked(voc(verdict="generated"), walking, engine)
    assert (found.choice, found.trace["verdict"]["decided_by"]) == ("no", "generated")
    engine = ScriptedEngine({**everything, **said("", "", "")}, has_logprobs=False)
    found = asked(voc(verdict="generated"), walking, engine)
    assert (found.choice, found.trace["verdict"]["decided_by"]) == (NO_ANSWER, "nothing")
    for how in (voc(), voc(verdict="generated", top2=True), voc(mode="ptrue")):
        with pytest.raises(NoLogprobs, match="no log-probabilities, which voc needs; allowed: voc"):
            list(how.predict([walking], engine, protocol=REQUIRED, seed=0))


def test_a_model_that_answers_nothing_or_loops(walking: Question) -> None:
    for text, reason in (("", "too_short"), ("it helps all of them " * 40, "repeats_itself")):
        engine = ScriptedEngine(lambda p, t=text: t, lambda p, cs: [-1.0, -2.0, -3.0])
        found = asked(voc(), walking, engine)
        # Its explanations stay in the comparison; a missing one would give the verdict away.
        assert {r["fault"] for r in found.trace["rationales"].values()} == {reason}
        assert all("[no] " in p and "[maybe] " in p for p in engine.calls[1].prompts)
        assert found.choice == "yes"
        found = asked(voc(verdict="generated"), walking, engine)
        assert found.trace["verdict"]["decided_by"] == "scored"
    assert found.trace["rationales"]["yes"]["finish"] == "length"
    assert found.trace["rationales"]["yes"]["tokens"] == 128


def test_a_context_beyond_the_window_is_an_error_and_nothing_is_cut(walking: Question) -> None:
    from medexpert.engines.base import PromptError

    class Window(ScriptedEngine):
        def complete(self, prompts, **settings):  # type: ignore[no-untyped-def]
            for index, prompt in enumerate(prompts):
                if self.count_tokens(prompt) > 200:
                    raise PromptError("too long for the window", index=index, allowed="200 tokens")
            return super().complete(prompts, **settings)

    engine = Window(lambda p: "some text", lambda p, cs: [-1.0, -2.0, -3.0])
    long = replace(walking, id="7", contexts=("word " * 300,))
    with pytest.raises(UserError, match="question 7: too long for the window; allowed: 200 tokens"):
        list(voc().predict([walking, long], engine, protocol=REQUIRED, seed=0))
