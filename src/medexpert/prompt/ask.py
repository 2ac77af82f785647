"""One question from a person: verdict, probabilities, reasons for and against each choice."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from medexpert.prompt import strategies
from medexpert.prompt.asking import VERDICTS
from medexpert.prompt.voc import Voc
from medexpert.records import Question, UserError

if TYPE_CHECKING:
    from medexpert.engines.base import Engine

_HAN = re.compile(r"[\u3400-\u9fff]")


@dataclass(frozen=True)
class Reasons:
    """What the model says for and against one choice; `fault` = why `in_favour` is not sound."""

    in_favour: str
    against: str
    fault: str


@dataclass(frozen=True)
class Answer:
    """`reasons` is empty for a strategy that gives none (`direct`)."""

    question: str
    verdict: str
    probabilities: Mapping[str, float]
    reasons: Mapping[str, Reasons]
    strategy: str
    trace: Mapping[str, Any]


def ask(
    question: str,
    engine: Engine,
    *,
    context: str = "",
    choices: Sequence[str] = VERDICTS,
    strategy: str = "voc",
    lang: str = "",
    max_tokens: int = 128,
    seed: int = 0,
) -> Answer:
    """Answer one question. Without a context the prompts show and mention none.

    `lang` "" = Chinese when the question holds a Chinese character, English otherwise.
    Raises UserError: empty question, fewer than two choices, equal choices, unknown strategy.
    """
    named = tuple(choice.strip() for choice in choices)
    if not question.strip():
        raise UserError("the question is empty")
    if len(named) < 2 or not all(named) or len({c.casefold() for c in named}) < len(named):
        raise UserError(
            f"choices {', '.join(map(repr, named)) or 'none'}", allowed="two or more, all different"
        )
    asked = Question(
        id="ask", question=question.strip(), choices=named, answer="",
        contexts=(context.strip(),) if context.strip() else (),
        lang=lang or ("zh" if _HAN.search(question) else "en"),
    )
    chosen = strategies.get(strategy)
    if isinstance(chosen, Voc):
        chosen = replace(chosen, explain=True, max_tokens=max_tokens)
    protocol = "reasoning-required" if asked.contexts else "question-only"
    (found,) = chosen.predict([asked], engine, protocol=protocol, seed=seed)
    against = found.trace.get("against", {})
    reasons = {
        choice: Reasons(row["text"], against.get(choice, ""), row["dropped"])
        for choice, row in found.trace.get("rationales", {}).items()
    }
    return Answer(
        question=asked.question, verdict=found.choice, probabilities=found.probabilities,
        reasons=reasons, strategy=strategy, trace=found.trace,
    )
