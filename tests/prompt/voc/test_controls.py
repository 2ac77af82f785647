"""Controls: exactly one thing is taken away, and what is drawn depends on seed and id alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt import STRATEGIES, strategies
from medexpert.prompt.asking import QuestionRefused
from medexpert.prompt.voc import Voc
from medexpert.prompt.voc.controls import donor, filler, shuffled
from medexpert.records import Prediction, Question, UserError
from voc_prompts import (
    DIRECT,
    FILTERED,
    ORDERS,
    REASONS,
    Refusing,
    blind,
    hypothesise,
    logs,
    scripted,
    verify,
)

REQUIRED = "reasoning-required"
TEXTS = dict(REASONS)


def run(name: str, question: Question, engine: ScriptedEngine, **more: object) -> Prediction:
    how = strategies.get(f"{name}:permutations=cyclic")
    (found,) = how.predict([question], engine, protocol=REQUIRED, seed=0, **more)  # type: ignore[arg-type]
    return found


def test_no_context_hides_the_abstract_from_verification_only(walking: Question) -> None:
    engine = scripted(scores={blind(order): logs(0.1, 0.1, 0.8) for order in ORDERS})
    found = run("voc-no-context", walking, engine)
    assert engine.calls[0].prompts == tuple(map(hypothesise, walking.choices))
    assert engine.calls[1].prompts == tuple(map(blind, ORDERS))
    assert found.choice == "maybe"


def test_direct_only_shows_one_explanation_and_scores_all(walking: Question) -> None:
    engine = scripted(scores={DIRECT: logs(0.1, 0.7, 0.2), verify(["no"]): logs(0.5, 0.3, 0.2)})
    found = run("voc-direct-only", walking, engine)
    assert engine.calls[1].prompts == (hypothesise("no"),)
    assert engine.calls[2].prompts == (verify(["no"]),)
    assert engine.calls[2].choices == (" yes", " no", " maybe")
    assert found.choice == "yes"


def test_shuffled_gives_every_choice_anothers_explanation(walking: Question) -> None:
    engine = ScriptedEngine(
        {hypothesise(c): text for c, text in REASONS.items()}, lambda p, cs: [-1.0, -2.0, -3.0]
    )
    found = run("voc-shuffled", walking, engine)
    (shown,) = found.trace["shown"]
    assert sorted(shown.values()) == sorted(REASONS.values())
    assert not [c for c in REASONS if shown[c] == REASONS[c]]
    assert engine.calls[1].prompts == tuple(verify(order, shown) for order in ORDERS)
    # The explanations themselves are in the trace under the choice they were written for.
    assert found.trace["rationales"]["no"]["text"] == REASONS["no"]


def test_filler_is_neutral_and_as_long(walking: Question) -> None:
    engine = ScriptedEngine(
        {hypothesise(c): text for c, text in REASONS.items()}, lambda p, cs: [-1.0, -2.0, -3.0]
    )
    found = run("voc-filler", walking, engine)
    (shown,) = found.trace["shown"]
    for choice, text in shown.items():
        assert len(text.split()) == len(REASONS[choice].split())
        assert text.startswith("This explanation is left open")
        assert not set(text.lower().split()) & {"yes", "maybe"}
    assert engine.calls[1].prompts[0] == verify(ORDERS[0], shown)


def test_foreign_asks_for_another_questions_explanations(
    walking: Question, chinese: Question
) -> None:
    other = replace(walking, id="9", question="Does rest help?", contexts=("Rest was bad.",))
    drugs = replace(other, id="8", choices=("aspirin", "heparin"))
    engine = ScriptedEngine(
        lambda p: "A foreign reason with more than eight words in all.",
        lambda p, cs: [-1.0, -2.0, -3.0],
    )
    found = run("voc-foreign", walking, engine, examples=[chinese, drugs, other, walking])
    opening = "Abstract: Rest was bad.\nQuestion: Does rest help?\nChoices: yes / no / maybe.\n"
    assert engine.calls[0].prompts == tuple(hypothesise(c, opening) for c in walking.choices)
    same = dict.fromkeys(walking.choices, "A foreign reason with more than eight words in all.")
    assert engine.calls[1].prompts == tuple(verify(order, same) for order in ORDERS)
    assert found.trace["tokens"]["generated"] == 30
    with pytest.raises(UserError, match="question 1: no other question with the same labels"):
        run("voc-foreign", walking, engine, examples=[drugs])


def test_foreign_where_no_example_fits_takes_the_questions_asked(walking: Question) -> None:
    five = replace(walking, choices=("a", "b", "c", "d", "e"))
    asked = [replace(five, id=str(n), question=f"Question {n}?") for n in range(3)]
    engine = ScriptedEngine(lambda p: "text", lambda p, cs: [-1.0 for _ in cs])
    four = replace(walking, id="x", question="Which?", choices=("a", "b", "c", "d"))
    made = STRATEGIES["voc-foreign"].predict(
        asked, engine, protocol=REQUIRED, seed=0, examples=[four]
    )
    assert [found.id for found in made] == ["0", "1", "2"]
    assert not any("Question: Which?" in p for call in engine.calls for p in call.prompts)


def borrowing(
    asked: list[Question], refused: list[Question], lenders: list[Question]
) -> list[Prediction]:
    """`voc-foreign` of the questions asked, where explaining these is refused."""
    marks = tuple(f"Question: {question.question}\n" for question in refused)
    engine = Refusing(lambda p: "Explanation:" in p and any(mark in p for mark in marks))
    how = strategies.get("voc-foreign:batch=3")
    return list(how.predict(asked, engine, protocol=REQUIRED, seed=0, lenders=lenders))  # type: ignore[call-arg]


def test_foreign_takes_the_next_donor_where_one_is_refused(walking: Question) -> None:
    asked = [replace(walking, id=str(n), question=f"Question {n}?") for n in range(12)]
    first = [donor(question, [asked], 0) for question in asked]
    lost = first[4]
    found = borrowing(asked, [lost], asked)
    assert [one.id for one in found] == [question.id for question in asked]
    for one, other, question in zip(found, first, asked, strict=True):
        passed = {lost.id: FILTERED} if other.id == lost.id else {}
        assert one.trace.get("refused_donors", {}) == passed
        second = donor(question, [asked], 0, passed)
        assert second.id not in (lost.id, question.id)
        assert (second.id == other.id) == (not passed)
    # A run that goes on in the middle gives the same answers.
    assert borrowing(asked[5:], [lost], asked) == found[5:]
    assert [one for one in found if "refused_donors" not in one.trace] == [
        one for one in borrowing(asked, [], asked) if first[int(one.id)].id != lost.id
    ]


def test_foreign_counts_as_refused_after_so_many_donors(walking: Question) -> None:
    others = [replace(walking, id=f"o{n}", question=f"Other {n}?") for n in range(9)]
    with pytest.raises(QuestionRefused, match=r"question 1: .* all 4 tried are refused \(o"):
        borrowing([walking], others, others)
    with pytest.raises(QuestionRefused, match=r"all 2 tried are refused \(o.: the endpoint"):
        borrowing([walking], others[:2], others[:2])


def test_foreign_letters_go_by_place(walking: Question) -> None:
    asked = replace(walking, choices=("aspirin", "heparin"))
    other = replace(walking, id="9", question="Which?", choices=("rest", "walks"))
    engine = ScriptedEngine(
        lambda p: "It is about rest." if "Answer: A. rest" in p else "It is about walks.",
        lambda p, cs: [-1.0, -2.0],
    )
    found = run("voc-foreign", asked, engine, examples=[other])
    assert found.trace["shown"] == [
        {"aspirin": "It is about rest.", "heparin": "It is about walks."}
    ]


def test_what_is_drawn_follows_seed_and_id(walking: Question) -> None:
    pool = [replace(walking, id=str(n), question=f"Question {n}?") for n in range(100, 140)]
    asked = [replace(walking, id=str(n)) for n in range(40)]
    first = [donor(q, [pool], 0).id for q in asked]
    assert first == [donor(q, [(), pool], 0).id for q in asked]
    assert first != [donor(q, [pool], 1).id for q in asked]
    assert len(set(first)) > 15
    turns = {shuffled(replace(walking, id=str(n)), TEXTS, 0)["yes"] for n in range(20)}
    assert turns == {REASONS["no"], REASONS["maybe"]}


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300), st.sampled_from(("en", "zh")))
def test_filler_has_the_length_or_the_next_there_is(text: str, lang: str) -> None:
    def count(given: str) -> int:
        return len(given.encode()) if lang == "zh" else len(given.split())

    made = count(filler(text, lang, count))
    assert count(text) <= made <= count(text) + 2


def test_controls_are_strategies_of_their_own() -> None:
    names = {f"voc-{c}" for c in ("foreign", "shuffled", "filler", "direct-only", "no-context")}
    assert names <= set(STRATEGIES)
    made = {name: STRATEGIES[name] for name in names}
    for name, strategy in made.items():
        assert isinstance(strategy, Voc)
        assert replace(strategy, name="voc", control="") == Voc(), name
