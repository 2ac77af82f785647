"""`cot` and what it shares with others: the transcript, both readouts, what counts as no answer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from medexpert.engines.base import NoLogprobs
from medexpert.engines.scripted import Call, ScriptedEngine
from medexpert.prompt.cot import Cot
from medexpert.prompt.reasoning import STOP, before_answer
from medexpert.prompt.template import ChatFormat, render, render_request, template_id
from medexpert.records import NO_ANSWER, Prediction, Question, UserError

OPENING = (
    "Abstract: Half of 90 adults walked.\nWalkers improved.\nQuestion: Does walking help?\n"
    "Choices: yes / no / maybe.\n"
)
ASKED = (
    f"{OPENING}Reason step by step from what the abstract states, in a few sentences. Then give"
    " one of the choices in a last line of this form:\nFinal answer: (choice)\nReasoning:"
)
SAID = " Walkers improved, the others are not said to.\nFinal answer: yes"
RUN = Question(
    id="7", question="Does running help?", choices=("yes", "no", "maybe"), answer="no",
    contexts=("Runners got worse.",), long_answer="It did\nnot help.",
)  # fmt: skip
SHOT = (
    "Abstract: Runners got worse.\nQuestion: Does running help?\nChoices: yes / no / maybe.\n"
    + ASKED.removeprefix(OPENING)
    + " It did not help.\nFinal answer: no\n\n"
)


def ask(strategy: Cot, question: Question, engine: ScriptedEngine, **more: object) -> Prediction:
    protocol = "reasoning-required" if question.contexts else "question-only"
    (found,) = strategy.predict([question], engine, protocol=protocol, seed=5, **more)  # type: ignore[arg-type]
    return found


def test_transcript(walking: Question) -> None:
    engine = ScriptedEngine({ASKED: SAID}, has_logprobs=False)
    found = ask(Cot(), walking, engine)
    settings = {
        "max_tokens": 256, "stop": STOP["en"], "temperature": 0.0, "top_p": 1.0, "seed": 5,
    }  # fmt: skip
    assert engine.calls == [Call("complete", (ASKED,), settings=settings)]
    assert (found.choice, dict(found.probabilities)) == ("yes", {})
    assert found.trace["parse"] == ["ok"]
    assert found.trace["samples"][0]["text"] == SAID.strip()
    assert found.trace["templates"] == [template_id("cot.reason")]
    assert found.trace["tokens"] == {"prompt": len(ASKED.split()), "generated": 11}
    assert found.trace["calls"] == 1


def test_scored_readout_continues_the_prompt_without_its_own_answer(walking: Question) -> None:
    behind = f"{ASKED} Walkers improved, the others are not said to.\nFinal answer:"
    scores = {behind: [math.log(0.2), math.log(0.6), math.log(0.2)]}
    engine = ScriptedEngine({ASKED: SAID}, scores)
    found = ask(Cot(readout="scored"), walking, engine)
    assert engine.calls[1] == Call("choice_logprobs", (behind,), (" yes", " no", " maybe"))
    assert found.choice == "no"
    assert found.probabilities == pytest.approx({"yes": 0.2, "no": 0.6, "maybe": 0.2})
    assert found.trace["parse"] == ["ok"]
    assert found.trace["tokens"]["prompt"] == len(ASKED.split()) + len(behind.split())


def test_scored_readout_needs_logprobs(walking: Question) -> None:
    with pytest.raises(NoLogprobs, match="gives no log-probabilities"):
        ask(Cot(readout="scored"), walking, ScriptedEngine({ASKED: SAID}, has_logprobs=False))


@pytest.mark.parametrize(
    ("said", "parse"),
    [
        ("", "empty"), (" \n", "empty"), ("Walkers improved.", "no_choice"),
        ("Final answer: yes or no", "no_choice"), ("最终答案：是", "no_choice"),
        ("so " * 300, "cut_off"), ("There is no evidence for it.", "no_choice"),
    ],
)  # fmt: skip
def test_unparsed_is_an_outcome(walking: Question, said: str, parse: str) -> None:
    found = ask(Cot(), walking, ScriptedEngine({ASKED: said}))
    assert (found.choice, found.trace["parse"]) == (NO_ANSWER, [parse])
    assert not found.correct


def test_shots_are_worked_examples_of_the_same_text(walking: Question) -> None:
    engine = ScriptedEngine({SHOT + ASKED: SAID})
    found = ask(Cot(shots=1), walking, engine, examples=[RUN])
    assert (found.choice, found.trace["shots"]) == ("yes", ["7"])
    with pytest.raises(UserError, match=r"question 1: 2 solved examples .* and 1 can be"):
        ask(Cot(shots=2), walking, engine, examples=[RUN])
    with pytest.raises(UserError, match="example 7: a solved example without reasoning"):
        ask(Cot(shots=1), walking, engine, examples=[replace(RUN, long_answer="")])


def test_letters_and_chinese(chinese: Question) -> None:
    drugs = replace(
        chinese, choices=("阿司匹林", "华法林"), answer="华法林", contexts=(),
        question="哪种药是抗凝药？",
    )  # fmt: skip
    engine = ScriptedEngine(lambda _: "华法林抗凝。\n最终答案：B")
    found = ask(Cot(), drugs, engine)
    assert engine.calls[0].prompts == (
        "问题：哪种药是抗凝药？\nA. 阿司匹林\nB. 华法林\n用几句话逐步推理，然后在最后一行按下面的"
        "格式写出一个选项：\n最终答案：（选项）\n推理：",
    )
    assert (found.choice, found.correct) == ("华法林", True)
    scored = ScriptedEngine(lambda _: "", lambda p, cs: [-2.0, -1.0])
    assert ask(Cot(readout="scored"), drugs, scored).choice == "华法林"
    assert scored.calls[1].prompts[0].endswith("推理：\n最终答案：")
    assert scored.calls[1].choices == ("A", "B")


def test_a_chat_model_is_asked_in_its_format(walking: Question, smollm2: ChatFormat) -> None:
    engine = ScriptedEngine(lambda _: SAID.strip(), lambda p, cs: [0.0] * len(cs), chat=smollm2)
    ask(Cot(readout="scored"), walking, engine)
    (prompt,), (behind,) = engine.calls[0].prompts, engine.calls[1].prompts
    assert prompt.endswith("(choice)<|im_end|>\n<|im_start|>assistant\n")
    assert behind == f"{prompt}Walkers improved, the others are not said to.\nFinal answer:"


@pytest.mark.parametrize("plain", [True, False])
def test_what_is_trained_begins_as_it_is_asked(smollm2: ChatFormat, plain: bool) -> None:
    chat = ChatFormat("", eos="<end>") if plain else smollm2
    fields = {
        "question": "Q?", "evidence": "E.", "options": {"A": "x", "B": "y"}, "rationale": "R.",
        "answer": "B",
    }  # fmt: skip
    given, learned, *rest = render("cot.reason", fields, chat=chat)
    assert given.text == render_request("cot.reason", fields, chat=chat)
    assert "[[" not in given.text
    answer = "R.\nFinal answer: B" + chat.eos
    assert learned.text == (f" {answer}" if plain else answer)
    assert (given.learn, learned.learn) == (False, True)
    assert all(not segment.text.strip() for segment in rest)


def test_before_answer() -> None:
    assert before_answer("It helps.\n**Final answer:** yes\nFinal answer: no") == "It helps."
    assert before_answer("The final answerer spoke. ") == "The final answerer spoke."
    assert before_answer("有效。最终答案：是") == "有效。"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"readout": "score"}, "unknown readout of cot 'score'.*did you mean 'scored'"),
        ({"max_tokens": 0}, "option max_tokens of cot: 0; allowed: 1 or more"),
        ({"shots": -1}, "option shots of cot: -1; allowed: 0 or more"),
        ({"pick": "near"}, "unknown pick of cot 'near'.*did you mean 'nearest'"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Cot(**options)  # type: ignore[arg-type]
