"""Verification-of-Choice with a scripted engine: transcripts, filters, decision, languages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt import STRATEGIES
from medexpert.prompt.template import ChatFormat
from medexpert.prompt.voc import Voc, fault
from medexpert.records import Question

GIVEN = "Abstract: Half of 90 adults walked.\nWalkers improved.\nQuestion: Does walking help?\n"
REASONS = {
    "yes": "The adults who walked improved, and the others are not said to have improved.",
    "no": "The abstract names no comparison, so walking is not shown to help the adults.",
    "maybe": "The correct answer is yes. The adults improved.",
}
MAYBE = (
    "maybe = the evidence does not support a definite yes or no, or supports both under different"
    " conditions.\n"
)


def hypothesise(choice: str) -> str:
    return (
        f"{GIVEN}Choices: yes / no / maybe.\n{MAYBE if choice == 'maybe' else ''}"
        f'Suppose the correct answer is "{choice}". Using only facts stated in the abstract,'
        f' explain in 2-4 sentences which findings support "{choice}".\nExplanation:'
    )


def verify(order: Sequence[str]) -> str:
    return (
        f"{GIVEN}Each explanation below assumed its own choice; at most one is right.\n"
        + "".join(f"[{choice}] {REASONS[choice]}\n" for choice in order)
        + "Discard every explanation that contradicts the abstract, states what is not in it, or"
        " over-claims. Then give the choice whose explanation remains.\nFinal answer:"
    )


def ptrue(choice: str) -> str:
    return (
        f"{GIVEN}Proposed answer: {choice}\nExplanation: {REASONS[choice]}\nIs this answer with"
        " this explanation fully supported by the abstract?\nAnswer:"
    )


ORDERS = (("yes", "no", "maybe"), ("no", "maybe", "yes"), ("maybe", "yes", "no"))
SCORES: dict[str, list[float]] = {
    verify(ORDERS[0]): [math.log(p) for p in (0.6, 0.3, 0.1)],
    verify(ORDERS[1]): [math.log(p) for p in (0.2, 0.7, 0.1)],
    verify(ORDERS[2]): [math.log(p) for p in (0.8, 0.1, 0.1)],
    ptrue("yes"): [-1.0, -2.0],
    ptrue("no"): [-1.0, -1.0],
    ptrue("maybe"): [-3.0, -1.0],
    f"{GIVEN}Answer:": [-2.0, -1.0, -9.0],
}


@pytest.fixture
def engine() -> ScriptedEngine:
    said = {hypothesise(c): f" {text}\n\nMore." for c, text in REASONS.items()}
    return ScriptedEngine(said, SCORES)


def test_transcript(walking: Question, engine: ScriptedEngine) -> None:
    (found,) = Voc().predict([walking], engine, protocol="reasoning-required", seed=5)
    first, second = engine.calls
    assert first.prompts == tuple(hypothesise(c) for c in walking.choices)
    assert first.settings == {
        "max_tokens": 128, "stop": ("\n\n",), "temperature": 0.0, "top_p": 1.0, "seed": 5,
    }  # fmt: skip
    assert second.prompts == tuple(verify(order) for order in ORDERS)
    assert second.choices == (" yes", " no", " maybe")
    products = [0.6 * 0.2 * 0.8, 0.3 * 0.7 * 0.1, 0.1**3]
    shares = [p ** (1 / 3) for p in products]
    assert list(found.probabilities.values()) == pytest.approx([s / sum(shares) for s in shares])
    assert found.choice == "yes"
    assert found.trace["flip_rate"] == pytest.approx(1 / 3)
    assert [row["order"] for row in found.trace["verify"]] == list(ORDERS)
    assert {c: r["text"] for c, r in found.trace["rationales"].items()} == REASONS
    assert {c: r["dropped"] for c, r in found.trace["rationales"].items()} == {
        "yes": "", "no": "", "maybe": "names_another_choice",
    }  # fmt: skip
    generated = sum(len(text.split()) for text in REASONS.values())
    assert found.trace["tokens"]["generated"] == generated
    assert sorted(found.trace["templates"]) == ["voc.hypothesise", "voc.verify"]


def test_likelihood_mixes_three_equally(walking: Question, engine: ScriptedEngine) -> None:
    (found,) = STRATEGIES["voc-likelihood"].predict(
        [walking], engine, protocol="reasoning-required", seed=0
    )
    kinds = [(call.kind, len(call.prompts), call.choices) for call in engine.calls]
    assert kinds[2:] == [
        ("choice_logprobs", 3, (" yes", " no")),
        ("choice_logprobs", 1, (" yes", " no", " maybe")),
    ]
    features = found.trace["features"]
    assert set(features) == set(found.trace["weights"]) == {"ptrue", "verify", "direct"}
    odds = {c: math.exp(features["ptrue"][c] - features["ptrue"]["no"]) for c in walking.choices}
    assert odds == pytest.approx({"yes": math.e, "no": 1.0, "maybe": math.exp(-2)})
    mixed = {c: math.exp(sum(f[c] for f in features.values()) / 3) for c in walking.choices}
    total = sum(mixed.values())
    assert found.probabilities == pytest.approx({c: v / total for c, v in mixed.items()})


@pytest.mark.parametrize("choices", [("yes", "no"), ("a drug", "no drug", "rest", "diet", "both")])
def test_any_number_and_wording_of_choices(walking: Question, choices: tuple[str, ...]) -> None:
    engine = ScriptedEngine(
        lambda p: "Eight words or more are needed for this one.",
        lambda p, cs: [-float(n) for n, _ in enumerate(cs)],
    )
    asked = replace(walking, choices=choices)
    (found,) = Voc().predict([asked], engine, protocol="reasoning-required", seed=0)
    assert found.choice == choices[0]
    assert sum(found.probabilities.values()) == pytest.approx(1.0)
    assert len(engine.calls[0].prompts) == len(engine.calls[1].prompts) == len(choices)
    assert "maybe =" not in "".join(engine.calls[0].prompts)


def test_batches_stream_in_order(walking: Question, chinese: Question) -> None:
    engine = ScriptedEngine(lambda p: "some text", lambda p, cs: [-1.0, -2.0, -3.0])
    asked = [replace(q, id=str(n)) for n, q in enumerate([walking, chinese, walking])]
    stream = Voc(batch=2).predict(asked, engine, protocol="reasoning-required", seed=0)
    assert next(stream).id == "0"
    assert len(engine.calls[0].prompts) == 6
    assert [p.id for p in stream] == ["1", "2"]


def test_chinese_question_gets_chinese_prompts_and_labels(chinese: Question) -> None:
    engine = ScriptedEngine(lambda p: "答案是否。", lambda p, cs: [-1.0, -2.0, -3.0])
    (found,) = Voc(explain=True).predict([chinese], engine, protocol="reasoning-required", seed=0)
    generation, scoring, against = engine.calls
    assert "假设正确答案是“是”" in generation.prompts[0]
    assert "不确定 = " in generation.prompts[2]
    assert scoring.choices == ("是", "否", "不确定")
    assert "[否] 答案是否。" in scoring.prompts[0]
    assert not any(word in p for c in engine.calls for p in c.prompts for word in ("yes", "maybe"))
    assert found.trace["rationales"]["yes"]["dropped"] == "names_another_choice"
    assert found.trace["rationales"]["no"]["dropped"] == "too_short"
    assert len(against.prompts) == 3


def test_free_text_is_asked_for_in_chat_form_and_scored_in_plain(
    walking: Question, smollm2: ChatFormat
) -> None:
    engine = ScriptedEngine(lambda p: "text", lambda p, cs: [-1.0, -2.0, -3.0], chat=smollm2)
    list(Voc().predict([walking], engine, protocol="reasoning-required", seed=0))
    assert all(p.endswith("<|im_start|>assistant\n") for p in engine.calls[0].prompts)
    assert not any("<|im_start|>" in p for p in engine.calls[1].prompts)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Walking helped the adults who walked, as the abstract plainly says.", ""),
        ("It helps. The answer is no. Walkers did not improve in any of the groups.",
         "names_another_choice"),
        ("Walkers improved.", "too_short"),
        ("they did improve a lot " * 5, "repeats_itself"),
        ("", "too_short"),
    ],
)  # fmt: skip
def test_faults_of_rationales(walking: Question, text: str, reason: str) -> None:
    assert fault(text, "yes", walking, len(text.split())) == reason
