"""`ensemble_refinement` and what every reasoning strategy keeps to, whatever the question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt import strategies
from medexpert.prompt.ensemble_refinement import EnsembleRefinement
from medexpert.prompt.template import ChatFormat
from medexpert.records import Question

OPENING = (
    "Abstract: Half of 90 adults walked.\nWalkers improved.\nQuestion: Does walking help?\n"
    "Choices: yes / no / maybe.\n"
)
REASONING = (
    "direct", "cot", "cot:readout=scored", "self_consistency:k=3", "medprompt:shots=2:orders=2",
    "self_verification:k=3", "ensemble_refinement:k=2:m=3",
)  # fmt: skip


def test_transcript(walking: Question) -> None:
    said = ["One.\nFinal answer: yes", "", "Two.", "A.\nFinal answer: no", "B.\nFinal answer: no"]
    engine = ScriptedEngine(lambda _: said.pop(0), has_logprobs=False)
    (found,) = EnsembleRefinement(k=3, m=2).predict(
        [walking], engine, protocol="reasoning-required", seed=1
    )
    first, refined = engine.calls[:3], engine.calls[3:]
    assert len({call.prompts for call in first}) == len({call.prompts for call in refined}) == 1
    assert refined[0].prompts == (
        f"{OPENING}Draft 1: One. Final answer: yes\nDraft 2: Two.\n"
        "Each draft was written on its own and may be wrong. Weigh them against the abstract,"
        " then reason step by step, in a few sentences. Give one of the choices in a last line of"
        " this form:\nFinal answer: (choice)\nReasoning:",
    )
    assert {call.settings["temperature"] for call in engine.calls} == {0.7}
    assert (found.choice, found.probabilities["no"]) == ("no", 1.0)
    assert found.trace["first_parse"] == ["ok", "empty", "no_choice"]
    assert found.trace["parse"] == ["ok", "ok"]
    assert found.trace["calls"] == 5


class Any:
    """Says any label that the question lists, another at each call."""

    def __init__(self, labels: Sequence[str], chat: ChatFormat) -> None:
        self.labels, self.turn = labels, 0
        self.engine = ScriptedEngine(self.say, lambda p, cs: [-float(k) for k in range(len(cs))],
                                     chat=chat)  # fmt: skip

    def say(self, _: str) -> str:
        self.turn += 1
        mark = "最终答案：" if "是" in self.labels else "Final answer: "
        return f"So it is.\n{mark}{self.labels[self.turn % len(self.labels)]}"


@pytest.mark.parametrize("name", REASONING)
@pytest.mark.parametrize("size", [2, 3, 5, 9])
def test_any_number_of_choices(
    walking: Question, smollm2: ChatFormat, name: str, size: int
) -> None:
    choices = tuple(f"a drug called {n}" for n in range(size))
    asked = replace(walking, choices=choices, answer=choices[1])
    pool = [replace(asked, id=f"e{n}", question=f"Does {n} help?") for n in range(20)]
    for chat in (ChatFormat(""), smollm2):
        script = Any("ABCDEFGHI"[:size], chat)
        found = list(
            strategies.get(name).predict(
                [asked, replace(asked, id="2")], script.engine, protocol="reasoning-required",
                seed=0, examples=pool,
            )
        )  # fmt: skip
        assert [one.id for one in found] == ["1", "2"]
        for one in found:
            assert one.choice in choices
            if one.probabilities:
                assert list(one.probabilities) == list(choices)
                assert math.isclose(sum(one.probabilities.values()), 1)
            assert one.trace["calls"] > 0
            assert one.trace["tokens"]["prompt"] > 0
            assert one.trace["templates"]


@pytest.mark.parametrize("name", [n for n in REASONING if not n.startswith(("direct", "med"))])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_all_prompts_of_a_question_begin_alike(
    walking: Question, chinese: Question, name: str, lang: str
) -> None:
    asked = walking if lang == "en" else chinese
    opening = OPENING if lang == "en" else (
        "摘要：步行者好转。\n问题：步行有用吗？\n选项：是 / 否 / 不确定。\n"
    )  # fmt: skip
    script = Any(("yes", "no") if lang == "en" else ("是", "否"), ChatFormat(""))
    (found,) = strategies.get(name).predict(
        [asked], script.engine, protocol="reasoning-required", seed=0
    )
    assert found.choice in ("yes", "no")
    prompts = [prompt for call in script.engine.calls for prompt in call.prompts]
    assert len(prompts) == found.trace["calls"]
    assert all(prompt.startswith(opening) for prompt in prompts)


def test_languages_may_be_mixed_in_a_batch(walking: Question, chinese: Question) -> None:
    engine = ScriptedEngine(lambda p: "最终答案：是" if "问题" in p else "Final answer: yes")
    mixed = [replace(q, id=str(n)) for n, q in enumerate([walking, chinese] * 2)]
    found = list(
        strategies.get("cot:batch=3").predict(mixed, engine, protocol="reasoning-required", seed=0)
    )
    assert [one.id for one in found] == ["0", "1", "2", "3"]
    assert {one.choice for one in found} == {"yes"}
