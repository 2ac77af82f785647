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
class Answer:
    """Reasons and faults are by choice, and empty for a strategy that gives none (`direct`).

    `faults` tells why the reason for a choice is not sound (see `voc.fault`).
    """

    question: str
    choice: str
    probabilities: Mapping[str, float]
    reasons_for: Mapping[str, str]
    reasons_against: Mapping[str, str]
    faults: Mapping[str, str]
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
        id="ask",
        question=question.strip(),
        choices=named,
        answer="",
        contexts=(context.strip(),) if context.strip() else (),
        lang=lang or ("zh" if _HAN.search(question) else "en"),
    )
    chosen = strategies.get(strategy)
    if isinstance(chosen, Voc):
        chosen = replace(chosen, explain=True, max_tokens=max_tokens)
    protocol = "reasoning-required" if asked.contexts else "question-only"
    (found,) = chosen.predict([asked], engine, protocol=protocol, seed=seed)
    rationales = found.trace.get("rationales", {})
    return Answer(
        question=asked.question,
        choice=found.choice,
        probabilities=found.probabilities,
        reasons_for={name: row["text"] for name, row in rationales.items()},
        reasons_against=dict(found.trace.get("against", {})),
        faults={name: row["dropped"] for name, row in rationales.items() if row["dropped"]},
        strategy=strategy,
        trace=found.trace,
    )
