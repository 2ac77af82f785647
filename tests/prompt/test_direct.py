"""`direct` with a scripted engine: exact prompts, order, probabilities, faults."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from medexpert.engines.base import PromptError
from medexpert.engines.scripted import Call, ScriptedEngine
from medexpert.prompt import PROTOCOLS, STRATEGIES, strategies
from medexpert.prompt.direct import Direct
from medexpert.prompt.template import template_id
from medexpert.prompt.voc import Voc
from medexpert.records import Question, UserError

ASKED = (
    "Abstract: Half of 90 adults walked.\nWalkers improved.\nQuestion: Does walking help?\nAnswer:"
)


def test_transcript(walking: Question) -> None:
    engine = ScriptedEngine(logprobs={ASKED: [math.log(0.2), math.log(0.1), math.log(0.1)]})
    (found,) = Direct().predict([walking], engine, protocol="reasoning-required", seed=0)
    assert engine.calls == [Call("choice_logprobs", (ASKED,), (" yes", " no", " maybe"))]
    assert (found.id, found.choice, found.answer) == ("1", "yes", "yes")
    assert found.probabilities == pytest.approx({"yes": 0.5, "no": 0.25, "maybe": 0.25})
    assert found.trace["templates"] == [template_id("pubmedqa.lm_eval")]
    assert found.trace["tokens"] == {"prompt": 13, "generated": 0}


def test_protocols_show_what_they_name(walking: Question) -> None:
    prompts = []
    for protocol in PROTOCOLS:
        engine = ScriptedEngine(logprobs=lambda p, cs: [0.0 for _ in cs])
        list(Direct().predict([walking], engine, protocol=protocol, seed=0))
        prompts.append(engine.calls[0].prompts[0])
    assert prompts == [
        ASKED,
        "Question: Does walking help?\nAnswer:",
        "Abstract: It helps.\nQuestion: Does walking help?\nAnswer:",
    ]


def test_streams_in_order_and_in_batches(walking: Question, chinese: Question) -> None:
    engine = ScriptedEngine(logprobs=lambda p, cs: [-1.0, -0.5, -2.0])
    mixed = [replace(q, id=str(n)) for n, q in enumerate([walking, chinese] * 3)]
    stream = Direct(batch=4).predict(mixed, engine, protocol="reasoning-required", seed=0)
    assert next(stream).id == "0"
    assert sum(len(call.prompts) for call in engine.calls) == 4
    assert [p.id for p in stream] == ["1", "2", "3", "4", "5"]
    assert {call.choices for call in engine.calls} == {
        (" yes", " no", " maybe"), ("是", "否", "不确定"),
    }  # fmt: skip


def test_other_choices_are_listed_and_scored_by_letter(
    walking: Question, chinese: Question
) -> None:
    engine = ScriptedEngine(logprobs=lambda p, cs: [-1.0, -0.5])
    drugs = replace(walking, choices=("aspirin", "warfarin"), answer="warfarin")
    (found,) = Direct().predict([drugs], engine, protocol="question-only", seed=0)
    assert engine.calls[0].prompts == (
        "Question: Does walking help?\nA. aspirin\nB. warfarin\nAnswer:",
    )
    assert engine.calls[0].choices == (" A", " B")
    assert found.choice == "warfarin"
    drugs = replace(chinese, choices=("阿司匹林", "华法林"), answer="华法林")
    list(Direct().predict([drugs], engine, protocol="reasoning-required", seed=0))
    assert engine.calls[1].prompts == (
        "背景：步行者好转。\n问题：步行有用吗？\nA. 阿司匹林\nB. 华法林\n答案：",
    )
    assert engine.calls[1].choices == ("A", "B")


def test_equal_scores_take_the_first_choice(walking: Question) -> None:
    engine = ScriptedEngine(logprobs=lambda p, cs: [-1.0 for _ in cs])
    (found,) = Direct().predict([walking], engine, protocol="question-only", seed=0)
    assert found.choice == "yes"


def test_faults_name_the_question(walking: Question) -> None:
    def too_long(prompt: str, choices: object) -> list[float]:
        raise PromptError("9000 tokens do not fit", index=1, allowed="8192 tokens")

    both = [walking, replace(walking, id="42")]
    broken = ScriptedEngine(logprobs=lambda p, cs: [math.nan for _ in cs])
    cases = [
        (ScriptedEngine(logprobs=too_long), both, "question-only",
         "question 42: 9000 tokens do not fit; allowed: 8192 tokens"),
        (broken, [walking], "question-only", "question 1: the model scripted gives no usable"),
        (broken, [replace(walking, contexts=())], "reasoning-required",
         "question 1: it has no context, .*; allowed: protocol question-only"),
        (broken, [replace(walking, long_answer="")], "reasoning-free", "no conclusion"),
        (broken, [walking], "open-book", "unknown protocol 'open-book'"),
        (broken, [replace(walking, lang="fr")], "question-only", "no 'fr' version"),
    ]  # fmt: skip
    for engine, questions, protocol, message in cases:
        with pytest.raises(UserError, match=message):
            list(Direct().predict(questions, engine, protocol=protocol, seed=0))


def test_versions_tell_strategies_apart() -> None:
    assert {"direct", "lm-eval", "cot", "self_consistency", "medprompt", "self_verification",
            "ensemble_refinement", "voc", "voc-likelihood"} <= set(STRATEGIES)  # fmt: skip
    assert all(name == strategy.name for name, strategy in STRATEGIES.items())
    listed = (Path(__file__).resolve().parents[2] / "docs" / "evaluate.md").read_text("utf-8")
    assert not [name for name in STRATEGIES if f"`{name}`" not in listed]
    assert STRATEGIES["direct"].version != STRATEGIES["voc"].version


def test_options_are_part_of_a_strategys_name() -> None:
    found = strategies.get("voc:max_tokens=64:contradictions=true")
    assert isinstance(found, Voc)
    assert (found.name, found.max_tokens, found.contradictions) == (
        "voc:max_tokens=64:contradictions=true", 64, True,
    )  # fmt: skip
    assert strategies.get("voc") is STRATEGIES["voc"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vox", "unknown strategy 'vox'.*did you mean 'voc'"),
        ("voc:max_token=3", "unknown option of voc 'max_token'.*did you mean 'max_tokens'"),
        ("voc:max_tokens=many", "option max_tokens of voc: 'many'; allowed: a whole number"),
        (
            "voc:contradictions=maybe",
            "option contradictions of voc: 'maybe'; allowed: true or false",
        ),
        ("voc:batch", "option 'batch' of voc; allowed: batch=VALUE, once"),
        ("voc:batch=1:batch=2", "option 'batch=2' of voc; allowed: batch=VALUE, once"),
        ("voc:name=x", "unknown option of voc 'name'"),
        ("lm-eval:batch=0", "option batch of lm-eval:batch=0: 0; allowed: 1 or more"),
        ("lm-eval:format=medq", "unknown format of lm-eval 'medq'.*did you mean 'medqa'"),
    ],
)
def test_bad_options(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        strategies.get(name)
