"""The cost model against the published figures of its formula, and real prompts against it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt.strategies import get
from medexpert.prompt.template import ChatFormat
from medexpert.prompt.voc.cost import Sizes, direct, table, voc
from medexpert.records import Question

DOC = Path(__file__).resolve().parents[3] / "docs" / "voc.md"


@pytest.mark.parametrize(
    ("name", "apart", "shared"),
    [
        ("voc", 2383, 1249),
        ("voc:verdict=generated", 2462, 1328),
        ("voc:permutations=cyclic", 4041, 2151),
        ("voc:permutations=all", 6528, 3504),
        ("voc:k=3", 7149, 2919),
    ],
)
def test_figures_of_the_formula(name: str, apart: int, shared: int) -> None:
    found = voc(Sizes(), get(name))  # type: ignore[arg-type]
    assert (found.total_apart, found.total_shared) == (apart, shared)


def test_direct_and_growth() -> None:
    assert direct(Sizes()).total_shared == 378
    cyclic: Any = get("voc:permutations=cyclic")
    one, two = (voc(Sizes(choices=n), cyclic) for n in (3, 6))
    assert two.written - 6 == 2 * (one.written - 3)
    assert two.shared > 3 * one.shared - 2 * 378  # every order shows every explanation


class Tokens(ScriptedEngine):
    """Words, numbers and marks as tokens; counts what is read when common beginnings are shared."""

    def count_tokens(self, text: str) -> int:
        return len(self.cut(text))

    @staticmethod
    def cut(text: str) -> list[str]:
        return re.findall(r"<\|\w+\|>|\w+|[^\w\s]|\n", text)

    def shared(self) -> int:
        seen: dict[str, Any] = {}
        number = 0
        for call in self.calls:
            for prompt in call.prompts:
                at = seen
                for token in self.cut(prompt):
                    number += token not in at
                    at = at.setdefault(token, {})
        return number


def pubmedqa_like() -> Question:
    """As long as PubMedQA's mean, 318 tokens of context and 18 of question; words without sense."""
    context = " ".join(f"w{n}" for n in range(318))
    return Question(
        id="1", question=" ".join(f"q{n}" for n in range(17)) + "?",
        choices=("yes", "no", "maybe"), answer="yes", contexts=(context,),
    )  # fmt: skip


@pytest.mark.parametrize("in_chat", [False, True])
@pytest.mark.parametrize(("name", "most"), [("voc", 1300), ("voc:permutations=cyclic", 2200)])
def test_tokens_of_a_question_when_the_opening_is_shared(
    name: str, most: int, in_chat: bool, smollm2: ChatFormat
) -> None:
    def explain(prompt: str) -> str:
        return " ".join(f"r{crc32(prompt.encode()) % 997}x{n}" for n in range(128))

    chat = smollm2 if in_chat else ChatFormat("")
    engine = Tokens(explain, lambda p, cs: [-1.0 for _ in cs], chat=chat)
    (found,) = get(name).predict([pubmedqa_like()], engine, protocol="reasoning-required", seed=0)
    written = found.trace["tokens"]["generated"]
    assert written == 3 * 128
    passes = len(found.trace["verify"])
    total = engine.shared() + written + passes
    assert total <= most
    # The formula's sizes were measured with a real tokenizer; the shape has to agree within 8 %.
    assert total == pytest.approx(voc(Sizes(), get(name)).total_shared, rel=0.08)  # type: ignore[arg-type]
    assert found.trace["tokens"]["prompt"] > 1.3 * engine.shared()


def test_the_documented_table_is_the_formulas() -> None:
    assert table() in DOC.read_text("utf-8")
