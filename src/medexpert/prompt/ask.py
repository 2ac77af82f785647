"""One question from a person: verdict, probabilities, reasons for and against each choice."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from medexpert.prompt import strategies
from medexpert.prompt.asking import VERDICTS, Strategy
from medexpert.prompt.needs import Needs, check_needs
from medexpert.prompt.voc import Voc
from medexpert.records import Question, UserError, unknown_name

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
    max_tokens: int = 0,
    seed: int = 0,
) -> Answer:
    """Answer one question. Without a context the prompts show and mention none.

    `lang` "" = Chinese when the question holds a Chinese character, English otherwise.
    `max_tokens` of an explanation; 0 = as the strategy says.
    Raises UserError: empty question, fewer than two choices, equal choices, unknown strategy, or
    one that needs more than a single question.
    """
    chosen = strategies.get(strategy)
    if isinstance(chosen, Voc):
        longest = max_tokens or chosen.max_tokens
        chosen = replace(chosen, contradictions=True, max_tokens=longest)
    return _answer(_asked(question, choices, context, lang), chosen, engine, seed)


def check(
    question: str,
    *,
    context: str,
    choices: Sequence[str],
    strategy: str,
    lang: str = "",
    where: str = "",
) -> None:
    """Raises the UserError that `ask` would for what no model can mend: a question or choices as
    they must not be, an unknown strategy, one that needs more than a single question (`where` the
    strategy was given)."""
    _require_alone(strategies.get(strategy), _asked(question, choices, context, lang), where)


def verify(
    question: str,
    choices: Sequence[str],
    engine: Engine,
    *,
    context: str = "",
    lang: str = "",
    seed: int = 0,
    **options: Any,
) -> Answer:
    """Verification-of-Choice for one question, with any engine:

        from medexpert.engines.local import LocalEngine
        from medexpert.prompt import verify
        engine = LocalEngine.open(folder)
        answer = verify("Does walking help?", ["yes", "no"], engine, context="Walkers improved.")
        print(answer.choice, answer.probabilities, answer.reasons_for)

    `options` are those of `voc.Voc`: k=3, verdict="generated" for an engine without
    log-probabilities, mode="likelihood" ... Raises UserError as `ask`, and for an option.
    """
    return _answer(_asked(question, choices, context, lang), variant(options), engine, seed)


def variant(options: Mapping[str, Any]) -> Voc:
    """Voc with these options. Raises UserError for an unknown name or a value of another kind."""
    known = {part.name: part.default for part in fields(Voc) if part.name != "name"}
    for option, value in options.items():
        if option not in known:
            raise unknown_name("option of verify", option, known)
        kind = type(known[option])
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise UserError(f"option {option} of verify: {value!r}", allowed=kind.__name__)
    return Voc(**options)


def _asked(question: str, choices: Sequence[str], context: str, lang: str) -> Question:
    if isinstance(choices, str):  # a sequence too: of its characters
        raise UserError(f"choices {choices!r}", allowed="a list of texts, as ['yes', 'no']")
    named = tuple(choice.strip() for choice in choices)
    if not question.strip():
        raise UserError("the question is empty")
    if len(named) < 2 or not all(named) or len({c.casefold() for c in named}) < len(named):
        raise UserError(
            f"choices {', '.join(map(repr, named)) or 'none'}", allowed="two or more, all different"
        )
    return Question(
        id="ask",
        question=question.strip(),
        choices=named,
        answer="",
        contexts=(context.strip(),) if context.strip() else (),
        lang=lang or ("zh" if _HAN.search(question) else "en"),
    )


def _require_alone(strategy: Strategy, asked: Question, where: str = "") -> None:
    """Raises UserError for a strategy that one question alone has not enough for: solved examples,
    other questions, or a context that it leaves out."""
    name = strategy.name
    needs: Needs = getattr(strategy, "needs", Needs())
    task = f"the questions of a task (medexpert evaluate --strategy {name})"
    if needs.examples:
        raise UserError(
            f"{name} shows {needs.examples} solved examples, and one question alone has none",
            where=where, allowed=f"a strategy that shows none, or {task}",
        )  # fmt: skip
    if needs.lender:
        raise UserError(
            f"{name} shows explanations of another question, and there is only one",
            where=where, allowed=f"a strategy that shows its own, or {task}",
        )  # fmt: skip
    if needs.context and not asked.contexts:
        raise UserError(
            f"{name} leaves the context out, and there is none",
            where=where, allowed=f"a context, or {task}",
        )  # fmt: skip
    check_needs(strategy, [asked], protocol=_protocol(asked))


def _protocol(asked: Question) -> str:
    return "reasoning-required" if asked.contexts else "question-only"


def _answer(asked: Question, strategy: Strategy, engine: Engine, seed: int) -> Answer:
    _require_alone(strategy, asked)
    (found,) = strategy.predict([asked], engine, protocol=_protocol(asked), seed=seed)
    rationales = found.trace.get("rationales", {})
    return Answer(
        question=asked.question,
        choice=found.choice,
        probabilities=found.probabilities,
        reasons_for={name: row["text"] for name, row in rationales.items()},
        reasons_against=dict(found.trace.get("against", {})),
        faults={name: row["fault"] for name, row in rationales.items() if row["fault"]},
        strategy=strategy.name,
        trace=found.trace,
    )
