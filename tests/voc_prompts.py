"""What Voc asks about one small question, written out, and what a scripted engine says to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from medexpert.engines.base import PromptError
from medexpert.engines.scripted import ScriptedEngine

ABSTRACT = "Abstract: Half of 90 adults walked.\nWalkers improved.\n"
ASKED = "Question: Does walking help?\n"
OPENING = f"{ABSTRACT}{ASKED}Choices: yes / no / maybe.\n"
DIRECT = f"{ABSTRACT}{ASKED}Answer:"
REASONS = {
    "yes": "The adults who walked improved, and the others are not said to have improved.",
    "no": "The abstract names no comparison, so walking is not shown to help the adults.",
    "maybe": "The correct answer is yes. The adults improved.",
}
MAYBE = (
    " (the evidence does not support a definite yes or no, or supports both under different"
    " conditions)"
)
WHY = "A reason with more than eight words, for any choice."
FILTERED = "the endpoint refuses the request (400): content_filter"
ORDERS = (("yes", "no", "maybe"), ("no", "maybe", "yes"), ("maybe", "yes", "no"))


def hypothesise(choice: str, opening: str = OPENING) -> str:
    return (
        f"{opening}Suppose that the answer below is correct. Using only facts stated in the"
        " abstract, explain in 2-4 sentences which findings support it.\n"
        f"Answer: {choice}{MAYBE if choice == 'maybe' else ''}\nExplanation:"
    )


def sides(order: Sequence[str], reasons: dict[str, str]) -> str:
    return "Each explanation below assumed its own choice; at most one is right.\n" + "".join(
        f"[{choice}] {reasons[choice]}\n" for choice in order
    )


def verify(order: Sequence[str], reasons: dict[str, str] = REASONS, opening: str = OPENING) -> str:
    return (
        opening
        + sides(order, reasons)
        + "Discard every explanation that contradicts the abstract, states what is not in it, or"
        " over-claims. Then give the choice whose explanation remains.\nFinal answer:"
    )


def blind(order: Sequence[str], reasons: dict[str, str] = REASONS) -> str:
    return (
        f"{ASKED}Choices: yes / no / maybe.\n"
        + sides(order, reasons)
        + "Discard every explanation that contradicts established medical facts or over-claims."
        " Then give the choice whose explanation remains.\nFinal answer:"
    )


def check(order: Sequence[str], reasons: dict[str, str] = REASONS) -> str:
    return (
        OPENING
        + sides(order, reasons)
        + "For each choice, list any statement that contradicts the abstract, is not in it, or"
        " over-claims. Then give the choice whose explanation has no contradiction. End with one"
        ' line: "Final answer: " and one of yes, no, maybe.\nCheck:'
    )


def ptrue(choice: str) -> str:
    return (
        f"{OPENING}Proposed answer: {choice}\nExplanation: {REASONS[choice]}\nIs this answer with"
        " this explanation fully supported by the abstract?\nAnswer:"
    )


def logs(*shares: float) -> list[float]:
    return [math.log(share) for share in shares]


SCORES: dict[str, list[float]] = {
    verify(ORDERS[0]): logs(0.6, 0.3, 0.1),
    verify(ORDERS[1]): logs(0.2, 0.7, 0.1),
    verify(ORDERS[2]): logs(0.8, 0.1, 0.1),
    ptrue("yes"): [-1.0, -2.0],
    ptrue("no"): [-1.0, -1.0],
    ptrue("maybe"): [-3.0, -1.0],
    DIRECT: [-2.0, -1.0, -9.0],
}
SAID = {hypothesise(choice): f" {text}\n\nMore." for choice, text in REASONS.items()}


def scripted(
    said: dict[str, str] | None = None, scores: dict[str, list[float]] | None = None
) -> ScriptedEngine:
    """Answers exactly these prompts and no other."""
    return ScriptedEngine({**SAID, **(said or {})}, {**SCORES, **(scores or {})})


class Refusing(ScriptedEngine):
    """Writes one text to every prompt but those that `refuses` says yes to."""

    def __init__(self, refuses: Callable[[str], bool]) -> None:
        super().__init__(lambda p: WHY, lambda p, cs: [-1.0, -2.0, -3.0][: len(cs)])
        self.refuses = refuses
        self.refused: list[str] = []

    def complete(self, prompts: Sequence[str], **settings: Any) -> Any:
        for index, prompt in enumerate(prompts):
            if self.refuses(prompt):
                self.refused.append(prompt)
                raise PromptError(FILTERED, index=index, where=f"prompt {index + 1}")
        return super().complete(prompts, **settings)
