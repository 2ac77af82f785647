"""What a task lacks is told without a model, and as the strategy itself would tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt import STRATEGIES, strategies
from medexpert.prompt.needs import Needs, check_needs
from medexpert.records import Question, UserError

NAMES = (
    "direct", "direct:shots=2", "cot", "cot:shots=2", "self_consistency:k=1:shots=2",
    "medprompt:shots=2:tries=2:orders=1", "self_verification:k=1", "voc", "voc:shots=2",
    "voc:pmi=true", "voc-no-context", "voc-foreign", "voc-foreign:shots=1",
)  # fmt: skip


def pools(walking: Question, chinese: Question) -> dict[str, list[Question]]:
    first = replace(walking, id="a", question="Does rest help?")
    second = replace(walking, id="b", question="Does sleep help?", answer="no")
    lettered = ("rest", "walks")
    again = replace(walking, id="c", question="Does  walking help?")
    return {
        "none": [],
        "one": [first],
        "two": [first, second],
        "three, one being the question": [first, second, walking],
        "the question's text again": [first, again],
        "the question's id": [first, replace(second, id=walking.id)],
        "another language": [first, chinese, replace(chinese, id="3", question="睡眠？")],
        "other labels": [replace(q, choices=lettered, answer="rest") for q in (first, second)],
        "no reasoning": [replace(q, long_answer="") for q in (first, second)],
    }


def told(
    name: str, asked: Sequence[Question], pool: Sequence[Question], protocol: str
) -> tuple[str, str]:
    """The faults found without a model and by asking one, "" for none."""
    strategy = strategies.get(name)
    engine = ScriptedEngine(
        lambda p: "It is so for some reasons, eight words long.\nFinal answer: yes",
        lambda p, choices: [-1.0 for _ in choices],
    )
    found = ["", ""]
    try:
        check_needs(strategy, asked, protocol=protocol, examples=pool)
    except UserError as error:
        found[0] = error.what
    try:
        list(strategy.predict(asked, engine, protocol=protocol, seed=0, examples=pool))
    except UserError as error:
        found[1] = error.what
    return found[0], found[1]


@pytest.mark.parametrize("protocol", ["reasoning-required", "question-only"])
@pytest.mark.parametrize("name", NAMES)
def test_it_tells_what_the_strategy_would(
    name: str, protocol: str, walking: Question, chinese: Question
) -> None:
    faults = set()
    for asked in ([walking], [walking, replace(walking, id="9", question="Does it?")]):
        for kind, pool in pools(walking, chinese).items():
            without, by_asking = told(name, asked, pool, protocol)
            assert without == by_asking, (kind, len(asked))
            faults.add(without)
    never = protocol == "question-only" and name in ("voc:pmi=true", "voc-no-context")
    assert ("" in faults) != never
    bare = [replace(walking, contexts=())]
    pool = pools(walking, chinese)["two"]
    assert bool(told(name, bare, pool, protocol)[0]) == (protocol != "question-only" or never)


def test_every_strategy_says_what_it_needs() -> None:
    assert {type(getattr(strategy, "needs", None)) for strategy in STRATEGIES.values()} == {Needs}


def test_a_later_question_is_checked_too(walking: Question, chinese: Question) -> None:
    pool = pools(walking, chinese)["two"]
    with pytest.raises(UserError, match=r"question 2: 2 solved examples are .* and 0 can be"):
        check_needs(
            strategies.get("direct:shots=2"), [walking, chinese],
            protocol="reasoning-required", examples=pool,
        )  # fmt: skip


def test_no_question_needs_nothing() -> None:
    """An empty split is told by who asks it, see `evaluate.run`."""
    for name in NAMES:
        check_needs(strategies.get(name), [], protocol="question-only")
